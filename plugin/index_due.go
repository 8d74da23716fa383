package apikeys

import (
	"container/heap"
	"time"
)

// providerQueue holds a provider's keys ordered by due time: rotations and checks of
// the current key apart from the rest, because only they are capped.
type providerQueue struct {
	rotate dueHeap
	review dueHeap
	check  dueHeap
	taken  map[string]bool // names that workers have
	looks  int             // keys that lookAt waits for
}

// lookAt makes every key of a provider, or all, due for a look now, for a change
// that concerns them. Only who has looked at a key takes that from it, so what is
// computed from the old meanwhile cannot put it off. It gives how many there are,
// and costs some milliseconds at 100,000.
func (x *keyIndex) lookAt(provider string) int {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.looking++
	n := 0
	for _, shard := range x.shards {
		for _, e := range shard {
			if provider != "" && e.provider != provider {
				continue
			}
			n++
			x.setLookLocked(e, x.looking)
			e.notBefore = 0 // what failed may not fail any more
			if q := x.queueFor(e.provider); !e.busy && e.reviewPos < 0 {
				e.reviewPos = len(q.review.items)
				q.review.items = append(q.review.items, e)
			}
		}
	}
	for name, q := range x.queues {
		if provider == "" || name == provider {
			heap.Init(&q.review)
			heap.Init(&q.rotate)
			heap.Init(&q.check)
		}
	}
	return n
}

func (x *keyIndex) setLookLocked(e *indexEntry, look int) {
	q := x.queueFor(e.provider)
	q.looks += boolInt(look != 0) - boolInt(e.look != 0)
	e.look = look
}

// looks is how many keys of a provider, or of all, lookAt still waits for.
func (x *keyIndex) looks(provider string) int {
	x.mu.RLock()
	defer x.mu.RUnlock()
	n := 0
	for name, q := range x.queues {
		if provider == "" || name == provider {
			n += q.looks
		}
	}
	return n
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
		q.rotate.of, q.review.of, q.check.of = ofRotate, ofReview, ofCheck
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
	q.review.set(e, e.reviewAt != 0 || e.look != 0)
	q.check.set(e, e.checkAt != 0)
}

func (x *keyIndex) unqueueLocked(e *indexEntry) {
	q := x.queueFor(e.provider)
	q.rotate.set(e, false)
	q.review.set(e, false)
	q.check.set(e, false)
}

// dueHeap is a heap of entries by one of their due times.
type dueHeap struct {
	of    dueTime
	items []*indexEntry
}

type dueTime int

const (
	ofRotate dueTime = iota
	ofReview
	ofCheck
)

func (h *dueHeap) at(e *indexEntry) int64 {
	switch {
	case h.of == ofRotate:
		return max(e.rotateAt, e.notBefore)
	case h.of == ofCheck:
		return max(e.checkAt, e.notBefore)
	case e.look != 0:
		return e.notBefore
	}
	return max(e.reviewAt, e.notBefore)
}

func (h *dueHeap) pos(e *indexEntry) *int {
	switch h.of {
	case ofRotate:
		return &e.rotatePos
	case ofCheck:
		return &e.checkPos
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
