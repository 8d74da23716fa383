package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"strongroom.example/appliance/base/dirfs"
)

// SoonOptions say when a snapshot after a rotation is due.
type SoonOptions struct {
	// Changed is the file that the secrets engine touches after each rotation.
	Changed string
	// TakeStateDir holds the taking job's state: when the last one was taken.
	TakeStateDir string
	// Quiet is how long no rotation must have followed; but nobody waits longer
	// than Most for that.
	Quiet, Most time.Duration
	// Every is the least distance to the last snapshot.
	Every time.Duration
}

// AwaitQuiet waits until a series of rotations is over and the last snapshot is
// not too recent, and removes the file: then a snapshot is due. A rotation after
// that makes the file anew. It takes no snapshot itself.
func AwaitQuiet(ctx context.Context, o SoonOptions) error {
	start := time.Now()
	for {
		now := time.Now()
		due, err := o.due(start, now)
		if err != nil {
			return err
		}
		if !due.After(now) {
			break
		}
		t := time.NewTimer(due.Sub(now))
		select {
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		case <-t.C:
		}
	}
	// What is rotated from here on is in the next one, and perhaps in this one
	// as well.
	if err := os.Remove(o.Changed); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("rotation: %w", err)
	}
	return nil
}

// AskSoon makes the file, or makes it younger, as the engine does: a snapshot follows. It
// belongs to the folder's owner, who touches and removes it.
func AskSoon(changed string) error {
	// The folder is Vault's, and this may be root's command.
	dir, err := dirfs.Open(filepath.Dir(changed))
	if err != nil {
		return err
	}
	defer dir.Close()
	name := filepath.Base(changed)
	for {
		f, err := dir.Open(name)
		if err == nil {
			now := unix.NsecToTimeval(time.Now().UnixNano())
			return errors.Join(unix.Futimes(int(f.Fd()), []unix.Timeval{now, now}), f.Close())
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		made, err := dir.Create(name)
		if err != nil {
			return err
		}
		// The engine may have made it meanwhile.
		if err := made.Commit(); !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
}

// ErrNoMark means that the file is none that the engine touches: it is empty.
var ErrNoMark = errors.New("this is no mark of a rotation, which is an empty file; nothing was removed")

// due is when it will be time, as far as can be told now.
func (o SoonOptions) due(start, now time.Time) (time.Time, error) {
	fi, err := os.Lstat(o.Changed)
	if errors.Is(err, fs.ErrNotExist) {
		return now, nil
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("rotation: %w", err)
	}
	if !fi.Mode().IsRegular() || fi.Size() > 0 {
		return time.Time{}, fmt.Errorf("rotation: %q: %w", o.Changed, ErrNoMark)
	}
	due := earlier(fi.ModTime().Add(o.Quiet), start.Add(o.Most))
	// A state that can't be read is the other job's to report. One from the
	// future, written before the clock was set back, says nothing.
	if s, err := LoadTakeState(o.TakeStateDir); err == nil {
		for _, r := range s.Last {
			if next := r.TakenAt.Add(o.Every); next.After(due) && !r.TakenAt.After(now) {
				due = next
			}
		}
	}
	return due, nil
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
