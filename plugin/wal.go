package apikeys

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"strongroom.example/plugin/lifecycle"
	"strongroom.example/plugin/provider"
)

// Times that decide what a crash can have left at a provider.
const (
	// settleTime is how long after an intent a key is waited for that the provider
	// does not list: mostly the call's limit and then some, for lists that lag.
	settleTime = time.Minute
	// sweepEvery is how often a key's names are looked for at its provider, lateList how
	// long after it was asked for a key its list may show one that was not there before.
	sweepEvery = day
	lateList   = time.Hour
)

// intentTable is the open intents in memory, by key.
type intentTable struct {
	mu    sync.RWMutex
	byKey map[string][]intent
	// vain are the names of intents whose write failed, so that nobody was asked
	// for a key, though they may be in storage.
	vain map[string]bool
}

func newIntentTable() *intentTable {
	return &intentTable{byKey: map[string][]intent{}, vain: map[string]bool{}}
}

func (t *intentTable) inVain(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.vain[name] = true
}

func (t *intentTable) wasInVain(name string) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.vain[name]
}

func (t *intentTable) add(in intent) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, have := range t.byKey[in.Key] {
		if have.id == in.id {
			return
		}
	}
	t.byKey[in.Key] = append(t.byKey[in.Key], in)
}

func (t *intentTable) remove(in intent) {
	t.mu.Lock()
	defer t.mu.Unlock()
	rest := slices.DeleteFunc(slices.Clone(t.byKey[in.Key]), func(have intent) bool { return have.id == in.id })
	if len(rest) == 0 {
		delete(t.byKey, in.Key)
		return
	}
	t.byKey[in.Key] = rest
}

func (t *intentTable) of(key string) []intent {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return slices.Clone(t.byKey[key])
}

func (t *intentTable) open(key string) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.byKey[key]) > 0
}

func (t *intentTable) size() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	n := 0
	for _, in := range t.byKey {
		n += len(in)
	}
	return n
}

// rescan reads the open intents from storage: at a start, and after a write of
// one has failed, because it may be there all the same.
func (b *backend) rescan(ctx context.Context, st store) error {
	open, err := st.intents(ctx)
	if err != nil {
		return err
	}
	for _, in := range open {
		in.seen, in.read, in.restored = b.opts.Clock.Monotonic(), true, b.fence.closed() != ""
		b.intents.add(in)
		b.index.review(in.Key, b.clock.now())
	}
	b.lostIntent.Store(false)
	return nil
}

// recover closes the intents that a crash, or an answer that never came, has
// left open: what was stored goes on, what was not is found at the provider
// and ended, because its value cannot be had a second time.
func (w *work) recover(ctx context.Context) error {
	if w.rec.Uncertain != nil || w.rec.Wait.For(lifecycle.WhyList) && !w.rec.Wait.Over(w.now()) {
		return nil
	}
	for _, in := range w.b.intents.of(w.rec.Name) {
		done, err := w.recoverOne(ctx, in)
		if err != nil || !done {
			return err
		}
	}
	return nil
}

func (w *work) recoverOne(ctx context.Context, in intent) (done bool, err error) {
	if in.UID != w.rec.UID {
		// The key of that time is gone, and its record was kept until its
		// intents were closed: this one was, as far as storage is concerned.
		return true, w.closeIntent(ctx, in)
	}
	if in.read {
		if there, err := w.st.hasIntent(ctx, in.id); err != nil {
			return false, err
		} else if !there { // closed while all were being read
			w.b.intents.remove(in)
			return true, nil
		}
	}
	if w.b.intents.wasInVain(in.Name) {
		return true, w.closeIntent(ctx, in)
	}
	if v := w.rec.Life.ByName(in.Name); v != nil {
		if v.State == lifecycle.Pending {
			return true, nil // finishPending closes it
		}
		if v.State == lifecycle.Current {
			w.b.emitRotate(ctx, w.rec.Name, v) // the crash may have come before it was told
		}
		return true, w.closeIntent(ctx, in)
	}
	if !w.caps.List {
		return false, w.markUncertain(ctx, in, "the provider cannot list its keys, so nobody can tell whether the key exists")
	}
	as := w.asIntent(ctx, &in)
	ours, others, err := w.findMinted(ctx, as, in)
	if err != nil {
		return false, w.recoverFailed(ctx, err)
	}
	if len(others) > 0 {
		return false, w.markUncertain(ctx, in, fmt.Sprintf("nothing tells for certain whose %s is that the service lists and that nobody has here: one may be ours: %s", count(len(others), "key"), truncate(strings.Join(others, ", "), 300)))
	}
	if len(ours) == 0 {
		if left := w.b.unsettled(in); left > 0 {
			return false, w.wait(ctx, w.now().Add(left))
		}
		return true, w.recovered(ctx, in)
	}
	if in.restored {
		return true, w.adoptFound(ctx, in, ours)
	}
	for _, id := range ours {
		if err := as.revoke(ctx, id, in.Name); err != nil {
			return false, w.recoverFailed(ctx, err)
		}
	}
	if left, _, err := w.findMinted(ctx, as, in); err != nil || len(left) > 0 {
		if err == nil {
			err = &provider.Error{Op: "revoke", Kind: provider.KindTransient, Msg: "the service still lists a key that nobody has after it was revoked"}
		}
		return false, w.recoverFailed(ctx, err)
	}
	w.b.stats.reaped.Add(int64(len(ours)))
	w.b.emit(ctx, "reap", w.rec.Name, "name", in.Name)
	if err := w.replacedInVain(ctx, in); err != nil {
		return false, err
	}
	return true, w.recovered(ctx, in)
}

// adoptFound takes up what an intent of restored storage has left: it may have
// become current after that storage was copied, so readers may have it. It ends
// after a full grace.
func (w *work) adoptFound(ctx context.Context, in intent, ids []string) error {
	next, now := w.rec.clone(), w.now()
	for _, id := range ids {
		if err := next.Life.Add(lifecycle.Version{Number: next.Life.Last + 1, State: lifecycle.Grace, Name: in.Name, ProviderID: id, Found: true,
			Created: in.Started, Retired: now, RevokeAt: now.Add(w.b.config.get().graceOf(&next.Def)), Identity: in.Identity}); err != nil {
			return err
		}
	}
	w.doubt(next, in.Version)
	next.Wait = nil
	if err := w.save(ctx, next); err != nil {
		return err
	}
	return w.closeIntent(ctx, in)
}

// unsettled is for how long a key of this intent may still turn up: what is in
// storage since before this process counts from when it was read.
func (b *backend) unsettled(in intent) time.Duration {
	return max(in.seen+settleTime-b.opts.Clock.Monotonic(), 0)
}

// replacedInVain notes where the current version died when a key was minted that
// nobody will ever see: the provider lets no two live. The next mint starts at once.
// Where the version is not seen to be dead it stays, in doubt; see recovered.
func (w *work) replacedInVain(ctx context.Context, in intent) error {
	cur := w.rec.Life.Current()
	if w.caps.Overlap || cur == nil || cur.Number >= in.Version { // what was brought meanwhile was tested after that
		return nil
	}
	how, _ := w.seenDead(ctx, w.as(ctx, cur), cur, w.canTest(cur), cur.ProviderID != "")
	if how == "" {
		return nil
	}
	next := w.rec.clone()
	if err := next.Life.MarkRevoked(cur.Number, w.now(), how); err != nil {
		return err
	}
	next.MintFailure, next.Wait = nil, nil
	return w.save(ctx, next)
}

// findMinted gives the ids of the keys at the provider that are an intent's. What
// is ours is told by its name, which holds the mount's and the key's identity,
// also where the service has cut it off, or has made two keys of one request. Where
// names are not kept, others are those that are new since the intent and are no
// key's of this mount: nothing says whose they are.
func (w *work) findMinted(ctx context.Context, as asked, in intent) (ours, others []string, err error) {
	prefix := ""
	if w.caps.Named {
		if prefix, err = w.keyPrefix(); err != nil {
			return nil, nil, err
		}
	}
	remote, err := as.list(ctx, prefix)
	if err != nil {
		return nil, nil, err
	}
	// A name that is cut may be that of any version: they are told apart by their ids
	// alone, so each that lives must be listed by the one that it has here.
	sure := !slices.ContainsFunc(w.rec.Life.Versions, func(v lifecycle.Version) bool {
		return v.Alive() && v.Name != "" && !byID(remote, &v)
	})
	taken := map[string]bool{} // by what is not ours: who ends an id ends all that have it
	for _, r := range remote {
		cut := lifecycle.CutFrom(in.Name, r.Name)
		mine := w.caps.Named && (lifecycle.ListedAs(in.Name, r.Name) || cut && sure)
		known := w.rec.Life.Knows(r.ID, r.Name)
		taken[r.ID] = taken[r.ID] || known || !mine
		switch {
		case r.ID == "" || known:
		case mine:
			ours = append(ours, r.ID)
		case w.caps.Named && cut:
			others = append(others, r.ID)
		case w.caps.Named:
		case !slices.Contains(in.Known, r.ID):
			others = append(others, r.ID)
		}
	}
	ours = slices.DeleteFunc(ours, func(id string) bool {
		if taken[id] {
			others = append(others, id)
		}
		return taken[id]
	})
	if len(others) > 0 {
		others, err = w.withoutHolder(ctx, others)
	}
	return ours, others, err
}

// sweeps tells whether the provider can be swept: what it lists is told by name.
func (w *work) sweeps() bool { return w.caps.List && w.caps.Named && w.caps.Revoke && !w.caps.Local }

// sweep ends the keys at the provider that this installation has made for this key
// and that no version knows: a request that a proxy has sent twice, an answer that
// came when nobody waited any more, a list that lagged. It looks when the list has
// had time after a mint, when it must show everything, and once a day. An intent that
// waits for a person holds nothing up: what it may have left carries no whole name.
func (w *work) sweep(ctx context.Context) error {
	now := w.now()
	if w.rec.Sweep.IsZero() || now.Before(w.rec.Sweep) || !w.sweeps() || w.rec.Uncertain == nil && w.b.intents.open(w.rec.Name) {
		return nil
	}
	remote, listErr := w.leftovers(ctx)
	next := w.rec.clone()
	next.Sweep = now.Add(sweepEvery - time.Duration(lifecycle.Seed(w.rec.UID, w.rec.Life.Last)%uint64(sweepEvery/8)))
	if len(remote) > 0 {
		next.Sweep = now.Add(time.Hour) // look whether they are gone
	} else if listErr != nil {
		next.Sweep = now.Add(sweepEvery / 4)
	}
	for _, late := range []time.Duration{lateList, settleTime} {
		if at := w.rec.Asked.Add(late); now.Before(at) {
			next.Sweep = earlierTime(next.Sweep, at)
		}
	}
	// What is a version after all is ended as one.
	remote = slices.DeleteFunc(remote, func(r provider.RemoteKey) bool {
		v := next.Life.Undead(r.ID, r.Name)
		if v != nil {
			v.State, v.RevokeAt, v.RevokedAt, v.Evidence = lifecycle.Grace, now, time.Time{}, ""
		}
		return v != nil
	})
	// A write first: storage takes it of the leader only, who knows all versions.
	if err := w.save(ctx, next); err != nil {
		return err
	}
	if err := w.reap(ctx, remote); err != nil {
		w.b.Logger().Warn("a key that no version knows could not be ended yet", "key", w.rec.Name, "error", publicMessage(err))
	}
	return nil
}

// reap ends leftovers, and tells of those that are seen to be gone after that.
func (w *work) reap(ctx context.Context, remote []provider.RemoteKey) (failed error) {
	if len(remote) == 0 {
		return nil
	}
	for _, r := range remote {
		if err := w.asNow().revoke(ctx, r.ID, r.Name); failed == nil {
			failed = err
		}
	}
	left, err := w.leftovers(ctx)
	if err != nil {
		return err
	}
	for _, r := range remote {
		if !slices.ContainsFunc(left, func(l provider.RemoteKey) bool { return l.ID == r.ID }) {
			w.b.stats.reaped.Add(1)
			w.b.emit(ctx, "reap", w.rec.Name, "name", r.Name)
		} else if failed == nil {
			failed = &provider.Error{Op: "revoke", Kind: provider.KindTransient, Msg: "the service still lists a key that nobody has after it was revoked"}
		}
	}
	return failed
}

// leftovers are the keys at the provider that were certainly made for this key and
// that no version is. Where one carries a version's name, or a name that is cut, it
// is told from that version by its id alone: so the list must show a version that
// lives by the id which it has here.
func (w *work) leftovers(ctx context.Context) ([]provider.RemoteKey, error) {
	base, err := w.b.fence.mintName(w.rec.UID, w.rec.Name, 1, "")
	if err != nil {
		return nil, err
	}
	remote, err := w.asNow().list(ctx, base.KeyPrefix())
	if err != nil {
		return nil, err
	}
	// What carries the name of a dead version is not that version, nor one that a person
	// has brought under another id.
	sure := !slices.ContainsFunc(w.rec.Life.Versions, func(v lifecycle.Version) bool { return v.Alive() && v.ProviderID == "" })
	for v := range w.rec.Life.All() {
		listed := byID(remote, v)
		if v.Alive() && v.Name != "" && !listed {
			sure = false
			break
		}
		sure = sure || v.Alive() && listed
	}
	same, held := w.sameIDs(remote), false
	mine := func(r provider.RemoteKey) bool {
		switch {
		case w.rec.Life.Undead(r.ID, r.Name) != nil:
			return true
		case r.ID == "" || w.rec.Life.Knows(r.ID, r.Name):
			return false
		case w.rec.Life.ByName(r.Name) != nil:
			return sure
		}
		name, err := w.parseName(r.Name)
		if err != nil || name.Version < w.rec.SweepFrom || name.Mount != base.Mount || name.Key != base.Key || name.Installation != base.Installation ||
			name.Version > max(w.rec.Life.Last, w.rec.Tried) {
			return false
		}
		held = held || !same
		return same
	}
	left := slices.DeleteFunc(slices.Clone(remote), func(r provider.RemoteKey) bool {
		// Who ends an id ends all that have it.
		return !mine(r) || slices.ContainsFunc(remote, func(o provider.RemoteKey) bool { return o.ID == r.ID && !mine(o) })
	})
	if held && len(left) == 0 {
		return nil, &provider.Error{Op: "list", Kind: provider.KindTransient, Msg: "the service's list shows no version by the id that the create told"}
	}
	return left, nil
}

// sameIDs tells whether a list has ids as creates tell them: it shows a version by its
// id, or none lives that it could show. Without that a version cannot be told from what
// a service that repeats itself has made under another name.
func (w *work) sameIDs(remote []provider.RemoteKey) bool {
	lives := false
	for v := range w.rec.Life.Living() {
		if v.ProviderID == "" || v.Imported {
			continue
		}
		if byID(remote, v) {
			return true
		}
		lives = true
	}
	return !lives
}

// keeps tells that what a deleted key leaves is not looked for: it cannot be, or is
// left on purpose.
func (w *work) keeps() bool {
	return !w.sweeps() || slices.ContainsFunc(w.rec.Life.Versions, func(v lifecycle.Version) bool { return v.Keep })
}

// lastSweep is the last chance for what a key may have left whose record goes. An
// error says that nobody could look, or that it is still there, and that a later try
// may help.
func (w *work) lastSweep(ctx context.Context) error {
	if w.rec.Sweep.IsZero() || w.keeps() {
		return nil
	}
	left, err := w.leftovers(ctx)
	if err == nil {
		err = w.reap(ctx, left)
	}
	switch provider.KindOf(err) {
	case provider.KindTransient, provider.KindRateLimited, provider.KindUncertain:
		return err
	}
	return nil // no later try would do better
}

// answered tells whether an error is what a service said. One that said no may have
// made the key all the same; one that was not reached has not.
func answered(err error) bool {
	var pe *provider.Error
	return errors.As(err, &pe) && pe.Status != 0
}

// sweepSoon has the provider swept when its list has had time. in is what was
// asked for in vain; nil: it was not.
func (w *work) sweepSoon(next *keyRecord, in *intent) {
	if !w.sweeps() {
		return
	}
	next.Asked = w.now()
	next.Sweep = earlierTime(next.Sweep, next.Asked.Add(settleTime)) // tries in a row put nothing off
	if in != nil {
		next.Tried = max(next.Tried, in.Version)
	}
}

// keyPrefix begins the names of this key's versions at the provider.
func (w *work) keyPrefix() (string, error) {
	name, err := w.b.fence.mintName(w.rec.UID, w.rec.Name, 1, "")
	return name.KeyPrefix(), err
}

// parseName takes a name at the provider apart. One with another label than this
// key's was given by somebody else, who may have copied a name of ours.
func (w *work) parseName(listed string) (lifecycle.MintName, error) {
	name, err := lifecycle.ParseMintName(listed)
	if err != nil {
		return name, err
	}
	name.Label = lifecycle.Label(w.rec.Name)
	if !lifecycle.ListedAs(name.String(), listed) {
		return name, fmt.Errorf("name %q: its label is not this key's", listed)
	}
	return name, nil
}

// withoutHolder gives those of the ids that no version of another key of this
// provider has.
func (w *work) withoutHolder(ctx context.Context, ids []string) ([]string, error) {
	left := slices.Clone(ids)
	for _, name := range w.b.index.ofProvider(w.rec.Def.Provider) {
		if name == w.rec.Name || len(left) == 0 {
			continue
		}
		snap := w.b.cache.get(name)
		if snap == nil {
			var err error
			if snap, err = w.b.load(ctx, w.st.s, name, false); err != nil {
				return nil, err
			}
		}
		if snap != nil {
			left = slices.DeleteFunc(left, func(id string) bool { return snap.rec.Life.ByProviderID(id) != nil })
		}
	}
	return left, nil
}

// recovered closes an intent and lets the next mint start; the pause after a
// create that failed stays. First it notes what to look for later: a list that
// lags shows the key when its intent is long gone.
func (w *work) recovered(ctx context.Context, in intent) error {
	next := w.rec.clone()
	w.sweepSoon(next, &in)
	w.doubt(next, in.Version)
	if next.Wait.For(lifecycle.WhyList) {
		next.Wait = nil
		if f := next.MintFailure; f != nil && f.Step == lifecycle.StepRecover {
			next.MintFailure = nil
		} else if f != nil {
			next.Wait = &lifecycle.Wait{Why: lifecycle.WhyRetry, Until: f.At.Add(w.pauseAfter(f.Count))}
		}
	}
	if err := w.save(ctx, next); err != nil {
		return err
	}
	return w.closeIntent(ctx, in)
}

func (w *work) recoverFailed(ctx context.Context, err error) error {
	next := w.rec.clone()
	next.MintFailure, next.Wait = w.fail(w.rec.MintFailure, lifecycle.StepRecover, lifecycle.WhyList, err)
	return w.save(ctx, next)
}

// wait looks again at a time at which the provider's list can be trusted.
func (w *work) wait(ctx context.Context, until time.Time) error {
	next := w.rec.clone()
	next.Wait = &lifecycle.Wait{Why: lifecycle.WhyList, Until: until}
	return w.save(ctx, next)
}

func (w *work) markUncertain(ctx context.Context, in intent, why string) error {
	next := w.rec.clone()
	next.Uncertain = &uncertain{Name: in.Name, Version: in.Version, Since: w.now(), Message: why}
	w.doubt(next, in.Version) // whatever a person finds, it may have been made
	if err := w.save(ctx, next); err != nil {
		return err
	}
	w.b.emit(ctx, "uncertain", w.rec.Name, "name", in.Name)
	return nil
}
