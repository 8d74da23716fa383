package atomicfile

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Chown gives the file under way to uid and gid, so that it never appears under
// its path with another owner.
func (f *File) Chown(uid, gid int) error {
	if err := f.tmp.Chown(uid, gid); err != nil {
		return fmt.Errorf("write %q: %w", f.path, err)
	}
	return nil
}

// LikeFolder gives f to the owner and the group of folder where root writes into
// another's: a job that root runs by hand leaves files which the job's own user
// goes on with. Anybody else changes nothing.
func LikeFolder(folder string, f interface{ Chown(uid, gid int) error }) error {
	var st unix.Stat_t
	if err := unix.Stat(folder, &st); err != nil {
		return fmt.Errorf("owner of %q: %w", folder, err)
	}
	uid, gid, changes := heir(os.Geteuid(), os.Getegid(), int(st.Uid), int(st.Gid))
	if !changes {
		return nil
	}
	return f.Chown(uid, gid)
}

// heir is who a file goes to that euid and egid write into a folder of uid and
// gid.
func heir(euid, egid, uid, gid int) (toUID, toGID int, changes bool) {
	switch {
	case euid != 0:
		return 0, 0, false
	case uid != 0:
		return uid, gid, true
	case gid != egid:
		// A unit that may change no owner can be of the group.
		return -1, gid, true
	}
	return 0, 0, false
}
