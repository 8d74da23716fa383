// Package statefile keeps what a job remembers between its runs: JSON in a file
// that is wholly there or not at all, of the owner of its folder whoever runs the
// job by hand; and the lock of who may write it.
//
// It does not know what is remembered, and holds no secret: status, doctor and
// metrics read the files through their group.
package statefile

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"strongroom.example/appliance/base/atomicfile"
)

var (
	// ErrNone says that there is no such file yet: what it would tell of has
	// never happened.
	ErrNone = errors.New("none yet")
	// ErrCorrupt says that a file is there and can't be understood. That is not
	// never.
	ErrCorrupt = errors.New("corrupt")
)

// MaxSize bounds a state file, in bytes.
const MaxSize = 4 << 20

// Load decodes a file into v: ErrNone where it is not there, ErrCorrupt where it
// is no JSON or of another format than wanted. A format of 0 is that of files
// which name none. The folder may be another user's than the reader's: no link is
// followed and no pipe waited for.
func Load(path string, format int, v any) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("state file %q: %w", path, ErrNone)
	}
	if err != nil {
		return fmt.Errorf("read state: %w", err)
	}
	defer f.Close()
	if err := plain(f); err != nil {
		return fmt.Errorf("read state %q: %w", path, err)
	}
	b, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		return fmt.Errorf("read state: %w", err)
	}
	if err := Decode(b, format, v); err != nil {
		return fmt.Errorf("state file %q: %w", path, err)
	}
	return nil
}

// plain refuses what its folder's owner can have led us to: what is no file, and a
// file that has another name elsewhere.
func plain(f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return errors.New("is no regular file")
	case st.Nlink > 1:
		return errors.New("is a file with a second name")
	}
	return nil
}

// Decode is Load behind the file, for whoever reads files by other means.
func Decode(b []byte, format int, v any) error {
	if len(b) > MaxSize {
		return fmt.Errorf("%w: more than the %d bytes that it can have", ErrCorrupt, MaxSize)
	}
	var f struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(b, &f); err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if f.Format != format {
		return fmt.Errorf("%w: format %d, this program reads %d", ErrCorrupt, f.Format, format)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return nil
}

// Encode is what Save writes.
func Encode(v any) ([]byte, error) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode state: %w", err)
	}
	return append(b, '\n'), nil
}

// Save replaces a file, mode perm exactly; the folder's group reads a 0640.
func Save(path string, v any, perm fs.FileMode) error {
	return save(path, v, perm, func(path string, perm fs.FileMode) (file, error) { return atomicfile.Create(path, perm) })
}

// file is what of atomicfile.File is needed.
type file interface {
	io.Writer
	Chown(uid, gid int) error
	Commit() error
	Abort()
}

var _ file = (*atomicfile.File)(nil)

func save(path string, v any, perm fs.FileMode, create func(string, fs.FileMode) (file, error)) error {
	b, err := Encode(v)
	if err != nil {
		return err
	}
	f, err := create(path, perm)
	if err != nil {
		return err
	}
	defer f.Abort()
	if err := atomicfile.LikeFolder(filepath.Dir(path), f); err != nil {
		return fmt.Errorf("write %q: %w", path, err)
	}
	if _, err := f.Write(b); err != nil {
		return err
	}
	return f.Commit()
}
