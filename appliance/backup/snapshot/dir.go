package snapshot

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"strongroom.example/appliance/base/atomicfile"
)

// Dir is a Destination in a directory, for a mounted disk or share.
type Dir struct {
	root string
	fs   dirFS
}

var (
	_ Destination = (*Dir)(nil)
	_ Sweeper     = (*Dir)(nil)
)

// dirFS is what Dir does to the file system, so that tests can let each call
// fail.
type dirFS interface {
	MkdirAll(path string) error
	CreateTemp(dir, pattern string) (dirFile, error)
	// RenameNew fails with fs.ErrExist when the new name is taken.
	RenameNew(old, new string) error
	Remove(path string) error
	SyncDir(path string) error
}

type dirFile interface {
	io.Writer
	Name() string
	Sync() error
	Close() error
}

// NewDir opens a directory as a destination. It must be there already: creating
// it would turn an unmounted disk into a backup on the wrong one.
func NewDir(path string) (*Dir, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("folder %q: %w", path, err)
	}
	fi, err := os.Stat(abs)
	if err != nil {
		return nil, fmt.Errorf("folder %q: %w", path, dirError(err))
	}
	if !fi.IsDir() {
		return nil, fmt.Errorf("folder %q: is no folder", path)
	}
	return &Dir{root: abs, fs: osFS{}}, nil
}

// Name is "dir:" and the path.
func (d *Dir) Name() string { return "dir:" + d.root }

func (d *Dir) path(name string) string { return filepath.Join(d.root, filepath.FromSlash(name)) }

// tmpMark is in the name of every file under way. The leading dot of these
// names keeps them out of List.
const tmpMark = ".upload-"

// Put implements Destination.
func (d *Dir) Put(ctx context.Context, name string, r io.Reader) (ObjectInfo, error) {
	if err := checkName(name); err != nil {
		return ObjectInfo{}, err
	}
	info, err := d.put(ctx, name, r)
	if err != nil {
		return ObjectInfo{}, fmt.Errorf("%s: put %q: %w", d.Name(), name, dirError(err))
	}
	return info, nil
}

func (d *Dir) put(ctx context.Context, name string, r io.Reader) (_ ObjectInfo, err error) {
	path := d.path(name)
	if _, err := os.Lstat(path); err == nil {
		return ObjectInfo{}, fs.ErrExist
	}
	dir := filepath.Dir(path)
	if _, err := os.Lstat(dir); err != nil {
		if err := d.fs.MkdirAll(dir); err != nil {
			return ObjectInfo{}, err
		}
		if err := d.fs.SyncDir(filepath.Dir(dir)); err != nil {
			return ObjectInfo{}, err
		}
	}
	tmp, err := d.fs.CreateTemp(dir, "."+filepath.Base(path)+tmpMark+"*")
	if err != nil {
		return ObjectInfo{}, err
	}
	open := true
	defer func() {
		if err != nil {
			// The error that led here is the one worth reporting.
			if open {
				_ = tmp.Close()
			}
			_ = d.fs.Remove(tmp.Name())
		}
	}()
	if _, err := io.Copy(tmp, ctxReader{ctx, r}); err != nil {
		return ObjectInfo{}, err
	}
	if err := tmp.Sync(); err != nil {
		return ObjectInfo{}, err
	}
	open = false
	if err := tmp.Close(); err != nil {
		return ObjectInfo{}, err
	}
	// The rename is the commit point.
	if err := d.fs.RenameNew(tmp.Name(), path); err != nil {
		return ObjectInfo{}, err
	}
	if err := d.fs.SyncDir(dir); err != nil {
		// Not known to be durable is not stored.
		_ = d.fs.Remove(path)
		return ObjectInfo{}, err
	}
	return d.stat(name)
}

// Get implements Destination.
func (d *Dir) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	f, err := os.Open(d.path(name))
	if err != nil {
		return nil, fmt.Errorf("%s: get %q: %w", d.Name(), name, dirError(err))
	}
	return struct {
		io.Reader
		io.Closer
	}{ctxReader{ctx, f}, f}, nil
}

// Stat implements Destination.
func (d *Dir) Stat(_ context.Context, name string) (ObjectInfo, error) {
	if err := checkName(name); err != nil {
		return ObjectInfo{}, err
	}
	info, err := d.stat(name)
	if err != nil {
		return ObjectInfo{}, fmt.Errorf("%s: stat %q: %w", d.Name(), name, dirError(err))
	}
	return info, nil
}

func (d *Dir) stat(name string) (ObjectInfo, error) {
	fi, err := os.Lstat(d.path(name))
	if err != nil {
		return ObjectInfo{}, err
	}
	if !fi.Mode().IsRegular() {
		return ObjectInfo{}, errors.New("not a plain file")
	}
	return ObjectInfo{Name: name, Size: fi.Size(), ModTime: fi.ModTime()}, nil
}

// List implements Destination.
func (d *Dir) List(ctx context.Context, prefix string) ([]ObjectInfo, error) {
	var out []ObjectInfo
	err := d.walk(ctx, func(name string, e fs.DirEntry) error {
		if strings.HasPrefix(e.Name(), ".") || !strings.HasPrefix(name, prefix) {
			return nil
		}
		fi, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil // deleted since
		}
		if err != nil {
			return err
		}
		out = append(out, ObjectInfo{Name: name, Size: fi.Size(), ModTime: fi.ModTime()})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s: list %q: %w", d.Name(), prefix, dirError(err))
	}
	sortObjects(out)
	return out, nil
}

// walk visits every plain file.
func (d *Dir) walk(ctx context.Context, visit func(name string, e fs.DirEntry) error) error {
	return filepath.WalkDir(d.root, func(path string, e fs.DirEntry, err error) error {
		if cerr := ctx.Err(); cerr != nil {
			return cerr
		}
		if err != nil {
			// What another run removes meanwhile is no error; the root is.
			if path != d.root && errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		if e.IsDir() && path != d.root && strings.HasPrefix(e.Name(), ".") {
			return fs.SkipDir // .snapshots, .Trash-1000 and the like
		}
		if !e.Type().IsRegular() {
			return nil
		}
		rel, err := filepath.Rel(d.root, path)
		if err != nil {
			return err
		}
		return visit(filepath.ToSlash(rel), e)
	})
}

// Delete implements Destination.
func (d *Dir) Delete(_ context.Context, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	path := d.path(name)
	err := d.fs.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = d.fs.SyncDir(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("%s: delete %q: %w", d.Name(), name, dirError(err))
	}
	return nil
}

// Sweep implements Sweeper.
func (d *Dir) Sweep(ctx context.Context, before time.Time) (int, error) {
	n := 0
	err := d.walk(ctx, func(name string, e fs.DirEntry) error {
		if !strings.HasPrefix(e.Name(), ".") || !strings.Contains(e.Name(), tmpMark) {
			return nil
		}
		fi, err := e.Info()
		if err != nil || !fi.ModTime().Before(before) {
			return nil //nolint:nilerr // gone since, or still under way
		}
		if err := d.fs.Remove(d.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		n++
		return nil
	})
	if err != nil {
		return n, fmt.Errorf("%s: sweep: %w", d.Name(), dirError(err))
	}
	return n, nil
}

// dirError adds this package's sentinel to a file system error.
func dirError(err error) error {
	var sentinel error
	switch {
	case errors.Is(err, fs.ErrNotExist):
		sentinel = ErrNotFound
	case errors.Is(err, fs.ErrExist):
		sentinel = ErrExists
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT), errors.Is(err, unix.EFBIG):
		sentinel = ErrFull
	case errors.Is(err, fs.ErrPermission), errors.Is(err, unix.EROFS):
		sentinel = ErrDenied
	default:
		return err
	}
	return fmt.Errorf("%w: %w", sentinel, err)
}

// ctxReader ends with the context's error.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c ctxReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// osFS is the real file system.
type osFS struct{}

// The group may do what the owner may, as far as the umask lets it: on an
// installed machine one user stores and another one verifies and prunes.

func (osFS) MkdirAll(path string) error { return os.MkdirAll(path, 0o770) }

func (osFS) CreateTemp(dir, pattern string) (dirFile, error) {
	prefix, suffix, _ := strings.Cut(pattern, "*")
	name := filepath.Join(dir, prefix+rand.Text()+suffix)
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o660)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (osFS) RenameNew(old, new string) error {
	err := unix.Renameat2(unix.AT_FDCWD, old, unix.AT_FDCWD, new, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		// Not every network file system can. The random part of the name is
		// what really keeps two writers apart.
		if _, serr := os.Lstat(new); serr == nil {
			return fs.ErrExist
		}
		return os.Rename(old, new)
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: old, New: new, Err: err}
	}
	return nil
}

func (osFS) Remove(path string) error  { return os.Remove(path) }
func (osFS) SyncDir(path string) error { return atomicfile.SyncDir(path) }
