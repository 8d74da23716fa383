package apikeys

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"strongroom.example/plugin/lifecycle"
	"strongroom.example/plugin/provider"
)

// Times that decide what a crash can have left at a provider.
const (
	// settleTime is how long after an intent a key may still turn up at the
	// provider: the call's own limit and then some, for services whose lists
	// lag behind.
	settleTime = callTimeout + 35*time.Second
	// clockDistance is how far the provider's clock may be from ours.
	clockDistance = 2 * time.Minute
)

// intentTable is the open intents in memory, by key.
type intentTable struct {
	mu    sync.RWMutex
	byKey map[string][]intent
}

func newIntentTable() *intentTable { return &intentTable{byKey: map[string][]intent{}} }

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
	if w.rec.Uncertain != nil {
		return nil
	}
	if f := w.rec.MintFailure; f != nil && f.Op == "recover" && w.now().Before(f.RetryAt) {
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
	found, err := w.findMinted(ctx, in)
	if err != nil {
		return false, w.recoverFailed(ctx, err)
	}
	if len(found) > 1 {
		return false, w.markUncertain(ctx, in, fmt.Sprintf("%d keys at the provider may be the one", len(found)))
	}
	if len(found) == 0 {
		if settled := in.Started.Add(settleTime); w.now().Before(settled) {
			return false, w.wait(ctx, settled)
		}
		return true, w.recovered(ctx, in)
	}
	callCtx, cancel := w.call(ctx)
	defer cancel()
	if err := w.prov.Revoke(callCtx, w.rec.Def.Parameters, found[0]); err != nil {
		return false, w.recoverFailed(ctx, err)
	}
	w.b.stats.reaped.Add(1)
	w.b.emit(ctx, "reap", w.rec.Name, "name", in.Name)
	if err := w.replacedInVain(ctx, in); err != nil {
		return false, err
	}
	return true, w.recovered(ctx, in)
}

// replacedInVain notes that the current version died when a key was minted
// that nobody will ever see: the provider lets no two live. The next mint
// starts at once.
func (w *work) replacedInVain(ctx context.Context, in intent) error {
	cur := w.rec.Life.Current()
	if w.caps.Overlap || cur == nil || cur.Number > in.Version {
		return nil
	}
	next := w.rec.clone()
	if err := next.Life.MarkRevoked(cur.Number, w.now()); err != nil {
		return err
	}
	next.MintFailure = nil
	return w.save(ctx, next)
}

// findMinted gives the ids of the keys at the provider that can only be, or
// (without names) may be, the intent's.
func (w *work) findMinted(ctx context.Context, in intent) ([]string, error) {
	prefix := in.Name
	if !w.caps.Named {
		prefix = ""
	}
	callCtx, cancel := w.call(ctx)
	defer cancel()
	remote, err := w.prov.List(callCtx, w.rec.Def.Parameters, prefix)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, r := range remote {
		if w.caps.Named {
			if r.Name == in.Name {
				ids = append(ids, r.ID)
			}
			continue
		}
		if slices.Contains(in.Known, r.ID) || w.rec.Life.ByProviderID(r.ID) != nil {
			continue
		}
		from, to := in.Started.Add(-clockDistance), in.Started.Add(settleTime+clockDistance)
		if !r.Created.IsZero() && (r.Created.Before(from) || r.Created.After(to)) {
			continue // somebody else's: nothing was asked for at that time
		}
		ids = append(ids, r.ID)
	}
	return ids, nil
}

// recovered closes an intent and lets the next mint start.
func (w *work) recovered(ctx context.Context, in intent) error {
	if err := w.closeIntent(ctx, in); err != nil {
		return err
	}
	f := w.rec.MintFailure
	if f == nil || f.Op == "create" {
		return nil // the backoff of a failed create stays
	}
	next := w.rec.clone()
	next.MintFailure = nil
	return w.save(ctx, next)
}

func (w *work) recoverFailed(ctx context.Context, err error) error {
	next := w.rec.clone()
	next.MintFailure = w.fail(w.rec.MintFailure, "recover", err)
	w.b.stats.failures.Add(1)
	return w.save(ctx, next)
}

// waitsForList tells that nothing has failed: the provider's list may lag.
func (f *failure) waitsForList() bool {
	return f.Op == "recover" && f.Kind == provider.KindUncertain.String()
}

// wait looks again at a time at which the provider's list can be trusted.
func (w *work) wait(ctx context.Context, until time.Time) error {
	next := w.rec.clone()
	next.MintFailure = &failure{
		Op: "recover", Kind: provider.KindUncertain.String(), At: w.now(), RetryAt: until,
		Message: "a rotation was interrupted; the provider does not list its key so far",
	}
	return w.save(ctx, next)
}

func (w *work) markUncertain(ctx context.Context, in intent, why string) error {
	next := w.rec.clone()
	next.Uncertain = &uncertain{Name: in.Name, Version: in.Version, Since: w.now(), Message: why}
	if err := w.save(ctx, next); err != nil {
		return err
	}
	w.b.emit(ctx, "uncertain", w.rec.Name, "name", in.Name)
	return nil
}
