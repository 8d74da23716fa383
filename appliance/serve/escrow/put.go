package escrow

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"filippo.io/age"
)

// IsFolder tells whether dir is an escrow's folder: one in which something is
// known of escrow files, beyond the files themselves.
func IsFolder(dir string) (bool, error) {
	names, err := namesIn(dir)
	for _, n := range names {
		if n == ConfirmationFile || strings.HasPrefix(n, checksPrefix) && strings.HasSuffix(n, checksSuffix) {
			return true, nil
		}
	}
	return false, err
}

// Put seals plain into the escrow file of that base name, in place of the one
// that is there, with the challenges that Ask asks of it; key is the master
// key's fingerprint or "". A proof of the file before it counts no more.
func (f Folder) Put(name string, plain []byte, key string, random io.Reader, to ...age.Recipient) error {
	sealed, err := Seal(plain, to...)
	if err != nil {
		return err
	}
	checks, err := NewChecks(name, sealed, plain, key, random, f.Now())
	if err != nil {
		return err
	}
	text, err := checks.Encode()
	if err != nil {
		return err
	}
	// The challenges belong to this very version, and say nothing until it is
	// there: the commit point is the file itself.
	if err := f.writer()(filepath.Join(f.Dir, checks.Name()), text, 0o600); err != nil {
		return err
	}
	if err := f.writer()(filepath.Join(f.Dir, name), sealed, 0o600); err != nil {
		return err
	}
	names, err := namesIn(f.Dir)
	if err != nil {
		return err
	}
	for _, n := range checks.Stale(names) {
		if err := os.Remove(filepath.Join(f.Dir, n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove old challenges: %w", err)
		}
	}
	return nil
}

func namesIn(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("escrow folder: %w", err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}
