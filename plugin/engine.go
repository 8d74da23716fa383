package apikeys

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"strongroom.example/plugin/lifecycle"
	"strongroom.example/plugin/provider"
)

const (
	// callTimeout bounds one call to a provider. A request to Vault may last
	// 90 s, and a rotation makes up to three calls.
	callTimeout   = 25 * time.Second
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
	mark := b.cache.mark(name)
	rec, err := store{s}.key(ctx, name)
	if err != nil || rec == nil {
		return nil, err
	}
	snap := b.makeSnapshot(rec)
	b.cache.fill(name, snap, mark)
	return snap, nil
}

func (b *backend) makeSnapshot(rec *keyRecord) *snapshot {
	cfg := b.config.get()
	snap := &snapshot{rec: rec, grace: cfg.graceOf(&rec.Def), cost: costOf(rec)}
	caps, known := b.capabilities(rec.Def.Provider)
	caps = caps.For(rec.Life.Current() != nil)
	snap.overlap, snap.mints, snap.local, snap.maxKeys = caps.Overlap, !known || caps.Mint, caps.Local, aliveLimit(caps)
	snap.lastUsed = caps.LastUsed
	snap.provisional = !known
	if cur := rec.Life.Current(); cur != nil {
		snap.etag = etagOf(rec, cur)
	}
	policy, err := cfg.policyOf(&rec.Def)
	if err != nil {
		// Definitions are validated before they are stored; a zone that the
		// machine no longer knows is what is left. Reads go on.
		b.Logger().Error("the key's schedule cannot be used", "key", rec.Name, "error", err)
		return snap
	}
	snap.policy = policy
	snap.next = b.nextRotation(rec, policy)
	return snap
}

// capabilities of a provider; not known where it cannot be built.
func (b *backend) capabilities(name string) (caps provider.Capabilities, known bool) {
	p, err := b.provider(context.Background(), name)
	if err != nil {
		return provider.Capabilities{}, false
	}
	return p.Capabilities(), true
}

// nextRotation is when the policy wants the next rotation; zero: never.
func (b *backend) nextRotation(rec *keyRecord, policy *lifecycle.Policy) time.Time {
	if rec.Deleting != nil || policy == nil {
		return time.Time{}
	}
	cur := rec.Life.Current()
	if cur == nil {
		return rec.Created
	}
	if cur.Compromised {
		return cur.RevokeAt
	}
	from := rec.ScheduleFrom
	if from.IsZero() {
		from = rec.LastRotation
	}
	next := policy.Next(from, lifecycle.Seed(rec.UID, cur.Number))
	if !rec.Requested.IsZero() && (next.IsZero() || rec.Requested.Before(next)) {
		next = rec.Requested
	}
	if !cur.Expires.IsZero() && !policy.Disabled() {
		// The next version must be there a grace period before this one ends.
		if by := cur.Expires.Add(-cur.Grace); next.IsZero() || by.Before(next) {
			next = by
		}
	}
	return next
}

// work is one key under its lock. rec is what storage holds and never changes
// in place: save replaces it.
type work struct {
	b    *backend
	st   store
	rec  *keyRecord
	prov provider.Provider
	caps provider.Capabilities
	// failed is the provider's error of the last step, already recorded.
	failed error
}

var errNoKey = errors.New("there is no such key")

// withKey runs fn under the key's lock, with its provider. A context that ends
// does not stop fn, because a call to a provider that is cut off half-way
// leaves uncertainty behind; calls have limits of their own.
func (b *backend) withKey(ctx context.Context, s logical.Storage, name string, fn func(context.Context, *work) error) error {
	return b.withRecord(ctx, s, name, func(ctx context.Context, w *work) (err error) {
		if w.prov, err = b.provider(ctx, w.rec.Def.Provider); err != nil {
			return err
		}
		w.caps = w.prov.Capabilities().For(w.rec.Life.Current() != nil)
		return fn(ctx, w)
	})
}

// withRecord is withKey for what needs no provider, so that it works where the
// provider cannot be built. It reads the key after it has the lock, so fn sees
// what the holder before has left.
func (b *backend) withRecord(ctx context.Context, s logical.Storage, name string, fn func(context.Context, *work) error) error {
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
		return fmt.Errorf("key %q: %w", name, errNoKey)
	}
	return fn(ctx, &work{b: b, st: store{s}, rec: snap.rec})
}

func (w *work) now() time.Time { return w.b.clock.now() }

// call bounds one call to the provider.
func (w *work) call(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, callTimeout)
}

// save writes the record: index first, so that the key is found; then the
// record, which is the commit point; then memory. Where the write fails,
// nobody knows what storage holds, and memory forgets what it knew.
func (w *work) save(ctx context.Context, next *keyRecord) error {
	b := w.b
	next.tidy(b.config.get().versionsOf(&next.Def))
	if err := next.Life.Check(); err != nil {
		return fmt.Errorf("key %q would become inconsistent, nothing was written: %w", next.Name, err)
	}
	snap := b.makeSnapshot(next)
	update := b.dueOf(snap)
	if err := b.index.prepare(ctx, w.st, update); err != nil {
		return err
	}
	if err := w.st.putKey(ctx, next); err != nil { // commit point
		b.cache.drop(next.Name)
		b.index.abandon(next.Name)
		return err
	}
	before := w.rec
	w.rec = next
	b.cache.put(next.Name, snap)
	b.index.apply(update)
	if before == nil || currentNumber(before) != currentNumber(next) || before.Deleting != next.Deleting {
		b.waiters.notify(next.Name)
		for _, name := range b.providers.usingKey(next.Name) {
			b.providers.reset(name)
		}
	}
	return nil
}

func currentNumber(rec *keyRecord) int {
	if cur := rec.Life.Current(); cur != nil {
		return cur.Number
	}
	return 0
}

// erase removes a key of which nothing is left.
func (w *work) erase(ctx context.Context) error {
	name := w.rec.Name
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
	rec := snap.rec
	u := indexUpdate{name: rec.Name, provider: rec.Def.Provider, group: rec.Def.SpreadGroup, deleting: rec.Deleting != nil}
	if snap.mints && rec.Uncertain == nil && rec.Life.Pending() == nil && !b.intents.open(rec.Name) {
		u.rotateAt = unixCeil(b.rotationDue(snap))
	}
	if at := rec.nextRevocation(); !at.IsZero() {
		if f := rec.RevokeFailure; f != nil && f.RetryAt.After(at) {
			at = f.RetryAt
		}
		u.reviewAt = unixCeil(at)
	}
	if snap.lastUsed {
		u.reviewAt = earlier(u.reviewAt, unixCeil(rec.nextUseCheck()))
	}
	if rec.Uncertain == nil && (rec.Life.Pending() != nil || b.intents.open(rec.Name)) {
		at := rec.Created
		if rec.MintFailure != nil {
			at = rec.MintFailure.RetryAt
		}
		u.reviewAt = earlier(u.reviewAt, unixCeil(at))
	}
	if !snap.mints {
		u.reviewAt = earlier(u.reviewAt, unixCeil(b.reminderDue(snap)))
	}
	if rec.Deleting != nil && rec.Life.Alive() == 0 {
		u.reviewAt = earlier(u.reviewAt, unixCeil(rec.Deleting.At))
	}
	return u
}

// remindEvery is how often a due key that nothing can rotate is told of again.
const remindEvery = day

// reminderDue is when somebody must be told that a key has to be replaced by
// hand; zero: never.
func (b *backend) reminderDue(snap *snapshot) time.Time {
	if snap.next.IsZero() {
		return snap.next
	}
	at := snap.next.Add(-b.config.get().WarnBefore)
	if again := snap.rec.Reminded.Add(remindEvery); !snap.rec.Reminded.IsZero() && again.After(at) {
		at = again
	}
	return at
}

// rotationDue is when the next rotation may start: what the policy wants, put
// off by a failed try and by a provider that takes no further key yet.
func (b *backend) rotationDue(snap *snapshot) time.Time {
	due := snap.next
	if due.IsZero() {
		return due
	}
	rec := snap.rec
	if f := rec.MintFailure; f != nil && f.RetryAt.After(due) {
		due = f.RetryAt
	}
	if snap.maxKeys > 0 && rec.Life.Alive() >= snap.maxKeys {
		if free := rec.nextRevocation(); free.After(due) {
			due = free
		}
	}
	return due
}

// maxAlive is how many versions of a key may be alive at once, wherever the
// provider itself sets no lower limit: a record must stay well below the size
// of a storage entry, and who rotates faster than grace periods end has a
// fault in a loop.
const maxAlive = 100

func aliveLimit(c provider.Capabilities) int {
	if c.MaxKeys > 0 {
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

// fail records in next why a step failed and when to try again. The message
// comes from a provider's error, which holds no secret.
func (w *work) fail(prev *failure, op string, err error) *failure {
	cfg := w.b.config.get()
	now := w.now()
	f := &failure{Op: op, Kind: provider.KindOf(err).String(), Message: publicMessage(err), Count: 1, At: now}
	if prev != nil && prev.Op == op {
		f.Count = prev.Count + 1
	}
	pause := lifecycle.Backoff(f.Count, cfg.RetryBase, cfg.RetryMax, lifecycle.Seed(w.rec.UID, f.Count))
	var pe *provider.Error
	if errors.As(err, &pe) && pe.RetryAfter > 0 {
		pause = max(pause, min(pe.RetryAfter, maxRetry))
	}
	f.RetryAt = now.Add(pause)
	w.failed = err
	return f
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
