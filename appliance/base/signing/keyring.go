package signing

import (
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

// Encode gives the file.
func (r *Keyring) Encode() ([]byte, error) {
	r.Format = keyringFormat
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode keyring: %w", err)
	}
	return append(data, '\n'), nil
}

// Verify checks an envelope by the keys of a role, and gives the one that has signed it.
func (r *Keyring) Verify(e *Envelope, role string) (Key, error) {
	if e.signature == nil {
		return Key{}, fmt.Errorf("%s: %w", e.kind.Name, ErrNotSigned)
	}
	for _, k := range r.Keys {
		public, err := ParsePublic([]byte(k.Key))
		if err == nil && k.Role == role && Fingerprint(public) == e.signature.Key {
			return k, e.Verify(public)
		}
	}
	return Key{}, fmt.Errorf("%s: %w: the keyring has no key %q of the role %s", e.kind.Name, ErrSignature, e.signature.Key, role)
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

// Signs says whether a key may sign for a role: the keyring holds it, and it is not
// retired.
func (r *Keyring) Signs(role string, public ed25519.PublicKey) error {
	line := strings.TrimSpace(string(EncodePublic(public)))
	if slices.ContainsFunc(r.Keys, func(k Key) bool { return k.Role == role && k.Key == line && k.Until == nil }) {
		return nil
	}
	return fmt.Errorf("the keyring has no key %s of the role %s that is not retired", Fingerprint(public), role)
}
