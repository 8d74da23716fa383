package apikeys

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"strongroom.example/plugin/lifecycle"
	"strongroom.example/plugin/provider"
)

// Bounds of what a provider may hand over.
const (
	maxValues     = 16
	maxValueBytes = 32 << 10
	// testPatience is how long a new key may be refused before it is given
	// up: services take a while to spread a key to all their servers.
	testPatience = 10 * time.Minute
)

// advance does everything that is due for a key, in an order in which each
// step is safe to repeat: finish what a crash left, end what is over, take up
// a version that waits for its test, and mint.
func (b *backend) advance(ctx context.Context, w *work) error {
	steps := []func(context.Context) error{w.recover, w.checkUse, w.revokeDue, w.finishPending, w.rotateIfDue, w.remindIfDue, w.eraseIfGone}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
		if b.index.has(w.rec.Name) {
			b.index.apply(b.dueOf(b.makeSnapshot(w.rec)))
		}
	}
	return nil
}

// remindIfDue tells that a key must be replaced by hand, once a day from
// warn_before on.
func (w *work) remindIfDue(ctx context.Context) error {
	snap := w.b.makeSnapshot(w.rec)
	due, now := w.b.reminderDue(snap), w.now()
	if snap.mints || due.IsZero() || now.Before(due) {
		return nil
	}
	next := w.rec.clone()
	next.Reminded = now
	if err := w.save(ctx, next); err != nil {
		return err
	}
	w.b.emit(ctx, "due", next.Name, "due_time", fmt.Sprint(stamp(snap.next)))
	return nil
}

func (w *work) rotateIfDue(ctx context.Context) error {
	rec := w.rec
	if rec.Deleting != nil || rec.Uncertain != nil || !w.caps.Mint || rec.Life.Pending() != nil || w.b.intents.open(rec.Name) {
		return nil
	}
	snap := w.b.makeSnapshot(rec)
	due := w.b.rotationDue(snap)
	now := w.now()
	if due.IsZero() || now.Before(due) {
		return nil
	}
	if cur := rec.Life.Current(); cur != nil && !cur.Compromised && rec.Requested.IsZero() && snap.policy.Missed(snap.next, now) {
		next := rec.clone()
		next.ScheduleFrom = now
		return w.save(ctx, next)
	}
	release, wait, err := w.spread(ctx)
	if err != nil {
		return err
	}
	defer release()
	if cur := rec.Life.Current(); wait == 0 && cur != nil && !cur.Compromised && rec.Requested.IsZero() {
		limit, _ := w.b.providers.maxPerMinute(rec.Def.Provider)
		if !w.b.index.reserveMint(rec.Def.Provider, now.Unix(), limit) {
			return nil // its turn comes in a later minute
		}
	}
	if wait > 0 {
		next := rec.clone()
		next.MintFailure = &failure{Op: "spread", Kind: "waiting", At: now, RetryAt: now.Add(wait),
			Message: fmt.Sprintf("another key of spread group %q has just rotated", rec.Def.SpreadGroup)}
		return w.save(ctx, next)
	}
	return w.mint(ctx)
}

// spread keeps the keys of a group apart. It gives the time to wait, and a
// function that lets the group go on; until then no other of its keys rotates.
func (w *work) spread(ctx context.Context) (release func(), wait time.Duration, err error) {
	group := w.rec.Def.SpreadGroup
	if group == "" {
		return func() {}, 0, nil
	}
	release, err = w.b.locks.lock(ctx, "group:"+group)
	if err != nil {
		return nil, 0, err
	}
	now, distance := w.now(), w.b.config.get().spreadOf(&w.rec.Def)
	for _, name := range w.b.index.group(group) {
		if name == w.rec.Name {
			continue
		}
		snap, err := w.b.snapshot(ctx, w.st.s, name)
		if err != nil {
			release()
			return nil, 0, err
		}
		if snap == nil || snap.rec.LastRotation.IsZero() || snap.rec.Life.Last <= 1 {
			continue // a first version replaces nothing
		}
		wait = max(wait, snap.rec.LastRotation.Add(distance).Sub(now))
	}
	if w.rec.Life.Current() == nil {
		wait = 0
	}
	return release, wait, nil
}

// mint makes a new version: intent, create, store, test, promote. The name of
// the new key is in the log before the provider is asked, so whatever happens
// in between, the key can be found and ended.
func (w *work) mint(ctx context.Context) error {
	b, rec := w.b, w.rec
	in, err := w.newIntent(ctx)
	if err != nil {
		return w.mintFailed(ctx, nil, err)
	}
	if !w.caps.Local {
		if in.id, err = w.st.putIntent(ctx, in); err != nil {
			b.lostIntent.Store(true)
			return err
		}
		b.intents.add(*in)
	}
	req := provider.CreateRequest{Name: in.Name, Parameters: rec.Def.Parameters}
	if cur := rec.Life.Current(); cur != nil {
		key := rec.providerKey(cur)
		req.Current = &key
	}
	callCtx, cancel := w.call(ctx)
	key, err := w.prov.Create(callCtx, req)
	cancel()
	if err == nil {
		err = checkMinted(key)
	}
	if err != nil {
		return w.mintFailed(ctx, in, err)
	}
	next := rec.clone()
	now := w.now()
	version := lifecycle.Version{Number: in.Version, State: lifecycle.Pending, Name: in.Name, ProviderID: key.ID, Created: now, Expires: key.Expires}
	if err := next.Life.Add(version); err != nil {
		return err
	}
	next.setValues(in.Version, key.Values)
	next.MintFailure = nil
	if w.testsFirst() {
		if err := w.save(ctx, next); err != nil {
			return err
		}
		return w.finishPending(ctx)
	}
	return w.promote(ctx, next)
}

// testsFirst tells whether a new version is tested before readers get it.
// Where minting has killed the one before, waiting could only hurt.
func (w *work) testsFirst() bool { return w.caps.Test && w.caps.Overlap }

func (w *work) newIntent(ctx context.Context) (*intent, error) {
	attempt, err := w.b.randomID(attemptLength)
	if err != nil {
		return nil, err
	}
	version := w.rec.Life.Last + 1
	name, err := w.b.fence.mintName(w.rec.UID, version, attempt)
	if err != nil {
		return nil, err
	}
	in := &intent{Key: w.rec.Name, UID: w.rec.UID, Name: name.String(), Version: version, Started: w.now()}
	if w.caps.List && !w.caps.Named {
		callCtx, cancel := w.call(ctx)
		defer cancel()
		remote, err := w.prov.List(callCtx, w.rec.Def.Parameters, "")
		if err != nil {
			return nil, nothingHappened(err)
		}
		for _, r := range remote {
			in.Known = append(in.Known, r.ID)
		}
	}
	return in, nil
}

// nothingHappened says of a failed look that it changed nothing.
func nothingHappened(err error) error {
	var pe *provider.Error
	if errors.As(err, &pe) && pe.Kind != provider.KindUncertain {
		return err
	}
	return &provider.Error{Op: "list", Kind: provider.KindTransient, Msg: publicMessage(err), Err: err}
}

func checkMinted(key provider.Key) error {
	bytes := 0
	for name, v := range key.Values {
		bytes += len(name) + len(v)
	}
	if key.Values[provider.PrimaryValue] == "" || len(key.Values) > maxValues || bytes > maxValueBytes {
		return &provider.Error{Op: "create", Kind: provider.KindUncertain,
			Msg: fmt.Sprintf("the new key has no value, more than %d values, or more than %d bytes", maxValues, maxValueBytes)}
	}
	return nil
}

// mintFailed records why there is no new version. The intent stays open where
// the key may exist all the same; recover then looks for it.
func (w *work) mintFailed(ctx context.Context, in *intent, err error) error {
	maybe := in != nil && !w.caps.Local && provider.KindOf(err) == provider.KindUncertain
	next := w.rec.clone()
	next.MintFailure = w.fail(w.rec.MintFailure, "create", err)
	if maybe && !w.caps.List {
		next.Uncertain = &uncertain{Name: in.Name, Version: in.Version, Since: w.now(), Message: next.MintFailure.Message}
	}
	if err := w.save(ctx, next); err != nil {
		return err
	}
	w.b.stats.failures.Add(1)
	w.b.emit(ctx, "rotate-fail", w.rec.Name, "reason", next.MintFailure.Message)
	if maybe && !w.caps.Overlap {
		return w.recover(ctx) // readers may hold a dead key: look at once
	}
	if in == nil || in.id == "" || maybe {
		return nil
	}
	return w.closeIntent(ctx, *in)
}

func (w *work) closeIntent(ctx context.Context, in intent) error {
	if err := w.st.closeIntent(ctx, in.id); err != nil {
		return err
	}
	w.b.intents.remove(in)
	return nil
}

// finishPending tests the version that waits for it, and promotes it.
func (w *work) finishPending(ctx context.Context) error {
	v := w.rec.Life.Pending()
	if v == nil || w.rec.Deleting != nil {
		return nil
	}
	if f := w.rec.MintFailure; f != nil && f.Op == "test" && w.now().Before(f.RetryAt) {
		return nil
	}
	if w.testsFirst() {
		callCtx, cancel := w.call(ctx)
		err := w.prov.Test(callCtx, w.rec.Def.Parameters, w.rec.providerKey(v))
		cancel()
		if err != nil {
			return w.testFailed(ctx, v, err)
		}
	}
	return w.promote(ctx, w.rec.clone())
}

func (w *work) testFailed(ctx context.Context, v *lifecycle.Version, err error) error {
	next := w.rec.clone()
	next.MintFailure = w.fail(w.rec.MintFailure, "test", err)
	now := w.now()
	if provider.KindOf(err) == provider.KindUnauthorized && now.Sub(v.Created) > testPatience {
		// It never worked: end it and start over.
		if err := next.Life.Retire(v.Number, now, now, true); err != nil {
			return err
		}
	}
	w.b.stats.failures.Add(1)
	return w.save(ctx, next)
}

// promote makes the pending version of next current. The record's write is
// the commit point of a rotation; the intent is closed after it.
func (w *work) promote(ctx context.Context, next *keyRecord) error {
	v := next.Life.Pending()
	now := w.now()
	number := v.Number
	if err := next.Life.Promote(number, now, w.b.config.get().graceOf(&next.Def), w.caps.Overlap); err != nil {
		return err
	}
	next.LastRotation, next.ScheduleFrom, next.Requested, next.Reminded, next.MintFailure = now, now, time.Time{}, time.Time{}, nil
	if err := hashOld(next, w.b.opts.Rand); err != nil {
		return err
	}
	if err := w.save(ctx, next); err != nil {
		return err
	}
	w.b.stats.rotations.Add(1)
	w.b.touchChanged()
	w.b.emitRotate(ctx, next.Name, next.Life.Find(number))
	for _, in := range w.b.intents.of(next.Name) {
		if next.Life.ByName(in.Name) != nil {
			if err := w.closeIntent(ctx, in); err != nil {
				// The rotation is done. The intent is closed by the next look at the key.
				w.b.Logger().Warn("an intent could not be closed yet", "key", next.Name, "error", err)
				w.b.index.review(next.Name, now)
			}
		}
	}
	return nil
}

// revokeDue ends the versions whose time is over: revoke at the provider, make
// sure that it is dead, record it. Each step may be repeated.
func (w *work) revokeDue(ctx context.Context) error {
	for _, number := range w.rec.Life.DueRevocations(w.now()) {
		if f := w.rec.RevokeFailure; f != nil && w.now().Before(f.RetryAt) {
			return nil
		}
		v := w.rec.Life.Find(number)
		if v.State == lifecycle.Current && !v.Compromised {
			continue
		}
		if w.succeedsItself(v) {
			continue
		}
		held, err := w.hold(ctx, v)
		if err != nil {
			return err
		}
		if held {
			continue
		}
		v = w.rec.Life.Find(number)
		next := w.rec.clone()
		if err := w.kill(ctx, v); err != nil {
			next.RevokeFailure = w.fail(w.rec.RevokeFailure, "revoke", err)
			w.b.stats.failures.Add(1)
			w.b.emit(ctx, "revoke-fail", next.Name, "version", fmt.Sprint(number), "reason", next.RevokeFailure.Message)
			return w.save(ctx, next)
		}
		if err := next.Life.MarkRevoked(number, w.now()); err != nil {
			return err
		}
		next.RevokeFailure = nil
		if err := w.save(ctx, next); err != nil {
			return err
		}
		w.b.stats.revocations.Add(1)
		w.b.emit(ctx, "revoke", next.Name, "version", fmt.Sprint(number))
	}
	return nil
}

// succeedsItself tells that a compromised version is needed once more: the
// provider makes the next one out of it, or by means of it where it is the
// provider's own credential. Where that has failed, it is revoked without a
// successor.
func (w *work) succeedsItself(v *lifecycle.Version) bool {
	if v.State != lifecycle.Current || !w.caps.Mint || w.rec.Deleting != nil || w.rec.Uncertain != nil {
		return false
	}
	f := w.rec.MintFailure
	if w.isItsCredential() {
		// An interrupted mint can only be cleared up with it, too.
		return f == nil || f.waitsForList()
	}
	return w.caps.FromCurrent && f == nil && !w.b.intents.open(w.rec.Name)
}

// isItsCredential tells whether the key's provider uses the key itself as its
// credential.
func (w *work) isItsCredential() bool {
	return slices.Contains(w.b.providers.usingKey(w.rec.Name), w.rec.Def.Provider)
}

// kill revokes a version at the provider, where that is possible, and checks
// that it no longer works.
func (w *work) kill(ctx context.Context, v *lifecycle.Version) error {
	if v.Keep || !w.caps.Revoke || v.ProviderID == "" {
		return nil
	}
	callCtx, cancel := w.call(ctx)
	defer cancel()
	params := w.rec.Def.Parameters
	if err := w.prov.Revoke(callCtx, params, v.ProviderID); err != nil {
		return err
	}
	if !w.caps.Test || len(w.rec.Values[v.Number]) == 0 {
		return nil
	}
	err := w.prov.Test(callCtx, params, w.rec.providerKey(v))
	switch {
	case err == nil:
		return &provider.Error{Op: "revoke", Kind: provider.KindTransient, Msg: "the key still works after it was revoked"}
	case provider.KindOf(err) == provider.KindUnauthorized:
		return nil
	}
	return err
}

// eraseIfGone removes a deleted key once nothing of it is alive.
func (w *work) eraseIfGone(ctx context.Context) error {
	if w.rec.Deleting == nil || w.rec.Life.Alive() > 0 || w.b.intents.open(w.rec.Name) {
		return nil
	}
	return w.erase(ctx)
}
