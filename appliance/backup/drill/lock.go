package drill

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"strongroom.example/appliance/base/statefile"
)

// lock keeps two drills apart.
func lock(stateDir string) (unlock func(), err error) {
	return statefile.Lock(filepath.Join(stateDir, ".drill.lock"), "")
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
