// Package atomicfile writes files that are either wholly there or not at all,
// whenever the power goes: a temporary file in the same folder, fsync, rename,
// fsync of the folder.
//
// It is not a lock: two writers of one path each leave a whole file, and the
// last one wins.
package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Write replaces path with data, mode perm exactly (the umask does not apply).
// On error the old file, or its absence, is unchanged and no temporary file is
// left.
func Write(path string, data []byte, perm fs.FileMode) error {
	f, err := Create(path, perm)
	if err != nil {
		return err
	}
	defer f.Abort()
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Commit()
}

// File is a file under way to its path. Callers write, then Commit; a deferred
// Abort after a Commit does nothing.
type File struct {
	tmp  *os.File
	path string
	like string      // "" or the file whose owner, mode and attributes it gets
	mode fs.FileMode // at the Commit; 0 is as it is
	// attributes are extended ones, at the Commit.
	attributes map[string]string
	ready      bool // synced and closed
	done       bool
}

// Create starts a replacement of path. What is written is invisible until
// Commit, and readable by perm's holders only.
func Create(path string, perm fs.FileMode) (*File, error) {
	return CreateIn(filepath.Dir(path), path, perm)
}

// CreateIn is Create with the temporary file in dir, where a folder may show what
// another may not. It must be on path's file system: a Commit that fails with
// EXDEV is that it isn't.
func CreateIn(dir, path string, perm fs.FileMode) (*File, error) {
	if err := replaceable(path); err != nil {
		return nil, fmt.Errorf("write %q: %w; nothing was written", path, err)
	}
	tmp, err := createHeld(dir, path)
	if err != nil {
		return nil, fmt.Errorf("write %q: %w", path, err)
	}
	f := &File{tmp: tmp, path: path}
	if err := tmp.Chmod(perm); err != nil {
		f.Abort()
		return nil, fmt.Errorf("write %q: %w", path, err)
	}
	return f, nil
}

// replaceable says whether a file may take the place of what is at path. A rename
// would put one where a device was: for root also in /dev/null's place.
func replaceable(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return nil // nothing is there, or a link to nothing; what else is wrong shows when it is written
	}
	if !info.Mode().IsRegular() && !info.IsDir() { // of a folder the rename itself complains
		return errors.New("it is a device, a pipe or a socket, and no file")
	}
	for _, dir := range []string{"/dev/", "/proc/"} { // /dev/stdout is a link
		if abs, err := filepath.Abs(path); err == nil && strings.HasPrefix(abs, dir) && info.Mode().IsRegular() && !strings.HasPrefix(abs, "/dev/shm/") {
			return fmt.Errorf("it is below %s, where no files belong", dir)
		}
	}
	return nil
}

// Write adds to the file.
func (f *File) Write(p []byte) (int, error) {
	n, err := f.tmp.Write(p)
	if err != nil {
		return n, fmt.Errorf("write %q: %w", f.path, err)
	}
	return n, nil
}

// Ready makes what was written durable and closes it; only Commit and Abort may
// follow. Whoever replaces several files gets all of them ready before the first
// Commit, which is then little more than a rename.
func (f *File) Ready() error {
	if f.done || f.ready {
		return fmt.Errorf("write %q: already ready, committed or aborted", f.path)
	}
	err := f.durable()
	if err == nil {
		err = f.tmp.Close()
	}
	if err != nil {
		f.Abort()
		return fmt.Errorf("write %q: %w", f.path, err)
	}
	f.ready = true
	return nil
}

func (f *File) durable() error {
	err := f.tmp.Sync()
	if err == nil && f.like != "" {
		f.mode, err = copyAttributes(f.tmp, f.like)
	}
	return err
}

// Commit makes the file appear under its path and durable. The rename is the
// commit point: an error after it (the folder's fsync) leaves the new file.
func (f *File) Commit() error {
	if f.done {
		return fmt.Errorf("write %q: already committed or aborted", f.path)
	}
	if !f.ready {
		if err := f.durable(); err != nil {
			f.Abort()
			return fmt.Errorf("write %q: %w", f.path, err)
		}
		defer f.tmp.Close() // held until it has its name; what is in it is durable
	}
	if f.mode != 0 {
		// Last, so that a file under way is never open to more than its owner.
		if err := os.Chmod(f.tmp.Name(), f.mode); err != nil {
			f.Abort()
			return fmt.Errorf("write %q: %w", f.path, err)
		}
	}
	for name, value := range f.attributes {
		_ = unix.Lsetxattr(f.tmp.Name(), name, []byte(value), 0)
	}
	if err := os.Rename(f.tmp.Name(), f.path); err != nil {
		f.Abort()
		return fmt.Errorf("write %q: %w", f.path, err)
	}
	f.done = true
	return SyncDir(filepath.Dir(f.path))
}

// Abort discards what was written. It is safe after Commit and twice.
func (f *File) Abort() {
	if f.done {
		return
	}
	f.done = true
	// Nothing can be done about a failure here, and the error that led to the
	// abort is the one worth reporting.
	_ = f.tmp.Close()
	_ = os.Remove(f.tmp.Name())
}

// SyncDir makes renames and removals in dir durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync folder %q: %w", dir, err)
	}
	err = errors.Join(d.Sync(), d.Close())
	if err != nil {
		return fmt.Errorf("sync folder %q: %w", dir, err)
	}
	return nil
}
