package apikeys

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"
)

// More than crowdSize reads that wait for one key are told so many at a time,
// after a pause each: so whoever made the change has an answer before them, and
// other requests come in between. 10,000 are told within half a second.
const (
	crowdSize  = 256
	crowdPause = 10 * time.Millisecond
)

// waiters are the reads that wait for a new version of a key. They hold no
// lock; each is told by closing its channel.
type waiters struct {
	mu     sync.Mutex
	byName map[string]map[chan struct{}]struct{}
	crowds map[*waitCrowd]struct{}
	count  int
	closed bool
	// pause holds a read for a moment that may not wait; see noWaitPause.
	pause func(context.Context, time.Duration)
}

// waitCrowd is reads that are being told, bit by bit.
type waitCrowd struct{ left []chan struct{} }

func newWaiters() *waiters {
	return &waiters{byName: map[string]map[chan struct{}]struct{}{}, crowds: map[*waitCrowd]struct{}{}, pause: pause}
}

// join registers a wait for name, unless limit waits are under way. leave must
// be called.
func (w *waiters) join(name string, limit int) (told <-chan struct{}, leave func(), ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || w.count >= limit {
		return nil, nil, false
	}
	ch := make(chan struct{})
	if w.byName[name] == nil {
		w.byName[name] = map[chan struct{}]struct{}{}
	}
	w.byName[name][ch] = struct{}{}
	w.count++
	return ch, func() { w.leave(name, ch) }, true
}

func (w *waiters) leave(name string, ch chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.count--
	if set, ok := w.byName[name]; ok {
		delete(set, ch)
		if len(set) == 0 {
			delete(w.byName, name)
		}
	}
}

// notify ends the waits for name.
func (w *waiters) notify(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.notifyLocked(name)
}

func (w *waiters) notifyLocked(name string) {
	set := w.byName[name]
	delete(w.byName, name)
	crowd := &waitCrowd{left: slices.Collect(maps.Keys(set))}
	if len(crowd.left) <= crowdSize {
		crowd.tell(len(crowd.left))
		return
	}
	w.crowds[crowd] = struct{}{}
	go w.release(crowd)
}

// tell ends the wait of the first n.
func (c *waitCrowd) tell(n int) {
	for _, ch := range c.left[:n] {
		close(ch)
	}
	c.left = c.left[n:]
}

// release tells a crowd, until it or endAll has told all.
func (w *waiters) release(c *waitCrowd) {
	for ticker := time.NewTicker(crowdPause); ; {
		<-ticker.C
		w.mu.Lock()
		c.tell(min(crowdSize, len(c.left)))
		if len(c.left) == 0 {
			delete(w.crowds, c)
			w.mu.Unlock()
			ticker.Stop()
			return
		}
		w.mu.Unlock()
	}
}

// endAll ends every wait at once; new ones may begin.
func (w *waiters) endAll() { w.end(false) }

// closeAll ends every wait and allows no more.
func (w *waiters) closeAll() { w.end(true) }

func (w *waiters) end(closed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = w.closed || closed
	for name, set := range w.byName {
		for ch := range set {
			close(ch)
		}
		delete(w.byName, name)
	}
	for c := range w.crowds {
		c.tell(len(c.left))
	}
}

func (w *waiters) size() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.count
}

// pause returns when the time is over or ctx ends.
func pause(ctx context.Context, d time.Duration) { waitFor(ctx, nil, d) }

// waitFor returns when told is closed, the time is over or ctx ends.
func waitFor(ctx context.Context, told <-chan struct{}, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-told:
	case <-timer.C:
	case <-ctx.Done():
	}
}
