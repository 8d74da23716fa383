package host

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
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
