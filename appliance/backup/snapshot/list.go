package snapshot

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Entry is one snapshot in a destination, as its objects' names tell.
type Entry struct {
	ID       ID
	Size     int64 // bytes of all its objects
	Complete bool  // its manifest is there
	Verified bool  // its proof is there
	Retired  bool  // it is not to be chosen
	Hidden   bool  // somebody has deleted objects of it, whose versions the bucket has kept
	// Position, Doubted (the machine that took it did not believe its clock) and Unread
	// (why there is neither) are InOrder's.
	Position Position
	Doubted  bool
	Unread   error
	// Signed and Untrusted are of its manifest, too: a key of the keyring has signed it,
	// and why it is not believed.
	Signed    bool
	Untrusted error
	// ModTime is when the newest of its objects was stored.
	ModTime time.Time
	objects []string
}

// List gives the snapshots of a cluster in a destination, oldest first; of all
// clusters when cluster is empty. Incomplete ones are among them.
func List(ctx context.Context, d Destination, cluster string) ([]Entry, error) {
	prefix := ""
	if cluster != "" {
		if !clusterPattern.MatchString(cluster) {
			return nil, fmt.Errorf("cluster id %q: want up to 64 letters, digits and hyphens", cluster)
		}
		prefix = cluster + "/"
	}
	objects, err := d.List(ctx, prefix)
	if err != nil {
		return nil, err
	}
	byID := map[ID]*Entry{}
	for _, o := range objects {
		id, suffix, ok := splitObject(o.Name)
		if !ok {
			continue // somebody else's
		}
		e := byID[id]
		if e == nil {
			e = &Entry{ID: id}
			byID[id] = e
		}
		e.Size += o.Size
		e.objects = append(e.objects, o.Name)
		e.Hidden = e.Hidden || o.Hidden
		if o.ModTime.After(e.ModTime) {
			e.ModTime = o.ModTime
		}
		switch suffix {
		case suffixManifest:
			e.Complete = true
		case suffixProof:
			e.Verified = true
		case suffixRetired:
			e.Retired = true
		}
	}
	out := make([]Entry, 0, len(byID))
	for _, e := range byID {
		// A manifest or a proof without the snapshot is worth nothing.
		has := slices.Contains(e.objects, e.ID.object(suffixSnap))
		e.Complete = e.Complete && has
		e.Verified = e.Verified && e.Complete
		out = append(out, *e)
	}
	slices.SortFunc(out, func(a, b Entry) int {
		if c := strings.Compare(a.ID.Base, b.ID.Base); c != 0 {
			return c
		}
		return strings.Compare(a.ID.Cluster, b.ID.Cluster)
	})
	return out, nil
}

// Strangers counts, in each place, what is in no snapshot: somebody else's. It is neither
// read, counted for anything, nor deleted. A place that cannot be listed is left out.
func Strangers(ctx context.Context, places []Destination) map[string]int {
	counts, errs := inEach(ctx, places, 0, func(ctx context.Context, d Destination) (int, error) {
		objects, err := d.List(ctx, "")
		return len(slices.DeleteFunc(objects, func(o ObjectInfo) bool {
			_, _, ours := splitObject(o.Name)
			return ours
		})), err
	})
	out := map[string]int{}
	for i, d := range places {
		if errs[i] == nil && counts[i] > 0 {
			out[d.Name()] = counts[i]
		}
	}
	return out
}
