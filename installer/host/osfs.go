package host

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"strongroom.example/appliance/base/atomicfile"
)

// OSFS is the real file system below Root ("/" on a machine, another folder in
// tests). A link in the tree is followed as the kernel does: Root is a prefix,
// not a jail.
type OSFS struct{ Root string }

var _ FS = OSFS{}

func (o OSFS) path(p string) string { return filepath.Join(o.Root, p) }

// Stat implements FS.
func (o OSFS) Stat(p string) (Info, error) {
	fi, err := os.Lstat(o.path(p))
	if err != nil {
		return Info{}, err
	}
	info := Info{Attr: Attr{Mode: fi.Mode().Perm()}, Type: fi.Mode().Type(), Size: fi.Size(), ModTime: fi.ModTime()}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		info.UID, info.GID = int(st.Uid), int(st.Gid)
	}
	if info.Type == fs.ModeSymlink {
		if info.Target, err = os.Readlink(o.path(p)); err != nil {
			return Info{}, err
		}
	}
	return info, nil
}

// ReadFile implements FS.
func (o OSFS) ReadFile(p string) ([]byte, error) { return os.ReadFile(o.path(p)) }

// ReadDir implements FS.
func (o OSFS) ReadDir(p string) ([]string, error) {
	entries, err := os.ReadDir(o.path(p))
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}

// Open implements FS.
func (o OSFS) Open(p string) (io.ReadCloser, error) { return os.Open(o.path(p)) }

// Write implements FS. The rename of atomicfile is the commit point; the owner
// is set before it, so the file never appears with another one.
func (o OSFS) Write(p string, r io.Reader, a Attr) error {
	if err := o.sweep(p); err != nil {
		return err
	}
	f, err := atomicfile.Create(o.path(p), a.Mode)
	if err != nil {
		return err
	}
	defer f.Abort()
	if _, err := io.Copy(f, r); err != nil {
		return fmt.Errorf("write %q: %w", p, err)
	}
	if err := f.Chown(a.UID, a.GID); err != nil {
		return err
	}
	return f.Commit()
}

// sweep removes what writes of p that were killed have left: for Vault's
// program, hundreds of megabytes each. The installer is alone on the machine.
func (o OSFS) sweep(p string) error {
	dir, prefix := filepath.Dir(o.path(p)), "."+filepath.Base(p)+".tmp-"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) && e.Type().IsRegular() {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// Mkdir implements FS.
func (o OSFS) Mkdir(p string, a Attr) error {
	err := os.Mkdir(o.path(p), a.Mode)
	if errors.Is(err, fs.ErrExist) {
		fi, statErr := os.Lstat(o.path(p))
		if statErr != nil {
			return statErr
		}
		if !fi.IsDir() {
			return fmt.Errorf("%q is there and is not a folder", p)
		}
		err = nil
	}
	if err != nil {
		return err
	}
	if err := o.SetAttr(p, a); err != nil {
		return err
	}
	return atomicfile.SyncDir(filepath.Dir(o.path(p)))
}

// SetAttr implements FS. A link is refused: some folders are a job's user's, who
// could put one in the place of what is to be set. The owner comes first: chown
// clears mode bits.
func (o OSFS) SetAttr(p string, a Attr) error {
	f, err := os.OpenFile(o.path(p), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Chown(a.UID, a.GID); err != nil {
		return err
	}
	if err := f.Chmod(a.Mode); err != nil {
		return err
	}
	return f.Sync()
}

// Symlink implements FS.
func (o OSFS) Symlink(target, p string) error {
	if fi, err := os.Lstat(o.path(p)); err == nil && fi.Mode().Type() != fs.ModeSymlink {
		return fmt.Errorf("%q is there and is not a link", p)
	}
	// A fixed name: what a killed run left is replaced by the next.
	tmp := path.Join(path.Dir(p), "."+path.Base(p)+".tmp-link")
	if err := os.Remove(o.path(tmp)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(target, o.path(tmp)); err != nil {
		return err
	}
	if err := os.Rename(o.path(tmp), o.path(p)); err != nil {
		return errors.Join(err, os.Remove(o.path(tmp)))
	}
	return atomicfile.SyncDir(filepath.Dir(o.path(p)))
}

// Rename implements FS.
func (o OSFS) Rename(old, new string) error {
	if err := unix.Renameat2(unix.AT_FDCWD, o.path(old), unix.AT_FDCWD, o.path(new), unix.RENAME_NOREPLACE); err != nil {
		return &os.LinkError{Op: "rename", Old: old, New: new, Err: err}
	}
	return errors.Join(atomicfile.SyncDir(filepath.Dir(o.path(new))), atomicfile.SyncDir(filepath.Dir(o.path(old))))
}

// Remove implements FS.
func (o OSFS) Remove(p string) error {
	err := os.Remove(o.path(p))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return atomicfile.SyncDir(filepath.Dir(o.path(p)))
}

// RemoveAll implements FS.
func (o OSFS) RemoveAll(p string) error {
	if path.Clean(p) == "/" {
		return errors.New("refusing to remove \"/\"")
	}
	if err := os.RemoveAll(o.path(p)); err != nil {
		return err
	}
	// What lay above it may have gone before.
	if err := atomicfile.SyncDir(filepath.Dir(o.path(p))); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Space implements FS.
func (o OSFS) Space(p string) (total, free uint64, err error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(o.path(p), &st); err != nil {
		return 0, 0, fmt.Errorf("space of %q: %w", p, err)
	}
	size := uint64(st.Bsize)
	return st.Blocks * size, st.Bavail * size, nil
}
