package kms

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"strongroom.example/appliance/base/atomicfile"
	"strongroom.example/appliance/base/command"
	"strongroom.example/config/machine"
)

// Store keeps the master key's text on disk at a path. What it returns from
// Open is the caller's to wipe.
type Store interface {
	// Open gives what lies at path, in clear.
	Open(ctx context.Context, path string) ([]byte, error)
	// Seal replaces what lies at path by plain, wholly or not at all.
	Seal(ctx context.Context, path string, plain []byte) error
}

// SystemdStore keeps it as a systemd credential, encrypted with the machine's
// TPM2 or host key and bound to the name CredentialName: what
// LoadCredentialEncrypted= opens. It needs root. See systemd-creds(1).
type SystemdStore struct {
	Program string // "systemd-creds" if empty
}

// FileStore keeps it in the clear, in a file of mode 0600: for a machine
// without systemd, whose disk is all that protects it.
type FileStore struct{}

var (
	_ Store = SystemdStore{}
	_ Store = FileStore{}
)

// Open decrypts the credential.
func (s SystemdStore) Open(ctx context.Context, path string) ([]byte, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoKey, err)
	}
	return s.run(ctx, nil, "decrypt", path)
}

// Seal encrypts plain into the file at path. The secret goes by pipe.
func (s SystemdStore) Seal(ctx context.Context, path string, plain []byte) error {
	sealed, err := s.run(ctx, plain, "encrypt", "-")
	if err != nil {
		return err
	}
	if len(sealed) == 0 || bytes.Contains(sealed, []byte(pemType)) {
		return errors.New("seal credential: systemd-creds gave nothing that is encrypted")
	}
	return atomicfile.Write(path, sealed, 0o600)
}

func (s SystemdStore) run(ctx context.Context, stdin []byte, verb, input string) ([]byte, error) {
	program := s.Program
	if program == "" {
		program = "systemd-creds"
	}
	// A buffer that never grows leaves no copies behind.
	out := bytes.NewBuffer(make([]byte, 0, 2*maxKeyset))
	var stderr bytes.Buffer
	c := command.New(ctx, program, verb, "--name="+machine.CredMasterKey, input, "-")
	c.Stdin, c.Stdout, c.Stderr = bytes.NewReader(stdin), out, &stderr
	if err := c.Run(); err != nil {
		clear(out.Bytes())
		return nil, fmt.Errorf("%s %s: %w: %s", program, verb, err, strings.TrimSpace(stderr.String()))
	}
	return out.Bytes(), nil
}

// Open reads the file.
func (FileStore) Open(_ context.Context, path string) ([]byte, error) {
	k, err := LoadFile(path)
	if err != nil {
		return nil, err
	}
	return k.Marshal()
}

// Seal writes the file.
func (FileStore) Seal(_ context.Context, path string, plain []byte) error {
	return atomicfile.Write(path, plain, 0o600)
}
