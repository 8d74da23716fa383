package host

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
)

// Sum is the SHA-256 of a file, hex.
func (h *Host) Sum(p string) (string, error) {
	f, err := h.Open(p)
	if err != nil {
		return "", err
	}
	defer f.Close()
	s := sha256.New()
	if _, err := io.Copy(s, f); err != nil {
		return "", fmt.Errorf("read %q: %w", p, err)
	}
	return hex.EncodeToString(s.Sum(nil)), nil
}

// TreeSize is how many bytes the files at p and below have; 0 where there is nothing.
func TreeSize(h FS, p string) (uint64, error) {
	info, err := h.Stat(p)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if info.Type != fs.ModeDir {
		return uint64(max(info.Size, 0)), nil
	}
	names, err := h.ReadDir(p)
	if err != nil {
		return 0, err
	}
	total := uint64(0)
	for _, n := range names {
		size, err := TreeSize(h, path.Join(p, n))
		if err != nil {
			return 0, err
		}
		total += size
	}
	return total, nil
}
