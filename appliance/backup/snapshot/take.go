package snapshot

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"time"

	"filippo.io/age"

	"strongroom.example/config/recipient"
)

// DefaultStall is how long a destination may take no byte before it is given
// up.
const DefaultStall = 2 * time.Minute

// TakeOptions is what Take needs. It holds public keys only.
type TakeOptions struct {
	Source       Source
	Vault        VaultInfo
	Recipients   []recipient.Recipient
	Destinations []Destination
	// Files gives a tar archive to keep beside the snapshot, encrypted the
	// same way: the certificate storage and the appliance's configuration. May
	// be nil.
	Files func(ctx context.Context, w io.Writer) error
	// Canary is what WriteCanary wrote just before; nil without one.
	Canary *Canary
	// CanaryFailure is why there is none although there should be. It doesn't
	// keep a snapshot from being taken, and is recorded.
	CanaryFailure error
	// StateDir holds the job's lock and its state file. It must exist.
	StateDir    string
	ToolVersion string

	Stall time.Duration    // DefaultStall when zero
	Now   func() time.Time // time.Now when nil
	Rand  io.Reader        // crypto/rand when nil; makes the name unique, keeps no secret
}

// Taken is a finished snapshot.
type Taken struct {
	Manifest Manifest
	// Held lists the names of the destinations that have all of it.
	Held []string
}

// Take takes one snapshot and stores it, encrypted, in every destination. It
// is not a backup yet: only Verify can say so.
//
// It is an error when one destination of several fails, but the others keep
// what they hold: Taken tells which. Whatever fails, no snapshot that was there
// before is touched.
func Take(ctx context.Context, o TakeOptions) (Taken, error) {
	if err := o.fill(); err != nil {
		return Taken{}, err
	}
	unlock, err := lock(o.StateDir, "take")
	if err != nil {
		return Taken{}, err
	}
	defer unlock()

	taken, err := o.take(ctx)
	// A name that was taken is somebody else's snapshot: nothing to tidy there.
	if err != nil && !errors.Is(err, ErrExists) {
		o.tidy(ctx, taken)
	}
	return taken, errors.Join(err, o.record(taken, err))
}

func (o *TakeOptions) fill() error {
	switch {
	case o.Source == nil:
		return errors.New("take snapshot: no source")
	case len(o.Recipients) == 0:
		return errors.New("take snapshot: no recipient: nobody could ever read it")
	case len(o.Destinations) == 0:
		return errors.New("take snapshot: no destination")
	case o.StateDir == "":
		return errors.New("take snapshot: no state folder")
	}
	names := map[string]bool{}
	for _, d := range o.Destinations {
		if names[d.Name()] {
			return fmt.Errorf("take snapshot: destination %q is given twice", d.Name())
		}
		names[d.Name()] = true
	}
	if o.Stall == 0 {
		o.Stall = DefaultStall
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	return nil
}

func (o *TakeOptions) take(ctx context.Context) (Taken, error) {
	at := o.Now().UTC()
	id, err := newID(o.Vault.ClusterID, at, o.Rand)
	if err != nil {
		return Taken{}, err
	}
	m := Manifest{
		Format: manifestFormat, ID: id.String(), TakenAt: at,
		ClusterID: o.Vault.ClusterID, ClusterName: o.Vault.ClusterName,
		VaultVersion: o.Vault.Version, ToolVersion: o.ToolVersion,
		Canary: o.Canary,
	}
	for _, r := range o.Recipients {
		m.Recipients = append(m.Recipients, r.Fingerprint)
	}

	// The state is read first: a file that belongs to it, such as a
	// certificate, may be newer than it, never older.
	var archive Archive
	held, failed, err := o.store(ctx, o.Destinations, id.object(suffixSnap), &m.Snapshot, func(w io.Writer) (err error) {
		archive, err = checked(w, func(w io.Writer) error { return o.Source.Snapshot(ctx, w) })
		return err
	})
	if err != nil {
		return Taken{Manifest: m}, fmt.Errorf("take snapshot %s: %w", id, err)
	}
	m.RaftIndex, m.RaftTerm = archive.Index, archive.Term
	m.StateSize, m.SealedSums = archive.StateSize, archive.Sealed

	if o.Files != nil {
		m.Files = new(Object)
		var ferr error
		held, ferr, err = o.store(ctx, held, id.object(suffixFiles), m.Files, func(w io.Writer) error { return o.Files(ctx, w) })
		failed = errors.Join(failed, ferr)
		if err != nil {
			return Taken{Manifest: m}, errors.Join(failed, fmt.Errorf("take snapshot %s: files: %w", id, err))
		}
	}

	text, err := m.encode()
	if err != nil {
		return Taken{Manifest: m}, err
	}
	// The commit point: with its manifest the snapshot exists.
	f := newFanout(ctx, held, id.object(suffixManifest), o.Stall)
	_, werr := f.Write(text)
	held, merr := f.commit()
	failed = errors.Join(failed, merr)
	t := Taken{Manifest: m}
	for _, d := range held {
		t.Held = append(t.Held, d.Name())
	}
	if len(held) == 0 && failed == nil {
		failed = werr
	}
	if failed != nil {
		return t, fmt.Errorf("take snapshot %s: %w", id, failed)
	}
	return t, nil
}

// tidy removes what a failed run left in the destinations that do not hold the
// whole snapshot. What it cannot remove, Prune does later.
func (o *TakeOptions) tidy(ctx context.Context, t Taken) {
	id, err := ParseID(t.Manifest.ID)
	if err != nil {
		return // it failed before it had a name
	}
	// The run may have failed because it was cancelled.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), o.Stall)
	defer cancel()
	for _, d := range o.Destinations {
		if slices.Contains(t.Held, d.Name()) {
			continue
		}
		// The manifest first, should it be there after all: never one that
		// points at nothing.
		for _, suffix := range []string{suffixManifest, suffixFiles, suffixSnap} {
			if err := d.Delete(ctx, id.object(suffix)); err != nil {
				break
			}
		}
	}
}

// store encrypts what produce writes into one object in each of dests and
// describes it in obj. It returns the destinations that hold it and the errors
// of those that do not; err is set when none does or the content is at fault.
func (o *TakeOptions) store(ctx context.Context, dests []Destination, name string, obj *Object, produce func(io.Writer) error) (held []Destination, failed, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f := newFanout(ctx, dests, name, o.Stall)
	cipher := &counter{w: f, h: sha256.New()}
	plain := &counter{h: sha256.New()}
	if err := encrypt(cipher, plain, o.Recipients, produce); err != nil {
		f.abort(err)
		return nil, nil, err
	}
	if err := ctx.Err(); err != nil {
		f.abort(err)
		return nil, nil, err
	}
	held, failed = f.commit()
	if len(held) == 0 {
		return nil, nil, fmt.Errorf("%w: %w", ErrNoDestination, failed)
	}
	*obj = Object{
		Name: name,
		Size: cipher.n, SHA256: cipher.sum(),
		PlainSize: plain.n, PlainSHA256: plain.sum(),
	}
	return held, failed, nil
}

func encrypt(cipher io.Writer, plain *counter, recipients []recipient.Recipient, produce func(io.Writer) error) error {
	enc, err := age.Encrypt(cipher, recipient.Age(recipients)...)
	if err != nil {
		return fmt.Errorf("encrypt: %w", err)
	}
	plain.w = enc
	if err := produce(plain); err != nil {
		return err
	}
	// Only Close writes the last chunk, without which nobody can decrypt.
	return enc.Close()
}

// checked passes what produce writes to w and checks on the way that it is a
// whole raft snapshot archive.
func checked(w io.Writer, produce func(io.Writer) error) (Archive, error) {
	pr, pw := io.Pipe()
	type result struct {
		a   Archive
		err error
	}
	done := make(chan result, 1)
	go func() {
		a, err := CheckArchive(pr)
		pr.CloseWithError(err) // a fault found early stops the download
		done <- result{a, err}
	}()
	perr := produce(io.MultiWriter(pw, w))
	pw.CloseWithError(perr) // io.EOF when nil
	res := <-done
	switch {
	case perr == nil:
		return res.a, res.err
	case archiveFault(res.err):
		return Archive{}, res.err
	default:
		return Archive{}, perr
	}
}

func archiveFault(err error) bool {
	return errors.Is(err, ErrCorrupt) || errors.Is(err, ErrTruncated) || errors.Is(err, ErrTrailing)
}

// record writes the state file.
func (o *TakeOptions) record(t Taken, failure error) error {
	s, err := LoadTakeState(o.StateDir)
	if err != nil {
		// A spoilt state file must not stop backups; it is said, and replaced
		// by what is known now.
		err = fmt.Errorf("state was reset: %w", err)
		s = TakeState{Format: stateFormat}
	}
	if s.Last == nil {
		s.Last = map[string]TakenRecord{}
	}
	if len(t.Held) > 0 {
		text, eerr := t.Manifest.encode()
		if eerr != nil {
			return errors.Join(err, eerr)
		}
		for _, name := range t.Held {
			s.Last[name] = TakenRecord{
				ID: t.Manifest.ID, TakenAt: t.Manifest.TakenAt,
				ManifestSHA256: sha256Hex(text), Size: t.Manifest.Snapshot.Size,
			}
		}
	}
	s.Failure, s.CanaryFailure = nil, nil
	s.Standby = nil
	if failure != nil {
		s.Failure = &Failure{At: o.Now().UTC(), Error: failure.Error()}
	}
	if o.CanaryFailure != nil {
		s.CanaryFailure = &Failure{At: o.Now().UTC(), Error: o.CanaryFailure.Error()}
	}
	return errors.Join(err, s.save(o.StateDir))
}

// counter counts and hashes what goes through it.
type counter struct {
	w io.Writer
	h hash.Hash
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.h.Write(p[:n])
	c.n += int64(n)
	return n, err
}

func (c *counter) sum() string { return hex.EncodeToString(c.h.Sum(nil)) }

func sha256Hex(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
