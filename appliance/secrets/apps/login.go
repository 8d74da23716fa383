package apps

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"strongroom.example/appliance/base/atomicfile"
	"strongroom.example/config"
)

// Place is where Vault is, as a bundle says it.
type Place struct {
	Address string
	CAFile  string // PEM of a private authority; empty for the system's
}

// WriteBundle makes a bundle and writes it to a new file, mode 0600. The secret
// id of one that could not be written is ended.
func WriteBundle(ctx context.Context, v Vault, t config.Target, p Place, file string, ttl time.Duration) (Bundle, error) {
	var pem []byte
	if p.CAFile != "" {
		var err error
		if pem, err = readSmall(p.CAFile); err != nil {
			return Bundle{}, fmt.Errorf("ca certificate for the bundle: %w", err)
		}
	}
	if err := atomicfile.Sweep(file); err != nil { // of a run that was killed
		return Bundle{}, err
	}
	b, err := makeBundle(ctx, v, t, ttl)
	if err != nil {
		return Bundle{}, err
	}
	b.Address, b.CACert = p.Address, string(pem)
	data, err := json.MarshalIndent(b, "", "  ")
	if err == nil {
		err = atomicfile.Write(file, append(data, '\n'), 0o600)
	}
	if err != nil {
		// Nobody will open it.
		return Bundle{}, errors.Join(fmt.Errorf("write the bundle: %w", err), b.end(ctx, v))
	}
	return b, nil
}

// The files of a login, in the order in which they are replaced.
const (
	SecretIDFile = "secret-id"
	RoleIDFile   = "role-id"
	caFile       = "ca.crt" // where Vault's authority is a private one
)

// OpenInto fetches the secret id, as openBundle does, and writes secret-id,
// role-id and ca.crt to dir, readable by their owner alone. connect is given the
// file with the bundle's authority, or nothing. A login that is in dir stays as
// it is until the new one is there as a whole.
func (b Bundle) OpenInto(ctx context.Context, dir string, connect func(caFile string) (Vault, error)) error {
	// What can't be written is found out before the token is used up.
	stage, err := b.stage(dir)
	if err != nil {
		return fmt.Errorf("folder for the login: %w", err)
	}
	kept := false
	defer func() {
		if !kept {
			_ = os.RemoveAll(stage)
		}
	}()
	ca := ""
	if b.CACert != "" {
		ca = filepath.Join(stage, caFile)
	}
	v, err := connect(ca)
	if err != nil {
		return err
	}
	secret, err := openBundle(ctx, v, b)
	if err != nil {
		return err
	}
	if err := atomicfile.Write(filepath.Join(stage, SecretIDFile), []byte(secret+"\n"), 0o600); err != nil {
		return fmt.Errorf("%w: %w", ErrLost, err)
	}
	for _, name := range b.files() {
		if err := os.Rename(filepath.Join(stage, name), filepath.Join(dir, name)); err != nil {
			kept = true
			return &NeedsOperator{Err: fmt.Errorf("the login is fetched, and could not be put into its place: %w", err),
				Hint: fmt.Sprintf("move what is in %s to %s", stage, dir)}
		}
	}
	return atomicfile.SyncDir(dir)
}

func (b Bundle) files() []string {
	if b.CACert == "" {
		return []string{SecretIDFile, RoleIDFile}
	}
	return []string{SecretIDFile, RoleIDFile, caFile}
}

// stage makes a folder inside dir for all that is known of the login.
func (b Bundle) stage(dir string) (string, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	for _, name := range b.files() {
		fi, err := os.Lstat(filepath.Join(dir, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		if err == nil && fi.IsDir() {
			return "", fmt.Errorf("%q is a folder, and a file belongs there", filepath.Join(dir, name))
		}
	}
	stage, err := os.MkdirTemp(dir, ".login-*")
	if err != nil {
		return "", err
	}
	err = atomicfile.Write(filepath.Join(stage, RoleIDFile), []byte(b.RoleID+"\n"), 0o600)
	if err == nil && b.CACert != "" {
		err = atomicfile.Write(filepath.Join(stage, caFile), []byte(b.CACert), 0o644)
	}
	if err != nil {
		return "", errors.Join(err, os.RemoveAll(stage))
	}
	return stage, nil
}
