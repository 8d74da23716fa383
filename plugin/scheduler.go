package apikeys

import (
	"context"
	"errors"
	"sync/atomic"
	"time"
)

// Limits of the scheduler.
const (
	// maxWorkers is how many keys are worked on at once, over all providers;
	// workersPerProvider keeps one slow service from taking all of them.
	maxWorkers         = 32
	workersPerProvider = 8
	// flushEvery is how often due times that have moved later are stored.
	flushEvery = 2 * time.Minute
	// pauseAfterError is how long a key rests after its storage failed.
	pauseAfterError = 5 * time.Second
	// hungAfter is the pause between two ticks after which another node may have
	// taken over: raft elects a new leader within a few seconds.
	hungAfter = 3 * time.Second
	// defaultMaxPerMinute is a provider's cap on rotations that start by themselves.
	defaultMaxPerMinute = 30
)

// counters are what status and the metrics show.
type counters struct {
	rotations, revocations, failures, reaped atomic.Int64
	reads, notModified, waits                atomic.Int64
}

// mintBudget counts the rotations of a provider that began in one minute.
type mintBudget struct {
	minute int64
	used   int
}

// left is how many may still start in the minute of now (unix seconds).
func (m *mintBudget) left(now int64, limit int) int {
	if minute := now / 60; m.minute != minute {
		m.minute, m.used = minute, 0
	}
	if limit == 0 {
		return maxWorkers
	}
	return limit - m.used // below 0 where the limit has just been lowered
}

// loop runs until the mount is unloaded: at every tick, and whenever a worker
// has become free.
func (b *backend) loop() {
	defer b.running.Done()
	ticker := time.NewTicker(b.opts.Tick)
	defer ticker.Stop()
	for {
		b.tick(b.stopped)
		select {
		case <-b.stopped.Done():
			return
		case <-ticker.C:
		case <-b.wake:
		}
	}
}

// tick starts what is due and stores what has waited long enough. What it
// costs depends on what is due, not on how many keys there are.
func (b *backend) tick(ctx context.Context) {
	if ctx.Err() != nil || b.storage == nil || !b.writable() {
		return
	}
	if err := b.start(ctx, b.storage); err != nil {
		b.Logger().Error("start failed, it will be tried again", "error", err)
		return
	}
	st := store{b.storage}
	now := b.clock.now()
	hung := b.hung()
	if err := b.clock.save(ctx, st, hung); err != nil {
		b.Logger().Warn("the clock could not be stored", "error", err)
		if hung {
			return
		}
	}
	b.lastTick.Store(int64(b.opts.Clock.Monotonic()) + 1)
	b.reportClock(ctx)
	if b.lostIntent.Load() {
		if err := b.rescan(ctx, st); err != nil {
			b.Logger().Warn("the open intents could not be read", "error", err)
		}
	}
	if b.fence.closed() == "" {
		if b.interrupted.Load() {
			if err := b.resumeCampaigns(ctx, st); err != nil {
				b.Logger().Error("an interrupted revocation could not go on yet", "error", publicError(err))
			} else {
				b.interrupted.Store(false)
			}
		}
		if b.hooks.behind.Load() {
			b.running.Add(1)
			go b.catchUpHooks(ctx)
		}
		for {
			name := b.index.take(now.Unix(), b.providers.maxPerMinute)
			if name == "" {
				break
			}
			b.running.Add(1)
			go b.workOn(name)
		}
	}
	if now.Sub(b.flushed()) >= flushEvery {
		b.setFlushed(now)
		if err := b.index.flush(ctx, st); err != nil {
			b.Logger().Warn("the index could not be stored; a restart has more to look at", "error", err)
		}
	}
}

// hung tells that the engine has stood still: the machine hung, or was paused.
// Another node may lead since then, and what is in memory here be out of date,
// while Vault has not noticed yet. A new key cannot be minted by mistake, as its
// intent must be written first; a version that the new leader has rolled back to
// could be revoked. So a write comes first, which storage takes of the leader
// only.
func (b *backend) hung() bool {
	last := time.Duration(b.lastTick.Load())
	return last != 0 && b.opts.Clock.Monotonic()-last > hungAfter
}

func (b *backend) catchUpHooks(ctx context.Context) {
	defer b.running.Done()
	if err := b.hooks.catchUp(ctx); err != nil && ctx.Err() == nil {
		b.Logger().Warn("the events that wait for webhooks could not be read yet", "error", err)
	}
}

func (b *backend) flushed() time.Time     { return time.Unix(b.lastFlush.Load(), 0) }
func (b *backend) setFlushed(t time.Time) { b.lastFlush.Store(t.Unix()) }

// workOn does what is due for one key and gives it back to the index.
func (b *backend) workOn(name string) {
	defer b.running.Done()
	err := b.withKey(b.stopped, b.storage, name, b.advance)
	switch {
	case errors.Is(err, errNoKey):
		b.index.remove(name)
	case err != nil && b.stopped.Err() == nil:
		b.Logger().Error("a key could not be worked on", "key", name, "error", publicError(err))
		until := b.clock.now().Add(pauseAfterError)
		b.index.postpone(name, until)
		b.index.review(name, until)
	default:
		// What is still due has made no progress; it must not take a worker all the time.
		if now := b.clock.now(); b.index.isDue(name, now) {
			b.index.postpone(name, now.Add(time.Second))
		}
	}
	b.index.giveBack(name)
	b.wakeUp()
}

// wakeUp makes the loop look for due work now.
func (b *backend) wakeUp() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// publicError is what the log may hold of an error: ours as they are, a
// provider's without its cause.
func publicError(err error) string { return truncate(err.Error(), 500) }

// take gives the name of a key that is due, or "": nothing is, or no worker is
// free. Reviews go first: they end keys, which must not wait behind a cap.
// The caller gives the key back when it is done.
func (x *keyIndex) take(now int64, limitOf func(provider string) (limit, workers int)) string {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.busy >= maxWorkers {
		return ""
	}
	for name, q := range x.queues {
		limit, workers := limitOf(name)
		if len(q.taken) >= workers {
			continue
		}
		e := q.review.top(now)
		if e == nil {
			if e = q.rotate.top(now); e == nil || q.budget.left(now, limit) <= 0 {
				continue
			}
		}
		x.unqueueLocked(e)
		e.busy = true
		q.taken[e.name] = true
		x.busy++
		return e.name
	}
	return ""
}

// reserveMint takes one of the rotations that a provider may still begin in
// this minute.
func (x *keyIndex) reserveMint(provider string, now int64, limit int) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	q := x.queueFor(provider)
	if q.budget.left(now, limit) <= 0 {
		return false
	}
	q.budget.used++
	return true
}

// giveBack queues a key again by the due times that its work has left.
func (x *keyIndex) giveBack(name string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.busy--
	for _, q := range x.queues {
		if q.taken[name] {
			delete(q.taken, name)
		}
	}
	if e := x.entryLocked(name); e != nil {
		e.busy = false
		x.queueLocked(e)
	}
}

// isDue tells whether a key must be looked at.
func (x *keyIndex) isDue(name string, now time.Time) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	e := x.entryLocked(name)
	if e == nil {
		return false
	}
	due := earlier(e.rotateAt, e.reviewAt)
	return due != 0 && due <= now.Unix()
}

// postpone puts off what is due until the time given, in memory only.
func (x *keyIndex) postpone(name string, until time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e := x.entryLocked(name)
	if e == nil {
		return
	}
	e.notBefore = until.Unix()
	x.queueLocked(e)
}

// maxPerMinute gives a provider's cap on rotations and its share of workers.
func (t *providerTable) maxPerMinute(name string) (limit, workers int) {
	rec := t.record(name)
	if rec == nil {
		return defaultMaxPerMinute, workersPerProvider
	}
	if rec.MaxPerMinute == 0 {
		return 0, maxWorkers
	}
	return rec.MaxPerMinute, workersPerProvider
}
