package snapshot

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"strongroom.example/appliance/base/atomicfile"
)

// Dir is a Destination in a directory, for a mounted disk or share.
type Dir struct {
	root  string
	fs    dirFS
	moved atomic.Int64 // bytes on the disk, and read off it
}

var (
	_ mover       = (*Dir)(nil)
	_ Destination = (*Dir)(nil)
	_ Sweeper     = (*Dir)(nil)
)

// dirFS is what Dir does to the file system, so that tests can let each call
// fail.
type dirFS interface {
	// Mkdir makes one folder, never what it lies in: that is the place itself.
	Mkdir(path string) error
	CreateTemp(dir, pattern string) (dirFile, error)
	// RenameNew fails with fs.ErrExist when the new name is taken.
	RenameNew(old, new string) error
	Remove(path string) error
	SyncDir(path string) error
}

type dirFile interface {
	io.Writer
	// WriteOut has the disk take n bytes from off on, and waits for it.
	WriteOut(off, n int64) error
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
	d := &Dir{root: abs, fs: osFS{}}
	if err := d.there(); err != nil {
		return nil, err
	}
	return d, nil
}

// Name is "dir:" and the path.
func (d *Dir) Name() string { return "dir:" + d.root }

func (d *Dir) path(name string) string { return filepath.Join(d.root, filepath.FromSlash(name)) }

// writeOutEvery is how much is written before the disk must have it, in bytes.
const writeOutEvery = 4 << 20

// tmpMark is in the name of every file under way, before what rand.Text gives. The
// leading dot of these names keeps them out of List.
const tmpMark = ".upload-"

var tmpRandom = regexp.MustCompile(`^[A-Z2-7]{26}$`)

// Put implements Destination.
func (d *Dir) Put(ctx context.Context, name string, r io.Reader) (ObjectInfo, error) {
	if err := checkName(name); err != nil {
		return ObjectInfo{}, err
	}
	info, err := d.put(ctx, name, r)
	if err != nil {
		return ObjectInfo{}, d.fail("put", name, err)
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
		if err := d.fs.Mkdir(dir); err != nil && !errors.Is(err, fs.ErrExist) {
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
	// Piece by piece: what memory takes at once, a slow disk takes in minutes, and
	// then nobody could tell it from one that is stuck.
	for off, n := int64(0), int64(writeOutEvery); n == writeOutEvery; off += n {
		n, err = io.CopyN(tmp, ctxReader{ctx, r}, writeOutEvery)
		if err != nil && err != io.EOF {
			return ObjectInfo{}, err
		}
		if err := tmp.WriteOut(off, n); err != nil {
			return ObjectInfo{}, err
		}
		d.moved.Add(n)
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
	// A pipe would be waited for, and nobody can end that.
	f, err := os.OpenFile(d.path(name), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, d.fail("get", name, err)
	}
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return nil, d.fail("get", name, errors.Join(cmp.Or(err, errNoFile), f.Close()))
	}
	return struct {
		io.Reader
		io.Closer
	}{&counted{ctxReader{ctx, f}, &d.moved}, f}, nil
}

// Moved implements mover.
func (d *Dir) Moved() int64 { return d.moved.Load() }

var errNoFile = errors.New("not a plain file")

// Stat implements Destination.
func (d *Dir) Stat(_ context.Context, name string) (ObjectInfo, error) {
	if err := checkName(name); err != nil {
		return ObjectInfo{}, err
	}
	info, err := d.stat(name)
	if err != nil {
		return ObjectInfo{}, d.fail("stat", name, err)
	}
	return info, nil
}

func (d *Dir) stat(name string) (ObjectInfo, error) {
	fi, err := os.Lstat(d.path(name))
	if err != nil {
		return ObjectInfo{}, err
	}
	if !fi.Mode().IsRegular() {
		return ObjectInfo{}, errNoFile
	}
	return ObjectInfo{Name: name, Size: fi.Size(), ModTime: fi.ModTime()}, nil
}

// List implements Destination. An object lies in a folder of the root, and no
// deeper: what else is there is a stranger's, such as a disk's lost+found, and is
// neither looked into nor in the way.
func (d *Dir) List(ctx context.Context, prefix string) ([]ObjectInfo, error) {
	var out []ObjectInfo
	err := d.look(ctx, prefix, func(name string, e fs.DirEntry) error {
		if !strings.HasPrefix(name, prefix) || checkName(name) != nil {
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
		return nil, d.fail("list", prefix, err)
	}
	sortObjects(out)
	return out, nil
}

// look visits every plain file where objects whose names start with prefix can
// lie.
func (d *Dir) look(ctx context.Context, prefix string, visit func(name string, e fs.DirEntry) error) error {
	folder, _, one := strings.Cut(prefix, "/")
	folders := []string{folder}
	if !one {
		entries, err := os.ReadDir(d.root)
		if err != nil {
			return err
		}
		folders = nil
		for _, e := range entries {
			if e.IsDir() && clusterPattern.MatchString(e.Name()) {
				folders = append(folders, e.Name())
			}
		}
	}
	for _, f := range folders {
		entries, err := os.ReadDir(filepath.Join(d.root, f))
		switch {
		case errors.Is(err, fs.ErrNotExist) && d.there() == nil:
			continue // nothing of it yet, or deleted since
		case errors.Is(err, fs.ErrPermission) && !one && !VaultCluster(f):
			continue // a stranger's, who wants to be left alone
		case err != nil:
			return err
		}
		for _, e := range entries {
			if err := ctx.Err(); err != nil {
				return err
			}
			if !e.Type().IsRegular() {
				continue
			}
			if err := visit(f+"/"+e.Name(), e); err != nil {
				return err
			}
		}
	}
	return ctx.Err()
}

// there says whether the root is still a folder.
func (d *Dir) there() error {
	fi, err := os.Stat(d.root)
	if err == nil && !fi.IsDir() {
		err = errors.New("is no folder")
	}
	if err != nil {
		return fmt.Errorf("%w: folder %q: %w", ErrPlace, d.root, err)
	}
	return nil
}

// fail is the error of a verb. That an object is not there can only be said of a
// place that is.
func (d *Dir) fail(verb, name string, err error) error {
	if gone := d.there(); gone != nil && errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %s %q: %w", d.Name(), verb, name, gone)
	}
	return fmt.Errorf("%s: %s %q: %w", d.Name(), verb, name, dirError(err))
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
		return d.fail("delete", name, err)
	}
	return nil
}

// Sweep implements Sweeper. It knows remains by their whole name, which only Put
// makes.
func (d *Dir) Sweep(ctx context.Context, before time.Time) (int, error) {
	n := 0
	err := d.look(ctx, "", func(name string, e fs.DirEntry) error {
		folder, file, _ := strings.Cut(name, "/")
		object, random, _ := strings.Cut(strings.TrimPrefix(file, "."), tmpMark)
		_, _, ours := splitObject(folder + "/" + object)
		if !ours || !strings.HasPrefix(file, ".") || !tmpRandom.MatchString(random) {
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
		return n, d.fail("sweep", "", err)
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

// Whatever the umask: on an installed machine one user stores and another one of the
// group verifies and prunes, and what root has stored by hand is theirs, too. For that
// the folders are the group's; a file that is there is read and removed, and never
// written again.
const (
	folderMode = 0o770
	fileMode   = 0o640
)

func (osFS) Mkdir(path string) error {
	if err := os.Mkdir(path, folderMode); err != nil {
		return err
	}
	fi, err := os.Lstat(path)
	if err != nil {
		return err
	}
	return exactly(fi, folderMode, func(m fs.FileMode) error { return os.Chmod(path, m) })
}

func (osFS) CreateTemp(dir, pattern string) (dirFile, error) {
	prefix, suffix, _ := strings.Cut(pattern, "*")
	name := filepath.Join(dir, prefix+rand.Text()+suffix)
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil {
		err = exactly(fi, fileMode, f.Chmod)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(name))
	}
	return osFile{f}, nil
}

type osFile struct{ *os.File }

func (f osFile) WriteOut(off, n int64) error {
	const all = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
	err := unix.SyncFileRange(int(f.Fd()), off, n, all)
	switch {
	case errors.Is(err, unix.ESPIPE), errors.Is(err, unix.EINVAL), errors.Is(err, errors.ErrUnsupported), errors.Is(err, unix.EPERM):
		return nil // not every file system, nor every sandbox, can: Sync has the last word
	case err != nil:
		return &os.PathError{Op: "write", Path: f.Name(), Err: err}
	}
	return nil
}

// exactly sets a mode where it is another: the setgid bit, which a folder has from
// the one that it lies in, stays. What is left alone needs no right to set it.
func exactly(fi fs.FileInfo, want fs.FileMode, chmod func(fs.FileMode) error) error {
	if fi.Mode().Perm() == want {
		return nil
	}
	err := chmod(fi.Mode()&(fs.ModeSetgid|fs.ModeSticky) | want)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, errors.ErrUnsupported) {
		return nil // a file system without modes, such as vfat: its mount says who may
	}
	return err
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
