package apikeys

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"strongroom.example/plugin/lifecycle"
	"strongroom.example/plugin/provider"
)

// Bounds of what a provider may hand over.
const (
	maxValues     = 16
	maxValueBytes = 32 << 10
	// maxMintBytes is what a new version takes in a record at most.
	maxMintBytes = maxValueBytes + 8<<10
	// testPatience is how long a new key may be refused before it is given
	// up, and one that was revoked accepted: services take a while to tell all
	// their servers. silencePatience is how long the service may give no answer.
	testPatience    = 10 * time.Minute
	silencePatience = 6 * time.Hour
)

// advance does everything that is due for a key, in an order in which each
// step is safe to repeat: store what a campaign marks, finish what a crash left,
// end what is over, take up a version that waits for its test, mint, and then look
// at what is there.
func (b *backend) advance(ctx context.Context, w *work) error {
	steps := []func(context.Context) error{w.storeMarks, w.backInTime, w.recover, w.checkUse, w.revokeDue, w.finishPending, w.rotateIfDue, w.sweep, w.checkIfDue, w.remindIfDue, w.eraseIfGone}
	if len(w.marked) > 0 {
		w.quiet = true
		defer w.loudly()
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (w *work) storeMarks(ctx context.Context) error {
	if len(w.marked) == 0 {
		return nil
	}
	return w.save(ctx, w.rec.clone())
}

// backInTime puts right what was stored by a clock that was ahead, once a person
// has said that it was: nothing lies in the future but what is counted from now.
func (w *work) backInTime(ctx context.Context) error {
	if next := w.rec.clone(); next.notBeyond(w.now(), w.madeNow(), w.b.config.get()) {
		return w.save(ctx, next)
	}
	return nil
}

// remindIfDue tells that a key must be replaced by hand, once a day from
// warn_before on.
func (w *work) remindIfDue(ctx context.Context) error {
	snap, now := w.snap(), w.now()
	due := w.b.reminderDue(snap, now)
	if snap.caps.Mint || due.IsZero() || now.Before(due) {
		return nil
	}
	next := w.rec.clone()
	next.Reminded = now
	if err := w.save(ctx, next); err != nil {
		return err
	}
	w.b.emit(ctx, "due", next.Name, "due_time", text(snap.rotation(now).Wanted))
	return nil
}

func (w *work) rotateIfDue(ctx context.Context) error {
	rec, now := w.rec, w.now()
	if rec.Uncertain != nil || !w.caps.Mint || rec.Life.Pending() != nil || w.b.intents.open(rec.Name) {
		return nil
	}
	if rec.Wait.For(lifecycle.WhyLimit) && !rec.Wait.Over(now) {
		if full, err := w.crowded(ctx); err != nil || full != nil {
			return err
		}
		next := rec.clone()
		next.Wait = nil // a place is free before its time
		if err := w.save(ctx, next); err != nil {
			return err
		}
		rec = w.rec
	}
	due := w.snap().rotation(now)
	if due.At.IsZero() || now.Before(due.At) {
		return nil
	}
	account := w.b.sharesOf(rec.Def.Provider)
	if due.Source != lifecycle.WhyCompromise && now.Unix() < account.rotateFrom {
		return nil // it is left alone
	}
	release, wait, err := w.spread(ctx)
	if err != nil {
		return err
	}
	defer release()
	if wait > 0 {
		next := rec.clone()
		next.Wait = &lifecycle.Wait{Why: lifecycle.WhySpread, Until: now.Add(wait)}
		return w.save(ctx, next)
	}
	if due.Source != lifecycle.WhyCompromise {
		full, err := w.crowded(ctx)
		if err != nil {
			return err
		}
		if full != nil {
			next := rec.clone()
			next.Wait = &lifecycle.Wait{Why: lifecycle.WhyLimit, Until: earlierTime(full.until, now.Add(crowdedLook))}
			return w.save(ctx, next)
		}
	}
	if due.Source == lifecycle.WhyPolicy || due.Source == lifecycle.WhyExpiry {
		if !w.b.index.reserveMint(account.account, now.Unix(), account.mints) {
			return nil // its turn comes in a later minute
		}
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
	if w.rec.Life.Current() == nil {
		return release, 0, nil
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
		if snap == nil || snap.rec.LastRotation.IsZero() || len(snap.rec.Life.Versions) <= 1 {
			continue // a first version replaces nothing
		}
		wait = max(wait, snap.rec.LastRotation.Add(distance).Sub(now))
	}
	return release, wait, nil
}

// mint makes a new version: intent, create, store, test, promote. The name of
// the new key is in the log before the provider is asked, so whatever happens
// in between, the key can be found and ended.
func (w *work) mint(ctx context.Context) error {
	b, rec := w.b, w.rec
	if w.unusable != nil {
		return w.mintFailed(ctx, nil, unusable{w.unusable}.fail("create"))
	}
	if err := w.room(); err != nil {
		return w.mintFailed(ctx, nil, err)
	}
	in, err := w.newIntent(ctx)
	if err != nil {
		return w.mintFailed(ctx, nil, err)
	}
	if !w.caps.Local {
		if in.id, err = w.st.putIntent(ctx, in); err != nil {
			b.intents.inVain(in.Name)
			b.lostIntent.Store(true)
			return err
		}
		in.seen = b.opts.Clock.Monotonic()
		b.intents.add(*in)
	}
	req := provider.CreateRequest{Name: in.Name}
	if cur := rec.Life.Current(); cur != nil {
		key := rec.providerKey(cur)
		req.Current = &key
	}
	key, err := w.asNow().create(ctx, req)
	in.asked = err == nil || answered(err) || provider.KindOf(err) == provider.KindUncertain
	if err == nil {
		err = w.checkNew(key)
	}
	if err != nil {
		return w.mintFailed(ctx, in, err)
	}
	next := rec.clone()
	version := lifecycle.Version{Number: in.Version, State: lifecycle.Pending, Name: in.Name, ProviderID: key.ID,
		Created: in.Started, Expires: key.Expires, Identity: in.Identity}
	if err := next.Life.Add(version); err != nil {
		return err
	}
	next.setValues(in.Version, key.Values)
	if err := w.tooShort(key); err != nil {
		return w.stillborn(ctx, next, err)
	}
	next.Wait = nil
	if w.testsFirst() {
		if err := w.save(ctx, next); err != nil {
			return err
		}
		return w.finishPending(ctx)
	}
	return w.promote(ctx, next)
}

// testsFirst tells whether a new version is tested, and its end asked for, before
// readers get it. Where minting has killed the one before, waiting could only hurt.
func (w *work) testsFirst() bool { return (w.caps.Test || w.caps.Expires) && w.caps.Overlap }

// room refuses to make a key that could not be stored.
func (w *work) room() error {
	entry, err := encodeEntry(keyPrefix+w.rec.Name, w.rec)
	if err == nil && len(entry.Value)+maxMintBytes <= maxEntryBytes {
		return nil
	}
	return &provider.Error{Op: "create", Kind: provider.KindRejected,
		Msg: fmt.Sprintf("the key's %d living versions leave no room in storage for another: shorten grace_period", w.rec.Life.Alive())}
}

func (w *work) newIntent(ctx context.Context) (*intent, error) {
	attempt, err := w.b.randomID(attemptLength)
	if err != nil {
		return nil, err
	}
	version := w.rec.Life.Last + 1
	name, err := w.b.fence.mintName(w.rec.UID, w.rec.Name, version, attempt)
	if err != nil {
		return nil, err
	}
	in := &intent{Key: w.rec.Name, UID: w.rec.UID, Name: name.String(), Version: version, Started: w.madeNow(), Parameters: w.rec.Def.Parameters}
	if rec := w.b.providers.record(w.rec.Def.Provider); rec != nil {
		in.Identity = rec.Identity
	}
	if w.caps.List && !w.caps.Named {
		remote, err := w.asNow().list(ctx, "")
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

// checkNew holds what a provider hands over against what is known: it must be a
// key, and another one than those that are alive.
func (w *work) checkNew(key provider.Key) error {
	if err := checkMinted(key); err != nil {
		return err
	}
	for v := range w.rec.Life.All() {
		if values := w.rec.Values[v.Number]; v.Alive() && values != nil && maps.Equal(values, key.Values) {
			return &provider.Error{Op: "create", Kind: provider.KindRejected,
				Msg: fmt.Sprintf("the service has answered with version %d in place of a new key", v.Number)}
		}
	}
	return nil
}

// tooShort is why a new key must not become current: it has ended already, or will
// before anybody could use it.
func (w *work) tooShort(key provider.Key) error {
	now := w.now()
	if key.Expires.IsZero() || key.Expires.Sub(now) >= lifecycle.MinPeriod {
		return nil
	}
	return &provider.Error{Op: "create", Kind: provider.KindRejected,
		Msg: fmt.Sprintf("the service says that its new key ends at %s, and it is %s: its clock, or where the settings find the end, is wrong", text(key.Expires), text(now))}
}

// stillborn stores a new version that readers must not get, so that it is ended.
func (w *work) stillborn(ctx context.Context, next *keyRecord, why error) error {
	now, number := w.now(), next.Life.Pending().Number
	if err := next.Life.Retire(number, now, now, true); err != nil {
		return err
	}
	next.MintFailure, next.Wait = w.fail(w.rec.MintFailure, lifecycle.StepCreate, lifecycle.WhyRetry, why)
	w.doubt(next, number)
	if err := w.save(ctx, next); err != nil {
		return err
	}
	w.tellFailure(ctx)
	if err := w.closeIntents(ctx); err != nil {
		return err
	}
	return w.revokeDue(ctx)
}

// mintFailed records why there is no new version. The intent stays open where
// the key may exist all the same; recover then looks for it.
func (w *work) mintFailed(ctx context.Context, in *intent, err error) error {
	maybe := in != nil && !w.caps.Local && provider.KindOf(err) == provider.KindUncertain
	next := w.rec.clone()
	next.MintFailure, next.Wait = w.fail(w.rec.MintFailure, lifecycle.StepCreate, lifecycle.WhyRetry, err)
	if maybe && !w.caps.List {
		next.Uncertain = &uncertain{Name: in.Name, Version: in.Version, Since: w.now(), Message: next.MintFailure.Message}
	}
	if in != nil {
		w.sweepSoon(next, in) // whatever the service says, it may be there
		if in.asked {
			w.doubt(next, in.Version)
		}
	}
	if err := w.save(ctx, next); err != nil {
		return err
	}
	w.tellFailure(ctx)
	if maybe && !w.caps.Overlap {
		return w.recover(ctx) // readers may hold a dead key: look at once
	}
	if in == nil || in.id == "" || maybe {
		return nil
	}
	return w.closeIntent(ctx, *in)
}

// tellFailure tells of a rotation that has begun to fail, not of each further try.
func (w *work) tellFailure(ctx context.Context) {
	if f := w.rec.MintFailure; f != nil && f.Count == 1 {
		w.b.emit(ctx, "rotate-fail", w.rec.Name, "reason", f.Message)
	}
}

func (w *work) closeIntent(ctx context.Context, in intent) error {
	if err := w.st.closeIntent(ctx, in.id); err != nil {
		return err
	}
	w.b.intents.remove(in)
	return nil
}

// closeIntents closes those of versions that are stored.
func (w *work) closeIntents(ctx context.Context) error {
	for _, in := range w.b.intents.of(w.rec.Name) {
		if v := w.rec.Life.ByName(in.Name); v != nil && v.State != lifecycle.Pending {
			if err := w.closeIntent(ctx, in); err != nil {
				return err
			}
		}
	}
	return nil
}

// finishPending tests the version that waits for it, and promotes it.
func (w *work) finishPending(ctx context.Context) error {
	v := w.rec.Life.Pending()
	if v == nil || w.rec.Deleting != nil || w.rec.Wait.For(lifecycle.WhyTest) && !w.rec.Wait.Over(w.now()) {
		return nil
	}
	next := w.rec.clone()
	if w.testsFirst() {
		end, refused, err := w.as(ctx, v).examine(ctx, w.rec.providerKey(v))
		if refused != nil || err != nil {
			return w.testFailed(ctx, v, refused, err)
		}
		next.Life.Find(v.Number).Expires = end
		if err := w.tooShort(provider.Key{Expires: end}); err != nil {
			return w.stillborn(ctx, next, err)
		}
	}
	return w.promote(ctx, next)
}

func (w *work) testFailed(ctx context.Context, v *lifecycle.Version, refused, err error) error {
	next, now := w.rec.clone(), w.now()
	patience := testPatience
	if refused == nil {
		patience = silencePatience
	} else {
		err = refused
	}
	next.MintFailure, next.Wait = w.fail(w.rec.MintFailure, lifecycle.StepTest, lifecycle.WhyTest, err)
	if now.Sub(v.Created) > patience {
		// It never worked, or nobody will ever know: end it and start over.
		if err := next.Life.Retire(v.Number, now, now, true); err != nil {
			return err
		}
		next.Wait.Why = lifecycle.WhyRetry
	} else if !w.live() || readersSee(w.rec).compromised {
		// Readers have nothing good meanwhile: look as often as it helps.
		next.Wait.Until = now.Add(min(max(now.Sub(v.Created), 2*time.Second), 30*time.Second))
	}
	if err := w.save(ctx, next); err != nil {
		return err
	}
	w.tellFailure(ctx)
	return w.closeIntents(ctx)
}

// promote makes the pending version of next current. The record's write is
// the commit point of a rotation; the intent is closed after it.
func (w *work) promote(ctx context.Context, next *keyRecord) error {
	now, number := w.now(), next.Life.Pending().Number
	// A key that a person brings ends no other: the one before is ended as elsewhere.
	overlap := w.caps.Overlap || next.Life.Pending().Imported
	if err := next.Life.Promote(number, now, w.b.config.get().graceOf(&next.Def), overlap); err != nil {
		return err
	}
	w.keepRetired(next)
	next.LastRotation, next.ScheduleFrom, next.Requested, next.Reminded = now, now, time.Time{}, time.Time{}
	next.MintFailure, next.Wait = nil, nil
	w.sweepSoon(next, nil)
	if err := hashOld(next, w.b.opts.Rand); err != nil {
		return err
	}
	if err := w.save(ctx, next); err != nil {
		return err
	}
	w.b.stats.rotations.Add(1)
	w.b.touchChanged()
	w.b.emitRotate(ctx, next.Name, next.Life.Find(number))
	if err := w.closeIntents(ctx); err != nil {
		// The rotation is done. The intent is closed by the next look at the key.
		w.b.Logger().Warn("an intent could not be closed yet", "key", next.Name, "error", err)
	}
	if overlap {
		return nil
	}
	return w.revokeDue(ctx) // see that the one before is dead
}
