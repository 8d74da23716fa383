package migrate

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"filippo.io/age"

	"strongroom.example/appliance/base/atomicfile"
)

// kept is a file as it was.
type kept struct {
	name string // relative to the root, with slashes
	data []byte
	mode fs.FileMode
}

// ErrWrongIdentity is a backup that none of the given keys opens.
var ErrWrongIdentity = errors.New("none of the given keys opens this backup")

// writeBackup encrypts a tar archive of files to the recipients, under the next
// free name of the state folder. "age --decrypt | tar -x" opens it without this
// program.
func (s *state) writeBackup(files []kept, to []age.Recipient) (string, error) {
	if len(to) == 0 {
		return "", errors.New("backup: no recipient")
	}
	name := ""
	for n := 1; ; n++ {
		name = fmt.Sprintf("backup-%04d.tar.age", n)
		if _, err := os.Lstat(filepath.Join(s.dir, name)); errors.Is(err, os.ErrNotExist) {
			break
		} else if err != nil {
			return "", fmt.Errorf("backup: %w", err)
		}
	}
	f, err := atomicfile.Create(filepath.Join(s.dir, name), 0o600)
	if err != nil {
		return "", err
	}
	defer f.Abort()
	w, err := age.Encrypt(f, to...)
	if err != nil {
		return "", fmt.Errorf("backup: %w", err)
	}
	t := tar.NewWriter(w)
	for _, k := range files {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: k.name, Mode: int64(k.mode.Perm()), Size: int64(len(k.data)), Format: tar.FormatPAX}
		if err := t.WriteHeader(h); err != nil {
			return "", fmt.Errorf("backup of %q: %w", k.name, err)
		}
		if _, err := t.Write(k.data); err != nil {
			return "", fmt.Errorf("backup of %q: %w", k.name, err)
		}
	}
	if err := errors.Join(t.Close(), w.Close()); err != nil {
		return "", fmt.Errorf("backup: %w", err)
	}
	return name, f.Commit()
}

// readBackup opens what writeBackup made. A truncated or damaged one is an
// error: age authenticates every byte.
func (s *state) readBackup(name string, with []age.Identity) ([]kept, error) {
	if len(with) == 0 {
		return nil, fmt.Errorf("backup %q: %w", name, ErrWrongIdentity)
	}
	f, err := os.Open(filepath.Join(s.dir, name))
	if err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	defer f.Close()
	r, err := age.Decrypt(f, with...)
	var noMatch *age.NoIdentityMatchError
	if errors.As(err, &noMatch) {
		return nil, fmt.Errorf("backup %q: %w", name, ErrWrongIdentity)
	}
	if err != nil {
		return nil, fmt.Errorf("backup %q: %w", name, err)
	}
	var out []kept
	t := tar.NewReader(r)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("backup %q: %w", name, err)
		}
		data, err := io.ReadAll(io.LimitReader(t, h.Size))
		if err != nil {
			return nil, fmt.Errorf("backup %q: %w", name, err)
		}
		out = append(out, kept{h.Name, data, fs.FileMode(h.Mode).Perm()})
	}
	// The archive's end is not the file's: the last chunk must be whole too.
	if _, err := io.Copy(io.Discard, r); err != nil {
		return nil, fmt.Errorf("backup %q: %w", name, err)
	}
	return out, nil
}
