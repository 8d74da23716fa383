package snapshot

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"strongroom.example/appliance/base/signing"
	"strongroom.example/config"
)

// maxManifest bounds a manifest, in bytes.
const maxManifest = 64 << 10

// manifestFormat is the version of the manifest's layout. A reader refuses a
// newer one.
const manifestFormat = 1

// Manifest describes one snapshot. It lies beside it and holds no secret.
type Manifest struct {
	Format      int       `json:"format"`
	ID          string    `json:"id"` // CLUSTER/BASE
	TakenAt     time.Time `json:"taken_at"`
	ClusterID   string    `json:"cluster_id"`
	ClusterName string    `json:"cluster_name,omitempty"`
	// Product is whose server it was; empty for Vault. VaultVersion is the product's own.
	Product      config.Product `json:"product,omitempty"`
	VaultVersion string         `json:"vault_version"`
	ToolVersion  string         `json:"tool_version"`
	// Lineage is which of its cluster's it belongs to; nil for the oldest.
	Lineage *Lineage `json:"lineage,omitempty"`
	// ClockInDoubt is true where TakenAt is by a clock that was not to be believed.
	ClockInDoubt bool     `json:"clock_in_doubt,omitempty"`
	RaftIndex    uint64   `json:"raft_index"`
	RaftTerm     uint64   `json:"raft_term"`
	StateSize    int64    `json:"state_size"`      // bytes of state.bin, uncompressed
	SealedSums   bool     `json:"sealed_sums"`     // the archive can be authenticated by Vault's seal
	Recipients   []string `json:"recipients"`      // fingerprints
	Snapshot     Object   `json:"snapshot"`        // the raft snapshot
	Files        *Object  `json:"files,omitempty"` // certificates and configuration
	// Canary is what was written just before; nil where the job may not.
	Canary *Canary `json:"canary,omitempty"`

	// What ReadManifest found out of its file: see Sum and Untrusted. signed is true where
	// a key of the keyring has signed it.
	sum       string
	signed    bool
	untrusted error
}

// Server is what it was taken of. Its version may be empty.
func (m Manifest) Server() config.Server {
	return config.Server{Product: m.Product.Known(), Version: m.VaultVersion}
}

// Object describes one encrypted object and what is inside it.
type Object struct {
	Name        string `json:"name"` // within the destination
	Size        int64  `json:"size"` // bytes of ciphertext
	SHA256      string `json:"sha256"`
	PlainSize   int64  `json:"plain_size"` // bytes of the age file's content
	PlainSHA256 string `json:"plain_sha256"`
}

// encode gives the manifest's file content, signed where there is a key.
func (m Manifest) encode(key ed25519.PrivateKey) ([]byte, error) {
	if key != nil {
		return SignedManifest.Encode(m, key)
	}
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	return append(b, '\n'), nil
}

// ParseManifest parses and validates a manifest, signed or not; it doesn't judge the
// signature. Unknown fields are accepted: a later version of the program may add some
// without changing the format.
func ParseManifest(b []byte) (Manifest, error) {
	m, _, err := parseManifest(b)
	return m, err
}

// parseManifest gives the envelope, too; nil where it is in none.
func parseManifest(b []byte) (m Manifest, e *signing.Envelope, err error) {
	defer func() {
		if err != nil {
			m, e, err = Manifest{}, nil, fmt.Errorf("manifest: %w: %w", ErrCorrupt, err)
		}
	}()
	var within struct{ Manifest json.RawMessage }
	if err := json.Unmarshal(b, &within); err != nil {
		return m, nil, err
	}
	text := b
	if within.Manifest != nil {
		if e, err = SignedManifest.Parse(b); err != nil {
			return m, nil, err
		}
		text = e.Content
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return m, nil, err
	}
	return m, e, m.validate()
}

func (m Manifest) validate() error {
	var errs []error
	bad := func(field string, v any) { errs = append(errs, fmt.Errorf("%s: bad value %q", field, fmt.Sprint(v))) }
	if m.Format != manifestFormat {
		return fmt.Errorf("format: %d, this program reads %d", m.Format, manifestFormat)
	}
	id, err := ParseID(m.ID)
	if err != nil {
		return fmt.Errorf("id: %w", err)
	}
	if m.ClusterID != id.Cluster {
		bad("cluster_id", m.ClusterID)
	}
	if !m.TakenAt.UTC().Truncate(time.Second).Equal(id.Time()) {
		bad("taken_at", m.TakenAt)
	}
	if m.RaftIndex == 0 {
		bad("raft_index", m.RaftIndex)
	}
	if m.RaftTerm == 0 {
		bad("raft_term", m.RaftTerm)
	}
	if l := m.Lineage; l != nil && (!clusterPattern.MatchString(l.ID) || l.Epoch < 0) {
		bad("lineage", *l)
	}
	if m.StateSize < 0 {
		bad("state_size", m.StateSize)
	}
	if len(m.Recipients) == 0 {
		bad("recipients", m.Recipients)
	}
	check := func(field, want string, o Object) {
		if o.Name != want {
			bad(field+".name", o.Name)
		}
		if o.Size <= 0 {
			bad(field+".size", o.Size)
		}
		if o.PlainSize <= 0 {
			bad(field+".plain_size", o.PlainSize)
		}
		if !isSHA256(o.SHA256) {
			bad(field+".sha256", o.SHA256)
		}
		if !isSHA256(o.PlainSHA256) {
			bad(field+".plain_sha256", o.PlainSHA256)
		}
	}
	check("snapshot", id.object(suffixSnap), m.Snapshot)
	if m.Files != nil {
		check("files", id.object(suffixFiles), *m.Files)
	}
	if m.Canary != nil && (m.Canary.Version < 1 || !isSHA256(m.Canary.SHA256)) {
		bad("canary", *m.Canary)
	}
	return errors.Join(errs...)
}

func isSHA256(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == 32
}

// ReadManifest gets the manifest of a snapshot, and its bytes as stored; whether it is
// believed, it says itself (Untrusted). ErrNotFound means that the snapshot is incomplete
// or not there.
func ReadManifest(ctx context.Context, d Destination, id ID) (Manifest, []byte, error) {
	b, err := readSmall(ctx, d, id.object(suffixManifest))
	if err != nil {
		return Manifest{}, nil, err
	}
	m, e, err := parseManifest(b)
	if err != nil {
		return Manifest{}, nil, fmt.Errorf("%s: %s: %w", d.Name(), id, err)
	}
	if m.ID != id.String() {
		return Manifest{}, nil, fmt.Errorf("%s: %s: %w: the manifest is of %q", d.Name(), id, ErrMismatch, m.ID)
	}
	m.sum = sha256Hex(b)
	m.signed, m.untrusted = trustOf(d).judge(id, e, m.sum)
	return m, b, nil
}

func readSmall(ctx context.Context, d Destination, name string) ([]byte, error) {
	rc, err := d.Get(ctx, name)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	b, err := io.ReadAll(io.LimitReader(rc, maxManifest+1))
	if err != nil {
		return nil, fmt.Errorf("%s: read %q: %w", d.Name(), name, err)
	}
	if len(b) > maxManifest {
		return nil, fmt.Errorf("%s: read %q: %w: more than %d bytes", d.Name(), name, ErrCorrupt, maxManifest)
	}
	return b, nil
}
