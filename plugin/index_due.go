package apikeys

import (
	"container/heap"
	"time"
)

// providerQueue holds a provider's keys ordered by due time, rotations apart
// from the rest, because only rotations are capped.
type providerQueue struct {
	rotate dueHeap
	review dueHeap
	budget mintBudget
	taken  map[string]bool // names that workers have
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

func (h *dueHeap) Len() int { return len(h.items) }

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
