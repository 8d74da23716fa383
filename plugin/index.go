package apikeys

import (
	"hash/fnv"
	"slices"
	"strings"
	"sync"
	"time"

	"strongroom.example/plugin/condition"
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
	// budgets are of rotations and checks that begin by themselves, by account.
	budgets map[string]*accountBudget
	dirty   map[int]struct{} // shards whose stored state lags behind
	// pending are updates whose record is being written: a shard written
	// meanwhile must hold for the record before and after.
	pending map[string]indexUpdate
	busy    int // names that workers have, over all providers
	looking int // counts the lookAt
	changes int // counts what may change the report
	told    *report
	bad     map[string]struct{} // keys whose condition is not ok

	writing [indexShards]sync.Mutex // one writer per shard; never taken while mu is held
}

// summary is what status and metrics tell of a key without its record. It is as
// the last look at the key found it, and who looks says when to look again.
type summary struct {
	condition condition.Name // "": nobody has looked since 0.1 wrote the index
	wanted    int64          // the next rotation
	rotated   int64          // the last one
}

// indexEntry is one key in memory. Times are unix seconds; 0 means never.
type indexEntry struct {
	name     string
	provider string
	group    string
	deleting bool

	rotateAt int64 // next rotation
	reviewAt int64 // next revocation, retry or recovery

	summary
	checks

	// notBefore puts off what is due after a fault, the strikes-th in a row; it is
	// not stored.
	notBefore int64
	strikes   int
	// checkFault is why the last check did not tell.
	checkFault string
	// look, unless 0, is the lookAt for which the key must still be looked at;
	// taken is what a worker has of it.
	look, taken int

	// What storage holds: guarantees of the last write.
	stored storedEntry

	rotatePos int // position in the queue's heaps; -1: not queued
	reviewPos int
	checkPos  int
	busy      bool // taken by a worker
}

func newKeyIndex() *keyIndex {
	return &keyIndex{
		groups:  map[string]map[string]struct{}{},
		queues:  map[string]*providerQueue{},
		budgets: map[string]*accountBudget{},
		dirty:   map[int]struct{}{},
		pending: map[string]indexUpdate{},
		bad:     map[string]struct{}{},
	}
}

func shardOf(name string) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(name)) // a hash never fails
	return int(h.Sum32() % indexShards)
}

func (x *keyIndex) insertLocked(p packedEntry) {
	e := x.entryLocked(p.Name)
	if e == nil {
		e = x.newEntryLocked(p.Name)
		x.names = append(x.names, p.Name)
	}
	x.setProviderLocked(e, p.Provider)
	x.setGroupLocked(e, p.Group)
	e.deleting = p.Deleting
	e.stored = p.stored()
	e.rotateAt, e.reviewAt = p.RotateAt, p.ReviewAt
	x.summarizeLocked(e, p.summary())
	if e.checks = p.checks(); p.Condition == "" || p.CheckAt == 0 {
		x.setLookLocked(e, max(x.looking, 1)) // an earlier release wrote it
	}
	x.queueLocked(e)
}

func (x *keyIndex) entryLocked(name string) *indexEntry { return x.shards[shardOf(name)][name] }

func (x *keyIndex) newEntryLocked(name string) *indexEntry {
	e := &indexEntry{name: name, rotatePos: -1, reviewPos: -1, checkPos: -1}
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

// remove forgets a key whose record is gone. Storage follows with the flush.
func (x *keyIndex) remove(name string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e := x.entryLocked(name); e != nil {
		x.dropLocked(e)
		x.dirty[shardOf(name)] = struct{}{}
	}
}

func (x *keyIndex) summarizeLocked(e *indexEntry, s summary) {
	x.changes++
	if e.summary = s; s.condition == condition.OK {
		delete(x.bad, e.name)
	} else {
		x.bad[e.name] = struct{}{}
	}
}

func (x *keyIndex) setProviderLocked(e *indexEntry, provider string) {
	if e.provider == provider {
		return
	}
	x.unqueueLocked(e)
	look := e.look
	x.setLookLocked(e, 0)
	e.provider = provider
	x.setLookLocked(e, look)
}

func (x *keyIndex) dropLocked(e *indexEntry) {
	x.unqueueLocked(e)
	x.setLookLocked(e, 0)
	x.setGroupLocked(e, "")
	x.changes++
	delete(x.bad, e.name)
	delete(x.shards[shardOf(e.name)], e.name)
	if i, ok := slices.BinarySearch(x.names, e.name); ok {
		x.names = slices.Delete(x.names, i, i+1)
	}
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

// lastRotation is the latest of any key, in full seconds, rounded up.
func (x *keyIndex) lastRotation() time.Time {
	x.mu.RLock()
	defer x.mu.RUnlock()
	last := int64(0)
	for _, shard := range x.shards {
		for _, e := range shard {
			last = max(last, e.rotated)
		}
	}
	return time.Unix(last, 0).UTC()
}

// countOf is the number of a provider's keys, or, without a name, of all.
func (x *keyIndex) countOf(provider string) int {
	if provider == "" {
		return x.size()
	}
	return len(x.ofProvider(provider))
}

// providerOf gives the provider of a key, or "".
func (x *keyIndex) providerOf(name string) string {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if e := x.entryLocked(name); e != nil {
		return e.provider
	}
	return ""
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

// deletedOf lists those that are being deleted.
func (x *keyIndex) deletedOf(provider string) []string {
	names := x.ofProvider(provider)
	x.mu.RLock()
	defer x.mu.RUnlock()
	return slices.DeleteFunc(names, func(n string) bool { e := x.entryLocked(n); return e == nil || !e.deleting })
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
