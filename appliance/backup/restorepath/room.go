package restorepath

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/base/statefile"
)

const roomName = "strongroom-restore-"

// Room makes an empty folder in dir with so many bytes to spare, and removes what others
// that were killed have left there. One at a time has one. done removes it.
func Room(dir string, bytes int64) (room string, done func() error, err error) {
	unlock, err := statefile.Lock(filepath.Join(dir, "."+roomName+"lock"), "")
	if err != nil {
		return "", nil, err
	}
	left, err := filepath.Glob(filepath.Join(dir, roomName+"*"))
	for _, old := range left {
		// Only one's own: others may write to dir, too.
		if fi, serr := os.Lstat(old); serr == nil && fi.IsDir() && owned(fi) {
			err = errors.Join(err, os.RemoveAll(old))
		}
	}
	if err == nil {
		err = snapshot.Room(dir, bytes)
	}
	if err == nil {
		room, err = os.MkdirTemp(dir, roomName)
	}
	if err != nil {
		unlock()
		return "", nil, fmt.Errorf("folder for the scratch Vault: %w", err)
	}
	return room, func() error {
		defer unlock()
		return os.RemoveAll(room)
	}, nil
}

func owned(fi os.FileInfo) bool {
	st, ok := fi.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}
