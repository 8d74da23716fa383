// Package payload is what the installer carries inside itself: the appliance
// and the plugin, put into payload/bin/ARCHITECTURE by the build. An installer carries
// those of its own architecture alone, and runs on no other.
//
// It does not carry Vault, whose licence asks for its own download, and it
// writes nothing: where a program goes is the steps' business.
package payload

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
)

// ErrMissing says that this installer was built without the program asked for,
// as `go build` in a fresh clone does.
var ErrMissing = errors.New("this installer carries no such program")

// Payload is a set of programs. The zero value is not usable.
type Payload struct {
	files  fs.FS
	folder string
}

// Embedded is what this binary carries.
func Embedded() Payload { return Payload{embedded, folder} }

// New is a payload from a folder with bin/ in it, for tests.
func New(files fs.FS) Payload { return Payload{files, "bin"} }

// Program is one file of the payload.
type Program struct {
	Name   string
	Size   int64  // bytes
	SHA256 string // hex, as Vault's plugin catalog wants it

	from Payload
}

// Program looks name up and sums it. The error wraps ErrMissing where it isn't
// there.
func (p Payload) Program(name string) (Program, error) {
	f, err := p.open(name)
	if err != nil {
		return Program{}, err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err != nil {
		return Program{}, fmt.Errorf("read the embedded %q: %w", name, err)
	}
	if n == 0 {
		return Program{}, fmt.Errorf("%q: %w (it is empty)", name, ErrMissing)
	}
	return Program{Name: name, Size: n, SHA256: hex.EncodeToString(h.Sum(nil)), from: p}, nil
}

// Version is what the programs were built as; "" where the build has not said so.
func (p Payload) Version() (string, error) {
	b, err := fs.ReadFile(p.files, path.Join(p.folder, "VERSION"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return strings.TrimSpace(string(b)), err
}

// Open gives the program's content; for the embedded one without a copy of it
// in memory.
func (p Program) Open() (io.ReadCloser, error) { return p.from.open(p.Name) }

func (p Payload) open(name string) (fs.File, error) {
	f, err := p.files.Open(path.Join(p.folder, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%q: %w", name, ErrMissing)
	}
	if err != nil {
		return nil, fmt.Errorf("open the embedded %q: %w", name, err)
	}
	return f, nil
}
