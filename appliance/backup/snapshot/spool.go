package snapshot

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Nameless makes a file in dir that vanishes with this process.
func Nameless(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, ".spool-*")
	if err != nil {
		return nil, fmt.Errorf("room for the snapshot on this machine: %w", dirError(err))
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(fmt.Errorf("room for the snapshot on this machine: %w", err), f.Close())
	}
	return f, nil
}

// spare writes to a file and leaves room for others on its disk, which is Vault's,
// too.
type spare struct {
	f     *os.File
	leave func(*os.File) error
	n     int64 // bytes since the room was looked at
}

// lookEvery is how much is written between two looks at the room, in bytes.
const lookEvery = 4 << 20

func (s *spare) Write(p []byte) (int, error) {
	if s.n += int64(len(p)); s.n >= lookEvery {
		s.n = 0
		if err := s.leave(s.f); err != nil {
			return 0, err
		}
	}
	n, err := s.f.Write(p)
	if err != nil {
		return n, fmt.Errorf("room for the snapshot on this machine: %w", dirError(err))
	}
	return n, nil
}

// leaveRoom is an error where less than a fiftieth of a file's disk is free, or less
// than 256 MiB of a large one.
func leaveRoom(f *os.File) error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil {
		return fmt.Errorf("room for the snapshot on this machine: %w", err)
	}
	unit := uint64(fs.Bsize) //nolint:gosec // a size
	free, least := fs.Bavail*unit, min(256<<20, fs.Blocks*unit/50)
	if free < least {
		return fmt.Errorf("%w on this machine: %d MiB are free, and %d stay so for others", ErrFull, free>>20, least>>20)
	}
	return nil
}
