// Package dirfs is how root works in a folder that belongs to somebody else: a
// service's user may put a link, a pipe or another file's second name in the place
// of any file there, between any two calls. So the folder is opened once, on a way
// on which only root can have put links, and everything in it is done by single
// names from there. A link is not followed, and what is opened is a regular file of
// the folder's owner that has no second name.
//
// It does not keep the owner from changing files of his own; what they hold is his.
package dirfs

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrNotOurs says that a file is not one to be worked on: a link, a pipe, somebody
// else's, or one with a second name.
var ErrNotOurs = errors.New("it is no plain file of the folder's owner with this one name")

// Dir is an open folder.
type Dir struct {
	f        *os.File
	uid, gid uint32
}

// Open opens the folder at path. A link on the way to it is followed where only
// root, or who runs this, can have put it.
func Open(path string) (*Dir, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	fd, err := walk(abs)
	if err != nil {
		return nil, &fs.PathError{Op: "open folder", Path: path, Err: err}
	}
	d := &Dir{f: os.NewFile(uintptr(fd), abs)}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		d.Close()
		return nil, &fs.PathError{Op: "open folder", Path: path, Err: err}
	}
	d.uid, d.gid = st.Uid, st.Gid
	return d, nil
}

// maxLinks is the kernel's own bound.
const maxLinks = 40

const openDir = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC

func walk(abs string) (int, error) {
	at, err := unix.Open("/", openDir, 0)
	if err != nil {
		return -1, err
	}
	rest := strings.Split(abs, "/")
	for links := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		if name == "" || name == "." {
			continue
		}
		next, err := unix.Openat(at, name, openDir|pathOnly(rest), 0)
		if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			target, lerr := readLink(at, name)
			switch {
			case errors.Is(lerr, unix.EINVAL):
				_ = unix.Close(at)
				return -1, unix.ENOTDIR
			case lerr != nil:
				_ = unix.Close(at)
				return -1, lerr
			}
			if links++; links > maxLinks {
				_ = unix.Close(at)
				return -1, unix.ELOOP
			}
			rest = append(strings.Split(target, "/"), rest...)
			next = at
			if strings.HasPrefix(target, "/") {
				next, err = unix.Open("/", openDir, 0)
			} else {
				next, err = unix.Dup(at)
			}
		}
		_ = unix.Close(at)
		if err != nil {
			return -1, err
		}
		at = next
	}
	return at, nil
}

// pathOnly: on the way to a folder there may be some that one may pass and not read.
func pathOnly(rest []string) int {
	for _, name := range rest {
		if name != "" && name != "." {
			return unix.O_PATH
		}
	}
	return 0
}

// readLink reads a link that nobody but root, or who runs this, can have put there.
func readLink(at int, name string) (string, error) {
	var dir unix.Stat_t
	if err := unix.Fstat(at, &dir); err != nil {
		return "", err
	}
	b := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(at, name, b)
	if err != nil {
		return "", err
	}
	if self := uint32(os.Geteuid()); dir.Uid != 0 && dir.Uid != self || dir.Mode&0o022 != 0 {
		return "", fmt.Errorf("%q is a link, and not root alone can have put it there: %w", name, unix.ELOOP)
	}
	return string(b[:n]), nil
}

// Close lets go of the folder.
func (d *Dir) Close() { _ = d.f.Close() } // nothing is written through it

// Path is where the folder was found, for messages.
func (d *Dir) Path(name string) string { return filepath.Join(d.f.Name(), name) }

func (d *Dir) fault(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: d.Path(name), Err: err}
}

// single refuses what leads out of the folder.
func (d *Dir) single(op, name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return d.fault(op, name, fs.ErrInvalid)
	}
	return nil
}

// Names are those of all that is in the folder.
func (d *Dir) Names() ([]string, error) {
	again, err := unix.Openat(int(d.f.Fd()), ".", openDir, 0)
	if err != nil {
		return nil, d.fault("read", "", err)
	}
	f := os.NewFile(uintptr(again), d.f.Name())
	defer f.Close()
	return f.Readdirnames(-1)
}

// Lstat is of the name itself, whatever it is.
func (d *Dir) Lstat(name string) (Info, error) {
	if err := d.single("lstat", name); err != nil {
		return Info{}, err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(int(d.f.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return Info{}, d.fault("lstat", name, err)
	}
	return d.info(&st), nil
}

// Open opens a file of the folder's owner for reading.
func (d *Dir) Open(name string) (*os.File, error) {
	f, _, err := d.open(name, unix.O_RDONLY, 0)
	return f, err
}

func (d *Dir) open(name string, how int, perm uint32) (*os.File, Info, error) {
	if err := d.single("open", name); err != nil {
		return nil, Info{}, err
	}
	fd, err := unix.Openat(int(d.f.Fd()), name, how|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, perm)
	if errors.Is(err, unix.ELOOP) {
		err = ErrNotOurs
	}
	if err != nil {
		return nil, Info{}, d.fault("open", name, err)
	}
	f := os.NewFile(uintptr(fd), d.Path(name))
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		_ = f.Close()
		return nil, Info{}, d.fault("open", name, err)
	}
	info := d.info(&st)
	// A file that was made just now is of who runs this, until it is given away.
	if !info.Plain && how&unix.O_EXCL == 0 {
		_ = f.Close()
		return nil, Info{}, d.fault("open", name, ErrNotOurs)
	}
	return f, info, nil
}

// Remove removes a name that is no folder's.
func (d *Dir) Remove(name string) error {
	if err := d.single("remove", name); err != nil {
		return err
	}
	if err := unix.Unlinkat(int(d.f.Fd()), name, 0); err != nil {
		return d.fault("remove", name, err)
	}
	return nil
}

// RenameNew fails with fs.ErrExist where the new name is taken.
func (d *Dir) RenameNew(old, new string) error {
	if err := errors.Join(d.single("rename", old), d.single("rename", new)); err != nil {
		return err
	}
	fd := int(d.f.Fd())
	if err := unix.Renameat2(fd, old, fd, new, unix.RENAME_NOREPLACE); err != nil {
		return &os.LinkError{Op: "rename", Old: d.Path(old), New: d.Path(new), Err: err}
	}
	return nil
}

// Sync makes renames and removals durable.
func (d *Dir) Sync() error {
	if err := d.f.Sync(); err != nil {
		return d.fault("sync", "", err)
	}
	return nil
}

// File is one under way to its name.
type File struct {
	*os.File
	d    *Dir
	tmp  string
	name string
	done bool
}

// Create starts a file of the folder's owner, mode 0600, that has its name with
// Commit. Commit fails with fs.ErrExist where that is taken by then.
func (d *Dir) Create(name string) (*File, error) {
	if err := d.single("create", name); err != nil {
		return nil, err
	}
	// A name that nobody can have taken before.
	tmp := "." + name[:min(len(name), 200)] + ".tmp-" + rand.Text()
	f, _, err := d.open(tmp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	out := &File{File: f, d: d, tmp: tmp, name: name}
	if err := errors.Join(f.Chmod(0o600), d.give(f)); err != nil {
		out.Abort()
		return nil, err
	}
	return out, nil
}

// give gives what root has made to the folder's owner and group.
func (d *Dir) give(f *os.File) error {
	if os.Geteuid() != 0 || d.uid == 0 && d.gid == 0 {
		return nil
	}
	return f.Chown(int(d.uid), int(d.gid))
}

// Commit gives the file its name; the rename is the commit point. What it would
// name must be what was written: the owner of the folder can have put another in
// its place, and is then told.
func (f *File) Commit() error {
	defer f.Abort()
	if err := f.Sync(); err != nil {
		return err
	}
	var ours, there unix.Stat_t
	err := unix.Fstat(int(f.Fd()), &ours)
	if err == nil {
		err = unix.Fstatat(int(f.d.f.Fd()), f.tmp, &there, unix.AT_SYMLINK_NOFOLLOW)
	}
	if err != nil {
		return f.d.fault("commit", f.name, err)
	}
	if ours.Ino != there.Ino || ours.Dev != there.Dev {
		return f.d.fault("commit", f.name, ErrNotOurs)
	}
	if err := f.d.RenameNew(f.tmp, f.name); err != nil {
		return err
	}
	f.done = true
	return f.d.Sync()
}

// Abort discards what was written; after a Commit, and twice, it does nothing.
func (f *File) Abort() {
	_ = f.Close()
	if !f.done {
		f.done = true
		_ = f.d.Remove(f.tmp)
	}
}
