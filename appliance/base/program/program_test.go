package program

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/base/fault"
)

// TestMain is also the program that the tests start.
func TestMain(m *testing.M) {
	file := os.Getenv("TEST_TAKEN_BACK")
	if file == "" {
		os.Exit(m.Run())
	}
	ctx, stop := Interruptible(context.Background())
	code := Run(ctx, commands(file), func(w io.Writer, err error) int { return fault.Report(w, "prog", err) })
	stop()
	os.Exit(code)
}

// commands are a command that works until it is asked to end, and then takes
// things back, with words that nobody may read; and two that end by themselves.
func commands(file string) *cobra.Command {
	root := &cobra.Command{Use: "prog", SilenceErrors: true, SilenceUsage: true}
	note := func() error { return os.WriteFile(file, []byte("all of it"), 0o600) }
	root.AddCommand(
		&cobra.Command{Use: "work", RunE: func(c *cobra.Command, _ []string) error {
			fmt.Fprintln(c.OutOrStdout(), "at work")
			<-c.Context().Done()
			for range 3 {
				fmt.Fprintln(c.OutOrStdout(), "rolling back")
				fmt.Fprintln(c.ErrOrStderr(), "rolling back")
			}
			return note()
		}},
		&cobra.Command{Use: "careless", RunE: func(c *cobra.Command, _ []string) error {
			for range 3 {
				fmt.Fprintln(c.OutOrStdout(), "goes on")
			}
			return note()
		}},
		&cobra.Command{Use: "careful", RunE: func(c *cobra.Command, _ []string) error {
			for {
				if _, err := fmt.Fprintln(c.OutOrStdout(), "y"); err != nil {
					return err
				}
			}
		}},
	)
	return root
}

// start gives a command of the program, and the file that it leaves when done.
func start(t *testing.T, args ...string) (*exec.Cmd, string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "taken-back")
	c := exec.CommandContext(t.Context(), os.Args[0], args...)
	c.Env = append(os.Environ(), "TEST_TAKEN_BACK="+file)
	return c, file
}

func done(file string) bool {
	b, err := os.ReadFile(file)
	return err == nil && string(b) == "all of it"
}

// Whatever ends the session, what was begun is taken back, and a pipe or a
// terminal that is gone is no obstacle.
func TestSignals(t *testing.T) {
	heeded := make(chan os.Signal, 1) // a run under nohup(1) ignores it, and so would what it starts
	signal.Notify(heeded, syscall.SIGHUP)
	defer signal.Stop(heeded)
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		c, file := start(t, "work")
		out, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		c.Stdout, c.Stderr = w, w
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		w.Close()
		if line, err := bufio.NewReader(io.LimitReader(out, 8)).ReadString('\n'); strings.TrimSpace(line) != "at work" {
			t.Fatalf("%q, %v", line, err)
		}
		out.Close()
		if err := c.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		if err := c.Wait(); err != nil {
			t.Errorf("%v: %v", sig, err)
		}
		if !done(file) {
			t.Errorf("%v: it was not taken back", sig)
		}
	}
}

// nohup(1) and shells have programs ignore a signal that their terminal sends to
// all: they go on.
func TestIgnoredSignals(t *testing.T) {
	c, file := start(t, "work")
	c.Path, c.Args = "/bin/sh", []string{"sh", "-c", `trap "" HUP INT; exec "$0" work`, os.Args[0]}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "at work" {
		t.Fatalf("%q", lines.Text())
	}
	// Signals of one process come in the order of their numbers: had it not
	// ignored these, they would be seen before the last.
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT} {
		if err := c.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		if status := signals(t, c.Process.Pid, "SigCgt"); status&(1<<(sig-1)) != 0 {
			t.Errorf("%v, which was to be ignored, is heeded", sig)
		}
	}
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() {
	}
	if err := c.Wait(); err != nil || !done(file) {
		t.Errorf("SIGTERM: %v, taken back: %t", err, done(file))
	}
}

// signals is one of the masks in /proc/PID/status.
func signals(t *testing.T, pid int, name string) uint64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), name+":\t")
	var mask uint64
	if _, err := fmt.Sscanf(rest, "%x", &mask); err != nil {
		t.Fatal(err)
	}
	return mask
}

// Output that is lost is told of, once, also by commands that do not look whether
// it was written; what they were to do they do.
func TestLostOutput(t *testing.T) {
	for _, c := range []struct {
		name, command string
		stdout        func(*testing.T) *os.File
		code          int
		stderr        string // "": nothing
		done          bool
	}{
		{"a full disk, not looked at", "careless", full, 1, "prog: not all output could be written: write /dev/stdout: no space left on device\n  → what was to be done is done\n", true},
		{"a full disk, looked at", "careful", full, 1, "prog: write /dev/stdout: no space left on device\n", false},
		{"nobody reads, not looked at", "careless", unread, 0, "", true},
		{"nobody reads, looked at", "careful", unread, 1, "", false},
		{"help", "--help", full, 1, "prog: not all output could be written: write /dev/stdout: no space left on device\n  → what was to be done is done\n", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd, file := start(t, c.command)
			stdout := c.stdout(t)
			defer stdout.Close()
			var stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = stdout, &stderr
			if err := cmd.Run(); cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != c.code {
				t.Errorf("%v, want exit code %d", err, c.code)
			}
			if stderr.String() != c.stderr {
				t.Errorf("it says %q, want %q", stderr.String(), c.stderr)
			}
			if done(file) != c.done {
				t.Errorf("done: %t, want %t", done(file), c.done)
			}
		})
	}
}

func full(t *testing.T) *os.File {
	t.Helper()
	f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func unread(t *testing.T) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	return w
}
