package drill

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// lock keeps two drills apart. It is gone with the process, whatever ends it.
func lock(stateDir string) (unlock func(), err error) {
	path := filepath.Join(stateDir, ".drill.lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	if err := errors.Join(giveToOwner(stateDir, f), unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)); err != nil {
		_ = f.Close() // nothing was written
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %q: %w", path, ErrBusy)
		}
		return nil, fmt.Errorf("lock %q: %w", path, err)
	}
	return func() { _ = f.Close() }, nil
}

// owner are the uid and gid of a folder where they are not this process's: a
// drill by hand is root's, and the job goes on with what it leaves.
func owner(dir string) (uid, gid int, other bool, err error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return 0, 0, false, fmt.Errorf("state folder %q: %w", dir, err)
	}
	uid, gid = int(st.Uid), int(st.Gid)
	return uid, gid, os.Geteuid() == 0 && uid != 0, nil
}

// giveToOwner gives an open file to the owner of the state folder.
func giveToOwner(dir string, f interface{ Chown(uid, gid int) error }) error {
	uid, gid, other, err := owner(dir)
	if err != nil || !other {
		return err
	}
	return f.Chown(uid, gid)
}
