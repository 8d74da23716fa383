package kms

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"filippo.io/age"

	"strongroom.example/appliance/base/atomicfile"
	"strongroom.example/appliance/base/statefile"
	"strongroom.example/appliance/serve/escrow"
	"strongroom.example/config/machine"
)

// codeBytes of randomness are in a confirmation code: 60 bits of it are shown.
const codeBytes = 8

// Faults that a person must act on.
var (
	// ErrNotConfirmed says that the code is not the one in the new escrow.
	ErrNotConfirmed = errors.New("confirmation code is not the one in the new escrow")
	// ErrNoRotation says that there is none to confirm.
	ErrNoRotation = errors.New("no rotation is waiting for its confirmation")
	// ErrMissingVersion says that a new keyset lacks what the old one opens.
	ErrMissingVersion = errors.New("new keyset does not hold every version of the old one")
)

// Rotation gives the master key a new version in two steps with a person in
// between. Begin writes the new keyset into a new escrow and, sealed, beside
// the present one, and changes nothing else. Confirm wants the code that only
// somebody who has opened that escrow knows, and only then puts the new keyset
// in force. So there is never a key in use that only this machine can open.
type Rotation struct {
	Store      Store
	Credential string // path of the sealed master key
	Escrow     string // path of the age-encrypted one
	Rand       io.Reader
	Now        func() time.Time

	// Replaced in the crash tests.
	write  func(path string, data []byte, perm fs.FileMode) error
	rename func(from, to string) error
	remove func(path string) error
	record func(dir, file, by, key string, now time.Time) error
}

// EscrowFile is the escrow of the master key that path names: the file, or the one
// of machine.MasterKeyEscrow's name in a folder.
func EscrowFile(path string) (string, error) {
	fi, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return path, nil
	case err != nil:
		return "", err
	case fi.IsDir():
		return filepath.Join(path, filepath.Base(machine.MasterKeyEscrow)), nil
	}
	return path, nil
}

// Pending is a rotation that waits for its confirmation, as its file has it.
type Pending struct {
	Fingerprint string    `json:"fingerprint"` // of the new keyset
	Version     int       `json:"version"`     // the new one
	CodeSHA256  string    `json:"code_sha256"`
	Time        time.Time `json:"time"`
}

// NextEscrow is where Begin leaves the escrow to be carried away.
func (r *Rotation) NextEscrow() string     { return r.Escrow + escrow.NextSuffix }
func (r *Rotation) nextCredential() string { return r.Credential + machine.NextCredential }
func (r *Rotation) pendingFile() string    { return r.Escrow + ".pending" }

func (r *Rotation) defaults() {
	if r.write == nil {
		r.write = atomicfile.Write
	}
	if r.rename == nil {
		r.rename = durableRename
	}
	if r.remove == nil {
		r.remove = func(p string) error {
			if err := os.Remove(p); !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			return nil
		}
	}
	if r.record == nil {
		r.record = escrow.Record
	}
}

// Begin makes the new version. A rotation that was begun before and never
// confirmed is replaced: its key has encrypted nothing.
func (r *Rotation) Begin(ctx context.Context, to ...age.Recipient) (Pending, error) {
	r.defaults()
	old, err := r.open(ctx, r.Credential)
	if err != nil {
		return Pending{}, err
	}
	next, err := old.Rotate()
	if err != nil {
		return Pending{}, err
	}
	raw := make([]byte, codeBytes)
	if _, err := io.ReadFull(r.Rand, raw); err != nil {
		return Pending{}, fmt.Errorf("make confirmation code: %w", err)
	}
	code := base32.StdEncoding.EncodeToString(raw)[:12]
	code = code[:4] + "-" + code[4:8] + "-" + code[8:]
	p := Pending{Fingerprint: next.Fingerprint(), Version: next.Primary(), CodeSHA256: hashCode(code), Time: r.Now().UTC()}
	text, err := EscrowText(next, "Confirmation code of this rotation: "+code)
	if err != nil {
		return Pending{}, err
	}
	defer clear(text)
	sealed, err := escrow.Seal(text, to...)
	if err != nil {
		return Pending{}, err
	}
	// What describes a rotation comes last, so that whatever it describes is
	// there; the old description goes first, so that it never describes the
	// new files.
	if err := r.remove(r.pendingFile()); err != nil {
		return Pending{}, fmt.Errorf("begin rotation: %w", err)
	}
	// The questions of one that was never confirmed would be taken for the newest once
	// it is gone; those of this one, while it is there, are of none in force.
	if before, err := os.ReadFile(r.NextEscrow()); err == nil {
		if err := r.remove(filepath.Join(filepath.Dir(r.Escrow), escrow.ChecksName(filepath.Base(r.Escrow), before))); err != nil {
			return Pending{}, fmt.Errorf("begin rotation: %w", err)
		}
	}
	if err := r.write(r.NextEscrow(), sealed, 0o600); err != nil {
		return Pending{}, err
	}
	if err := r.writeChecks(sealed, text, p); err != nil {
		return Pending{}, err
	}
	plain, err := next.Marshal()
	if err != nil {
		return Pending{}, err
	}
	defer clear(plain)
	if err := r.Store.Seal(ctx, r.nextCredential(), plain); err != nil {
		return Pending{}, err
	}
	b, err := statefile.Encode(p)
	if err != nil {
		return Pending{}, fmt.Errorf("begin rotation: %w", err)
	}
	return p, r.write(r.pendingFile(), b, 0o600)
}

// writeChecks leaves the challenges of "strongroom escrow confirm" for the new
// escrow. Until that one is in force they say nothing.
func (r *Rotation) writeChecks(sealed, text []byte, p Pending) error {
	checks, err := escrow.NewChecks(filepath.Base(r.Escrow), sealed, text, p.Fingerprint, r.Rand, p.Time)
	if err != nil {
		return err
	}
	b, err := checks.Encode()
	if err != nil {
		return err
	}
	return r.write(filepath.Join(filepath.Dir(r.Escrow), checks.Name()), b, 0o600)
}

// Confirm puts the new keyset in force for the next start of the KMS. It may
// be called again after a failure, and ends the same.
func (r *Rotation) Confirm(ctx context.Context, code string) (Pending, error) {
	r.defaults()
	p, err := r.Pending()
	if err != nil {
		return Pending{}, err
	}
	if subtle.ConstantTimeCompare([]byte(hashCode(code)), []byte(p.CodeSHA256)) != 1 {
		return Pending{}, ErrNotConfirmed
	}
	old, err := r.open(ctx, r.Credential)
	if err != nil {
		return Pending{}, err
	}
	if old.Fingerprint() != p.Fingerprint { // else an earlier call came this far
		next, err := r.open(ctx, r.nextCredential())
		if err != nil {
			return Pending{}, err
		}
		if next.Fingerprint() != p.Fingerprint || next.Primary() != p.Version {
			return Pending{}, fmt.Errorf("%w: %q holds keyset %s, the confirmed one is %s", ErrDamaged, r.nextCredential(), next.Fingerprint(), p.Fingerprint)
		}
		if err := extends(next, old); err != nil {
			return Pending{}, err
		}
		// The escrow first: it holds every version of the old one, so it opens
		// everything whichever keyset is in force.
		if err := r.rename(r.NextEscrow(), r.Escrow); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return Pending{}, fmt.Errorf("put new escrow in place: %w", err)
		}
		// The commit point.
		if err := r.rename(r.nextCredential(), r.Credential); err != nil {
			return Pending{}, fmt.Errorf("put new master key in place: %w", err)
		}
	}
	// The code was in the new escrow and nowhere else, so that one has proved that
	// it opens. It is noted before the rotation is forgotten: a run that ended in
	// between is gone on with.
	if err := r.record(filepath.Dir(r.Escrow), filepath.Base(r.Escrow), escrow.ByRotation, p.Fingerprint, r.Now()); err != nil {
		return Pending{}, fmt.Errorf("the new master key is in force, and its escrow in place; note that it opens: %w", err)
	}
	return p, r.remove(r.pendingFile())
}

// Pending reads the rotation that waits, or gives ErrNoRotation.
func (r *Rotation) Pending() (Pending, error) {
	var p Pending
	err := statefile.Load(r.pendingFile(), 0, &p)
	if errors.Is(err, statefile.ErrNone) {
		return Pending{}, ErrNoRotation
	}
	if err != nil {
		return Pending{}, fmt.Errorf("pending rotation: %w", err)
	}
	return p, nil
}

func (r *Rotation) open(ctx context.Context, path string) (*Keyset, error) {
	plain, err := r.Store.Open(ctx, path)
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	k, err := ParseKeyset(plain)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", path, err)
	}
	return k, nil
}

// extends is nil if next holds every version of old, the same keys.
func extends(next, old *Keyset) error {
	for _, v := range old.Versions() {
		if !slices.Contains(next.Versions(), v) {
			return fmt.Errorf("%w: version %d is missing", ErrMissingVersion, v)
		}
		if next.marks[v] != old.marks[v] {
			return fmt.Errorf("%w: version %d is another key", ErrMissingVersion, v)
		}
	}
	return nil
}

// EscrowText is what an escrow of the master key says when it is opened: note,
// what to do with it, and the keyset. The caller wipes it.
func EscrowText(k *Keyset, note string) ([]byte, error) {
	plain, err := k.Marshal()
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	head := fmt.Sprintf("Master key of a Strongroom, versions %d to %d, fingerprint %s.\n"+
		"With a snapshot it opens everything. Keep it off the machine.\n", k.versions[0], k.Primary(), k.print)
	if note != "" {
		head += note + "\n"
	}
	text := make([]byte, 0, len(head)+1+len(plain))
	return append(append(append(text, head...), '\n'), plain...), nil
}

// hashCode takes a code as people type it.
func hashCode(code string) string {
	code = strings.ToUpper(strings.Map(func(r rune) rune {
		if r == '-' || r == ' ' || r == '\t' || r == '\n' || r == '\r' {
			return -1
		}
		return r
	}, code))
	sum := sha256.Sum256([]byte("strongroom rotation code " + code))
	return hex.EncodeToString(sum[:])
}

func durableRename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return atomicfile.SyncDir(filepath.Dir(to))
}
