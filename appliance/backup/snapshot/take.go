package snapshot

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"time"

	"filippo.io/age"

	"strongroom.example/appliance/base/signing"
	"strongroom.example/config/recipient"
)

// DefaultStall is how long nothing may move between this machine and a destination
// before it is given up.
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
	// Packed gives it where another job has encrypted it already, and says what
	// it has written; stall is how long nothing may come. It goes before Files.
	Packed func(ctx context.Context, w io.Writer, stall time.Duration) (Object, error)
	// Lineage is the storage's that Source reads; nil where nobody knows it.
	Lineage *Lineage
	// SigningKey signs the manifest; nil leaves it unsigned.
	SigningKey ed25519.PrivateKey
	// Canary is what WriteCanary wrote just before; nil without one.
	Canary *Canary
	// CanaryFailure is why there is none although there should be. It doesn't
	// keep a snapshot from being taken, and is recorded.
	CanaryFailure error
	// StateDir holds the job's lock and its state file. It must exist.
	// What is taken lies there, encrypted, while it is stored.
	StateDir    string
	ToolVersion string
	// AdoptPlaces stores to a folder although it is not the place that it was.
	AdoptPlaces bool
	// Chosen says that a person has named the places: what comes of it is those', and neither
	// makes the job a failed one nor mends its failure.
	Chosen bool
	// Began is when the job did, of whose tries this may be a later one; now when zero.
	Began time.Time

	Stall time.Duration    // DefaultStall when zero
	Now   func() time.Time // time.Now when nil
	// Doubt is why this machine's clock is not to be believed; ClockDoubt when nil, or
	// nobody where Now is given.
	Doubt func() error
	Rand  io.Reader // crypto/rand when nil; makes the name unique, keeps no secret

	leave func(dir *os.File) error // what is left free on this machine's disk; leaveRoom when nil
}

// Taken is a finished snapshot.
type Taken struct {
	Manifest Manifest
	// Held lists the names of the destinations that have all of it.
	Held []string

	failed  map[string]error // of the others, by name
	without error            // why the files are not beside it
}

// Take takes one snapshot and stores it, encrypted, in every destination. It
// is not a backup yet: only Verify can say so.
//
// Nothing is stored before all of it is on this machine, encrypted and checked. Then
// each destination gets it at its own pace: it is an error when one of several
// fails, but the others keep what they hold: Taken tells which. Whatever fails, no
// snapshot that was there before is touched.
func Take(ctx context.Context, o TakeOptions) (Taken, error) {
	if err := o.fill(); err != nil {
		return Taken{}, err
	}
	unlock, err := lock(o.StateDir, "take")
	if err != nil {
		return Taken{}, err
	}
	defer unlock()
	if o.Began.IsZero() {
		o.Began = o.Now()
	}

	taken, err := o.take(ctx)
	return taken, errors.Join(err, o.record(taken, taken.Held, err, func(s *TakeState) {
		if !o.Chosen && len(taken.Held)+len(taken.failed) > 0 { // else no place was asked
			s.Failures = settle(s.Failures, o.Now(), o.Destinations, taken.failed)
		}
	}))
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
	fillClock(&o.Now, &o.Doubt, o.StateDir)
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	if o.leave == nil {
		o.leave = leaveRoom
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
		Product: o.Vault.Product, VaultVersion: o.Vault.Version, ToolVersion: o.ToolVersion,
		Canary: o.Canary, Lineage: o.Lineage, ClockInDoubt: o.Doubt() != nil,
	}
	for _, r := range o.Recipients {
		m.Recipients = append(m.Recipients, r.Fingerprint)
	}

	// The state is read first: a file that belongs to it, such as a
	// certificate, may be newer than it, never older.
	var archive Archive
	snap, err := o.spool(ctx, id.object(suffixSnap), func(w io.Writer) (err error) {
		archive, err = checked(w, func(w io.Writer) error { return o.Source.Snapshot(ctx, w) })
		return err
	})
	if err != nil {
		return Taken{Manifest: m}, fmt.Errorf("take snapshot %s: %w", id, err)
	}
	defer snap.file.Close()
	m.Snapshot = snap.obj
	m.RaftIndex, m.RaftTerm = archive.Index, archive.Term
	m.StateSize, m.SealedSums = archive.StateSize, archive.Sealed
	objects := []*spooled{snap}

	t := Taken{Manifest: m}
	if o.Files != nil || o.Packed != nil {
		files, err := o.files(ctx, id.object(suffixFiles))
		switch {
		case err == nil:
			defer files.file.Close()
			m.Files = &files.obj
			objects = append(objects, files)
		case ctx.Err() != nil:
			return Taken{Manifest: m}, fmt.Errorf("take snapshot %s: files: %w", id, err)
		default:
			// Vault's state is worth more than what would lie beside it.
			t.without = fmt.Errorf("take snapshot %s: it is stored without the files of [backup]: %w", id, err)
		}
	}
	text, err := m.encode(o.SigningKey)
	if err != nil {
		return Taken{Manifest: m}, err
	}
	m.sum = sha256Hex(text)
	t.Manifest = m
	o.store(ctx, &t, id, objects, text)
	var failed []error
	for _, d := range o.Destinations {
		if err := t.failed[d.Name()]; err != nil {
			failed = append(failed, err)
		}
	}
	err = errors.Join(failed...)
	switch {
	case len(t.Held) == 0:
		err = fmt.Errorf("take snapshot %s: %w: %w", id, ErrNoDestination, err)
	case err != nil:
		err = fmt.Errorf("take snapshot %s: %w", id, err)
	}
	return t, errors.Join(err, t.without)
}

// spooled is one object of a snapshot, encrypted and whole, on this machine: each
// place gets it from there at its own pace.
type spooled struct {
	file *os.File // without a name: it is gone with this process
	obj  Object
}

// files are those of [backup], packed by another job or by this one.
func (o *TakeOptions) files(ctx context.Context, name string) (*spooled, error) {
	if o.Packed == nil {
		return o.spool(ctx, name, func(w io.Writer) error { return o.Files(ctx, w) })
	}
	return o.keep(ctx, func(w io.Writer) (Object, error) {
		obj, err := o.Packed(ctx, w, o.Stall)
		obj.Name = name
		return obj, err
	})
}

// spool encrypts what produce writes.
func (o *TakeOptions) spool(ctx context.Context, name string, produce func(io.Writer) error) (*spooled, error) {
	return o.keep(ctx, func(w io.Writer) (Object, error) {
		cipher := &counter{w: w, h: sha256.New()}
		plain := &counter{h: sha256.New()}
		if err := encrypt(cipher, plain, o.Recipients, produce); err != nil {
			return Object{}, err
		}
		return Object{
			Name: name,
			Size: cipher.n, SHA256: cipher.sum(),
			PlainSize: plain.n, PlainSHA256: plain.sum(),
		}, nil
	})
}

// keep holds on this machine, without a name, what produce writes, which is encrypted.
func (o *TakeOptions) keep(ctx context.Context, produce func(io.Writer) (Object, error)) (*spooled, error) {
	f, err := Nameless(o.StateDir)
	if err != nil {
		return nil, err
	}
	obj, err := produce(&spare{f: f, leave: o.leave})
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &spooled{f, obj}, nil
}

// store puts the objects into every place at once. None waits for another, and each
// is recorded as soon as it holds all of them.
func (o *TakeOptions) store(ctx context.Context, t *Taken, id ID, objects []*spooled, text []byte) {
	type result struct {
		d      Destination
		marker string
		err    error
	}
	// One that cannot be read knows of no place before, so that none is marked; record tells.
	known, unread := LoadTakeState(o.StateDir)
	results := make(chan result, len(o.Destinations))
	for _, d := range o.Destinations {
		go func() {
			marker := make(chan string, 1)
			err := watched(ctx, d, o.Stall, func(ctx context.Context, moved func(io.Reader) io.Reader) error {
				bears, err := o.recognise(ctx, d, known, unread != nil)
				if err != nil {
					return err
				}
				marker <- bears
				err = putAll(ctx, d, id, objects, text, moved)
				// A name that was taken is somebody else's snapshot: nothing to
				// tidy there.
				if err != nil && !errors.Is(err, ErrExists) {
					o.tidy(ctx, d, id)
				}
				return err
			})
			r := result{d: d, err: err}
			if err == nil {
				r.marker = <-marker
			}
			results <- r
		}()
	}
	held := map[string]bool{}
	t.failed = map[string]error{}
	for range o.Destinations {
		r := <-results
		err := r.err
		if err == nil {
			held[r.d.Name()] = true
			err = o.record(*t, []string{r.d.Name()}, nil, func(s *TakeState) { s.mark(r.d.Name(), r.marker) })
		}
		if err != nil {
			t.failed[r.d.Name()] = err
		}
	}
	for _, d := range o.Destinations {
		if held[d.Name()] {
			t.Held = append(t.Held, d.Name())
		}
	}
}

// putAll stores one snapshot in one place.
func putAll(ctx context.Context, d Destination, id ID, objects []*spooled, text []byte, moved func(io.Reader) io.Reader) error {
	for _, s := range objects {
		if _, err := d.Put(ctx, s.obj.Name, moved(io.NewSectionReader(s.file, 0, s.obj.Size))); err != nil {
			return err
		}
	}
	// The commit point: with its manifest the snapshot exists.
	_, err := d.Put(ctx, id.object(suffixManifest), moved(bytes.NewReader(text)))
	return err
}

// tidy removes what a failed run left in a place. What it cannot remove, Prune does
// later.
func (o *TakeOptions) tidy(ctx context.Context, d Destination, id ID) {
	// The run may have failed because it was cancelled.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), o.Stall)
	defer cancel()
	// The manifest first, should it be there after all: never one that points at
	// nothing.
	for _, suffix := range []string{suffixManifest, suffixFiles, suffixSnap} {
		if err := d.Delete(ctx, id.object(suffix)); err != nil {
			return
		}
	}
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
func (o *TakeOptions) record(t Taken, held []string, failure error, also ...func(*TakeState)) error {
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
	m := t.Manifest
	record := TakenRecord{
		ID: m.ID, TakenAt: m.TakenAt,
		ManifestSHA256: m.sum, Lineage: m.Lineage, RaftIndex: m.RaftIndex, Size: m.Snapshot.Size,
	}
	if o.SigningKey != nil {
		record.SignedBy = signing.Fingerprint(o.SigningKey.Public().(ed25519.PublicKey))
	}
	for _, name := range held {
		s.Last[name] = record
		if _, known := s.FirstSigned[m.ClusterID]; !known && o.SigningKey != nil {
			if s.FirstSigned == nil {
				s.FirstSigned = map[string]TakenRecord{}
			}
			s.FirstSigned[m.ClusterID] = record
		}
	}
	for _, set := range also {
		set(&s)
	}
	if o.Chosen {
		return errors.Join(err, s.save(o.StateDir))
	}
	s.Began = o.Began.UTC()
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
