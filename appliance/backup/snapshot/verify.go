package snapshot

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"filippo.io/age"
)

// VerifyOptions is what Verify needs. It never writes a snapshot; it writes the
// proof beside one and its own state file.
type VerifyOptions struct {
	Destination Destination
	Identities  []age.Identity
	// ClusterID is the cluster whose snapshots are looked at.
	ClusterID string
	// ID picks one snapshot; the newest complete one when zero.
	ID ID
	// StateDir holds the job's lock and its state file. It must exist.
	StateDir string
	// TakeStateDir, where not empty, is where Take keeps its state. A snapshot
	// recorded there must be the very one that was stored.
	TakeStateDir string
	ToolVersion  string

	Now func() time.Time // time.Now when nil
}

// Verify downloads a snapshot, decrypts it, checks the archive's own sums and
// compares everything with the manifest. Then it stores the proof beside the
// snapshot and records it as good.
//
// Nothing is recorded when anything fails, and the last good record stays.
func Verify(ctx context.Context, o VerifyOptions) (VerifiedRecord, error) {
	switch {
	case o.Destination == nil:
		return VerifiedRecord{}, errors.New("verify snapshot: no destination")
	case len(o.Identities) == 0:
		return VerifiedRecord{}, errors.New("verify snapshot: no identity")
	case o.StateDir == "":
		return VerifiedRecord{}, errors.New("verify snapshot: no state folder")
	case o.ClusterID == "":
		return VerifiedRecord{}, errors.New("verify snapshot: no cluster id")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	unlock, err := lock(o.StateDir, "verify")
	if err != nil {
		return VerifiedRecord{}, err
	}
	defer unlock()

	rec, err := o.verify(ctx)
	if err != nil {
		err = fmt.Errorf("verify snapshot: %w", err)
	}
	return rec, errors.Join(err, o.record(rec, err))
}

func (o *VerifyOptions) verify(ctx context.Context) (VerifiedRecord, error) {
	id := o.ID
	if id == (ID{}) {
		var err error
		if id, err = newest(ctx, o.Destination, o.ClusterID); err != nil {
			return VerifiedRecord{}, err
		}
	}
	if id.Cluster != o.ClusterID {
		return VerifiedRecord{}, fmt.Errorf("%w: %s is not of cluster %q", ErrWrongCluster, id, o.ClusterID)
	}
	m, text, err := ReadManifest(ctx, o.Destination, id)
	if err != nil {
		return VerifiedRecord{}, incomplete(ctx, o.Destination, id, err)
	}
	if err := o.compareWithTaken(m, text); err != nil {
		return VerifiedRecord{}, err
	}
	if err := checkStored(ctx, o.Destination, m, o.Identities); err != nil {
		return VerifiedRecord{}, fmt.Errorf("%s: %s: %w", o.Destination.Name(), id, err)
	}

	rec := VerifiedRecord{
		ID: m.ID, TakenAt: m.TakenAt, VerifiedAt: o.Now().UTC(),
		ManifestSHA256: sha256Hex(text), RaftIndex: m.RaftIndex,
		Size: m.Snapshot.Size, ToolVersion: o.ToolVersion,
	}
	if err := putProof(ctx, o.Destination, id, rec); err != nil {
		return VerifiedRecord{}, err
	}
	return rec, nil
}

// incomplete says so when a snapshot is there and its manifest is not.
func incomplete(ctx context.Context, d Destination, id ID, err error) error {
	if !errors.Is(err, ErrNotFound) {
		return err
	}
	if _, serr := d.Stat(ctx, id.object(suffixSnap)); serr == nil {
		return fmt.Errorf("%s: %s: %w: it has no manifest", d.Name(), id, ErrIncomplete)
	}
	return fmt.Errorf("%s: %s: %w: %w", d.Name(), id, ErrNoSnapshot, err)
}

// compareWithTaken refuses a snapshot that somebody put in the place of the one
// this machine stored: anybody who knows the public keys can make a sound one.
func (o *VerifyOptions) compareWithTaken(m Manifest, text []byte) error {
	if o.TakeStateDir == "" {
		return nil
	}
	s, err := LoadTakeState(o.TakeStateDir)
	if err != nil {
		return err
	}
	last, ok := s.Last[o.Destination.Name()]
	if !ok || last.ID != m.ID {
		return nil // taken by another machine, or not the last one
	}
	if got := sha256Hex(text); got != last.ManifestSHA256 {
		return fmt.Errorf("%s: %s: %w: its manifest has the sum %s, the one stored had %s",
			o.Destination.Name(), m.ID, ErrMismatch, got, last.ManifestSHA256)
	}
	return nil
}

// checkStored reads everything that a manifest names.
func checkStored(ctx context.Context, d Destination, m Manifest, ids []age.Identity) error {
	var archive Archive
	err := Open(ctx, d, m.Snapshot, ids, func(r io.Reader) (err error) {
		archive, err = CheckArchive(r)
		return err
	})
	if err != nil {
		return err
	}
	if archive.Index != m.RaftIndex || archive.Term != m.RaftTerm ||
		archive.StateSize != m.StateSize || archive.Sealed != m.SealedSums {
		return fmt.Errorf("%w: the archive has raft index %d, term %d, %d bytes of state; the manifest says %d, %d, %d",
			ErrMismatch, archive.Index, archive.Term, archive.StateSize, m.RaftIndex, m.RaftTerm, m.StateSize)
	}
	if m.Files != nil {
		return Open(ctx, d, *m.Files, ids, checkFiles)
	}
	return nil
}

// Getter is the part of a Destination that Open needs.
type Getter interface {
	// Get opens an object to be read; who reads it closes it.
	Get(ctx context.Context, name string) (io.ReadCloser, error)
}

// Open downloads and decrypts one object and gives its content to read, which
// must read to the end. It returns nil only when the ciphertext and the content
// are to the byte what obj says. What read sees before that is not yet proven:
// it must not act on it before Open returns.
func Open(ctx context.Context, d Getter, obj Object, ids []age.Identity, read func(io.Reader) error) error {
	rc, err := d.Get(ctx, obj.Name)
	if err != nil {
		return err
	}
	defer rc.Close()
	src := &sourceReader{r: rc}
	cipher := &counter{w: io.Discard, h: sha256.New()}
	// One byte more than the manifest says is enough to tell that it lies.
	stored := io.TeeReader(io.LimitReader(src, obj.Size+1), cipher)

	err = decrypt(stored, obj, ids, read)
	// Sums first: they tell damage in the store from a bad snapshot.
	if _, cerr := io.Copy(io.Discard, stored); cerr != nil && src.err == nil {
		return cerr
	}
	switch {
	case src.err != nil:
		return fmt.Errorf("read %q: %w", obj.Name, src.err)
	case cipher.n < obj.Size:
		return fmt.Errorf("%q: %w: %d bytes, the manifest says %d", obj.Name, ErrTruncated, cipher.n, obj.Size)
	case cipher.n > obj.Size:
		return fmt.Errorf("%q: %w: more than the %d bytes that the manifest says", obj.Name, ErrTrailing, obj.Size)
	case cipher.sum() != obj.SHA256:
		return fmt.Errorf("%q: %w: sum %s, the manifest says %s", obj.Name, ErrCorrupt, cipher.sum(), obj.SHA256)
	}
	if err != nil {
		return fmt.Errorf("%q: %w", obj.Name, err)
	}
	return nil
}

func decrypt(stored io.Reader, obj Object, ids []age.Identity, read func(io.Reader) error) error {
	dec, err := age.Decrypt(stored, ids...)
	if err != nil {
		var none *age.NoIdentityMatchError
		if errors.As(err, &none) {
			return fmt.Errorf("%w: it is encrypted to other recipients", ErrWrongIdentity)
		}
		if errors.Is(err, ErrPassphrase) {
			return err
		}
		return fmt.Errorf("%w: decrypt: %w", ErrCorrupt, err)
	}
	plain := &counter{w: io.Discard, h: sha256.New()}
	content := &sourceReader{r: io.TeeReader(dec, plain)}
	if err := read(content); err != nil {
		if content.err != nil {
			return fmt.Errorf("%w: decrypt: %w", ErrCorrupt, content.err)
		}
		return err
	}
	// age proves the last chunk only at its end.
	if _, err := io.Copy(io.Discard, content); err != nil {
		return fmt.Errorf("%w: decrypt: %w", ErrCorrupt, err)
	}
	if plain.n != obj.PlainSize || plain.sum() != obj.PlainSHA256 {
		return fmt.Errorf("%w: content of %d bytes, sum %s; the manifest says %d, %s",
			ErrMismatch, plain.n, plain.sum(), obj.PlainSize, obj.PlainSHA256)
	}
	return nil
}

// putProof stores the proof of a verification. One that is there already for
// the same manifest stays.
func putProof(ctx context.Context, d Destination, id ID, rec VerifiedRecord) error {
	b, err := json.MarshalIndent(rec, "", "  ")
	if err != nil {
		return fmt.Errorf("encode proof: %w", err)
	}
	switch old, err := ReadProof(ctx, d, id); {
	case err == nil && old.ManifestSHA256 == rec.ManifestSHA256:
		return nil
	case err == nil || errors.Is(err, ErrCorrupt):
		if err := d.Delete(ctx, id.object(suffixProof)); err != nil {
			return err
		}
	case !errors.Is(err, ErrNotFound):
		return err
	}
	_, err = d.Put(ctx, id.object(suffixProof), bytes.NewReader(append(b, '\n')))
	return err
}

// ReadProof gets the proof beside a snapshot; ErrNotFound when it was never
// verified. The proof is only worth anything for the manifest whose sum it
// holds.
func ReadProof(ctx context.Context, d Destination, id ID) (VerifiedRecord, error) {
	b, err := readSmall(ctx, d, id.object(suffixProof))
	if err != nil {
		return VerifiedRecord{}, err
	}
	var rec VerifiedRecord
	if err := json.Unmarshal(b, &rec); err != nil {
		return VerifiedRecord{}, fmt.Errorf("%s: %s: proof: %w: %w", d.Name(), id, ErrCorrupt, err)
	}
	if rec.ID != id.String() || !isSHA256(rec.ManifestSHA256) {
		return VerifiedRecord{}, fmt.Errorf("%s: %s: proof: %w: it is of %q", d.Name(), id, ErrCorrupt, rec.ID)
	}
	return rec, nil
}

// record writes the state file. rec is zero when the run failed.
func (o *VerifyOptions) record(rec VerifiedRecord, failure error) error {
	s, err := LoadVerifyState(o.StateDir)
	if err != nil {
		err = fmt.Errorf("state was reset: %w", err)
		s = VerifyState{Format: stateFormat}
	}
	s.Failure = nil
	if failure != nil {
		s.Failure = &Failure{At: o.Now().UTC(), Error: failure.Error()}
	} else {
		if s.LastGood == nil {
			s.LastGood = map[string]VerifiedRecord{}
		}
		// Verifying an old snapshot again does not make it the newest.
		if old, ok := s.LastGood[o.Destination.Name()]; !ok || !rec.TakenAt.Before(old.TakenAt) {
			s.LastGood[o.Destination.Name()] = rec
		}
	}
	return errors.Join(err, s.save(o.StateDir))
}

// newest finds the newest complete snapshot of a cluster.
func newest(ctx context.Context, d Destination, cluster string) (ID, error) {
	entries, err := List(ctx, d, cluster)
	if err != nil {
		return ID{}, err
	}
	for _, e := range slices.Backward(entries) {
		if e.Complete {
			return e.ID, nil
		}
	}
	return ID{}, fmt.Errorf("%s: %w of cluster %q", d.Name(), ErrNoSnapshot, cluster)
}
