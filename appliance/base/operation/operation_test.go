package operation

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"strongroom.example/appliance/base/statefile"
)

var noon = time.Date(2026, 11, 29, 12, 0, 3, 0, time.UTC)

// TestMain is also the other process of TestKilled.
func TestMain(m *testing.M) {
	if path := os.Getenv("TEST_HOLD"); path != "" {
		_, err := Begin(path, "strongroom-installer upgrade", noon)
		fmt.Println(err)
		select {}
	}
	os.Exit(m.Run())
}

func TestOneAtATime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "operation.lock")
	end, err := Begin(path, "strongroom-installer upgrade", noon)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Begin(path, "strongroom restore", noon.Add(time.Minute))
	want := fmt.Sprintf("another operation is under way on this machine: strongroom-installer upgrade, pid %d, since 2026-11-29 12:00:03 UTC", os.Getpid())
	if !errors.Is(err, ErrBusy) || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	end()
	end, err = Begin(path, "strongroom restore", noon)
	if err != nil {
		t.Fatal(err)
	}
	end()
}

// Whatever ends the holder, and whatever he has said, the machine is free.
func TestKilled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "operation.lock")
	other := exec.Command(os.Args[0])
	other.Env = append(os.Environ(), "TEST_HOLD="+path)
	out, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "<nil>\n" {
		t.Fatalf("the other one: %q, %v", line, err)
	}
	_, err = Begin(path, "strongroom kms rotate", noon)
	if !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), fmt.Sprintf("pid %d,", other.Process.Pid)) {
		t.Errorf("held by another process: %v", err)
	}
	if err := other.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = other.Wait()
	end, err := Begin(path, "strongroom kms rotate", noon)
	if err != nil {
		t.Fatal(err)
	}
	end()
}

func TestUnusable(t *testing.T) {
	if _, err := Begin(filepath.Join(t.TempDir(), "none", "lock"), "x", noon); err == nil || errors.Is(err, ErrBusy) {
		t.Errorf("no folder: %v", err)
	}
}

// A lock whose holder has not said who he is holds, too.
func TestNameless(t *testing.T) {
	path := filepath.Join(t.TempDir(), "operation.lock")
	end, err := statefile.Lock(path, "")
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	if _, err := Begin(path, "x", noon); !errors.Is(err, ErrBusy) || err.Error() != ErrBusy.Error() {
		t.Errorf("held by somebody: %v", err)
	}
}

// Who may not hold the lock is let through, though it is held; root never is.
func TestWithoutRights(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "operation.lock")
	end, err := Begin(path, "x", noon)
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	if err := os.Chmod(dir, 0); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(dir, 0o700)
	end, err = Begin(path, "y", noon)
	if root := os.Geteuid() == 0; errors.Is(err, ErrBusy) != root || (err == nil) == root {
		t.Errorf("as root (%t): %v", root, err)
	}
	if err == nil {
		end()
	}
}
