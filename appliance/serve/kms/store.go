package kms

import (
	"context"
	"fmt"

	"strongroom.example/appliance/base/atomicfile"
	"strongroom.example/appliance/base/credential"
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

// SystemdStore keeps it as a systemd credential, bound to the name
// machine.CredMasterKey: what LoadCredentialEncrypted= opens. It needs root.
type SystemdStore struct {
	Run credential.Run // nil for this machine's systemd-creds
	// How says what it is sealed with.
	How func() (setting string, err error)
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
	sealed, err := atomicfile.ReadSmall(path, 2*maxKeyset)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoKey, err)
	}
	return credential.Unseal(ctx, s.run(), machine.CredMasterKey, sealed)
}

// Seal encrypts plain into the file at path, when what is to be written has been
// opened.
func (s SystemdStore) Seal(ctx context.Context, path string, plain []byte) error {
	setting, err := s.How()
	if err != nil {
		return err
	}
	way, err := credential.Choose(ctx, s.run(), setting)
	if err != nil {
		return err
	}
	sealed, err := credential.Seal(ctx, s.run(), way, machine.CredMasterKey, plain)
	if err != nil {
		return err
	}
	return atomicfile.Write(path, sealed, 0o600)
}

func (s SystemdStore) run() credential.Run {
	if s.Run != nil {
		return s.Run
	}
	return credential.System
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
