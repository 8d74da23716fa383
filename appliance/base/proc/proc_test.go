package proc

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// orphanEnv makes the test binary play the parent that is killed.
const orphanEnv = "PROC_TEST_PARENT_LOG"

func TestMain(m *testing.M) {
	if log := os.Getenv(orphanEnv); log != "" {
		c, err := NewSet().Start(Spec{Name: "child", Path: "/bin/sh", Args: []string{"-c", "sleep 300"}, LogFile: log})
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		fmt.Println(c.PID())
		select {}
	}
	os.Exit(m.Run())
}

func start(t *testing.T, s *Set, script string, change func(*Spec)) *Child {
	t.Helper()
	spec := Spec{Name: "child", Path: "/bin/sh", Args: []string{"-c", script}, LogFile: filepath.Join(t.TempDir(), "log")}
	if change != nil {
		change(&spec)
	}
	c, err := s.Start(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return c
}

// waitFor polls for what another process does; there is no event to wait for.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(3 * time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("gave up waiting until %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func gone(pid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, os.ErrNotExist) {
		return true
	}
	_, rest, _ := strings.Cut(string(data), ") ")
	return strings.HasPrefix(rest, "Z")
}

func logHas(t *testing.T, c *Child, want string) bool {
	t.Helper()
	data, err := os.ReadFile(c.spec.LogFile)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(data), want)
}

func TestStop(t *testing.T) {
	tests := []struct {
		name, script string
		grace        time.Duration
	}{
		{"ends on SIGTERM", "echo up; exec sleep 300", time.Minute},
		{"deaf to SIGTERM", "trap '' TERM; echo up; while :; do sleep 300; done", 50 * time.Millisecond},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := NewSet()
			c := start(t, s, tt.script, func(s *Spec) { s.Grace = tt.grace })
			waitFor(t, "the child is up", func() bool { return logHas(t, c, "up") })
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if !gone(c.PID()) {
				t.Fatal("the child is still there")
			}
			if err := c.Err(); err != nil {
				t.Fatalf("a stopped child has no fault, got %v", err)
			}
			if _, err := s.Start(c.spec); err == nil {
				t.Fatal("a closed set started a child")
			}
		})
	}
}

func TestGrandchildrenGoToo(t *testing.T) {
	s := NewSet()
	c := start(t, s, "sleep 300 & echo pid $!; exec sleep 300", nil)
	var pid int
	waitFor(t, "the grandchild is up", func() bool {
		data, err := os.ReadFile(c.spec.LogFile)
		if err != nil || !strings.HasSuffix(string(data), "\n") {
			return false
		}
		_, err = fmt.Sscanf(string(data), "pid %d", &pid)
		return err == nil
	})
	c.Kill()
	waitFor(t, "the grandchild is gone", func() bool { return gone(pid) })
}

func TestRestart(t *testing.T) {
	s := NewSet()
	c := start(t, s, "echo started $$; exec sleep 300", func(s *Spec) { s.Restart = true })
	// More often than a child may die by itself: these deaths are ours.
	for range maxQuickDeaths + 2 {
		before := c.PID()
		c.Kill()
		waitFor(t, "another process is up", func() bool {
			return c.PID() != before && logHas(t, c, "started "+strconv.Itoa(c.PID()))
		})
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if !gone(c.PID()) {
		t.Fatal("the restarted child is still there")
	}
}

func TestEarlyDeath(t *testing.T) {
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprintf("restart=%t", restart), func(t *testing.T) {
			s := NewSet()
			c := start(t, s, "echo no room >&2; exit 7", func(s *Spec) { s.Restart = restart })
			err := c.WaitUp(context.Background(), func(ctx context.Context) error {
				<-ctx.Done()
				return ctx.Err()
			})
			if err == nil || !strings.Contains(err.Error(), "exit status 7") || !strings.Contains(err.Error(), "no room") {
				t.Fatalf("want the exit status and the last words, got %v", err)
			}
		})
	}
}

func TestStdinAndEnvironment(t *testing.T) {
	t.Setenv("PROC_TEST_OURS", "inherited")
	s := NewSet()
	c := start(t, s, "read x; echo got $x $PROC_TEST_THEIRS; echo none${PROC_TEST_OURS}; exec sleep 300", func(s *Spec) {
		s.Stdin = strings.NewReader("secret\n")
		s.Env = []string{"PROC_TEST_THEIRS=given", "PATH=/bin:/usr/bin"}
	})
	waitFor(t, "the child has spoken", func() bool { return logHas(t, c, "none") })
	if !logHas(t, c, "got secret given\nnone\n") {
		t.Fatal("standard input or environment did not arrive as given")
	}
}

func TestCannotStart(t *testing.T) {
	s := NewSet()
	defer s.Close()
	log := filepath.Join(t.TempDir(), "log")
	if _, err := s.Start(Spec{Name: "ghost", Path: "/no/such/program", LogFile: log}); err == nil || !strings.Contains(err.Error(), "ghost") {
		t.Fatalf("want an error that names the child, got %v", err)
	}
	if _, err := s.Start(Spec{Name: "ghost", Path: "/bin/true", LogFile: "/no/such/folder/log"}); err == nil {
		t.Fatal("a log that cannot be opened is an error")
	}
}

func TestParentKilled(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	parent := exec.Command(self)
	parent.Env = append(os.Environ(), orphanEnv+"="+filepath.Join(t.TempDir(), "log"))
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(line)
	}
	if gone(pid) {
		t.Fatal("the child never ran")
	}
	if err := parent.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait()
	waitFor(t, "the orphan is gone", func() bool { return gone(pid) })
}
