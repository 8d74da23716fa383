package recover

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"filippo.io/age"

	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/base/access"
	"strongroom.example/appliance/base/atomicfile"
	"strongroom.example/appliance/base/signing"
	"strongroom.example/appliance/serve/escrow"
	"strongroom.example/appliance/serve/kms"
	"strongroom.example/config/machine"
)

// The names that the installer gives to escrow files.
const (
	masterKeyFile  = "master-key.age"
	adminFile      = "admin.age"
	localFile      = "local-admin.age"
	recoveryPrefix = "recovery-keys-"
)

var (
	// ErrNoMasterKey means that the escrow has no master key.
	ErrNoMasterKey = errors.New("no master key in the escrow")
	// ErrDamaged means that a file of the escrow is not whole.
	ErrDamaged = errors.New("it is damaged")
	// ErrNoWayIn means that with what is given nobody could log in to the
	// restored Vault.
	ErrNoWayIn = errors.New("neither recovery keys nor an administrator's password nor a token is given")
)

// Opened is the operator's copy of the escrow, opened.
type Opened struct {
	MasterKey *kms.Keyset
	Shares    []string // recovery keys
	// Admins are the first administrator's log-ins, the one that nobody outside can
	// lock first; may be empty.
	Admins []access.Person
	// Keyring is that of the lost machine; nil where it is not in the folder.
	Keyring *signing.Keyring
	// Files are all of the escrow, also those that did not open.
	Files []File
}

// File is one file of the escrow.
type File struct {
	Name   string // base name
	Sealed []byte
	Plain  []byte // nil: none of the identities opens it
	// Checks are the old machine's challenges for a file that did not open,
	// where they came along; new ones can't be made.
	Checks []byte
}

// String hides the secrets.
func (o *Opened) String() string { return fmt.Sprintf("escrow of %d files (hidden)", len(o.Files)) }

// GoString hides the secrets from %#v.
func (o *Opened) GoString() string { return o.String() }

// Unopened are the names of the files that belong to other people.
func (o *Opened) Unopened() []string {
	var out []string
	for _, f := range o.Files {
		if f.Plain == nil {
			out = append(out, f.Name)
		}
	}
	return out
}

// maxEscrowFile bounds an escrow file, in bytes.
const maxEscrowFile = 1 << 20

// OpenEscrow opens a folder with escrow files, or one file of a master key. key,
// where it is not empty, is the opened master key in place of a file.
func OpenEscrow(path string, ids []age.Identity, key []byte) (*Opened, error) {
	o := &Opened{}
	if len(key) > 0 {
		var err error
		if o.MasterKey, err = kms.ParseKeyset(key); err != nil {
			return nil, fmt.Errorf("master key: %w", err)
		}
	}
	if path != "" {
		if err := o.read(path, ids); err != nil {
			return nil, fmt.Errorf("escrow %q: %w", path, err)
		}
	}
	if o.MasterKey == nil {
		return nil, fmt.Errorf("escrow %q: %w", path, ErrNoMasterKey)
	}
	return o, nil
}

func (o *Opened) read(path string, ids []age.Identity) error {
	fi, err := os.Stat(path)
	if err != nil {
		return err
	}
	names := []string{filepath.Base(path)}
	dir := filepath.Dir(path)
	if fi.IsDir() {
		dir = path
		if names, err = escrowNames(path); err != nil {
			return err
		}
		if o.Keyring, err = signing.LoadKeyring(filepath.Join(dir, filepath.Base(machine.KeyringEscrow))); err != nil {
			return err
		}
		if len(names) == 0 {
			return fmt.Errorf("no file of an escrow is in it (%s, …): %w", masterKeyFile, fs.ErrNotExist)
		}
	}
	for _, name := range names {
		if err := o.add(dir, name, !fi.IsDir(), ids); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func escrowNames(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if n := e.Name(); n == masterKeyFile || n == adminFile || n == localFile || strings.HasPrefix(n, recoveryPrefix) && strings.HasSuffix(n, ".age") {
			out = append(out, n)
		}
	}
	return out, nil
}

// add opens one file. only says that it was named by itself, and so must hold
// the master key whatever it is called.
func (o *Opened) add(dir, name string, only bool, ids []age.Identity) error {
	path := filepath.Join(dir, name)
	sealed, err := atomicfile.ReadSmall(path, maxEscrowFile)
	if err != nil {
		return err
	}
	if only {
		name = masterKeyFile
	}
	f := File{Name: name, Sealed: sealed}
	f.Plain, err = escrow.Open(sealed, ids...)
	if errors.Is(err, escrow.ErrWrongIdentity) && (name != masterKeyFile || o.MasterKey != nil) {
		// Another person's; recovery keys are spread over several, and a master
		// key that is given opened has been opened where its identity is.
		if b, err := atomicfile.ReadSmall(filepath.Join(dir, escrow.ChecksName(name, sealed)), maxEscrowFile); err == nil {
			f.Checks = b
		}
		o.Files = append(o.Files, f)
		return nil
	}
	if errors.Is(err, escrow.ErrWrongIdentity) || errors.Is(err, snapshot.ErrPassphrase) {
		return err
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	o.Files = append(o.Files, f)
	return o.take(f)
}

func (o *Opened) take(f File) error {
	switch {
	case f.Name == masterKeyFile:
		k, err := kms.ParseKeyset(f.Plain)
		if err != nil {
			return err
		}
		if o.MasterKey != nil && o.MasterKey.Fingerprint() != k.Fingerprint() {
			return fmt.Errorf("it is another master key (%s) than the one given (%s)", k.Fingerprint(), o.MasterKey.Fingerprint())
		}
		o.MasterKey = k
	case f.Name == adminFile, f.Name == localFile:
		p, err := access.ParsePerson(f.Plain)
		if err != nil {
			return err
		}
		if f.Name == localFile {
			o.Admins = slices.Insert(o.Admins, 0, p)
		} else {
			o.Admins = append(o.Admins, p)
		}
	default:
		for line := range strings.Lines(string(f.Plain)) {
			if share := strings.TrimSpace(line); share != "" && !slices.Contains(o.Shares, share) {
				o.Shares = append(o.Shares, share)
			}
		}
	}
	return nil
}
