package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
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
}

// Newest finds the newest verified snapshot of a cluster in several places.
// Places that cannot be asked are passed over when another has one; their
// errors are returned beside the choice.
func Newest(ctx context.Context, dests []snapshot.Destination, cluster string) (Choice, error, error) {
	var best Choice
	var errs []error
	for _, d := range dests {
		m, err := snapshot.NewestVerified(ctx, d, cluster)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if best.Destination == nil || m.TakenAt.After(best.Manifest.TakenAt) {
			best = Choice{Destination: d, Manifest: m}
		}
	}
	if best.Destination == nil {
		return Choice{}, nil, errors.Join(errs...)
	}
	id, err := snapshot.ParseID(best.Manifest.ID)
	if err != nil {
		return Choice{}, nil, err
	}
	proof, err := snapshot.ReadProof(ctx, best.Destination, id)
	if err != nil {
		return Choice{}, nil, err
	}
	best.VerifiedAt = proof.VerifiedAt
	return best, errors.Join(errs...), nil
}

// ByID finds one snapshot, verified or not, in the first place that has it.
func ByID(ctx context.Context, dests []snapshot.Destination, id snapshot.ID) (Choice, error) {
	var errs []error
	for _, d := range dests {
		m, _, err := snapshot.ReadManifest(ctx, d, id)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		c := Choice{Destination: d, Manifest: m}
		if _, err := snapshot.Proven(ctx, d, id); err == nil {
			if proof, err := snapshot.ReadProof(ctx, d, id); err == nil {
				c.VerifiedAt = proof.VerifiedAt
			}
		}
		return c, nil
	}
	return Choice{}, errors.Join(errs...)
}

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
	if _, err := io.Copy(c.file, io.LimitReader(rc, c.obj.Size+1)); err != nil {
		return fmt.Errorf("download %q: %w", c.obj.Name, err)
	}
	return nil
}

// nameless makes a file that vanishes with this process.
func nameless(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, ".restore-*")
	if err != nil {
		return nil, fmt.Errorf("place for the download: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(fmt.Errorf("place for the download: %w", err), f.Close())
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
