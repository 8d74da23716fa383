package statefile

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// What is unlocked is free at once, also while a child that was just forked still
// has the file.
func TestUnlockedBesideAFork(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := Lock(path, "")
	if err != nil {
		t.Fatal(err)
	}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc here:", err)
	}
	copied := false
	for _, fd := range fds {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err != nil || to != path {
			continue
		}
		n := 0
		if _, err := fmt.Sscan(fd.Name(), &n); err != nil {
			t.Fatal(err)
		}
		child, err := unix.FcntlInt(uintptr(n), unix.F_DUPFD_CLOEXEC, 0) // as a fork does
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(child)
		copied = true
	}
	if !copied {
		t.Fatal("the lock's file is not open")
	}
	unlock()
	again, err := Lock(path, "")
	if err != nil {
		t.Fatal(err)
	}
	again()
}
