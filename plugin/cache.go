package apikeys

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/golang-lru/simplelru"

	"strongroom.example/plugin/lifecycle"
	"strongroom.example/plugin/provider"
)

// snapshot is what reads are answered from: a record and what follows from it
// together with the mount's defaults and its provider. It never changes.
type snapshot struct {
	rec    *keyRecord
	marked []int // versions that a campaign marks in rec, which is not stored yet
	policy *lifecycle.Policy
	grace  time.Duration // for the next version
	caps   provider.Capabilities
	known  bool // the provider could be built, so caps is what it can do
	limit  int  // how many versions may be alive
	due    lifecycle.Due
	// promised is until when readers were promised the current version before the provider
	// or the mount's configuration changed.
	promised time.Time
	etag     string // of the current version
	cost     int
}

// recordCache holds snapshots up to a number of bytes. Its entries are never
// older than storage: memory is changed only after a write, and whoever loads
// a record while it is being changed does not get to put it in.
type recordCache struct {
	mu    sync.Mutex
	lru   *simplelru.LRU
	size  int
	limit int
	// epoch counts changes per stripe of names, purges those that concern all.
	epoch  [256]atomic.Uint64
	purges atomic.Uint64
}

func newRecordCache(limit int) *recordCache {
	c := &recordCache{limit: limit}
	// The number is no bound here: cost is. An error is only possible for a size below 1.
	c.lru, _ = simplelru.NewLRU(1<<31-1, func(_, v any) { c.size -= v.(*snapshot).cost })
	return c
}

func stripe(name string) int { return shardOf(name) & 255 }

// get gives the snapshot of name, or nil.
func (c *recordCache) get(name string) *snapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.lru.Get(name)
	if !ok {
		return nil
	}
	return v.(*snapshot)
}

// peek is get for one who goes through all keys, which says nothing of use.
func (c *recordCache) peek(name string) *snapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	if v, ok := c.lru.Peek(name); ok {
		return v.(*snapshot)
	}
	return nil
}

// mark is taken before a record is read from storage.
func (c *recordCache) mark(name string) uint64 { return c.epoch[stripe(name)].Load() }

// fill puts in what was read from storage, unless something has changed since
// the mark was taken.
func (c *recordCache) fill(name string, s *snapshot, mark uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.epoch[stripe(name)].Load() != mark {
		return
	}
	c.putLocked(name, s)
}

// changes is taken before a snapshot of what will be written is made.
func (c *recordCache) changes() uint64 { return c.purges.Load() }

// put takes over what has just been written, unless what it depends on has
// changed since mark was taken: then it is read anew.
func (c *recordCache) put(name string, s *snapshot, mark uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.epoch[stripe(name)].Add(1)
	if c.purges.Load() != mark {
		c.lru.Remove(name)
		return
	}
	c.putLocked(name, s)
}

func (c *recordCache) putLocked(name string, s *snapshot) {
	c.lru.Remove(name)
	if s.cost > c.limit {
		return
	}
	c.lru.Add(name, s)
	c.size += s.cost
	c.shrinkLocked()
}

func (c *recordCache) shrinkLocked() {
	for c.size > c.limit {
		if _, _, ok := c.lru.RemoveOldest(); !ok {
			return
		}
	}
}

// drop forgets a name.
func (c *recordCache) drop(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.epoch[stripe(name)].Add(1)
	c.lru.Remove(name)
}

// purge forgets everything.
func (c *recordCache) purge() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.purges.Add(1)
	for i := range c.epoch {
		c.epoch[i].Add(1)
	}
	c.lru.Purge()
}

// resize changes the bound.
func (c *recordCache) resize(limit int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.limit = limit
	c.shrinkLocked()
}

// stats gives the number of entries and their cost in bytes.
func (c *recordCache) stats() (entries, bytes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lru.Len(), c.size
}

// costOf estimates what a record takes in memory.
func costOf(r *keyRecord) int {
	const perRecord, perVersion, perValue = 800, 350, 96
	n := perRecord + len(r.Name)*2 + perVersion*len(r.Life.Versions)
	for _, values := range r.Values {
		n += perValue
		for k, v := range values {
			n += perValue + len(k) + len(v)
		}
	}
	for k, v := range r.Def.Metadata {
		n += perValue + len(k) + len(v)
	}
	return n
}
