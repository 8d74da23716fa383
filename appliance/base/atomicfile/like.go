package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Like gives the file under way owner, group, mode and extended attributes
// (access control lists among them) of the file at path. One of them that cannot
// be kept is an error of Ready: who could read the old file can read the new one,
// and nobody else.
func (f *File) Like(path string) { f.like = path }

// Mode is the mode that the file gets at its Commit.
func (f *File) Mode(perm fs.FileMode) { f.mode = perm }

// Attributes are the extended attributes of the file at path, access control lists
// among them; none where its file system has none.
func Attributes(path string) (map[string]string, error) {
	names, err := extended(func(b []byte) (int, error) { return unix.Llistxattr(path, b) })
	if err != nil {
		return nil, fmt.Errorf("attributes of %q: %w", path, err)
	}
	out := map[string]string{}
	for _, name := range names {
		if kernels(name) {
			continue
		}
		value, err := grow(func(b []byte) (int, error) { return unix.Lgetxattr(path, name, b) })
		if err != nil {
			return nil, fmt.Errorf("attribute %q of %q: %w", name, path, err)
		}
		out[name] = string(value)
	}
	return out, nil
}

// Attributes gives the file under way extended attributes at its Commit, after its
// mode: a list says more than that. What the file system does not take is left out.
func (f *File) Attributes(all map[string]string) { f.attributes = all }

// copyAttributes gives to all but the mode, which it returns, and leaves it to its
// owner alone.
func copyAttributes(to *os.File, path string) (fs.FileMode, error) {
	st, err := os.Lstat(path)
	if err != nil {
		return 0, err
	}
	was, ok := st.Sys().(*syscall.Stat_t)
	if !ok || !st.Mode().IsRegular() {
		return 0, fmt.Errorf("%q is no regular file", path)
	}
	var now unix.Stat_t
	if err := unix.Fstat(int(to.Fd()), &now); err != nil {
		return 0, fmt.Errorf("attributes: %w", err)
	}
	if now.Uid != was.Uid || now.Gid != was.Gid {
		if err := to.Chown(int(was.Uid), int(was.Gid)); err != nil {
			return 0, fmt.Errorf("owner %d and group %d of %q cannot be kept: %w", was.Uid, was.Gid, path, errors.Unwrap(err))
		}
	}
	if err := copyExtended(to, path); err != nil {
		return 0, err
	}
	// An access control list has changed the group's bits.
	return st.Mode() & (fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky), to.Chmod(0o600)
}

// copyExtended makes the extended attributes of to those of the file at path.
// What is not there goes: a folder's default list would open the file to others.
func copyExtended(to *os.File, path string) error {
	want, err := extended(func(b []byte) (int, error) { return unix.Llistxattr(path, b) })
	if err != nil {
		return fmt.Errorf("attributes of %q: %w", path, err)
	}
	fd := int(to.Fd())
	have, err := extended(func(b []byte) (int, error) { return unix.Flistxattr(fd, b) })
	if err != nil {
		return fmt.Errorf("attributes: %w", err)
	}
	for _, name := range have {
		if !slices.Contains(want, name) && !kernels(name) {
			if err := unix.Fremovexattr(fd, name); err != nil {
				return fmt.Errorf("attribute %q: %w", name, err)
			}
		}
	}
	for _, name := range want {
		value, err := grow(func(b []byte) (int, error) { return unix.Lgetxattr(path, name, b) })
		if err == nil {
			err = unix.Fsetxattr(fd, name, value, 0)
		}
		if err != nil && !kernels(name) {
			return fmt.Errorf("attribute %q of %q cannot be kept: %w", name, path, err)
		}
	}
	return nil
}

// kernels are attributes that a security module sets by itself where we may not.
func kernels(name string) bool { return strings.HasPrefix(name, "security.") }

func extended(list func([]byte) (int, error)) ([]string, error) {
	names, err := grow(list)
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	return strings.FieldsFunc(string(names), func(r rune) bool { return r == 0 }), err
}

// grow calls read with room for what it says that there is.
func grow(read func([]byte) (int, error)) ([]byte, error) {
	for {
		n, err := read(nil)
		if err != nil || n == 0 {
			return nil, err
		}
		b := make([]byte, n)
		n, err = read(b)
		if !errors.Is(err, unix.ERANGE) {
			return b[:max(n, 0)], err
		}
	}
}
