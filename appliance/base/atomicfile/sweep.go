package atomicfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// tempPrefix begins the names of what is under way to path. Its dot keeps it out of
// globs and of systemd's *.d folders; a long name is cut, as a file's has 255 bytes.
func tempPrefix(path string) string {
	base := filepath.Base(path)
	return "." + base[:min(len(base), 200)] + ".tmp-"
}

// createHeld makes the file of a writer, who has a lock on it for as long as it is
// open: by that Sweep tells it from what is left.
func createHeld(dir, path string) (*os.File, error) {
	for {
		tmp, err := os.CreateTemp(dir, tempPrefix(path)+"*")
		if err != nil {
			return nil, err
		}
		swept := errors.Is(unix.Flock(int(tmp.Fd()), unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
		var st unix.Stat_t
		if !swept && (unix.Fstat(int(tmp.Fd()), &st) != nil || st.Nlink > 0) {
			return tmp, nil
		}
		_ = tmp.Close() // a sweep was quicker
	}
}

// Sweep removes what writers of path that were killed have left beside it. It is for
// files that hold secrets, or that lie where people see them. What is Ready is
// nobody's any more: who gets several files ready keeps them in a folder of its own.
func Sweep(path string) error {
	dir := filepath.Dir(path)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
		return fmt.Errorf("what was left of %q: %w", path, err)
	}
	for _, e := range entries {
		number, ours := strings.CutPrefix(e.Name(), tempPrefix(path))
		if !ours || number == "" || strings.Trim(number, "0123456789") != "" || !e.Type().IsRegular() {
			continue
		}
		if err := removeUnheld(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("what was left of %q: %w", path, err)
		}
	}
	return nil
}

func removeUnheld(full string) error {
	f, err := os.OpenFile(full, os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return nil
	}
	return os.Remove(full)
}

// Rewrite is Write of a file that people keep and look after: one that is there has
// its owner, group, mode and attributes afterwards, and is found through links to it.
func Rewrite(path string, data []byte, perm os.FileMode) error {
	if at, err := filepath.EvalSymlinks(path); err == nil {
		path = at
	}
	if err := Sweep(path); err != nil {
		return err
	}
	f, err := Create(path, perm)
	if err != nil {
		return err
	}
	defer f.Abort()
	if st, err := os.Lstat(path); err == nil && st.Mode().IsRegular() {
		f.Like(path)
	} else if err := LikeFolder(filepath.Dir(path), f); err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Commit()
}
