// Package credential reads secrets from files: a file that somebody names, what
// systemd passes to a unit, or what an installed appliance keeps encrypted and
// root opens, so that a job can be run by hand. It is also the one place that
// seals (Seal), that knows what a machine seals with (Choose), and what systemd
// means where one does not open (Diagnose).
//
// Of what is in them it knows pairs alone, and its errors quote nothing of it.
package credential

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"strongroom.example/appliance/base/atomicfile"
	"strongroom.example/config/machine"
)

// maxSize bounds a credential file, in bytes, as systemd does.
const maxSize = 1 << 20

// InUnit says whether systemd passes credentials to this process.
func InUnit() bool { return os.Getenv("CREDENTIALS_DIRECTORY") != "" }

// Read reads a file by its path, or a systemd credential by its name: the one
// that systemd passes, or the installed one for root.
func Read(name string) ([]byte, error) {
	path := name
	if !strings.Contains(name, "/") {
		if !InUnit() {
			return Open(machine.CredentialDir, name)
		}
		path = filepath.Join(os.Getenv("CREDENTIALS_DIRECTORY"), name)
	}
	data, err := atomicfile.ReadSmall(path, maxSize)
	if err != nil {
		return nil, fmt.Errorf("credential: %w", err)
	}
	return data, nil
}

// Path makes a file's name, as a flag gives it, one that is never taken for a
// credential's.
func Path(file string) string {
	if strings.Contains(file, "/") {
		return file
	}
	return "./" + file
}

// Passed tells whether systemd passes a credential that is not empty: a unit
// gives an empty one in place of one that is not there.
func Passed(name string) bool {
	if !InUnit() {
		return false
	}
	data, err := Read(name)
	defer clear(data)
	return err == nil && len(bytes.TrimSpace(data)) > 0
}

// Open opens an encrypted credential in dir for root, as systemd does for a
// unit. Its content goes through a pipe and nowhere else.
func Open(dir, name string) ([]byte, error) {
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); err != nil || os.Geteuid() != 0 {
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
			return nil, fmt.Errorf("credential %q: %w", name, err)
		}
		return nil, fmt.Errorf("credential %q: %w", name, ErrNone)
	}
	sealed, err := atomicfile.ReadSmall(path, maxSize)
	if err != nil {
		return nil, fmt.Errorf("credential %q: %w", name, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // a TPM takes its time
	defer cancel()
	return Unseal(ctx, System, name, sealed)
}

// ErrNone is returned where systemd passes no credential and there is none that
// this user could open.
var ErrNone = errors.New("systemd passes none ($CREDENTIALS_DIRECTORY is not set)")
