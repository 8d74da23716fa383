package snapshot

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// ErrLineages means that two restores went on from the same point, each on a machine
// of its own, and nothing says whose snapshots are the newer ones.
var ErrLineages = errors.New("two lineages of the same epoch")

// ErrLast means that nothing verified would be left.
var ErrLast = errors.New("it stays, as no other one that is verified is known")

// ErrRetired means that the one which this machine stored last is not to be chosen any
// more: until the next one is verified there is only an older one.
var ErrRetired = errors.New("it was stored last, and is retired")

// Lineage is what has been written since a restore: raft gives the restored storage
// an index above that of the snapshot, so an abandoned machine can have the higher
// one. A snapshot whose manifest names none is of the oldest.
type Lineage struct {
	ID string `json:"id"` // made at random by the restore
	// Epoch is the engine's, which each restore raises above that of the snapshot.
	Epoch int64 `json:"epoch"`
	// Parent is the lineage of the snapshot that was restored, and Left its raft
	// index.
	Parent string `json:"parent,omitempty"`
	Left   uint64 `json:"left,omitempty"`
}

// Position is where a snapshot stands among those of its cluster. No date is in it:
// clocks go wrong.
type Position struct {
	Epoch   int64
	Lineage string // its id
	Index   uint64
}

// Position is the manifest's.
func (m Manifest) Position() Position { return position(m.Lineage, m.RaftIndex) }

func position(l *Lineage, index uint64) Position {
	if l == nil {
		return Position{Index: index}
	}
	return Position{l.Epoch, l.ID, index}
}

// Compare is below 0 where p is the older.
func (p Position) Compare(q Position) int {
	return cmp.Or(cmp.Compare(p.Epoch, q.Epoch), cmp.Compare(p.Index, q.Index))
}

// Rivals says that nothing tells which of the two is newer.
func (p Position) Rivals(q Position) bool { return p.Epoch == q.Epoch && p.Lineage != q.Lineage }

// String tells it to people.
func (p Position) String() string {
	if p.Lineage == "" {
		return fmt.Sprintf("raft index %d", p.Index)
	}
	return fmt.Sprintf("lineage %s of epoch %d, raft index %d", p.Lineage, p.Epoch, p.Index)
}

// compareEntries is the order of the snapshots of a cluster, the oldest first. Of two at
// one position, which hold the same, the name decides.
func compareEntries(a, b Entry) int {
	return cmp.Or(a.Position.Compare(b.Position), strings.Compare(a.ID.Base, b.ID.Base), strings.Compare(a.ID.Cluster, b.ID.Cluster))
}

// manifestsAtOnce bounds how many manifests are read side by side.
const manifestsAtOnce = 8

// InOrder is List, with what the manifests say, and in their order: oldest first. One
// whose manifest cannot be read has no position, and is before all others; Unread says
// why. It fails where the place as a whole can no longer be asked.
func InOrder(ctx context.Context, d Destination, cluster string) ([]Entry, error) {
	entries, err := List(ctx, d, cluster)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	turn := make(chan struct{}, manifestsAtOnce)
	for i := range entries {
		if !entries[i].Complete {
			continue
		}
		turn <- struct{}{}
		all.Go(func() {
			defer func() { <-turn }()
			if err := entries[i].read(ctx, d); err != nil {
				cancel(err)
			}
		})
	}
	all.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	slices.SortFunc(entries, compareEntries)
	return entries, nil
}

// read takes what the manifest says of a complete one. Its error is of the place.
func (e *Entry) read(ctx context.Context, d Destination) error {
	m, _, err := ReadManifest(ctx, d, e.ID)
	switch {
	case err == nil:
		e.Position, e.Doubted = m.Position(), m.ClockInDoubt
		e.Signed, e.Untrusted = m.signed, m.untrusted
	case ctx.Err() != nil, errors.Is(err, ErrPlace), errors.Is(err, ErrUnreachable), errors.Is(err, ErrStalled):
		return err
	case errors.Is(err, ErrNotFound):
		e.Complete, e.Verified = false, false // the listing was wrong, or it is gone since
	default:
		e.Unread = err
	}
	return nil
}

// InDoubt says that nobody knows when a snapshot was taken: its machine's clock was not
// to be believed, or it is dated after now. It is never deleted and counts for no age.
func (e Entry) InDoubt(now time.Time) bool { return e.Doubted || e.ID.Time().After(now) }

// Counts says whether a snapshot can be the newest at all.
func (e Entry) Counts() bool {
	return e.Complete && e.Unread == nil && e.Untrusted == nil && !e.Retired
}

// undisputed refuses the newest of some snapshots where another one is its rival.
func undisputed[T any](all []T, newest T, of func(T) Entry) error {
	best := of(newest)
	for _, other := range all {
		if e := of(other); e.ID.Cluster == best.ID.Cluster && e.Position.Rivals(best.Position) {
			return fmt.Errorf("%w: %s (%s) and %s (%s)", ErrLineages, best.ID, best.Position, e.ID, e.Position)
		}
	}
	return nil
}

// newest finds the newest complete snapshot of a cluster. A damaged one that is dated
// later is an error, and one that could not be read: it may be the newest.
func newest(ctx context.Context, d Destination, cluster string) (ID, error) {
	entries, err := InOrder(ctx, d, cluster)
	if err != nil {
		return ID{}, err
	}
	var last, unread Entry
	var untrusted error
	for _, e := range entries {
		switch {
		case e.Counts():
			last = e
		case e.Untrusted != nil:
			untrusted = fmt.Errorf("%s: %s (%s): %w", d.Name(), e.ID, e.Position, e.Untrusted)
		case e.Retired || e.Unread == nil:
		case !errors.Is(e.Unread, ErrCorrupt) && !errors.Is(e.Unread, ErrMismatch):
			return ID{}, e.Unread
		case e.ID.Base > unread.ID.Base:
			unread = e
		}
	}
	switch {
	case unread.ID.Base > last.ID.Base:
		return ID{}, unread.Unread
	case last.ID == (ID{}) && untrusted != nil:
		return ID{}, untrusted
	case last.ID == (ID{}):
		return ID{}, fmt.Errorf("%s: %w of cluster %q", d.Name(), ErrNoSnapshot, cluster)
	}
	entries = slices.DeleteFunc(entries, func(e Entry) bool { return !e.Counts() })
	if err := undisputed(entries, last, func(e Entry) Entry { return e }); err != nil {
		return ID{}, fmt.Errorf("%s: %w", d.Name(), err)
	}
	return last.ID, nil
}

// newestProven finds the newest snapshot whose proof is of its very manifest, of
// entries in order. ErrNoSnapshot when there is none.
func newestProven(ctx context.Context, d Destination, entries []Entry) (ID, error) {
	entries = slices.DeleteFunc(slices.Clone(entries), func(e Entry) bool { return !e.Verified || !e.Counts() })
	for _, e := range slices.Backward(entries) {
		_, err := Proven(ctx, d, e.ID)
		if err == nil {
			if err := undisputed(entries, e, func(e Entry) Entry { return e }); err != nil {
				return ID{}, fmt.Errorf("%s: %w", d.Name(), err)
			}
			return e.ID, nil
		}
		if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrMismatch) && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrUntrusted) {
			return ID{}, err // not a bad proof but a store that cannot be asked
		}
	}
	return ID{}, fmt.Errorf("%s: %w that is verified", d.Name(), ErrNoSnapshot)
}

// NewestFirst sorts what ListPlaces gave and leaves out what does not count or is not
// wanted. ErrLineages where nothing tells which is the newest.
func NewestFirst(listed []Placed, want func(Placed) bool) ([]Placed, error) {
	listed = slices.DeleteFunc(slices.Clone(listed), func(p Placed) bool { return !p.Counts() || !want(p) })
	slices.SortStableFunc(listed, func(a, b Placed) int { return compareEntries(b.Entry, a.Entry) })
	if len(listed) == 0 {
		return nil, nil
	}
	return listed, undisputed(listed, listed[0], func(p Placed) Entry { return p.Entry })
}

// Retire says of a snapshot that it is not to be the newest, whatever its manifest
// says: nothing chooses it any more, and Prune deletes it. It is refused where no other
// verified one of its cluster would be left.
func Retire(ctx context.Context, d Destination, id ID, now time.Time) error {
	entries, err := InOrder(ctx, d, id.Cluster)
	if err != nil {
		return fmt.Errorf("retire snapshot: %w", err)
	}
	at := slices.IndexFunc(entries, func(e Entry) bool { return e.ID == id })
	switch {
	case at < 0:
		return fmt.Errorf("retire snapshot: %s: %s: %w", d.Name(), id, ErrNoSnapshot)
	case entries[at].Retired:
		return nil
	}
	others := slices.Delete(slices.Clone(entries), at, at+1)
	switch _, err := newestProven(ctx, d, others); {
	case errors.Is(err, ErrLineages): // there are two
	case err != nil:
		return fmt.Errorf("retire snapshot: %s: %w: %w", id, ErrLast, err)
	}
	text := fmt.Appendf(nil, "{\"id\": %q, \"retired_at\": %q}\n", id, now.UTC().Format(time.RFC3339))
	if _, err := d.Put(ctx, id.object(suffixRetired), bytes.NewReader(text)); err != nil && !errors.Is(err, ErrExists) {
		return fmt.Errorf("retire snapshot: %w", err)
	}
	return nil
}
