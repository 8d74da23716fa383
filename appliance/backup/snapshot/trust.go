package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"strongroom.example/appliance/base/signing"
)

// RoleTaker is the role of the taking job's key in a keyring.
const RoleTaker = "snapshot"

// SignedManifest is what a manifest is to the envelope. It is RoleTaker that signs it.
var SignedManifest = signing.Kind{Name: "snapshot manifest", Member: "manifest", Max: maxManifest}

var (
	// ErrUntrusted means that no key of the keyring has signed a manifest: whoever can
	// write to the place may have made it. Nothing chooses such a snapshot.
	ErrUntrusted = errors.New("its manifest is signed by no key of the keyring")
	// ErrForged means that it should be signed: it is not older than the first one that
	// is.
	ErrForged = errors.New("it should be signed")
)

// Trust says whose manifests are believed. A nil one believes all, as nobody has said.
type Trust struct {
	// Keyring is the file of the keys that sign: where it is not there nobody's signature
	// is asked for. Ring is it, read; the file is passed over then.
	Keyring string
	Ring    *signing.Keyring
	// Must refuses all where the file is not there: somebody has named it.
	Must bool
	// TakeState and VerifyState are the folders of the jobs' states; may be empty. What is
	// there as this machine has stored or verified it last counts as signed: it may be
	// from before there were keys.
	TakeState, VerifyState string

	once sync.Once
	err  error
}

func (t *Trust) ring() (*signing.Keyring, error) {
	t.once.Do(func() {
		if t.Ring == nil && t.Keyring != "" {
			t.Ring, t.err = signing.LoadKeyring(t.Keyring)
		}
		if t.Ring == nil && t.Must && t.err == nil {
			t.err = fmt.Errorf("keyring %q: %w", t.Keyring, fs.ErrNotExist)
		}
	})
	return t.Ring, t.err
}

// Asked says whether signatures are asked for.
func (t *Trust) Asked() bool {
	if t == nil {
		return false
	}
	ring, err := t.ring()
	return ring != nil || err != nil
}

// judge says of a manifest whether a key has signed it, and why it is not believed.
func (t *Trust) judge(id ID, e *signing.Envelope, sum string) (signed bool, untrusted error) {
	if !t.Asked() {
		return false, nil
	}
	ring, err := t.ring()
	if err == nil {
		err = fmt.Errorf("%s: %w", SignedManifest.Name, signing.ErrNotSigned)
		if e != nil {
			_, err = ring.Verify(e, RoleTaker)
		}
	}
	if err == nil {
		return true, nil
	}
	if t.remembers(id, sum) {
		return false, nil
	}
	return false, fmt.Errorf("%w: %w", ErrUntrusted, err)
}

// remembers says whether this machine's state holds the sum of a manifest. A state that
// cannot be read holds nothing.
func (t *Trust) remembers(id ID, sum string) bool {
	if t.TakeState != "" {
		s, _ := LoadTakeState(t.TakeState)
		for _, r := range s.Last {
			if r.ID == id.String() && r.ManifestSHA256 == sum {
				return true
			}
		}
	}
	if t.VerifyState != "" {
		s, _ := LoadVerifyState(t.VerifyState)
		for _, r := range s.LastGood {
			if r.ID == id.String() && r.ManifestSHA256 == sum {
				return true
			}
		}
	}
	return false
}

// firstSigned is where this machine began to sign the snapshots of a cluster; nil where
// it knows of none.
func (t *Trust) firstSigned(cluster string) (*Position, error) {
	if t == nil || t.TakeState == "" {
		return nil, nil
	}
	s, err := LoadTakeState(t.TakeState)
	if r, ok := s.FirstSigned[cluster]; ok && err == nil {
		p := r.Position()
		return &p, nil
	}
	return nil, err
}

// trusting is a place that knows whom to believe.
type trusting interface{ Trust() *Trust }

func trustOf(d Destination) *Trust {
	if t, ok := d.(trusting); ok {
		return t.Trust()
	}
	return nil
}

// Untrusted is why a manifest that ReadManifest gave is not believed: ErrUntrusted. Nil
// where it is.
func (m Manifest) Untrusted() error { return m.untrusted }

// Sum is the SHA-256 of a manifest's file that was read, in hex.
func (m Manifest) Sum() string { return m.sum }

// Allow says whether a snapshot that somebody has named may be used: where it is not
// believed, byWord must say that they know. One that is not older than the first that is
// signed never may be.
func Allow(ctx context.Context, d Destination, m Manifest, byWord bool) error {
	if m.untrusted == nil {
		return nil
	}
	if !byWord {
		return fmt.Errorf("%s: %s: %w", d.Name(), m.ID, m.untrusted)
	}
	entries, err := InOrder(ctx, d, m.ClusterID)
	if err != nil {
		return err
	}
	first, err := trustOf(d).firstSigned(m.ClusterID)
	if err != nil {
		return fmt.Errorf("%s: %s: %w; from where on all are signed is not known: %w", d.Name(), m.ID, m.untrusted, err)
	}
	for _, e := range entries {
		if e.Signed && (first == nil || e.Position.Compare(*first) < 0) {
			first = &e.Position
		}
	}
	if p := m.Position(); first != nil && (p.Compare(*first) >= 0 || p.Rivals(*first)) {
		return fmt.Errorf("%s: %s: %w: it says %s, and from %s on all are: %w", d.Name(), m.ID, ErrForged, p, *first, m.untrusted)
	}
	return nil
}

// Untrusted is why the newest of some snapshots that nobody has signed is not chosen; nil
// where all are believed.
func Untrusted(listed []Placed) error {
	var found *Placed
	for i, p := range listed {
		if p.Untrusted != nil && p.Complete && (found == nil || compareEntries(p.Entry, found.Entry) > 0) {
			found = &listed[i]
		}
	}
	if found == nil {
		return nil
	}
	return fmt.Errorf("%s: %s (%s): %w", found.Place, found.ID, found.Position, found.Untrusted)
}
