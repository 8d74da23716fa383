package apikeys

import (
	"cmp"
	"container/heap"
	"context"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"sync"
	"time"
)

// indexShards is into how many storage entries the index is cut: at 100,000
// keys each has about 10 KiB, so that a new key costs a small write and a
// start reads few entries.
const indexShards = 1024

// keyIndex knows the name of every key and when each must be looked at. It is
// what makes a start cheap and a tick's work independent of the number of
// keys.
//
// What is stored of it is a hint with two guarantees: every key that exists is
// in it, and no key must be looked at earlier than stored there. So a
// rotation, which moves due times later, needs no write to it; the change goes
// along with the next flush. The truth is in the key's own entry.
type keyIndex struct {
	mu     sync.RWMutex
	loaded bool
	names  []string // sorted
	shards [indexShards]map[string]*indexEntry
	groups map[string]map[string]struct{} // spread_group to names
	queues map[string]*providerQueue
	dirty  map[int]struct{} // shards whose stored state lags behind
	// pending are updates whose record is being written: a shard written
	// meanwhile must hold for the record before and after.
	pending map[string]indexUpdate
	busy    int // names that workers have, over all providers

	writing [indexShards]sync.Mutex // one writer per shard; never taken while mu is held
}

// indexEntry is one key in memory. Times are unix seconds; 0 means never.
type indexEntry struct {
	name     string
	provider string
	group    string
	deleting bool

	rotateAt int64 // next rotation
	reviewAt int64 // next revocation, retry or recovery

	// notBefore puts off what is due after a fault; it is not stored.
	notBefore int64

	// What storage holds: guarantees of the last write.
	stored storedEntry

	rotatePos int // position in the queue's heaps; -1: not queued
	reviewPos int
	busy      bool // taken by a worker
}

type storedEntry struct {
	present  bool
	group    string
	rotateAt int64
	reviewAt int64
}

// packedEntry is an entry of a shard.
type packedEntry struct {
	Name     string `json:"n"`
	Provider string `json:"p"`
	Group    string `json:"g,omitempty"`
	RotateAt int64  `json:"r,omitempty"`
	ReviewAt int64  `json:"v,omitempty"`
	Deleting bool   `json:"d,omitempty"`
}

// providerQueue holds a provider's keys ordered by due time, rotations apart
// from the rest, because only rotations are capped.
type providerQueue struct {
	rotate dueHeap
	review dueHeap
	budget mintBudget
	taken  map[string]bool // names that workers have
}

func newKeyIndex() *keyIndex {
	return &keyIndex{
		groups:  map[string]map[string]struct{}{},
		queues:  map[string]*providerQueue{},
		dirty:   map[int]struct{}{},
		pending: map[string]indexUpdate{},
	}
}

func shardOf(name string) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(name)) // a hash never fails
	return int(h.Sum32() % indexShards)
}

// unload makes the next load read everything anew.
func (x *keyIndex) unload() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.loaded, x.names = false, nil
	clear(x.groups)
	for _, q := range x.queues {
		q.rotate.items, q.review.items = nil, nil
	}
	clear(x.dirty)
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

func (x *keyIndex) insertLocked(p packedEntry) {
	e := x.entryLocked(p.Name)
	if e == nil {
		e = x.newEntryLocked(p.Name)
		x.names = append(x.names, p.Name)
	}
	if e.provider != p.Provider {
		x.unqueueLocked(e)
	}
	x.setGroupLocked(e, p.Group)
	e.provider, e.deleting = p.Provider, p.Deleting
	e.stored = storedEntry{present: true, group: p.Group, rotateAt: p.RotateAt, reviewAt: p.ReviewAt}
	e.rotateAt, e.reviewAt = p.RotateAt, p.ReviewAt
	x.queueLocked(e)
}

func (x *keyIndex) entryLocked(name string) *indexEntry { return x.shards[shardOf(name)][name] }

func (x *keyIndex) newEntryLocked(name string) *indexEntry {
	e := &indexEntry{name: name, rotatePos: -1, reviewPos: -1}
	shard := shardOf(name)
	if x.shards[shard] == nil {
		x.shards[shard] = map[string]*indexEntry{}
	}
	x.shards[shard][name] = e
	return e
}

func (x *keyIndex) setGroupLocked(e *indexEntry, group string) {
	if e.group == group {
		return
	}
	if members := x.groups[e.group]; members != nil {
		delete(members, e.name)
		if len(members) == 0 {
			delete(x.groups, e.group)
		}
	}
	e.group = group
	if group == "" {
		return
	}
	if x.groups[group] == nil {
		x.groups[group] = map[string]struct{}{}
	}
	x.groups[group][e.name] = struct{}{}
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
			e.stored = storedEntry{present: true, group: p.Group, rotateAt: p.RotateAt, reviewAt: p.ReviewAt}
		}
	}
	return nil
}

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
		p := packedEntry{Name: name, Provider: e.provider, Group: e.group, RotateAt: e.rotateAt, ReviewAt: e.reviewAt, Deleting: e.deleting}
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
			e.stored = storedEntry{present: true, group: u.group, rotateAt: u.rotateAt, reviewAt: u.reviewAt}
		}
		i, _ := slices.BinarySearch(x.names, u.name)
		x.names = slices.Insert(x.names, i, u.name)
	}
	if e.provider != u.provider {
		x.unqueueLocked(e)
	}
	x.setGroupLocked(e, u.group)
	e.provider, e.deleting = u.provider, u.deleting
	e.rotateAt, e.reviewAt = u.rotateAt, u.reviewAt
	if e.stored.rotateAt != e.rotateAt || e.stored.reviewAt != e.reviewAt {
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
		i, _ := slices.BinarySearch(x.names, name)
		x.names = slices.Insert(x.names, i, name)
	}
	e.reviewAt = 1
	x.dirty[shardOf(name)] = struct{}{}
	x.queueLocked(e)
}

// remove forgets a key whose record is gone. Storage follows with the flush.
func (x *keyIndex) remove(name string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e := x.entryLocked(name); e != nil {
		x.dropLocked(e)
		x.dirty[shardOf(name)] = struct{}{}
	}
}

func (x *keyIndex) dropLocked(e *indexEntry) {
	x.unqueueLocked(e)
	x.setGroupLocked(e, "")
	delete(x.shards[shardOf(e.name)], e.name)
	if i, ok := slices.BinarySearch(x.names, e.name); ok {
		x.names = slices.Delete(x.names, i, i+1)
	}
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

// has tells whether a key of this name exists, be it in deletion.
func (x *keyIndex) has(name string) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.entryLocked(name) != nil
}

// size is the number of keys.
func (x *keyIndex) size() int {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return len(x.names)
}

// list gives what lies directly under a folder ("" or ending in a slash):
// names, and deeper folders with a slash at their end. It starts after the
// entry given and stops after limit ones (0: no limit).
func (x *keyIndex) list(folder, after string, limit int) []string {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var out []string
	start := folder + after
	if strings.HasSuffix(after, "/") {
		start += "\xff" // beyond everything in that folder
	}
	i, found := slices.BinarySearch(x.names, start)
	if found && after != "" {
		i++
	}
	for i < len(x.names) {
		rest, ok := strings.CutPrefix(x.names[i], folder)
		if !ok || (limit > 0 && len(out) == limit) {
			break
		}
		if dir, _, nested := strings.Cut(rest, "/"); nested {
			out = append(out, dir+"/")
			i, _ = slices.BinarySearch(x.names, folder+dir+"/\xff")
			continue
		}
		if !x.entryLocked(x.names[i]).deleting {
			out = append(out, rest)
		}
		i++
	}
	return out
}

// searchAfter is the position of the first name beyond the one given.
func (x *keyIndex) searchAfter(name string) int {
	i, found := slices.BinarySearch(x.names, name)
	if found {
		i++
	}
	return i
}

// ofProvider lists the names of a provider's keys.
func (x *keyIndex) ofProvider(name string) []string {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var out []string
	for _, n := range x.names {
		if x.entryLocked(n).provider == name {
			out = append(out, n)
		}
	}
	return out
}

// group lists the names of the keys in a spread group.
func (x *keyIndex) group(name string) []string {
	x.mu.RLock()
	defer x.mu.RUnlock()
	out := make([]string, 0, len(x.groups[name]))
	for n := range x.groups[name] {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

// reviewAll makes every key due for a look at the time given, for a change
// that concerns all of them. A flush makes it last over a crash.
func (x *keyIndex) reviewAll(at time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for n, shard := range x.shards {
		for _, e := range shard {
			e.reviewAt = earlier(e.reviewAt, at.Unix())
			x.queueLocked(e)
		}
		if len(shard) > 0 {
			x.dirty[n] = struct{}{}
		}
	}
}

// review makes one key due for a look at the time given.
func (x *keyIndex) review(name string, at time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e := x.entryLocked(name); e != nil {
		e.reviewAt = earlier(e.reviewAt, at.Unix())
		x.queueLocked(e)
	}
}

func (x *keyIndex) queueFor(provider string) *providerQueue {
	q := x.queues[provider]
	if q == nil {
		q = &providerQueue{taken: map[string]bool{}}
		q.rotate.rotate = true
		x.queues[provider] = q
	}
	return q
}

// queueLocked puts an entry where its due times say. One that a worker has
// taken is queued when the worker gives it back.
func (x *keyIndex) queueLocked(e *indexEntry) {
	if e.busy {
		return
	}
	q := x.queueFor(e.provider)
	q.rotate.set(e, e.rotateAt != 0)
	q.review.set(e, e.reviewAt != 0)
}

func (x *keyIndex) unqueueLocked(e *indexEntry) {
	q := x.queueFor(e.provider)
	q.rotate.set(e, false)
	q.review.set(e, false)
}

// dueHeap is a heap of entries by one of their two due times.
type dueHeap struct {
	rotate bool
	items  []*indexEntry
}

func (h *dueHeap) at(e *indexEntry) int64 {
	if h.rotate {
		return max(e.rotateAt, e.notBefore)
	}
	return max(e.reviewAt, e.notBefore)
}

func (h *dueHeap) pos(e *indexEntry) *int {
	if h.rotate {
		return &e.rotatePos
	}
	return &e.reviewPos
}

// set puts e in its place, or takes it out.
func (h *dueHeap) set(e *indexEntry, in bool) {
	pos := *h.pos(e)
	switch {
	case in && pos < 0:
		heap.Push(h, e)
	case in:
		heap.Fix(h, pos)
	case pos >= 0:
		heap.Remove(h, pos)
	}
}

// top is the earliest entry that is due at now, or nil.
func (h *dueHeap) top(now int64) *indexEntry {
	if len(h.items) == 0 || h.at(h.items[0]) > now {
		return nil
	}
	return h.items[0]
}

// dueCount walks the part of the heap that is due: a parent is never later
// than its children.
func (h *dueHeap) dueCount(now int64) int {
	n := 0
	stack := []int{0}
	for len(stack) > 0 {
		i := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if i >= len(h.items) || h.at(h.items[i]) > now {
			continue
		}
		n++
		stack = append(stack, 2*i+1, 2*i+2)
	}
	return n
}

func (h *dueHeap) Len() int           { return len(h.items) }
func (h *dueHeap) Less(i, j int) bool { return h.at(h.items[i]) < h.at(h.items[j]) }
func (h *dueHeap) Swap(i, j int) {
	h.items[i], h.items[j] = h.items[j], h.items[i]
	*h.pos(h.items[i]), *h.pos(h.items[j]) = i, j
}

func (h *dueHeap) Push(v any) {
	e := v.(*indexEntry)
	*h.pos(e) = len(h.items)
	h.items = append(h.items, e)
}

func (h *dueHeap) Pop() any {
	e := h.items[len(h.items)-1]
	h.items = h.items[:len(h.items)-1]
	*h.pos(e) = -1
	return e
}
