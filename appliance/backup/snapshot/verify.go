package snapshot

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
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
	// ID picks one snapshot; the one that this machine stored last when zero, and
	// where it has stored none there, the newest complete one.
	ID ID
	// Chosen says that a person has named snapshot or places: what comes of it is those',
	// and neither makes the job a failed one nor mends its failure.
	Chosen bool
	// Unsigned verifies the one that ID names although nobody has signed it: see Allow.
	Unsigned bool
	// StateDir holds the job's lock and its state file. It must exist.
	StateDir string
	// TakeStateDir, where not empty, is where Take keeps its state. A snapshot
	// recorded there must be the very one that was stored.
	TakeStateDir string
	ToolVersion  string
	// PassOver leaves a place that cannot be asked out of the error where the taking job
	// has failed there, too, and told: one fault is one alert. It is recorded as ever.
	PassOver bool
	// Doubt is why this machine's clock is not to be believed; ClockDoubt when nil, or
	// nobody where Now is given.
	Doubt func() error
	// Beside is of a run that the taking job may have led to, perhaps while that still goes
	// on in other places. If it has, what was read back since it began is passed over; and
	// until every place is done, what is newly stored in one is read back, too.
	Beside bool
	// Then is what follows in each place that could be asked, whether its snapshot
	// was good or not; may be nil. good is what was read back, zero if nothing was.
	Then func(ctx context.Context, d Destination, cluster string, good ID) error

	Stall time.Duration    // how long nothing may move; DefaultStall when zero
	Now   func() time.Time // time.Now when nil
}

// Verify downloads a snapshot, decrypts it, checks the archive's own sums and
// compares everything with the manifest. Then it stores the proof beside the
// snapshot and records it as good.
//
// Nothing is recorded when anything fails, and the last good record stays; the proof of what
// is found damaged is withdrawn.
func Verify(ctx context.Context, o VerifyOptions) (VerifiedRecord, error) {
	switch {
	case o.Destination == nil:
		return VerifiedRecord{}, errors.New("verify snapshot: no destination")
	case o.ClusterID == "":
		return VerifiedRecord{}, errors.New("verify snapshot: no cluster id")
	}
	good, err := VerifyPlaces(ctx, []Destination{o.Destination}, o)
	return good[o.Destination.Name()], err
}

// VerifyPlaces is Verify in each place at once, none waiting for another, of the
// cluster that is meant there: that of o.ID, or o.ClusterID, or as ClusterIn finds
// it. It gives the records of the places that are good, by name, beside the errors of
// the others.
func VerifyPlaces(ctx context.Context, places []Destination, o VerifyOptions) (map[string]VerifiedRecord, error) {
	switch {
	case len(o.Identities) == 0:
		return nil, errors.New("verify snapshot: no identity")
	case o.StateDir == "":
		return nil, errors.New("verify snapshot: no state folder")
	}
	fillClock(&o.Now, &o.Doubt, o.TakeStateDir)
	unlock, err := lock(o.StateDir, "verify")
	if err != nil {
		return nil, err
	}
	defer unlock()
	known := verifyRecorder{o: &o, failed: map[string]error{}, good: map[string]VerifiedRecord{}}
	errs := o.eachBeside(ctx, places, &known)
	known.places = places
	told := o.told(len(places))
	for i, err := range errs {
		if err == nil {
			continue
		}
		name := places[i].Name()
		known.failure(name, err)
		if told[name] && CannotBeAsked(err) {
			errs[i] = nil
		}
	}
	err = errors.Join(errs...)
	if len(known.failed) == len(places) && err == nil && len(places) > 0 {
		err = fmt.Errorf("verify snapshot: no place can be asked, as the taking job has told")
	}
	doubt := o.Doubt()
	doubted, serr := known.save(err, doubt)
	if doubted > doubtedRuns {
		err = errors.Join(err, fmt.Errorf("%w: nothing is deleted until it is right", doubt))
	}
	return known.end(), errors.Join(err, serr)
}

// told are the places of which the taking job has told already, where PassOver is set.
func (o *VerifyOptions) told(places int) map[string]bool {
	out := make(map[string]bool, places)
	if !o.PassOver || o.TakeStateDir == "" {
		return out
	}
	s, err := LoadTakeState(o.TakeStateDir)
	if err != nil {
		return out
	}
	for name := range s.Failures {
		out[name] = true
	}
	return out
}

// verifyIn verifies in one place, and does what follows.
func (o VerifyOptions) verifyIn(ctx context.Context, d Destination, known *verifyRecorder) error {
	named := o.ClusterID
	if o.ID != (ID{}) && named == "" {
		named = o.ID.Cluster
	}
	var err error
	o.Destination = d
	if err := o.mounted(d); err != nil {
		return err
	}
	if o.ClusterID, err = ClusterIn(ctx, d, named, o.TakeStateDir); err != nil {
		return err
	}
	rec, err := o.verify(ctx)
	var good ID
	switch {
	case err == nil, errors.Is(err, ErrDeleted):
		var perr error
		if good, perr = ParseID(rec.ID); perr != nil {
			return perr
		}
		// Before anything follows: what is proven stays so.
		err = errors.Join(known.verified(d.Name(), rec), err)
	default:
		err = fmt.Errorf("verify snapshot: %w", err)
	}
	if o.Then != nil && ctx.Err() == nil && !CannotBeAsked(err) && !errors.Is(err, errProven) {
		err = errors.Join(err, o.Then(ctx, d, o.ClusterID, good))
	}
	return err
}

// mounted refuses a folder that is not the place which the taking job has stored to.
func (o *VerifyOptions) mounted(d Destination) error {
	if o.TakeStateDir == "" {
		return nil
	}
	s, err := LoadTakeState(o.TakeStateDir)
	if err != nil {
		return err
	}
	_, _, err = mounted(d, s.Markers[d.Name()])
	return err
}

// deleted is ErrDeleted where somebody has deleted a snapshot that is good all the same.
func deleted(ctx context.Context, d Destination, id ID) error {
	objects, err := d.List(ctx, id.String())
	for _, o := range objects {
		if o.Hidden {
			return fmt.Errorf("%s: %s: %w", d.Name(), id, ErrDeleted)
		}
	}
	return err
}

// CannotBeAsked says whether an error is of a place as a whole, not of what it holds.
func CannotBeAsked(err error) bool {
	for _, e := range []error{ErrPlace, ErrUnreachable, ErrStalled, ErrDenied, ErrSkew, ErrRegion} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func (o *VerifyOptions) verify(ctx context.Context) (VerifiedRecord, error) {
	id := o.ID
	if id == (ID{}) {
		var err error
		if id, err = o.due(ctx); err != nil {
			return VerifiedRecord{}, err
		}
	}
	if id.Cluster != o.ClusterID {
		return VerifiedRecord{}, fmt.Errorf("%w: %s is not of cluster %q", ErrWrongCluster, id, o.ClusterID)
	}
	m, _, err := ReadManifest(ctx, o.Destination, id)
	if err != nil {
		return VerifiedRecord{}, incomplete(ctx, o.Destination, id, err)
	}
	if err := o.compareWithTaken(m); err != nil {
		if errors.Is(err, ErrMismatch) {
			err = errors.Join(err, withdraw(ctx, o.Destination, id))
		}
		return VerifiedRecord{}, err
	}
	if err := Allow(ctx, o.Destination, m, o.ID != (ID{}) && o.Unsigned); err != nil {
		return VerifiedRecord{}, err
	}
	err = checkStored(ctx, o.Destination, m, o.Identities)
	if damaged(err) {
		// Twice: a connection may have been cut.
		if err = checkStored(ctx, o.Destination, m, o.Identities); damaged(err) {
			err = errors.Join(err, withdraw(ctx, o.Destination, id))
		}
	}
	if err != nil {
		return VerifiedRecord{}, fmt.Errorf("%s: %s: %w", o.Destination.Name(), id, err)
	}

	rec := VerifiedRecord{
		ID: m.ID, TakenAt: m.TakenAt, VerifiedAt: o.Now().UTC(),
		ManifestSHA256: m.sum, Lineage: m.Lineage, RaftIndex: m.RaftIndex, ClockInDoubt: m.ClockInDoubt,
		Size: m.Snapshot.Size, ToolVersion: o.ToolVersion,
	}
	stored, err := o.Destination.Stat(ctx, m.Snapshot.Name)
	if err != nil {
		return VerifiedRecord{}, err
	}
	rec.LockedUntil = stored.LockedUntil.UTC()
	gone := deleted(ctx, o.Destination, id)
	if gone != nil && !errors.Is(gone, ErrDeleted) {
		return VerifiedRecord{}, gone
	}
	if err := putProof(ctx, o.Destination, id, rec); err != nil {
		return VerifiedRecord{}, err
	}
	return rec, gone
}

// damaged says whether what a place holds is not what the manifest says.
func damaged(err error) bool {
	for _, e := range []error{ErrCorrupt, ErrTruncated, ErrTrailing, ErrMismatch} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// errProven means that what is damaged still counts as proven.
var errProven = errors.New("its proof could not be withdrawn, so nothing is pruned here")

// withdraw takes back the proof of what was found damaged: as long as it counts, prune
// deletes good ones for it, and restore tries it first.
func withdraw(ctx context.Context, d Destination, id ID) error {
	if _, err := ReadProof(ctx, d, id); errors.Is(err, ErrNotFound) {
		return nil
	}
	if err := d.Delete(ctx, id.object(suffixProof)); err != nil {
		return fmt.Errorf("%w: %w", errProven, err)
	}
	return nil
}

// due is the snapshot to be verified: what this machine stored last. A name with a
// later date, from when the clock was ahead, does not hide it, and where it is gone
// somebody has deleted it. A standby's last one is from when it led.
func (o *VerifyOptions) due(ctx context.Context) (ID, error) {
	if o.TakeStateDir != "" {
		s, err := LoadTakeState(o.TakeStateDir)
		if err != nil {
			return ID{}, err
		}
		last, err := ParseID(s.Last[o.Destination.Name()].ID)
		if err == nil && s.Standby == nil && last.Cluster == o.ClusterID {
			return last, notRetired(ctx, o.Destination, last)
		}
	}
	return newest(ctx, o.Destination, o.ClusterID)
}

// notRetired is ErrRetired for one that nothing would choose.
func notRetired(ctx context.Context, d Destination, id ID) error {
	switch _, err := d.Stat(ctx, id.object(suffixRetired)); {
	case err == nil:
		return fmt.Errorf("%s: %s: %w", d.Name(), id, ErrRetired)
	case errors.Is(err, ErrNotFound):
		return nil
	default:
		return err
	}
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
func (o *VerifyOptions) compareWithTaken(m Manifest) error {
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
	if got := m.sum; got != last.ManifestSHA256 {
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

// verifyRecorder is what becomes known of the places, each when it does. What is left
// behind, stuck, changes nothing any more.
type verifyRecorder struct {
	o      *VerifyOptions
	places []Destination

	mu     sync.Mutex
	good   map[string]VerifiedRecord
	failed map[string]error
	looked bool // at a place at least
	over   bool
}

func (r *verifyRecorder) verified(place string, rec VerifiedRecord) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over {
		return nil
	}
	r.good[place] = rec
	return r.write(nil)
}

// look notes that a place was read, or was to be.
func (r *verifyRecorder) look() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.looked = true
}

func (r *verifyRecorder) failure(place string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed[place] = err
}

func (r *verifyRecorder) end() map[string]VerifiedRecord {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.over = true
	return r.good
}

// doubtedRuns is how many runs in a row may find the clock in doubt before that is a
// failure: after a start it is set within minutes. Runs are counted, as no time can be.
const doubtedRuns = 3

// save notes how the run ended, and in how many in a row the clock was in doubt.
func (r *verifyRecorder) save(failure, doubt error) (doubted int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	err = r.write(func(s *VerifyState) {
		if r.o.Chosen {
			return
		}
		switch {
		case doubt == nil:
			s.ClockDoubted = 0
		case r.looked:
			s.ClockDoubted++
		}
		doubted = s.ClockDoubted
		if r.o.Beside {
			s.Seen = r.o.takeNotes()
		}
		s.Failures, s.Failure = settle(nil, r.o.Now(), r.places, r.failed), nil
		if failure != nil {
			s.Failure = &Failure{At: r.o.Now().UTC(), Error: failure.Error()}
		}
	})
	return doubted, err
}

func (r *verifyRecorder) write(and func(*VerifyState)) error {
	s, err := LoadVerifyState(r.o.StateDir)
	if err != nil {
		err = fmt.Errorf("state was reset: %w", err)
		s = VerifyState{Format: stateFormat}
	}
	if s.LastGood == nil {
		s.LastGood = map[string]VerifiedRecord{}
	}
	for place, rec := range r.good {
		// Verifying an old snapshot again does not make it the newest.
		if old, ok := s.LastGood[place]; !ok || cmp.Or(rec.Position().Compare(old.Position()), strings.Compare(rec.ID, old.ID)) >= 0 || r.o.ID == (ID{}) {
			s.LastGood[place] = rec
		}
	}
	if and != nil {
		and(&s)
	}
	return errors.Join(err, s.save(r.o.StateDir))
}
