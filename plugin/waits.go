package apikeys

import (
	"context"
	"sync"
	"time"
)

// waiters are the reads that wait for a new version of a key. They hold no
// lock; each is told by closing its channel.
type waiters struct {
	mu     sync.Mutex
	byName map[string]map[chan struct{}]struct{}
	count  int
	closed bool
}

func newWaiters() *waiters { return &waiters{byName: map[string]map[chan struct{}]struct{}{}} }

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
	for ch := range w.byName[name] {
		close(ch)
	}
	delete(w.byName, name)
}

// endAll ends every wait; new ones may begin.
func (w *waiters) endAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for name := range w.byName {
		w.notifyLocked(name)
	}
}

// closeAll ends every wait and allows no more.
func (w *waiters) closeAll() {
	w.endAll()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
}

func (w *waiters) size() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.count
}

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
