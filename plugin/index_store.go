package apikeys

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"

	"strongroom.example/plugin/condition"
)

type storedEntry struct {
	present  bool
	group    string
	rotateAt int64
	reviewAt int64
	summary
	checks
}

// packedEntry is an entry of a shard.
type packedEntry struct {
	Name     string `json:"n"`
	Provider string `json:"p"`
	Group    string `json:"g,omitempty"`
	RotateAt int64  `json:"r,omitempty"`
	ReviewAt int64  `json:"v,omitempty"`
	Deleting bool   `json:"d,omitempty"`
	// What is told of the key; 0.1 did not keep it.
	Condition condition.Name `json:"c,omitempty"`
	Wanted    int64          `json:"w,omitempty"`
	Rotated   int64          `json:"l,omitempty"`
	// When the current key is looked at; -1: never, and 0 is an earlier release's.
	CheckAt int64 `json:"k,omitempty"`
	SeenAt  int64 `json:"s,omitempty"`
}

// unload makes the next load read everything anew.
func (x *keyIndex) unload() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.loaded, x.names = false, nil
	clear(x.groups)
	for _, q := range x.queues {
		q.rotate.items, q.review.items, q.check.items, q.looks = nil, nil, nil, 0
	}
	clear(x.dirty)
	clear(x.bad)
	for n := range x.shards {
		x.shards[n] = nil
	}
}

// load reads all shards, once.
func (x *keyIndex) load(ctx context.Context, st store) error {
	x.mu.RLock()
	loaded := x.loaded
	x.mu.RUnlock()
	if loaded {
		return nil
	}
	numbers, err := st.shards(ctx)
	if err != nil {
		return err
	}
	packed, err := readShards(ctx, st, numbers)
	if err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.loaded {
		return nil
	}
	for _, p := range packed {
		x.insertLocked(p)
	}
	slices.Sort(x.names)
	x.names = slices.Compact(x.names)
	x.loaded = true
	return nil
}

// readShards reads a few at a time: each read is a round trip to Vault.
func readShards(ctx context.Context, st store, numbers []int) ([]packedEntry, error) {
	const readers = 8
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		out   []packedEntry
		first error
	)
	next := make(chan int)
	for range readers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for n := range next {
				entries, err := st.shard(ctx, n)
				mu.Lock()
				out = append(out, entries...)
				if err != nil && first == nil {
					first = err
				}
				mu.Unlock()
			}
		}()
	}
	for _, n := range numbers {
		next <- n
	}
	close(next)
	wg.Wait()
	return out, first
}

// invalidate re-reads one shard after another node has written it.
func (x *keyIndex) invalidate(ctx context.Context, st store, n int) error {
	x.mu.RLock()
	loaded := x.loaded
	x.mu.RUnlock()
	if !loaded {
		return nil
	}
	packed, err := st.shard(ctx, n)
	if err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	keep := make(map[string]struct{}, len(packed))
	for _, p := range packed {
		keep[p.Name] = struct{}{}
	}
	for name, e := range x.shards[n] {
		if _, ok := keep[name]; !ok {
			x.dropLocked(e)
		}
	}
	for _, p := range packed {
		x.insertLocked(p)
	}
	slices.Sort(x.names)
	x.names = slices.Compact(x.names)
	return nil
}

// indexUpdate is what a key's record says about its place in the index.
type indexUpdate struct {
	name     string
	provider string
	group    string
	deleting bool
	rotateAt int64
	reviewAt int64
	checkAt  int64
	summary
}

// prepare makes storage keep the index's guarantees for a record that is about
// to be written: it writes the key's shard where the key is new or due earlier
// than stored. The record's own write follows, and then apply or abandon.
func (x *keyIndex) prepare(ctx context.Context, st store, u indexUpdate) error {
	x.mu.Lock()
	x.pending[u.name] = u
	e := x.entryLocked(u.name)
	covered := e != nil && e.stored.covers(u)
	x.mu.Unlock()
	if covered {
		return nil
	}
	if err := x.writeShard(ctx, st, shardOf(u.name)); err != nil {
		x.abandon(u.name)
		return err
	}
	return nil
}

func (s storedEntry) covers(u indexUpdate) bool {
	return s.present && s.group == u.group && notLater(s.rotateAt, u.rotateAt) && notLater(s.reviewAt, u.reviewAt)
}

// notLater compares due times, of which 0 means never.
func notLater(stored, want int64) bool {
	return want == 0 || (stored != 0 && stored <= want)
}

// writeShard stores a shard. While the write is under way only the weaker of
// the old and the new guarantee counts, because either may be what a crash
// leaves behind.
func (x *keyIndex) writeShard(ctx context.Context, st store, shard int) error {
	x.writing[shard].Lock()
	defer x.writing[shard].Unlock()
	x.mu.Lock()
	packed := x.packLocked(shard)
	for _, p := range packed {
		if e := x.entryLocked(p.Name); e != nil {
			e.stored = e.stored.weaker(p)
		}
	}
	delete(x.dirty, shard)
	x.mu.Unlock()
	err := st.putShard(ctx, shard, packed)
	x.mu.Lock()
	defer x.mu.Unlock()
	if err != nil {
		x.dirty[shard] = struct{}{}
		return err
	}
	for _, p := range packed {
		if e := x.entryLocked(p.Name); e != nil {
			e.stored = p.stored()
		}
	}
	return nil
}

func (p packedEntry) stored() storedEntry {
	return storedEntry{present: true, group: p.Group, rotateAt: p.RotateAt, reviewAt: p.ReviewAt, summary: p.summary(), checks: p.checks()}
}

func (p packedEntry) summary() summary { return summary{p.Condition, p.Wanted, p.Rotated} }

// weaker is what is certain while p replaces s.
func (s storedEntry) weaker(p packedEntry) storedEntry {
	w := storedEntry{present: s.present, group: s.group, rotateAt: laterDue(s.rotateAt, p.RotateAt), reviewAt: laterDue(s.reviewAt, p.ReviewAt)}
	if s.group != p.Group {
		w.present = false
	}
	return w
}

// laterDue is the later of two due times, of which 0 means never.
func laterDue(a, b int64) int64 {
	if a == 0 || b == 0 {
		return 0
	}
	return max(a, b)
}

func (x *keyIndex) packLocked(shard int) []packedEntry {
	packed := make([]packedEntry, 0, len(x.shards[shard])+1)
	for name, e := range x.shards[shard] {
		p := packedEntry{Name: name, Provider: e.provider, Group: e.group, RotateAt: e.rotateAt, ReviewAt: e.reviewAt, Deleting: e.deleting,
			Condition: e.condition, Wanted: e.wanted, Rotated: e.rotated, CheckAt: packCheck(e.checkAt), SeenAt: e.seenAt}
		if u, ok := x.pending[name]; ok {
			p.Group = u.group
			p.RotateAt, p.ReviewAt = earlier(e.rotateAt, u.rotateAt), earlier(e.reviewAt, u.reviewAt)
			if u.group != e.group {
				p.ReviewAt = 1 // should the record not follow, a start looks which group is true
			}
		}
		packed = append(packed, p)
	}
	for name, u := range x.pending {
		if shardOf(name) == shard && x.entryLocked(name) == nil {
			packed = append(packed, packedEntry{
				Name: name, Provider: u.provider, Group: u.group, Deleting: u.deleting, RotateAt: u.rotateAt, ReviewAt: u.reviewAt,
				Condition: u.condition, Wanted: u.wanted, Rotated: u.rotated, CheckAt: packCheck(u.checkAt),
			})
		}
	}
	slices.SortFunc(packed, func(a, b packedEntry) int { return cmp.Compare(a.Name, b.Name) })
	return packed
}

// earlier is the earlier of two due times, of which 0 means never.
func earlier(a, b int64) int64 {
	switch {
	case a == 0:
		return b
	case b == 0:
		return a
	}
	return min(a, b)
}

// apply takes over what a record that has been written says.
func (x *keyIndex) apply(u indexUpdate) {
	x.mu.Lock()
	defer x.mu.Unlock()
	_, prepared := x.pending[u.name]
	delete(x.pending, u.name)
	e := x.entryLocked(u.name)
	if e == nil {
		e = x.newEntryLocked(u.name)
		if prepared {
			e.stored = storedEntry{present: true, group: u.group, rotateAt: u.rotateAt, reviewAt: u.reviewAt, summary: u.summary, checks: checks{checkAt: u.checkAt}}
		}
		i, _ := slices.BinarySearch(x.names, u.name)
		x.names = slices.Insert(x.names, i, u.name)
	}
	x.setProviderLocked(e, u.provider)
	x.setGroupLocked(e, u.group)
	e.deleting = u.deleting
	e.rotateAt, e.reviewAt, e.checkAt = u.rotateAt, u.reviewAt, u.checkAt
	x.summarizeLocked(e, u.summary)
	if e.stored.rotateAt != e.rotateAt || e.stored.reviewAt != e.reviewAt || e.stored.summary != e.summary || e.stored.checks != e.checks {
		x.dirty[shardOf(u.name)] = struct{}{}
	}
	x.queueLocked(e)
}

// abandon ends a prepare whose record was not written, as far as anyone knows.
// The key is looked at soon, and the record decides.
func (x *keyIndex) abandon(name string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	u, ok := x.pending[name]
	if !ok {
		return
	}
	delete(x.pending, name)
	e := x.entryLocked(name)
	if e == nil {
		e = x.newEntryLocked(name)
		e.provider, e.deleting = u.provider, true // hidden until its record is seen
		x.summarizeLocked(e, summary{})
		i, _ := slices.BinarySearch(x.names, name)
		x.names = slices.Insert(x.names, i, name)
	}
	e.reviewAt = 1
	x.dirty[shardOf(name)] = struct{}{}
	x.queueLocked(e)
}

// flush writes the shards that lag behind.
func (x *keyIndex) flush(ctx context.Context, st store) error {
	x.mu.RLock()
	shards := make([]int, 0, len(x.dirty))
	for n := range x.dirty {
		shards = append(shards, n)
	}
	x.mu.RUnlock()
	slices.Sort(shards)
	for _, n := range shards {
		if err := x.writeShard(ctx, st, n); err != nil {
			return fmt.Errorf("flush index: %w", err)
		}
	}
	return nil
}
