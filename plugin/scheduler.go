package apikeys

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"strongroom.example/plugin/lifecycle"
)

// Limits of the scheduler.
const (
	// maxWorkers is how many keys are worked on at once, over all providers.
	// A provider that has a cap takes up to workersPerProvider of them, one that
	// has none up to half of what the others leave: a slow service takes never all.
	maxWorkers         = 32
	workersPerProvider = 8
	// flushEvery is how often due times that have moved later are stored.
	flushEvery = 2 * time.Minute
	// pauseAfterError is how long a key rests after its storage failed; it doubles
	// with each further time, up to maxErrorPause.
	pauseAfterError = 5 * time.Second
	maxErrorPause   = 10 * time.Minute
	// hungAfter is the pause between two ticks after which another node may have
	// taken over: raft elects a new leader within a few seconds.
	hungAfter = 3 * time.Second
	// defaultMaxPerMinute is a provider's cap on rotations that start by themselves.
	defaultMaxPerMinute = 30
)

// counters are what status and the metrics show.
type counters struct {
	rotations, revocations, failures, reaped, checks atomic.Int64
	reads, notModified, waits                        atomic.Int64
}

// mintBudget counts the rotations at an account that began in one minute.
type mintBudget struct {
	minute int64
	used   int
}

// accountBudget is what of an account's minute is used.
type accountBudget struct{ mints, checks mintBudget }

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
	b.lastTick.Store(&tickTime{b.opts.Clock.Wall(), b.opts.Clock.Monotonic()})
	b.reportClock(ctx)
	if b.lostIntent.Load() {
		if err := b.rescan(ctx, st); err != nil {
			b.Logger().Warn("the open intents could not be read", "error", err)
		}
	}
	if b.fence.closed() == "" {
		if b.interrupted.CompareAndSwap(true, false) {
			b.running.Add(1)
			go b.resumeCampaigns(ctx, st)
		}
		b.resumeTrials(b.stopped, st)
		if b.hooks.behind.Load() {
			b.running.Add(1)
			go b.catchUpHooks(ctx)
		}
		for {
			name := b.index.take(now.Unix(), b.sharesOf)
			if name == "" {
				break
			}
			b.running.Add(1)
			go b.workOn(name)
		}
	}
	if err := b.finishLooks(ctx, st); err != nil {
		b.Logger().Warn("what was looked at could not be stored; a restart looks again", "error", err)
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
//
// In a machine that was suspended the monotonic clock may have stood still as
// well, so either clock tells.
func (b *backend) hung() bool {
	last := b.lastTick.Load()
	return last != nil && (b.opts.Clock.Monotonic()-last.mono > hungAfter || b.opts.Clock.Wall().Sub(last.wall) > hungAfter)
}

type tickTime struct {
	wall time.Time
	mono time.Duration
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
	now, looked := b.clock.now(), true
	var refused *refusal
	switch {
	case err == nil:
		// What is still due has made no progress; it must not take a worker all the time.
		b.index.postpone(name, now, time.Second, false)
	case errors.Is(err, errNoKey):
	case errors.As(err, &refused): // not by this release
		b.index.postpone(name, now, maxErrorPause, true)
	case b.stopped.Err() == nil:
		b.Logger().Error("a key could not be worked on", "key", name, "error", publicError(err))
		b.index.postpone(name, now, pauseAfterError, true)
		looked = false
	}
	b.index.giveBack(name, looked)
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

// shares are what a provider may have of the scheduler now.
type shares struct {
	account string
	mints   int // rotations per minute that start by themselves; 0: no cap
	workers int // at once; 0: half of what others leave
	// No rotation before rotateFrom, nothing else before reviewFrom, in unix
	// seconds: the provider is left alone. One at a time afterwards, while trial.
	rotateFrom, reviewFrom int64
	// checks per minute, none before checkFrom: what is left by rotations.
	checks    int
	checkFrom int64
}

func (b *backend) sharesOf(name string) shares {
	s := shares{mints: defaultMaxPerMinute, workers: workersPerProvider}
	if rec := b.providers.record(name); rec != nil {
		if s.mints = rec.MaxPerMinute; s.mints == 0 {
			s.workers = 0
		}
	}
	if s.checks = s.mints; s.checks == 0 {
		s.checks = defaultMaxPerMinute
	}
	s.account = b.providers.account(name)
	rotate, review, check := b.health.pauses(s.account)
	s.rotateFrom, s.reviewFrom, s.checkFrom = unixCeil(rotate), unixCeil(review), unixCeil(check)
	return s
}

// take gives the name of a key that is due, or "": nothing is, or no worker is
// free. Reviews go first: they end keys, which must not wait behind a cap.
// The caller gives the key back when it is done.
func (x *keyIndex) take(now int64, of func(provider string) shares) string {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.busy >= maxWorkers {
		return ""
	}
	all, taken := map[string]shares{}, map[string]int{}
	for name, q := range x.queues {
		all[name] = of(name)
		taken[all[name].account] += len(q.taken)
	}
	for name, q := range x.queues {
		s := all[name]
		workers := s.workers
		if workers == 0 {
			workers = max((maxWorkers-x.busy+taken[s.account])/2, 1)
		}
		if s.rotateFrom != 0 || s.reviewFrom != 0 {
			workers = 1
		}
		if taken[s.account] >= workers {
			continue
		}
		var e *indexEntry
		if now >= s.reviewFrom {
			e = q.review.top(now)
		}
		if e == nil && now >= s.rotateFrom && x.budgetLocked(s.account).mints.left(now, s.mints) > 0 {
			e = q.rotate.top(now)
		}
		if e == nil && q.mayCheck(now, s, x.budgetLocked(s.account), taken[s.account]) {
			e = q.check.top(now)
		}
		if e == nil {
			continue
		}
		x.unqueueLocked(e)
		e.busy, e.taken = true, e.look
		q.taken[e.name] = true
		x.busy++
		return e.name
	}
	return ""
}

// reserveMint takes one of the rotations that may still begin in this minute at an
// account.
func (x *keyIndex) reserveMint(account string, now int64, limit int) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	budget := &x.budgetLocked(account).mints
	if budget.left(now, limit) <= 0 {
		return false
	}
	budget.used++
	return true
}

// heldBack is why no rotation that is due may begin with a provider now, and until when;
// WhyNever: one may.
func (b *backend) heldBack(provider string, now time.Time) (why lifecycle.Why, until time.Time) {
	s, x := b.sharesOf(provider), b.index
	x.mu.Lock()
	defer x.mu.Unlock()
	switch at := now.Unix(); {
	case at < s.rotateFrom:
		return lifecycle.WhyPause, time.Unix(s.rotateFrom, 0)
	case x.budgetLocked(s.account).mints.left(at, s.mints) <= 0:
		return lifecycle.WhyCap, now.Truncate(time.Minute).Add(time.Minute)
	}
	return lifecycle.WhyNever, until
}

func (x *keyIndex) budgetLocked(account string) *accountBudget {
	if x.budgets[account] == nil {
		x.budgets[account] = &accountBudget{}
	}
	return x.budgets[account]
}

// giveBack queues a key again by the due times that its work has left. looked
// tells that the work saw everything that was there to be seen when it began.
func (x *keyIndex) giveBack(name string, looked bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.busy--
	for _, q := range x.queues {
		delete(q.taken, name)
	}
	e := x.entryLocked(name)
	if e == nil {
		return
	}
	if e.busy = false; looked && e.look == e.taken {
		x.setLookLocked(e, 0)
	}
	x.queueLocked(e)
}

// postpone puts off, in memory only, what is due at now of a key that a worker
// has: for a moment where nothing was wrong, and for longer with each fault in a
// row, after which the key is looked at again.
func (x *keyIndex) postpone(name string, now time.Time, pause time.Duration, fault bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e := x.entryLocked(name)
	if e == nil {
		return
	}
	if !fault {
		e.strikes = 0
		if due := earlier(e.rotateAt, e.reviewAt); due != 0 && due <= now.Unix() {
			e.notBefore = now.Add(pause).Unix()
		}
		return
	}
	until := now.Add(min(pause<<min(e.strikes, 10), maxErrorPause)).Unix()
	e.strikes++
	e.notBefore, e.reviewAt = until, earlier(e.reviewAt, until)
}
