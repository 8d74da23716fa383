package signing

import (
	"cmp"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"strongroom.example/appliance/base/atomicfile"
)

// keyringFormat is the version of a keyring's layout. A reader refuses a newer one.
const keyringFormat = 1

var (
	// ErrNoKey means that the keyring does not know who has signed.
	ErrNoKey = errors.New("nobody knows the key")
	// ErrNotInUse means that a key has signed what was made when it signed nothing: it was
	// not there yet, or retired.
	ErrNotInUse = errors.New("its key was not in use then")
)

// Keyring is the public keys of jobs, of this machine and of those before it. It is
// believed where it was put by hand or by the installer, and never from where backups go.
type Keyring struct {
	Format int   `json:"format"`
	Keys   []Key `json:"keys"`
}

// Key is one of them.
type Key struct {
	Role string    `json:"role"` // the job's: "snapshot"
	Node string    `json:"node"` // whose machine's
	Key  string    `json:"key"`  // as EncodePublic gives it
	From time.Time `json:"from"`
	// Until is when it was retired: from then on it signs nothing, and still verifies.
	Until *time.Time `json:"until,omitempty"`
}

// ParseKeyring reads keyring.json. Unknown names are accepted.
func ParseKeyring(data []byte) (*Keyring, error) {
	var r Keyring
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	if r.Format != keyringFormat {
		return nil, fmt.Errorf("keyring: format %d, this program reads %d", r.Format, keyringFormat)
	}
	for i, k := range r.Keys {
		if _, err := ParsePublic([]byte(k.Key)); err != nil || k.Role == "" {
			return nil, fmt.Errorf("keyring: keys[%d]: want a role and a public key", i)
		}
	}
	return &r, nil
}

// LoadKeyring reads a keyring's file; nil where it is not there.
func LoadKeyring(file string) (*Keyring, error) {
	data, err := atomicfile.ReadSmall(file, atomicfile.MaxSmall)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	r, err := ParseKeyring(data)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", file, err)
	}
	return r, nil
}

// Encode gives the file, which is the same whoever has put the keys together.
func (r *Keyring) Encode() ([]byte, error) {
	r.Format = keyringFormat
	slices.SortStableFunc(r.Keys, func(a, b Key) int {
		return cmp.Or(a.From.Compare(b.From), cmp.Compare(a.Role, b.Role), cmp.Compare(a.Node, b.Node), cmp.Compare(a.Key, b.Key))
	})
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode keyring: %w", err)
	}
	return append(data, '\n'), nil
}

// Verify checks an envelope by the keys of a role, and gives the one that has signed it.
// When that may have been is InUse's to say.
func (r *Keyring) Verify(e *Envelope, role string) (Key, error) {
	if e.signature == nil {
		return Key{}, fmt.Errorf("%s: %w", e.kind.Name, ErrNotSigned)
	}
	others := ""
	for _, k := range slices.Backward(r.Keys) {
		public, err := ParsePublic([]byte(k.Key))
		switch {
		case err != nil || Fingerprint(public) != e.signature.Key:
		case k.Role == role:
			return k, e.Verify(public)
		default:
			others = k.Role
		}
	}
	if others != "" {
		return Key{}, fmt.Errorf("%s: %w: key %q is of the role %s, and it is %s that signs this", e.kind.Name, ErrSignature, e.signature.Key, others, role)
	}
	return Key{}, fmt.Errorf("%s: %w: %w: no key %q is in the keyring", e.kind.Name, ErrSignature, ErrNoKey, e.signature.Key)
}

// InUse holds when something says that it was made against when the key that has signed
// it was in use: ErrNotInUse. That date is the signer's own word. So whoever has stolen a
// retired key gives any, and only who goes on with one, or whose clock is wrong, is seen.
func (r *Keyring) InUse(key Key, made time.Time) error {
	last := "" // of several times
	for _, k := range r.Keys {
		switch {
		case k.Role != key.Role || k.Key != key.Key:
		case made.Before(k.From):
			last = "is in use from " + k.From.UTC().Format(time.RFC3339) + " on"
		case k.Until != nil && made.After(*k.Until):
			last = "was retired at " + k.Until.UTC().Format(time.RFC3339)
		default:
			return nil
		}
	}
	return fmt.Errorf("%w: it says that it was made at %s, and the key %s", ErrNotInUse, made.UTC().Format(time.RFC3339), last)
}

// Use has the keyring hold a key of a role and node that signs from now on, and retires
// that role's and node's others. It says whether anything was changed.
func (r *Keyring) Use(role, node string, public ed25519.PublicKey, now time.Time) bool {
	line := strings.TrimSpace(string(EncodePublic(public)))
	changed, there := false, false
	for i := range r.Keys {
		k := &r.Keys[i]
		switch {
		case k.Role != role || k.Node != node:
		case k.Key == line && k.Until == nil:
			there = true
		case k.Until == nil:
			k.Until, changed = &now, true
		}
	}
	if there {
		return changed
	}
	r.Keys = append(r.Keys, Key{Role: role, Node: node, Key: line, From: now})
	return true
}

// Add takes over the keys of another keyring, which sign nothing here.
func (r *Keyring) Add(other *Keyring, now time.Time) bool {
	changed := false
	for _, k := range other.Keys {
		if slices.ContainsFunc(r.Keys, func(own Key) bool { return own.Role == k.Role && own.Key == k.Key }) {
			continue
		}
		if k.Until == nil {
			k.Until = &now
		}
		r.Keys, changed = append(r.Keys, k), true
	}
	return changed
}

// Merge takes in what a keyring knows that several nodes share. Node's own keys are its own
// word; of another's it is believed that it is retired, whoever says so. A key of node's
// that only the others know is one that it has lost, and signs no more.
func (r *Keyring) Merge(shared *Keyring, node string, now time.Time) {
	for _, k := range shared.Keys {
		i := slices.IndexFunc(r.Keys, func(own Key) bool {
			return own.Role == k.Role && own.Key == k.Key && own.From.Equal(k.From)
		})
		switch {
		case i < 0 && k.Node == node && k.Until == nil:
			k.Until = &now
			fallthrough
		case i < 0:
			r.Keys = append(r.Keys, k)
		case k.Node != node && r.Keys[i].Until == nil:
			r.Keys[i].Until = k.Until
		}
	}
}

// Signs says whether a key may sign for a role: the keyring holds it, and it is not
// retired.
func (r *Keyring) Signs(role string, public ed25519.PublicKey) error {
	line := strings.TrimSpace(string(EncodePublic(public)))
	if slices.ContainsFunc(r.Keys, func(k Key) bool { return k.Role == role && k.Key == line && k.Until == nil }) {
		return nil
	}
	return fmt.Errorf("the keyring has no key %s of the role %s that is not retired", Fingerprint(public), role)
}
