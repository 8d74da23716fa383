package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// PruneOptions is what Prune needs.
type PruneOptions struct {
	Destination Destination
	ClusterID   string
	Policy      Policy
	// Good was read back a moment ago, and stays: what a place lists besides may have
	// rotted since its proof.
	Good ID
	// DryRun decides and changes nothing.
	DryRun bool
	Now    func() time.Time // time.Now when nil
	// Doubt is why this machine's clock is not to be believed; ClockDoubt when nil, or
	// nobody where Now is given. TakeStateDir is for that, and may be empty.
	Doubt        func() error
	TakeStateDir string
}

// PruneResult tells what Prune did, or would do.
type PruneResult struct {
	Decisions []Decision // of every snapshot of the cluster, oldest first
	// Doubt is why nothing was deleted: ErrClock.
	Doubt   error
	Deleted int // snapshots that are gone now
	Swept   int // remains of interrupted uploads that are gone now
}

// Prune deletes the snapshots of one cluster that the policy does not keep, and
// the remains of failed runs. It never deletes the newest verified one, nor
// anything newer; without a verified one it deletes no complete snapshot at
// all. What object lock holds is kept and reported as kept. While the clock is in doubt
// nothing is deleted at all.
func Prune(ctx context.Context, o PruneOptions) (PruneResult, error) {
	if o.ClusterID == "" {
		return PruneResult{}, errors.New("prune snapshots: no cluster id")
	}
	if err := o.Policy.Validate(); err != nil {
		return PruneResult{}, err
	}
	fillClock(&o.Now, &o.Doubt, o.TakeStateDir)
	now := o.Now().UTC()
	entries, err := InOrder(ctx, o.Destination, o.ClusterID)
	if err != nil {
		return PruneResult{}, fmt.Errorf("prune snapshots: %w", err)
	}
	anchor, err := newestProven(ctx, o.Destination, entries)
	if err != nil && !errors.Is(err, ErrNoSnapshot) {
		return PruneResult{}, fmt.Errorf("prune snapshots: %w", err)
	}
	res := PruneResult{Decisions: o.Policy.decide(entries, anchor, now), Doubt: o.Doubt()}
	for i, d := range res.Decisions {
		if !d.Keep && d.Entry.ID == o.Good {
			res.Decisions[i].Keep, res.Decisions[i].Why = true, KeepGood
		}
	}
	if res.Doubt != nil {
		for i, d := range res.Decisions {
			if !d.Keep {
				res.Decisions[i].Keep, res.Decisions[i].Why = true, KeepClock
			}
		}
	}
	if o.DryRun || res.Doubt != nil {
		return res, nil
	}
	goes := slices.ContainsFunc(res.Decisions, func(d Decision) bool { return !d.Keep && d.Entry.Complete })
	if anchor != (ID{}) {
		// What it is for that others go is read, unless it was a moment ago: it may have
		// rotted since its proof.
		if err := stored(ctx, o.Destination, anchor, goes && anchor != o.Good); err != nil {
			return res, fmt.Errorf("prune snapshots: nothing is deleted: %w", err)
		}
	}
	var errs []error
	for i := range res.Decisions {
		d := &res.Decisions[i]
		if d.Why == KeepUnread {
			errs = append(errs, d.Entry.Unread)
		}
		if d.Keep {
			continue
		}
		switch err := deleteSnapshot(ctx, o.Destination, d.Entry, now); {
		case err == nil:
			res.Deleted++
		case errors.Is(err, ErrLocked):
			d.Keep, d.Why = true, KeepLocked
		case errors.Is(err, errComplete):
			d.Keep, d.Why = true, KeepUnlisted
		default:
			errs = append(errs, err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	if s, ok := o.Destination.(Sweeper); ok && ctx.Err() == nil {
		n, err := s.Sweep(ctx, now.Add(-incompleteAfter))
		res.Swept = n
		errs = append(errs, err)
	}
	if err := errors.Join(append(errs, ctx.Err())...); err != nil {
		return res, fmt.Errorf("prune snapshots: %w", err)
	}
	return res, nil
}

// Proven gets the manifest of a snapshot that was verified as it is now, and is
// believed. ErrMismatch when the proof is of another manifest, ErrNotFound when there is
// none, ErrUntrusted.
func Proven(ctx context.Context, d Destination, id ID) (Manifest, error) {
	m, _, err := ReadManifest(ctx, d, id)
	if err != nil {
		return Manifest{}, err
	}
	if err := Allow(ctx, d, m, false); err != nil {
		return Manifest{}, err
	}
	proof, err := ReadProof(ctx, d, id)
	if err != nil {
		return Manifest{}, err
	}
	if proof.ManifestSHA256 != m.sum {
		return Manifest{}, fmt.Errorf("%s: %s: proof: %w", d.Name(), id, ErrMismatch)
	}
	return m, nil
}

// NewestVerified finds the newest verified snapshot of a cluster.
// ErrNoSnapshot when there is none.
func NewestVerified(ctx context.Context, d Destination, cluster string) (Manifest, error) {
	entries, err := InOrder(ctx, d, cluster)
	if err != nil {
		return Manifest{}, err
	}
	id, err := newestProven(ctx, d, entries)
	if err != nil {
		return Manifest{}, err
	}
	return Proven(ctx, d, id)
}

// stored is an error where a proven snapshot's objects are not there as its manifest
// says: a listing, which may lie, is not enough to delete others for. read compares all of
// what is there, still encrypted.
func stored(ctx context.Context, d Destination, id ID, read bool) error {
	m, _, err := ReadManifest(ctx, d, id)
	if err != nil {
		return err
	}
	objects := []Object{m.Snapshot}
	if m.Files != nil {
		objects = append(objects, *m.Files)
	}
	for _, o := range objects {
		info, err := d.Stat(ctx, o.Name)
		if err != nil {
			return err
		}
		if info.Size != o.Size {
			return fmt.Errorf("%s: %q: %w: %d bytes, the manifest says %d", d.Name(), o.Name, ErrMismatch, info.Size, o.Size)
		}
		if !read {
			continue
		}
		if err := readWhole(ctx, d, o); err != nil {
			return fmt.Errorf("%s: %s: %w", d.Name(), id, err)
		}
	}
	return nil
}

// readWhole reads an object and compares it with what its manifest says.
func readWhole(ctx context.Context, d Destination, o Object) error {
	rc, err := d.Get(ctx, o.Name)
	if err != nil {
		return err
	}
	defer rc.Close()
	_, err = io.Copy(io.Discard, newSummed(rc, o))
	return err
}

// seen is ErrNotFound where a snapshot that was listed as incomplete is so.
func seen(ctx context.Context, d Destination, e Entry) error {
	for _, suffix := range []string{suffixManifest, suffixSnap} {
		if _, err := d.Stat(ctx, e.ID.object(suffix)); err != nil {
			return err
		}
	}
	return nil
}

// errComplete means that a listing has left something out.
var errComplete = errors.New("it has a manifest that was not listed")

// snapshotObjects are in the order in which they are deleted.
var snapshotObjects = []string{suffixProof, suffixManifest, suffixFiles, suffixSnap, suffixRetired}

// deleteSnapshot deletes the objects of one snapshot: what says that it is good
// first, the data last, so that a crash leaves something incomplete and not
// something false.
func deleteSnapshot(ctx context.Context, d Destination, e Entry, now time.Time) error {
	if !e.Complete {
		switch err := seen(ctx, d, e); {
		case err == nil:
			return errComplete
		case !errors.Is(err, ErrNotFound):
			return err
		}
	}
	for _, suffix := range snapshotObjects {
		name := e.ID.object(suffix)
		if !slices.Contains(e.objects, name) {
			continue
		}
		info, err := d.Stat(ctx, name)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		// All or nothing: none goes while one is held.
		if info.LockedUntil.After(now) {
			return fmt.Errorf("%s: %q: %w until %s", d.Name(), name, ErrLocked, info.LockedUntil.UTC().Format(time.RFC3339))
		}
	}
	for _, suffix := range snapshotObjects {
		if name := e.ID.object(suffix); slices.Contains(e.objects, name) {
			if err := d.Delete(ctx, name); err != nil {
				return err
			}
		}
	}
	return nil
}
