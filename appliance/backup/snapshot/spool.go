package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

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
func leaveRoom(f *os.File) error { return room(f, 0) }

// Room is an error where a folder's disk has no room for so many bytes more, beside what
// stays free for others.
func Room(dir string, bytes int64) error {
	f, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("room for the snapshot on this machine: %w", dirError(err))
	}
	defer f.Close()
	return room(f, bytes)
}

func room(f *os.File, want int64) error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil {
		return fmt.Errorf("room for the snapshot on this machine: %w", err)
	}
	unit := uint64(fs.Bsize) //nolint:gosec // a size
	free, least := fs.Bavail*unit, min(256<<20, fs.Blocks*unit/50)
	if more := uint64(max(want, 0)); free < least || free-least < more {
		return fmt.Errorf("%w on this machine: %d MiB are free at %q, %d are needed, and %d stay free for others", ErrFull, free>>20, f.Name(), more>>20, least>>20)
	}
	return nil
}

// KeepLast deletes all snapshots in a place of one's own but the last n, and says how many.
// Of them is the one that was kept just now, whatever its cluster's index is; what a kill
// has left counts for none.
func KeepLast(ctx context.Context, d Destination, n int, kept ID, now time.Time) (gone int, err error) {
	entries, err := InOrder(ctx, d, "")
	if err != nil {
		return 0, err
	}
	stay := n - 1
	for _, e := range slices.Backward(entries) {
		switch {
		case e.ID == kept, e.Unread != nil:
			continue
		case e.Counts() && stay > 0:
			stay--
			continue
		}
		if err := deleteSnapshot(ctx, d, e, now); err != nil {
			return gone, err
		}
		gone++
	}
	return gone, nil
}
