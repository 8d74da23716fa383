package apikeys

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"strongroom.example/plugin/lifecycle"
	"strongroom.example/plugin/provider"
)

const (
	mountIDLength = 8
	uidLength     = 12
	attemptLength = 6
)

// randomID is n characters of [0-9a-f].
func (b *backend) randomID(n int) (string, error) {
	raw := make([]byte, (n+1)/2)
	if _, err := io.ReadFull(b.opts.Rand, raw); err != nil {
		return "", fmt.Errorf("the source of randomness failed: %w", err)
	}
	return hex.EncodeToString(raw)[:n], nil
}

// snapshot gives what reads of a key are answered from; nil where there is no
// such key. While it is in the cache no storage is read.
func (b *backend) snapshot(ctx context.Context, s logical.Storage, name string) (*snapshot, error) {
	if snap := b.cache.get(name); snap != nil {
		return snap, nil
	}
	if !b.index.has(name) {
		return nil, nil
	}
	return b.load(ctx, s, name, true)
}

// load is snapshot for a key that the index may not know.
func (b *backend) load(ctx context.Context, s logical.Storage, name string, keep bool) (*snapshot, error) {
	mark := b.cache.mark(name)
	rec, err := store{s}.key(ctx, name)
	if err != nil || rec == nil {
		return nil, err
	}
	snap := b.makeSnapshot(rec)
	if keep {
		b.cache.fill(name, snap, mark)
	}
	return snap, nil
}

// makeSnapshot puts a record together with what it depends on: the mount's
// defaults, its provider, and the campaigns that mark its versions.
func (b *backend) makeSnapshot(rec *keyRecord) *snapshot {
	cfg := b.config.get()
	snap := &snapshot{cost: costOf(rec)}
	snap.rec, snap.marked = b.campaigns.mark(rec)
	rec = snap.rec
	cur := rec.Life.Current()
	caps, known := b.capabilities(rec.Def.Provider)
	snap.caps, snap.known, snap.limit = caps.For(cur != nil), known, aliveLimit(caps)
	snap.grace = cfg.graceOf(&rec.Def)
	if cur != nil {
		snap.etag = etagOf(rec, cur)
	}
	policy, err := cfg.policyOf(&rec.Def)
	if err != nil {
		// Definitions are validated before they are stored; a zone that the
		// machine no longer knows is what is left. Reads go on.
		b.Logger().Error("the key's schedule cannot be used", "key", rec.Name, "error", err)
	} else {
		snap.policy = policy
	}
	snap.promised = b.promisedBefore(snap)
	snap.due = lifecycle.RotationDue(rec.subject(snap.limit, rec.bound(caps), snap.promised), snap.policy, b.clock.now())
	return snap
}

// promisedBefore is until when readers were promised the current version before its
// provider, or the mount's configuration, was changed; zero: nothing was.
func (b *backend) promisedBefore(snap *snapshot) (until time.Time) {
	rec, cfg := snap.rec, b.config.get()
	cur, p := rec.Life.Current(), b.providers.record(rec.Def.Provider)
	if cur == nil || p == nil || !snap.known || snap.caps.Overlap && !cur.Promoted.Before(p.OverlapFrom) {
		return until
	}
	if !cur.Promoted.After(p.OverlapUntil) && !p.OverlapUntil.IsZero() {
		until = p.OverlapUntil.Add(max(cur.Grace, cur.Promised))
	}
	alone := snap.caps
	alone.Overlap = false
	was := append(slices.Clone(cfg.Before), policyBefore{At: p.OverlapFrom, RotationPeriod: cfg.RotationPeriod, Jitter: cfg.Jitter})
	for _, one := range was {
		if !cur.Promoted.Before(one.At) {
			continue
		}
		then := *cfg
		then.RotationPeriod, then.Jitter = one.RotationPeriod, one.Jitter
		if policy, err := then.policyOf(&rec.Def); err == nil {
			due := lifecycle.RotationDue(rec.subject(snap.limit, rec.bound(alone), time.Time{}), policy, one.At)
			until = later(until, one.At.Add(lifecycle.Promise(cur, one.At, false, due.At)))
		}
	}
	return until
}

// rotation is when the key is to be rotated, as seen at now.
func (s *snapshot) rotation(now time.Time) lifecycle.Due {
	if s.policy == nil || !s.policy.Windowed() {
		return s.due // it does not depend on now
	}
	return lifecycle.RotationDue(s.rec.subject(s.limit, s.rec.bound(s.caps), s.promised), s.policy, now)
}

// capabilities of a provider. Where it cannot be built they are not known, and
// nothing is promised that would need them.
func (b *backend) capabilities(name string) (caps provider.Capabilities, known bool) {
	p, err := b.provider(context.Background(), name)
	if err != nil {
		return provider.Capabilities{Mint: true, Revoke: true}, false
	}
	return p.Capabilities(), true
}

// work is one key under its lock. rec is what storage holds, with what campaigns
// mark, and never changes in place: save replaces it.
type work struct {
	b   *backend
	st  store
	rec *keyRecord
	// marked are versions that a campaign has marked, which is not stored yet.
	marked []int
	prov   provider.Provider
	caps   provider.Capabilities
	// unusable is why the provider cannot be asked anything; nil: it can.
	unusable error
	// failed is the provider's error of the last step, already recorded.
	failed error
	// lost is why rec may not be what storage has: a write has failed, which may have been
	// carried out all the same. Nothing is written, made or ended on its word any more.
	lost error
	// quiet: who waits for a change is told when all is done, so that there is a
	// successor to a version that is known to others where there can be one.
	quiet bool
}

// loudly ends quiet and tells those who wait.
func (w *work) loudly() {
	w.quiet = false
	w.b.waiters.notify(w.rec.Name)
}

var errNoKey = errors.New("there is no such key")

// withKey runs fn under the key's lock: every change of a key, of its place in
// the index, and of its intents, is made so. It reads the key after it has the
// lock, so fn sees what the holder before has left. A context that ends does not
// stop fn, because a call to a provider that is cut off half-way leaves
// uncertainty behind; calls have limits of their own. Where the provider cannot be
// built each call to it fails, and everything else works.
func (b *backend) withKey(ctx context.Context, s logical.Storage, name string, fn func(context.Context, *work) error) error {
	unlock, err := b.locks.lock(ctx, name)
	if err != nil {
		return fmt.Errorf("key %q is busy: %w", name, err)
	}
	defer unlock()
	ctx = context.WithoutCancel(ctx)
	snap, err := b.snapshot(ctx, s, name)
	if err != nil {
		return err
	}
	if snap == nil {
		b.index.remove(name) // its record is gone, or was never written
		return fmt.Errorf("key %q: %w", name, errNoKey)
	}
	if f := snap.rec.newer; f != 0 {
		return refuse("install the release that wrote it", "key %q has format %d in storage, this release writes up to %d", name, f, storageFormat)
	}
	w := b.workOf(ctx, store{s}, snap)
	if err = fn(ctx, w); err == nil || isAnswer(err) {
		w.index()
	}
	return err
}

// index takes over where the key stands after work on it.
func (w *work) index() {
	if w.b.index.has(w.rec.Name) {
		w.b.index.apply(w.b.dueOf(w.snap()))
	}
}

func (b *backend) workOf(ctx context.Context, st store, snap *snapshot) *work {
	w := &work{b: b, st: st, rec: snap.rec, marked: snap.marked, caps: snap.caps}
	if w.prov, w.unusable = b.provider(ctx, w.rec.Def.Provider); w.unusable != nil {
		w.prov = unusable{w.unusable}
	}
	return w
}

// verb is what is done to one key under its lock.
type verb func(context.Context, *work) (*logical.Response, error)

// onKey makes the handler of a verb on one key: name, fence, what the request
// says, lock, in that order.
func (b *backend) onKey(take func(*framework.FieldData) (verb, error)) framework.OperationFunc {
	return func(ctx context.Context, req *logical.Request, d *framework.FieldData) (resp *logical.Response, err error) {
		name, err := keyName(d)
		if err != nil {
			return nil, err
		}
		if err := b.fence.check(); err != nil {
			return nil, err
		}
		do, err := take(d)
		if err != nil {
			return nil, err
		}
		err = b.withKey(ctx, req.Storage, name, func(ctx context.Context, w *work) (err error) {
			resp, err = do(ctx, w)
			return err
		})
		return resp, err
	}
}

// ofKey makes the handler of a read of one key.
func (b *backend) ofKey(read func(context.Context, *snapshot, *framework.FieldData) (*logical.Response, error)) framework.OperationFunc {
	return func(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
		name, err := keyName(d)
		if err != nil {
			return nil, err
		}
		snap, err := b.snapshot(ctx, req.Storage, name)
		if err != nil || snap == nil || b.isGone(snap.rec) {
			return nil, err
		}
		return read(ctx, snap, d)
	}
}

func (w *work) now() time.Time { return w.b.clock.now() }

// snap is the key as it stands, with what it depends on.
func (w *work) snap() *snapshot { return w.b.makeSnapshot(w.rec) }

// save writes the record: index first, so that the key is found; then the
// record, which is the commit point; then memory. Where the write fails,
// nobody knows what storage holds, and memory forgets what it knew.
func (w *work) save(ctx context.Context, next *keyRecord) error {
	b := w.b
	if w.lost != nil {
		return w.lost
	}
	next.tidy(b.config.get().versionsOf(&next.Def))
	w.keepPromise(next)
	if err := next.Life.Check(); err != nil {
		return fmt.Errorf("key %q would become inconsistent, nothing was written: %w", next.Name, err)
	}
	mark := b.cache.changes()
	snap := b.makeSnapshot(next)
	update := b.dueOf(snap)
	if err := b.index.prepare(ctx, w.st, update); err != nil {
		return err
	}
	if err := w.st.putKey(ctx, snap.rec); err != nil { // commit point
		b.cache.drop(next.Name)
		b.index.abandon(next.Name)
		w.lost = fmt.Errorf("key %q: what is stored is not known until it is read again: %w", next.Name, err)
		return err
	}
	before, marked := w.rec, append(w.marked, snap.marked...)
	w.rec, w.marked, snap.marked = snap.rec, nil, nil
	b.cache.put(next.Name, snap, mark)
	b.index.apply(update)
	if before == nil || len(marked) > 0 || readersSee(before) != readersSee(w.rec) {
		if !w.quiet {
			b.waiters.notify(next.Name)
		}
		for _, name := range b.providers.usingKey(next.Name) {
			b.providers.reset(name)
		}
	}
	if w.caps.MaxKeys > 0 && before != nil && before.Life.Alive() > w.rec.Life.Alive() {
		w.placeFreed(ctx)
	}
	if len(marked) > 0 {
		b.emit(ctx, "compromised", next.Name, "provider", next.Def.Provider, "versions", fmt.Sprint(marked))
	}
	return nil
}

// keepPromise holds back a rotation that a change would bring forward, where its
// birth ends what readers were promised.
func (w *work) keepPromise(next *keyRecord) {
	cur := next.Life.Current()
	if w.rec == nil || w.caps.Overlap || cur == nil || cur.Compromised || !cur.Doubted.IsZero() {
		return
	}
	was, now := w.rec.Life.Current(), w.now()
	if was == nil || was.Number != cur.Number {
		return
	}
	until, before := w.promisedUntil(), w.snap().rotation(now).At
	// One that loses its rotation may still be rotated by hand, or deleted.
	at := w.b.makeSnapshot(next).rotation(now).At
	if until.After(now) && at.Before(until) && !(at.IsZero() && before.IsZero()) {
		cur.PromisedUntil = until
	}
}

// promisedUntil is until when readers were promised the current version because no two
// keys live at once, or did not when they read it; zero: nothing was.
func (w *work) promisedUntil() time.Time {
	snap, now, cur := w.snap(), w.now(), w.rec.Life.Current()
	if cur == nil {
		return snap.promised
	}
	until := later(snap.promised, cur.PromisedUntil)
	if !w.caps.Overlap {
		until = later(until, now.Add(lifecycle.Promise(cur, now, false, snap.rotation(now).At)))
	}
	return until
}

// keepRetired lets the version that was current, and is in grace in next, live for as
// long as its readers were promised.
func (w *work) keepRetired(next *keyRecord) {
	v := next.Life.Find(currentNumber(w.rec))
	if v == nil || v.State != lifecycle.Grace || v.Compromised || v.Ending != nil {
		return
	}
	v.PromisedUntil = w.promisedUntil()
	v.RevokeAt = later(v.RevokeAt, v.PromisedUntil)
	if !v.Expires.IsZero() {
		v.RevokeAt = earlierTime(v.RevokeAt, v.Expires)
	}
}

// doubt notes that the current version may be dead: its successor was asked for, and
// nobody has seen it, where its birth ends the one before. Readers are promised nothing
// until there is a successor, or the version is seen to work; what they were promised so
// far holds until it is refused. Where it cannot be looked at, a successor is needed. What was brought meanwhile, with a later number, was tested
// after that. next must be a clone.
func (w *work) doubt(next *keyRecord, successor int) {
	cur := next.Life.Current()
	if w.caps.Overlap || cur == nil || cur.Number >= successor {
		return
	}
	if w.rec.bound(w.caps) && cur.Number == currentNumber(w.rec) {
		cur.PromisedUntil = later(cur.PromisedUntil, w.promisedUntil())
	}
	cur.Doubted = w.now()
	if !w.caps.Test {
		next.Requested = earlierTime(next.Requested, cur.Doubted)
	}
}

// seen is what those who wait for a change of a key wait for.
type seen struct {
	version               int
	compromised, deleting bool
}

func readersSee(rec *keyRecord) seen {
	s := seen{deleting: rec.Deleting != nil}
	if cur := rec.Life.Current(); cur != nil {
		s.version, s.compromised = cur.Number, cur.Compromised
	}
	return s
}

func currentNumber(rec *keyRecord) int { return readersSee(rec).version }

// erase removes a key of which nothing is left.
func (w *work) erase(ctx context.Context) error {
	name := w.rec.Name
	if !w.rec.neverHad() {
		if err := w.st.putLastNumber(ctx, name, w.rec.Life.Last); err != nil {
			return err
		}
	}
	if err := w.st.removeKey(ctx, name); err != nil {
		w.b.cache.drop(name)
		return err
	}
	w.b.cache.drop(name)
	w.b.index.remove(name)
	w.b.waiters.notify(name)
	if err := w.b.index.writeShard(ctx, w.st, shardOf(name)); err != nil {
		// The key is gone; its name goes with the next flush, or when it is due.
		w.b.Logger().Warn("the index could not be stored yet", "error", err)
	}
	return nil
}

// dueOf says when the scheduler must look at a key again.
func (b *backend) dueOf(snap *snapshot) indexUpdate {
	rec, now := snap.rec, b.clock.now()
	u := indexUpdate{name: rec.Name, provider: rec.Def.Provider, group: rec.Def.SpreadGroup, deleting: rec.Deleting != nil}
	if rec.newer != 0 {
		return u // a later release looks after it
	}
	review := func(at time.Time) { u.reviewAt = earlier(u.reviewAt, unixCeil(at)) }
	unfinished := rec.Life.Pending() != nil || b.intents.open(rec.Name)
	switch {
	case rec.Uncertain != nil:
	case unfinished && rec.Wait != nil:
		review(rec.Wait.Until)
		if rec.Life.Pending() == nil && !rec.Wait.For(lifecycle.WhyList) {
			// The pause is for the next mint. What the last one has left is looked for before.
			for _, in := range b.intents.of(rec.Name) {
				review(now.Add(b.unsettled(in)))
			}
		}
	case unfinished:
		review(rec.Created)
	case snap.caps.Mint:
		u.rotateAt = unixCeil(snap.rotation(now).At)
	}
	if !snap.caps.Mint {
		review(b.reminderDue(snap, now))
	}
	review(rec.nextRevocation())
	review(rec.Sweep)
	if snap.caps.LastUsed {
		review(rec.nextUseCheck())
	}
	if len(snap.marked) > 0 {
		review(rec.Created)
	}
	if rec.Deleting != nil && rec.Life.Alive() == 0 {
		review(later(rec.Created, rec.Deleting.LookAt))
	}
	if snap.unchecked(now) == "" {
		u.checkAt = b.index.checkAfter(rec, now)
	}
	due := snap.rotation(now).Wanted
	u.summary = summary{b.conditionOf(snap), unixCeil(due), unixCeil(rec.LastRotation)}
	// When the condition changes by itself.
	turns := []time.Time{due.Add(lifecycle.Late)}
	if cur := rec.Life.Current(); cur != nil {
		turns = append(turns, cur.Expires, cur.RevokeAt)
	}
	for _, at := range turns {
		if at.After(now) && rec.Deleting == nil {
			review(at)
		}
	}
	return u
}

// remindEvery is how often a due key that nothing can rotate is told of again.
const remindEvery = day

// reminderDue is when somebody must be told that a key has to be replaced by
// hand; zero: never.
func (b *backend) reminderDue(snap *snapshot, now time.Time) time.Time {
	at := snap.rotation(now).Wanted
	if at.IsZero() {
		return at
	}
	at = at.Add(-b.config.get().WarnBefore)
	if again := snap.rec.Reminded.Add(remindEvery); !snap.rec.Reminded.IsZero() && again.After(at) {
		at = again
	}
	return at
}

// maxAlive is how many versions of a key may be alive at once, wherever the
// provider itself sets no lower limit: a record must stay well below the size
// of a storage entry, and who rotates faster than grace periods end has a
// fault in a loop.
const maxAlive = 100

func aliveLimit(c provider.Capabilities) int {
	if c.MaxKeys > 0 && c.Overlap {
		return min(c.MaxKeys, maxAlive)
	}
	return maxAlive
}

// unixCeil rounds up, so that a key is never looked at just before it is due.
func unixCeil(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	s := t.Unix()
	if t.Nanosecond() > 0 {
		s++
	}
	return max(s, 1)
}

// fail is why a step failed, and until when to wait before the next try. The
// message comes from a provider's error, which holds no secret.
func (w *work) fail(prev *lifecycle.Failure, step lifecycle.Step, why lifecycle.Why, err error) (*lifecycle.Failure, *lifecycle.Wait) {
	now := w.now()
	f := &lifecycle.Failure{Step: step, Kind: provider.KindOf(err).String(), Message: publicMessage(err), Count: 1, At: now}
	if prev != nil && prev.Step == step {
		f.Count = prev.Count + 1
	}
	pause := w.pauseAfter(f.Count)
	var pe *provider.Error
	if errors.As(err, &pe) && pe.RetryAfter > 0 {
		pause = max(pause, min(pe.RetryAfter, maxRetry))
		if why == lifecycle.WhyRetry {
			why = lifecycle.WhyAsked
		}
	}
	w.failed = err
	w.b.stats.failures.Add(1)
	if f.Count&(f.Count-1) == 0 { // the first of a row, and then ever fewer
		w.b.Logger().Warn("a rotation has failed", "key", w.rec.Name, "provider", w.rec.Def.Provider, "step", f.Step, "failures", f.Count,
			"next_try", text(now.Add(pause)), "error", f.Message)
	}
	return f, &lifecycle.Wait{Why: why, Until: now.Add(pause)}
}

// pauseAfter is the pause after so many failures in a row.
func (w *work) pauseAfter(count int) time.Duration {
	cfg := w.b.config.get()
	return lifecycle.Backoff(count, cfg.RetryBase, cfg.RetryMax, lifecycle.Seed(w.rec.UID, count))
}

// publicMessage is what may be shown of a provider's error. An error of
// another type may quote anything, so only its type is told.
func publicMessage(err error) string {
	var pe *provider.Error
	if errors.As(err, &pe) {
		return truncate(pe.Error(), 500)
	}
	var r *refusal
	if errors.As(err, &r) {
		return truncate(r.Error(), 500)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return "no answer in time"
	}
	return fmt.Sprintf("unexpected error of type %T", err)
}

func truncate(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return s[:n] + "…"
}
