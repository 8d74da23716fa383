package restore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"filippo.io/age"

	"strongroom.example/appliance/backup/snapshot"
)

// Choice is a snapshot that can be restored.
type Choice struct {
	Destination snapshot.Destination
	Manifest    snapshot.Manifest
	// VerifiedAt is when it was last read back as a whole; zero if never.
	VerifiedAt time.Time
	// Older is true where a newer verified snapshot is there and none of its copies
	// was good.
	Older bool
}

// Wanted says which snapshot.
type Wanted struct {
	Places []snapshot.Destination
	// Cluster is whose it must be, where ID is zero.
	Cluster string
	// ID picks one, verified or not; the newest verified one when zero.
	ID snapshot.ID
	// Unsigned takes it although nobody has signed it: see snapshot.Allow.
	Unsigned bool
	// NoOlder leaves out all but the newest: what is to be proven is that one.
	NoOlder bool
}

// First tries the copies that are wanted, one after the other, until one is good: of
// a snapshot each place's, in the order of the places, then those of older ones. It
// gives the copy that was good, and errs is what was wrong with others: a place that
// could not be asked, a copy that was damaged. What no other copy would change, such
// as a full disk here, ends it at once.
func First(ctx context.Context, w Wanted, try func(Choice) error) (c Choice, errs, err error) {
	if len(w.Places) == 0 {
		return Choice{}, nil, errNoPlace
	}
	copies, errs := w.copies(ctx)
	out := map[string]bool{} // of the places that do not answer
	var locked snapshot.ID   // a snapshot that no identity opens
	for _, one := range copies {
		if out[one.d.Name()] || locked != (snapshot.ID{}) && one.id != locked {
			continue
		}
		c, err := w.read(ctx, one)
		if err == nil {
			c.Older = one.id != copies[0].id
			err = try(c)
		}
		switch {
		case err == nil:
			return c, errs, nil
		case ctx.Err() != nil, errors.Is(err, errHere), errors.Is(err, snapshot.ErrPassphrase):
			return Choice{}, nil, errors.Join(err, errs)
		case errors.Is(err, snapshot.ErrWrongIdentity):
			// Another place's copy may be the true one; older snapshots are of no
			// use to who has brought the wrong key.
			locked = one.id
		}
		out[one.d.Name()] = snapshot.CannotBeAsked(err)
		errs = errors.Join(errs, err)
	}
	if len(copies) == 0 && w.ID == (snapshot.ID{}) && !errors.Is(errs, snapshot.ErrLineages) && !errors.Is(errs, snapshot.ErrUntrusted) {
		errs = errors.Join(errs, fmt.Errorf("%w of cluster %q that is verified", snapshot.ErrNoSnapshot, w.Cluster))
	}
	return Choice{}, nil, errs
}

// oneCopy is a snapshot in a place.
type oneCopy struct {
	d  snapshot.Destination
	id snapshot.ID
}

// copies are those that are wanted, the best first.
func (w Wanted) copies(ctx context.Context) ([]oneCopy, error) {
	var all []oneCopy
	if w.ID != (snapshot.ID{}) {
		for _, d := range w.Places {
			all = append(all, oneCopy{d, w.ID})
		}
		return all, nil
	}
	listed, err := snapshot.ListPlaces(ctx, w.Places, w.Cluster)
	found := listed
	listed, lines := snapshot.NewestFirst(listed, func(p snapshot.Placed) bool { return p.Verified })
	if lines != nil {
		return nil, errors.Join(lines, err)
	}
	if len(listed) == 0 {
		err = errors.Join(err, snapshot.Untrusted(found))
	}
	for _, p := range listed {
		at := slices.IndexFunc(w.Places, func(d snapshot.Destination) bool { return d.Name() == p.Place })
		all = append(all, oneCopy{w.Places[at], p.ID})
		if p.Hidden && p.ID == listed[0].ID {
			err = errors.Join(err, fmt.Errorf("%s: %s: %w", p.Place, p.ID, snapshot.ErrDeleted))
		}
	}
	for _, d := range w.Places {
		if len(all) > 0 && !slices.ContainsFunc(all, func(c oneCopy) bool { return c.d == d }) {
			err = errors.Join(err, fmt.Errorf("%s: %w that is verified", d.Name(), snapshot.ErrNoSnapshot))
		}
	}
	if w.NoOlder && len(all) > 0 {
		newest := all[0].id
		all = slices.DeleteFunc(all, func(c oneCopy) bool { return c.id != newest })
	}
	return all, err
}

// read gets what a copy says of itself. One that is wanted as verified must have its
// very manifest proven.
func (w Wanted) read(ctx context.Context, one oneCopy) (Choice, error) {
	c := Choice{Destination: one.d}
	m, err := snapshot.Proven(ctx, one.d, one.id)
	if err == nil {
		proof, err := snapshot.ReadProof(ctx, one.d, one.id)
		c.Manifest, c.VerifiedAt = m, proof.VerifiedAt
		return c, err
	}
	if w.ID == (snapshot.ID{}) {
		return c, err
	}
	if c.Manifest, _, err = snapshot.ReadManifest(ctx, one.d, one.id); err != nil {
		return c, err
	}
	return c, snapshot.Allow(ctx, one.d, c.Manifest, w.Unsigned)
}

// errHere is of this machine, not of a copy.
var errHere = errors.New("on this machine")

// Here marks an error as one of this machine: no other copy would do better.
func Here(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", errHere, err)
}

// ByID finds one snapshot, verified or not, in the first place that has it.
func ByID(ctx context.Context, dests []snapshot.Destination, id snapshot.ID) (Choice, error) {
	c, _, err := First(ctx, Wanted{Places: dests, ID: id}, func(Choice) error { return nil })
	return c, err
}

// errNoPlace is of who asks nobody: that is no answer.
var errNoPlace = fmt.Errorf("%w: no place is named", snapshot.ErrNoSnapshot)

// Checked is a snapshot on this machine that has been checked wholly.
type Checked struct {
	Archive snapshot.Archive
	Size    int64 // bytes as stored

	file *os.File // ciphertext, or a plain archive when obj is empty
	obj  snapshot.Object
	ids  []age.Identity
}

// Close lets the local copy go.
func (c *Checked) Close() error { return c.file.Close() }

// localCopy gives the downloaded bytes again.
type localCopy struct{ f *os.File }

func (l localCopy) Get(context.Context, string) (io.ReadCloser, error) {
	if _, err := l.f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	return io.NopCloser(l.f), nil
}

// Fetch downloads a snapshot, still encrypted, into a nameless file in dir and
// checks it there: what is restored later is what was checked.
func Fetch(ctx context.Context, c Choice, ids []age.Identity, dir string) (*Checked, error) {
	if err := snapshot.Room(cmp.Or(dir, os.TempDir()), c.Manifest.Snapshot.Size); err != nil {
		err = fmt.Errorf("place for the download: %w", err)
		if !errors.Is(err, snapshot.ErrFull) {
			err = Here(err) // a full disk may have room for a copy of another size
		}
		return nil, err
	}
	f, err := nameless(dir)
	if err != nil {
		return nil, err
	}
	k := &Checked{file: f, obj: c.Manifest.Snapshot, ids: ids, Size: c.Manifest.Snapshot.Size}
	if err := k.download(ctx, c.Destination); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	err = k.Open(ctx, func(r io.Reader) (err error) {
		k.Archive, err = snapshot.CheckArchive(r)
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", c.Destination.Name(), err), f.Close())
	}
	return k, nil
}

func (c *Checked) download(ctx context.Context, d snapshot.Destination) error {
	rc, err := d.Get(ctx, c.obj.Name)
	if err != nil {
		return err
	}
	defer rc.Close()
	// One byte more than there should be is enough to see that it is too long.
	if _, err := io.Copy(here{c.file}, io.LimitReader(rc, c.obj.Size+1)); err != nil {
		return fmt.Errorf("download %q: %w", c.obj.Name, err)
	}
	return nil
}

// here is a file of this machine's.
type here struct{ f *os.File }

func (h here) Write(p []byte) (int, error) {
	n, err := h.f.Write(p)
	return n, Here(err)
}

// nameless makes a file that vanishes with this process.
func nameless(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, ".restore-*")
	if err != nil {
		return nil, Here(fmt.Errorf("place for the download: %w", err))
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, Here(errors.Join(fmt.Errorf("place for the download: %w", err), f.Close()))
	}
	return f, nil
}

// Open gives the plain archive to read, which must read to the end. See
// snapshot.Open.
func (c *Checked) Open(ctx context.Context, read func(io.Reader) error) error {
	if c.obj.Name != "" {
		return snapshot.Open(ctx, localCopy{c.file}, c.obj, c.ids, read)
	}
	if _, err := c.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return read(c.file)
}
