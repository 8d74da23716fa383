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

// restoreGap is by how much version numbers jump at a reconcile. Versions that
// were made after the snapshot was taken are unknown, and their numbers must
// not come again: a client would take a new version for one that it has.
const restoreGap = 1000

// finding is how a key stands at its provider, compared with what storage says.
type finding struct {
	// later are keys at the provider that storage does not know.
	later []lifecycle.Version
	// dead are versions that storage takes for alive and the provider refuses.
	dead []int
	// renew: readers may hold a version that cannot be read back, or the
	// current one is dead, so a new one is needed.
	renew bool
	// unsure is what was said of versions that may be a refusal, or of something else.
	unsure error
	// foreign counts the keys at the provider of which nothing can be said, listed are all
	// that it has of the key.
	foreign int
	listed  []provider.RemoteKey
}

// inspect asks the provider and changes nothing.
func (w *work) inspect(ctx context.Context) (*finding, error) {
	f := &finding{}
	if w.caps.Local {
		return f, nil
	}
	if w.caps.List {
		if err := w.findLater(ctx, f); err != nil {
			return nil, err
		}
	}
	if w.caps.Test {
		if err := w.findDead(ctx, f); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func (w *work) findLater(ctx context.Context, f *finding) error {
	base, err := w.b.fence.mintName(w.rec.UID, w.rec.Name, 1, "")
	if err != nil {
		return err
	}
	prefix := ""
	if w.caps.Named {
		prefix = base.KeyPrefix()
	}
	remote, err := w.asNow().list(ctx, prefix)
	if err != nil {
		return err
	}
	f.listed = remote
	newest := w.rec.newest()
	if !w.sameIDs(remote) {
		newest = newest.Add(callTimeout) // that very version may be listed under another id
	}
	for _, r := range remote {
		if w.rec.Life.Knows(r.ID, r.Name) || w.rec.Life.ByName(r.Name) != nil {
			continue
		}
		v := lifecycle.Version{Name: r.Name, ProviderID: r.ID, Created: r.Created, Expires: r.Expires, State: lifecycle.Grace, Found: true}
		if !w.caps.Named {
			if r.Created.IsZero() || !r.Created.After(newest) {
				f.foreign++
				continue
			}
			v.Keep = true // nothing says that it is ours
			f.later, f.renew = append(f.later, v), true
			continue
		}
		name, err := w.parseName(r.Name)
		if err != nil {
			f.foreign++
			continue
		}
		v.Number = name.Version
		v.Keep = name.Installation != base.Installation
		f.renew = f.renew || name.Version > currentNumber(w.rec)
		f.later = append(f.later, v)
	}
	slices.SortFunc(f.later, func(a, b lifecycle.Version) int { return a.Number - b.Number })
	return nil
}

// newest is when the last version that storage knows was made.
func (r *keyRecord) newest() time.Time {
	at := r.Created
	for v := range r.Life.All() {
		at = later(at, v.Created)
	}
	return at
}

func (w *work) findDead(ctx context.Context, f *finding) error {
	for v := range w.rec.Life.Living() {
		if len(w.rec.Values[v.Number]) == 0 {
			continue
		}
		refused, err := w.as(ctx, v).test(ctx, w.rec.providerKey(v))
		if err != nil {
			return fmt.Errorf("test version %d: %w", v.Number, err)
		}
		young := v.Created.Add(testPatience).Sub(w.now())
		switch {
		case refused == nil:
		case isUnsure(refused):
			f.unsure = refused
		case young > 0 && (v.State == lifecycle.Pending || f.renew):
			// Not known everywhere yet, maybe: it is looked at again before it is current, or
			// its successor is being made.
		case young > 0:
			return &provider.Error{Op: "test", Kind: provider.KindTransient,
				Msg: fmt.Sprintf("version %d is refused, and so new that the service may not know it everywhere yet: ask again in %s", v.Number, young.Round(time.Second))}
		default:
			f.dead = append(f.dead, v.Number)
			f.renew = f.renew || v.State == lifecycle.Current
		}
	}
	return nil
}

// settle makes storage agree with what was found and mints where needed. What
// was found at the provider is kept alive for a full grace period, because
// clients may be using it, and ended only if this installation has made it.
func (w *work) settle(ctx context.Context, f *finding) error {
	next, now, successor := w.rec.clone(), w.now(), 0
	for _, v := range f.later {
		if w.caps.Named {
			successor = max(successor, v.Number) // its name is the proof: below the current one it was made before
		} else {
			successor = next.Life.Last + 1
		}
		if v.Number <= next.Life.Last {
			v.Number = next.Life.Last + 1
		}
		v.Retired, v.RevokeAt = now, now.Add(w.b.config.get().graceOf(&next.Def))
		if v.Created.IsZero() {
			v.Created = now
		}
		if err := next.Life.Add(v); err != nil {
			return err
		}
	}
	same := w.sameIDs(f.listed)
	for _, n := range f.dead {
		// One that is still listed may have a new value, which nobody here has seen: it ends as any version.
		if v := next.Life.Find(n); (byID(f.listed, v) || !same && w.byName(f.listed, v)) && next.Life.Twin(v, now) == nil {
			ends := now.Add(w.b.config.get().graceOf(&next.Def))
			if v.State != lifecycle.Grace {
				v.State, v.Retired, v.RevokeAt, v.Ending = lifecycle.Grace, now, ends, nil
			}
			v.RevokeAt = earlierTime(v.RevokeAt, ends) // what readers were promised is dead
			continue
		}
		if err := next.Life.MarkRevoked(n, now, lifecycle.ByTest); err != nil {
			return err
		}
	}
	w.doubt(next, successor)
	for _, in := range w.b.intents.of(next.Name) {
		w.doubt(next, in.Version) // it is closed below
	}
	next.Life.Last += restoreGap
	if w.sweeps() {
		next.Sweep = now // by then what is dead is known, and a second key of one name is told apart
	}
	if f.renew && w.caps.Mint {
		next.Requested, next.MintFailure, next.Wait = now, nil, nil
	}
	if err := w.save(ctx, next); err != nil {
		return err
	}
	if err := w.dropRestoredIntents(ctx); err != nil {
		return err
	}
	if !f.renew || !w.caps.Mint || w.rec.Uncertain != nil || w.rec.Life.Pending() != nil || w.rec.Deleting != nil {
		return nil
	}
	if w.rec.Life.Alive() >= aliveLimit(w.caps) {
		return nil // the scheduler mints once there is room
	}
	return w.mint(ctx)
}

// dropRestoredIntents closes intents whose key, if it was ever made, has just
// been found: it may have become current after the snapshot was taken, so it
// is not reaped. Where the provider cannot list, a person must look.
func (w *work) dropRestoredIntents(ctx context.Context) error {
	for _, in := range w.b.intents.of(w.rec.Name) {
		if in.UID == w.rec.UID && w.rec.Life.ByName(in.Name) == nil && !w.caps.List {
			if w.rec.Uncertain == nil {
				return w.markUncertain(ctx, in, "the provider cannot list its keys, so nobody can tell whether the key exists")
			}
			continue
		}
		if v := w.rec.Life.ByName(in.Name); v != nil && v.State == lifecycle.Pending || v == nil && w.b.unsettled(in) > 0 {
			continue
		}
		if err := w.closeIntent(ctx, in); err != nil {
			return err
		}
	}
	return nil
}

// reconcileRecord is how far a reconcile has come. It is stored so that a
// restart goes on where it ended.
type reconcileRecord struct {
	Started  time.Time         `json:"started"`
	Finished time.Time         `json:"finished,omitzero"`
	Cursor   string            `json:"cursor"` // the last key that was looked at
	Checked  int               `json:"checked"`
	Renewed  int               `json:"renewed"`
	Found    int               `json:"found"`
	Dead     int               `json:"dead"`
	Foreign  map[string]int    `json:"foreign,omitempty"`
	Problems map[string]string `json:"problems,omitempty"`
	// Blocked counts the problems because of which the fence stays closed: nothing
	// is known about the key.
	Blocked int `json:"blocked,omitempty"`
}

// maxReported bounds the lists in a report.
const maxReported = 1000

// reconcileBatch is after how many keys progress is stored.
const reconcileBatch = 100

// reconcile goes through the keys from where the last call has ended until all
// are done or the time is over. dry changes nothing.
func (b *backend) reconcile(ctx context.Context, st store, budget time.Duration, dry bool) (*reconcileRecord, error) {
	var progress reconcileRecord
	if !dry {
		if _, err := st.get(ctx, reconcileKey, &progress); err != nil {
			return nil, err
		}
	}
	if progress.Started.IsZero() || !progress.Finished.IsZero() {
		progress = reconcileRecord{Started: b.clock.now()}
	}
	until := b.opts.Clock.Monotonic() + budget
	for b.opts.Clock.Monotonic() < until {
		names := b.index.page(progress.Cursor, reconcileBatch)
		if len(names) == 0 {
			progress.Finished = b.clock.now()
			break
		}
		for _, name := range names {
			if err := b.reconcileKey(ctx, st, name, &progress, dry); err != nil {
				return nil, err
			}
			progress.Cursor = name
			if b.opts.Clock.Monotonic() >= until {
				break
			}
		}
		if !dry {
			if err := st.put(ctx, reconcileKey, &progress); err != nil {
				return nil, err
			}
		}
	}
	if dry {
		return &progress, nil
	}
	return &progress, st.put(ctx, reconcileKey, &progress)
}

// reconcileKey notes a provider's fault as a problem and goes on; only a fault
// of storage ends the run.
func (b *backend) reconcileKey(ctx context.Context, st store, name string, progress *reconcileRecord, dry bool) error {
	var problem error
	err := b.withKey(ctx, st.s, name, func(ctx context.Context, w *work) error {
		f, err := w.inspect(ctx)
		if err != nil {
			problem = err
			return nil
		}
		progress.note(name, f)
		if f.unsure != nil {
			progress.problem(name, "whether it works is not known: "+publicMessage(f.unsure))
		}
		if dry {
			return nil
		}
		if err := w.settle(ctx, f); err != nil {
			return err
		}
		if w.failed != nil && !w.live() {
			progress.problem(name, "no new version could be made, the engine goes on trying: "+publicMessage(w.failed))
		}
		return nil
	})
	var r *refusal
	switch {
	case errors.Is(err, errNoKey):
		return nil
	case errors.As(err, &r):
		problem = err // its provider is missing or invalid
	case err != nil:
		return err
	}
	progress.Checked++
	if problem != nil {
		progress.Blocked++
		progress.problem(name, "not checked: "+publicMessage(problem))
	}
	return nil
}

func (p *reconcileRecord) note(name string, f *finding) {
	p.Found += len(f.later)
	p.Dead += len(f.dead)
	if f.renew {
		p.Renewed++
	}
	if f.foreign > 0 && len(p.Foreign) < maxReported {
		if p.Foreign == nil {
			p.Foreign = map[string]int{}
		}
		p.Foreign[name] = f.foreign
	}
}

func (p *reconcileRecord) problem(name, what string) {
	if p.Problems == nil {
		p.Problems = map[string]string{}
	}
	if len(p.Problems) < maxReported {
		p.Problems[name] = what
	}
}
