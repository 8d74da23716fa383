package apikeys

import (
	"context"
	"sync"
)

// keyLocks is one lock per name, for as long as someone holds or waits for it.
// Locks are held over calls to providers, which is why they are neither shared
// between names nor waited for longer than the caller's context allows.
type keyLocks struct {
	mu    sync.Mutex
	locks map[string]*keyLock
}

type keyLock struct {
	slot  chan struct{}
	users int
}

func newKeyLocks() *keyLocks { return &keyLocks{locks: map[string]*keyLock{}} }

// lock waits for the lock of name and gives the function that frees it.
// Callers must check again, after they have it, what they saw before.
func (k *keyLocks) lock(ctx context.Context, name string) (unlock func(), err error) {
	k.mu.Lock()
	l := k.locks[name]
	if l == nil {
		l = &keyLock{slot: make(chan struct{}, 1)}
		k.locks[name] = l
	}
	l.users++
	k.mu.Unlock()
	select {
	case l.slot <- struct{}{}:
		return func() { <-l.slot; k.leave(name, l) }, nil
	case <-ctx.Done():
		k.leave(name, l)
		return nil, ctx.Err()
	}
}

func (k *keyLocks) leave(name string, l *keyLock) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if l.users--; l.users == 0 {
		delete(k.locks, name)
	}
}
