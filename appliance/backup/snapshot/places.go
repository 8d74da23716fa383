package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"strongroom.example/appliance/base/fault"
	"strongroom.example/appliance/base/vaultapi"
)

// ErrClusters means that a place holds snapshots of several clusters, and nobody
// has said which is meant.
var ErrClusters = errors.New("snapshots of several clusters")

// ClusterIn finds out which cluster is meant in a place: the one that is named,
// else the last one that the taking job, whose state is in takeState, has stored
// there, else the only one there. ErrNoSnapshot where there is none, ErrClusters
// where there are several.
func ClusterIn(ctx context.Context, d Destination, named, takeState string) (string, error) {
	if named != "" {
		return named, nil
	}
	// A state that can't be read is the taking job's to report.
	if s, err := LoadTakeState(takeState); err == nil {
		if last, ok := s.Last[d.Name()]; ok {
			if id, err := ParseID(last.ID); err == nil {
				return id.Cluster, nil
			}
		}
	}
	entries, err := List(ctx, d, "")
	if err != nil {
		return "", err
	}
	found := ""
	for _, e := range entries {
		if found != "" && e.ID.Cluster != found {
			return "", fmt.Errorf("%s holds %w: %q, %q", d.Name(), ErrClusters, found, e.ID.Cluster)
		}
		found = e.ID.Cluster
	}
	if found == "" {
		return "", fmt.Errorf("%s: %w", d.Name(), ErrNoSnapshot)
	}
	return found, nil
}

// ClusterOf is ClusterIn the first of several places that tells.
func ClusterOf(ctx context.Context, places []Destination, named, takeState string) (string, error) {
	if len(places) == 0 {
		return "", fmt.Errorf("%w: no place is named", ErrNoSnapshot)
	}
	var errs []error
	for _, d := range places {
		cluster, err := ClusterIn(ctx, d, named, takeState)
		if err == nil {
			return cluster, nil
		}
		errs = append(errs, err)
	}
	return "", errors.Join(errs...)
}

// Placed is a snapshot and the place that it is in.
type Placed struct {
	Place string // its name
	Entry
}

// inEach does something in each place at once, none waiting for another, for as long
// as bytes move. The results and errors are in the order of the places.
func inEach[T any](ctx context.Context, places []Destination, stall time.Duration, do func(context.Context, Destination) (T, error)) ([]T, []error) {
	if stall == 0 {
		stall = DefaultStall
	}
	out, errs := make([]T, len(places)), make([]error, len(places))
	var all sync.WaitGroup
	for i, d := range places {
		all.Go(func() {
			got := make(chan T, 1) // what is left behind writes nowhere else
			errs[i] = watched(ctx, d, stall, func(ctx context.Context, _ func(io.Reader) io.Reader) error {
				v, err := do(ctx, d)
				got <- v
				return err
			})
			select {
			case out[i] = <-got:
			default:
			}
		})
	}
	all.Wait()
	return out, errs
}

// ListPlaces is InOrder in each place; what is wrong with one does not hide the
// others.
func ListPlaces(ctx context.Context, places []Destination, cluster string) ([]Placed, error) {
	found, errs := inEach(ctx, places, 0, func(ctx context.Context, d Destination) ([]Entry, error) {
		return InOrder(ctx, d, cluster)
	})
	var all []Placed
	for i, entries := range found {
		for _, e := range entries {
			all = append(all, Placed{places[i].Name(), e})
		}
	}
	return all, errors.Join(errs...)
}

// Pruned is what Prune did in one place.
type Pruned struct {
	Place string // its name
	PruneResult
}

// PrunePlaces is Prune in each place, of the cluster that is meant there as
// ClusterIn finds it. What Prune did before it failed is told, too.
func PrunePlaces(ctx context.Context, places []Destination, takeState string, o PruneOptions) ([]Pruned, error) {
	done, errs := inEach(ctx, places, 0, func(ctx context.Context, d Destination) (Pruned, error) {
		o := o
		var err error
		o.Destination, o.TakeStateDir = d, takeState
		if o.ClusterID, err = ClusterIn(ctx, d, o.ClusterID, takeState); err != nil {
			return Pruned{}, err
		}
		res, err := Prune(ctx, o)
		return Pruned{d.Name(), res}, err
	})
	return slices.DeleteFunc(done, func(p Pruned) bool { return p.Place == "" }), errors.Join(errs...)
}

// MayPass says whether another try of a job may do better: not where a person must
// act, and not where it would find the same.
func MayPass(err error) bool {
	for _, lasts := range []error{
		ErrStandby, ErrUninitialised, ErrSealed, ErrFull, ErrDenied, ErrPlace, ErrPassphrase, ErrWrongIdentity, ErrNoSnapshot, ErrNotFound,
		ErrCorrupt, ErrTruncated, ErrTrailing, ErrMismatch, ErrWrongCluster, ErrIncomplete, ErrClusters, ErrUntrusted, ErrForged, ErrRetired, ErrRegion, ErrArchived, ErrStoreKey,
	} {
		if errors.Is(err, lasts) {
			return false
		}
	}
	if errors.As(err, new(settled)) {
		return false
	}
	if known := new(fault.Error); errors.As(err, &known) && known.Code != fault.Failed {
		return false
	}
	return !vaultapi.IsDenied(err) && !vaultapi.IsBadRequest(err)
}
