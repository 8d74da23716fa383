package snapshot

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// PruneOptions is what Prune needs.
type PruneOptions struct {
	Destination Destination
	ClusterID   string
	Policy      Policy
	// DryRun decides and changes nothing.
	DryRun bool
	Now    func() time.Time // time.Now when nil
}

// PruneResult tells what Prune did, or would do.
type PruneResult struct {
	Decisions []Decision // of every snapshot of the cluster, oldest first
	Deleted   int        // snapshots that are gone now
	Swept     int        // remains of interrupted uploads that are gone now
}

// Prune deletes the snapshots of one cluster that the policy does not keep, and
// the remains of failed runs. It never deletes the newest verified one, nor
// anything newer; without a verified one it deletes no complete snapshot at
// all. What object lock holds is kept and reported as kept.
func Prune(ctx context.Context, o PruneOptions) (PruneResult, error) {
	if o.ClusterID == "" {
		return PruneResult{}, errors.New("prune snapshots: no cluster id")
	}
	if err := o.Policy.Validate(); err != nil {
		return PruneResult{}, err
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	now := o.Now().UTC()
	entries, err := List(ctx, o.Destination, o.ClusterID)
	if err != nil {
		return PruneResult{}, fmt.Errorf("prune snapshots: %w", err)
	}
	anchor, err := newestProven(ctx, o.Destination, entries)
	if err != nil && !errors.Is(err, ErrNoSnapshot) {
		return PruneResult{}, fmt.Errorf("prune snapshots: %w", err)
	}
	res := PruneResult{Decisions: o.Policy.decide(entries, anchor, now)}
	if o.DryRun {
		return res, nil
	}
	if anchor != (ID{}) {
		if err := stored(ctx, o.Destination, anchor); err != nil {
			return res, fmt.Errorf("prune snapshots: nothing is deleted: %w", err)
		}
	}
	var errs []error
	for i := range res.Decisions {
		d := &res.Decisions[i]
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

// newestProven finds the newest snapshot whose proof is of its very manifest.
// ErrNoSnapshot when there is none.
func newestProven(ctx context.Context, d Destination, entries []Entry) (ID, error) {
	for _, e := range slices.Backward(entries) {
		if !e.Verified {
			continue
		}
		_, err := Proven(ctx, d, e.ID)
		if err == nil {
			return e.ID, nil
		}
		if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrMismatch) && !errors.Is(err, ErrNotFound) {
			return ID{}, err // not a bad proof but a store that cannot be asked
		}
	}
	return ID{}, fmt.Errorf("%s: %w that is verified", d.Name(), ErrNoSnapshot)
}

// Proven gets the manifest of a snapshot that was verified as it is now.
// ErrMismatch when the proof is of another manifest, ErrNotFound when there is
// none.
func Proven(ctx context.Context, d Destination, id ID) (Manifest, error) {
	m, text, err := ReadManifest(ctx, d, id)
	if err != nil {
		return Manifest{}, err
	}
	proof, err := ReadProof(ctx, d, id)
	if err != nil {
		return Manifest{}, err
	}
	if proof.ManifestSHA256 != sha256Hex(text) {
		return Manifest{}, fmt.Errorf("%s: %s: proof: %w", d.Name(), id, ErrMismatch)
	}
	return m, nil
}

// NewestVerified finds the newest verified snapshot of a cluster.
// ErrNoSnapshot when there is none.
func NewestVerified(ctx context.Context, d Destination, cluster string) (Manifest, error) {
	entries, err := List(ctx, d, cluster)
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
// says: a listing, which may lie, is not enough to delete others for.
func stored(ctx context.Context, d Destination, id ID) error {
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
	}
	return nil
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
	for _, suffix := range []string{suffixProof, suffixManifest, suffixFiles, suffixSnap} {
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
	for _, suffix := range []string{suffixProof, suffixManifest, suffixFiles, suffixSnap} {
		if name := e.ID.object(suffix); slices.Contains(e.objects, name) {
			if err := d.Delete(ctx, name); err != nil {
				return err
			}
		}
	}
	return nil
}
