package audit

import (
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"
)

// Level is how full the disk is.
type Level string

// The levels.
const (
	LevelOK   Level = "ok"
	LevelWarn Level = "warning"
	LevelFull Level = "full"
)

// Usage is that of a disk, in bytes. Total leaves out what is reserved for root.
type Usage struct {
	Used  uint64 `json:"used"`
	Total uint64 `json:"total"`
}

// Percent of the disk in use, as df shows it.
func (u Usage) Percent() float64 {
	if u.Total == 0 {
		return 0
	}
	return 100 * float64(u.Used) / float64(u.Total)
}

// Statfs is the usage of the disk that dir is on.
func Statfs(dir string) (Usage, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return Usage{}, fmt.Errorf("disk of %q: %w", dir, err)
	}
	used := (s.Blocks - s.Bfree) * uint64(s.Bsize)
	return Usage{Used: used, Total: used + s.Bavail*uint64(s.Bsize)}, nil
}

// prune deletes rotated logs that are too old, or too many in sum, oldest first. What
// goes for their sum goes before its time.
func (r *run) prune() error {
	all, err := scan(r.dir)
	if err != nil {
		return err
	}
	var sum int64
	for _, f := range all {
		if !f.live() {
			sum += f.size
		}
	}
	var errs []error
	for _, f := range all {
		if f.live() || r.justRotated(f) {
			continue
		}
		young := r.doubted || r.now.Sub(f.at) <= r.Policy.Keep
		if young && sum <= r.Policy.KeepBytes {
			break // the others are younger
		}
		var err error
		if young {
			err = r.deleteEarly(f, ForSize)
		} else {
			err = r.delete(f)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		sum -= f.size
		r.deleted = append(r.deleted, f.name)
	}
	return errors.Join(errs...)
}

// justRotated: what this run has rotated is still the newest there is.
func (r *run) justRotated(f logFile) bool {
	for _, name := range r.rotated {
		if f.name == name || f.name == name+".gz" {
			return true
		}
	}
	return false
}

func (r *run) delete(f logFile) error {
	if err := r.files.Remove(f.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete %q: %w", r.path(f.name), err)
	}
	return nil
}

// watermark looks at the disk. When it is full to the brim the oldest compressed
// logs go, as Vault refuses every request that it can't log.
func (r *run) watermark() error {
	u, err := r.Usage(r.Dir)
	if err != nil {
		return err
	}
	r.usage, r.level = u, LevelOK
	if u.Percent() >= r.Policy.Full {
		if err := r.lastResort(); err != nil {
			r.level = LevelFull
			return err
		}
	}
	switch p := r.usage.Percent(); {
	case p >= r.Policy.Full:
		r.level = LevelFull
	case p >= r.Policy.Warn || len(r.early) > 0:
		r.level = LevelWarn
	}
	return nil
}

func (r *run) lastResort() error {
	all, err := scan(r.dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, f := range all {
		if !f.gz {
			continue
		}
		if err := r.deleteEarly(f, ForDisk); err != nil {
			errs = append(errs, err)
			continue
		}
		if r.usage, err = r.Usage(r.Dir); err != nil {
			return errors.Join(append(errs, err)...)
		}
		if r.usage.Percent() < r.Policy.Full {
			break
		}
	}
	return errors.Join(errs...)
}
