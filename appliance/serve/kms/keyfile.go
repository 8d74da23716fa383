package kms

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"strongroom.example/config/machine"
)

// ErrNoKey says that there is no keyset where one was looked for.
var ErrNoKey = errors.New("no master key")

// LoadCredential reads the keyset that systemd has put into credentials, the
// value of $CREDENTIALS_DIRECTORY.
func LoadCredential(credentials string) (*Keyset, error) {
	if credentials == "" {
		return nil, fmt.Errorf("%w: $CREDENTIALS_DIRECTORY is not set", ErrNoKey)
	}
	// systemd keeps that folder to the unit (0500, or an ACL that shows as
	// group permission), so its modes are not judged here.
	return load(filepath.Join(credentials, machine.CredMasterKey), 0o777)
}

// LoadFile reads the keyset from a file that only its owner can read.
func LoadFile(path string) (*Keyset, error) { return load(path, 0o700) }

func load(path string, allowed fs.FileMode) (*Keyset, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrNoKey, err)
	}
	if err != nil {
		return nil, fmt.Errorf("read master key: %w", err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read master key: %w", err)
	}
	if !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("read master key: %q is not a file", path)
	}
	if open := fi.Mode().Perm() &^ allowed; open != 0 {
		return nil, fmt.Errorf("read master key: %q has mode %04o, others than its owner could have read it", path, fi.Mode().Perm())
	}
	k, err := Read(f)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", path, err)
	}
	return k, nil
}

// Read takes the keyset from a stream, to its end: a pipe from whoever holds
// it, so that it need not be on a disk.
func Read(r io.Reader) (*Keyset, error) {
	// One buffer of the full size: a growing one would leave copies behind.
	buf := make([]byte, maxKeyset+1)
	n, err := io.ReadFull(r, buf)
	defer clear(buf[:n])
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("read master key: %w", err)
	}
	return ParseKeyset(buf[:n])
}
