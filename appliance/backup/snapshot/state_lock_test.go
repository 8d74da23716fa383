package snapshot

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// The folder is the job's user's, and root may run the job by hand: a link there
// would have root give that user any file.
func TestLockFollowsNoLink(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(t.TempDir(), "root-owned")
	if err := os.WriteFile(target, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, filepath.Join(dir, ".verify.lock")); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(dir, 12345, 12345); err != nil {
			t.Fatal(err)
		}
	}
	unlock, err := lock(dir, "verify")
	if err == nil {
		unlock()
	}
	if !errors.Is(err, unix.ELOOP) {
		t.Errorf("lock through a link: %v, want %v", err, unix.ELOOP)
	}
	var st unix.Stat_t
	if err := unix.Stat(target, &st); err != nil {
		t.Fatal(err)
	}
	if int(st.Uid) != os.Geteuid() {
		t.Errorf("the file behind the link was given to user %d", st.Uid)
	}
}
