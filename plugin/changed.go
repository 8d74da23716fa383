package apikeys

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// ChangedFileVariable is the environment variable that names the file which is
// touched after a rotation, so that the appliance takes a snapshot soon: the new
// key is nowhere but in this storage. Vault passes its own environment on to
// plugins.
const ChangedFileVariable = "STRONGROOM_CHANGED_FILE"

// touchChanged makes the file, or makes it younger. A rotation is not undone
// because nobody could be told; the timer's snapshot comes all the same.
func (b *backend) touchChanged() {
	path := b.opts.ChangedFile
	if path == "" {
		return
	}
	err := touch(path)
	if err == nil {
		b.changedFailed.Store(false)
	} else if !b.changedFailed.Swap(true) {
		// Said once, not after each of a thousand rotations.
		b.Logger().Warn("the snapshot after a rotation could not be asked for", "error", err)
	}
}

func touch(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	now := time.Now() // the file system's time, whatever the engine's clock says
	return os.Chtimes(path, now, now)
}
