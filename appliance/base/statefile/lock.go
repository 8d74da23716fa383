package statefile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"strongroom.example/appliance/base/atomicfile"
)

// ErrBusy says that another run holds the lock.
var ErrBusy = errors.New("another run is under way")

// BusyError is ErrBusy with who it is.
type BusyError struct {
	Path string
	// By is what the holder has said of himself; may be empty.
	By string
}

// Error implements error.
func (e *BusyError) Error() string {
	if e.By == "" {
		return fmt.Sprintf("lock %q: %v", e.Path, ErrBusy)
	}
	return fmt.Sprintf("lock %q: %v: %s", e.Path, ErrBusy, e.By)
}

// Is makes it an ErrBusy.
func (e *BusyError) Is(target error) bool { return target == ErrBusy }

// maxBy bounds what a holder says of himself, in bytes.
const maxBy = 1 << 10

// Lock holds the lock at path until unlock is called or the process is gone,
// whatever ends it; children don't inherit it. Of who holds it already, ErrBusy
// tells. By is for those whom it keeps out; it may be empty. The file stays, and
// is of the folder's owner.
//
// A link is not followed, and no file with a second name taken: the folder may be
// another user's, who would be given what it leads to.
func Lock(path, by string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	fail := func(err error) (func(), error) {
		_ = f.Close() // nothing was written
		return nil, fmt.Errorf("lock %q: %w", path, err)
	}
	if err := plain(f); err != nil {
		return fail(err)
	}
	if err := atomicfile.LikeFolder(filepath.Dir(path), f); err != nil {
		return fail(err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return fail(err)
		}
		who, _ := io.ReadAll(io.LimitReader(f, maxBy)) // without it, it is busy all the same
		_ = f.Close()
		return nil, &BusyError{Path: path, By: string(who)}
	}
	if by != "" {
		if err := errors.Join(f.Truncate(0), writeAt(f, by)); err != nil {
			return fail(err)
		}
	}
	return func() {
		if by != "" {
			_ = f.Truncate(0) // the next holder says who he is
		}
		// By name, and not by the close alone: a child that another goroutine starts
		// has the file, too, from its fork to its exec.
		_ = unix.Flock(int(f.Fd()), unix.LOCK_UN)
		_ = f.Close()
	}, nil
}

// Held says whether somebody holds the lock at path, and takes it from nobody. It writes
// nothing, so that it can be asked where nothing can be written.
func Held(path string) (bool, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("lock: %w", err)
	}
	defer f.Close()
	err = unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("lock %q: %w", path, err)
	}
	return false, nil
}

func writeAt(f *os.File, s string) error {
	_, err := f.WriteAt([]byte(s), 0)
	return err
}
