package apikeys

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/golang-lru/simplelru"

	"strongroom.example/plugin/lifecycle"
)

// snapshot is what reads are answered from: a record and what follows from it
// together with the mount's defaults and its provider. It never changes.
type snapshot struct {
	rec     *keyRecord
	policy  *lifecycle.Policy
	grace   time.Duration // for the next version
	overlap bool
	mints   bool // the provider can make keys by itself
	local   bool // Vault is the issuer
	maxKeys int
	// lastUsed: the provider knows when keys were last used.
	lastUsed bool
	next     time.Time
	etag     string // of the current version
	cost     int
	// provisional: the provider could not be built, so what it can do is a
	// guess; the snapshot is not kept.
	provisional bool
}

// recordCache holds snapshots up to a number of bytes. Its entries are never
// older than storage: memory is changed only after a write, and whoever loads
// a record while it is being changed does not get to put it in.
type recordCache struct {
	mu    sync.Mutex
	lru   *simplelru.LRU
	size  int
	limit int
	// epoch counts changes per stripe of names.
	epoch [256]atomic.Uint64
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

// put takes over what has just been written.
func (c *recordCache) put(name string, s *snapshot) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.epoch[stripe(name)].Add(1)
	c.putLocked(name, s)
}

func (c *recordCache) putLocked(name string, s *snapshot) {
	c.lru.Remove(name)
	if s.cost > c.limit || s.provisional {
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
