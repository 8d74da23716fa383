package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestMain is also the program that TestSignals sends signals to: it works until
// it is asked to end, then takes things back, with words that nobody may read.
func TestMain(m *testing.M) {
	file := os.Getenv("TEST_TAKEN_BACK")
	if file == "" {
		os.Exit(m.Run())
	}
	ctx, stop := Interruptible(context.Background())
	defer stop()
	fmt.Println("at work")
	<-ctx.Done()
	for range 3 {
		fmt.Println("rolling back")
		fmt.Fprintln(os.Stderr, "rolling back")
	}
	if err := os.WriteFile(file, []byte("all of it"), 0o600); err != nil {
		os.Exit(1)
	}
}

// Whatever ends the session, what was begun is taken back, and a pipe or a
// terminal that is gone is no obstacle.
func TestSignals(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		file := filepath.Join(t.TempDir(), "taken-back")
		c := exec.Command(os.Args[0])
		c.Env = append(os.Environ(), "TEST_TAKEN_BACK="+file)
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
		if b, err := os.ReadFile(file); err != nil || string(b) != "all of it" {
			t.Errorf("%v: %q, %v", sig, b, err)
		}
	}
}
