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

// maxUnverified is how often a version is revoked whose end is not seen after
// that. Then somebody must look.
const maxUnverified = 8

// revokeDue ends the versions whose time is over. Each has its own failures.
func (w *work) revokeDue(ctx context.Context) error {
	for _, number := range w.rec.Life.DueRevocations(w.now()) {
		v := w.rec.Life.Find(number)
		if v.State == lifecycle.Current && !v.Compromised || w.succeedsItself(v) {
			continue
		}
		if held, err := w.hold(ctx, v); err != nil {
			return err
		} else if held {
			continue
		}
		if err := w.end(ctx, w.rec.Life.Find(number)); err != nil {
			return err
		}
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
		return f == nil || w.rec.Wait.For(lifecycle.WhyList)
	}
	return w.caps.FromCurrent && f == nil && !w.b.intents.open(w.rec.Name)
}

// isItsCredential tells whether the key's provider uses the key itself as its
// credential.
func (w *work) isItsCredential() bool {
	return slices.Contains(w.b.providers.usingKey(w.rec.Name), w.rec.Def.Provider)
}

// end takes the next step towards the end of a version, and records how far it has
// come. Each step may be repeated. That it has begun is stored before the provider is
// asked, so that no crash forgets it.
func (w *work) end(ctx context.Context, v *lifecycle.Version) error {
	if !v.EndAsked && !w.caps.Local {
		next := w.rec.clone()
		next.Life.Find(v.Number).EndAsked = true
		if err := w.save(ctx, next); err != nil {
			return err
		}
	}
	how, ending := w.kill(ctx, v)
	next, now := w.rec.clone(), w.now()
	if ending == nil {
		if err := next.Life.MarkRevoked(v.Number, now, how); err != nil {
			return err
		}
		if err := w.save(ctx, next); err != nil {
			return err
		}
		w.b.stats.revocations.Add(1)
		w.b.emit(ctx, "revoke", next.Name, "version", itoa(v.Number), "evidence", string(how))
		return nil
	}
	next.Life.Find(v.Number).Ending = ending
	if err := w.save(ctx, next); err != nil {
		return err
	}
	// Told when it begins to fail, and when it is given up, not at each try.
	if f := ending.Failure; f != nil && (v.Ending == nil || v.Ending.Failure == nil || v.Ending.Failure.Step != f.Step || ending.Until.IsZero()) {
		w.b.emit(ctx, "revoke-fail", next.Name, "version", itoa(v.Number), "reason", f.Message)
	}
	return nil
}

// kill revokes a version at the provider and looks whether it is dead: how is the
// evidence, or else ending is how far it has come.
func (w *work) kill(ctx context.Context, v *lifecycle.Version) (how lifecycle.Evidence, ending *lifecycle.Ending) {
	if w.caps.Local {
		return lifecycle.ByAnswer, nil
	}
	if v.Keep && (!v.Compromised || w.rec.Deleting != nil) {
		return lifecycle.ByNobody, nil
	}
	old := lifecycle.Ending{}
	if v.Ending != nil {
		old = *v.Ending
	}
	as, now := w.as(ctx, v), w.now()
	asked, twin := !old.Asked.IsZero(), w.rec.Life.Twin(v, now) != nil
	cannot := v.Keep || v.ProviderID == "" || !w.caps.Revoke || twin
	tests, lists := w.canTest(v), w.caps.List && v.ProviderID != "" && !twin
	switch {
	case tests || lists:
	case asked:
		return lifecycle.ByAnswer, nil // its successor's birth ended it
	case twin:
		return "", &lifecycle.Ending{Until: now.Add(day)} // as long as that lives
	case cannot && !v.Compromised:
		return lifecycle.ByNobody, nil // it is given up
	case cannot:
		return "", &lifecycle.Ending{Failure: w.note(v, lifecycle.StepRevoke, w.cannotEnd())}
	}
	if asked || cannot {
		// It may have taken a while: look, before it is asked again.
		how, err := w.seenDead(ctx, as, v, tests, lists)
		if how != "" {
			return how, nil
		}
		if twin && !asked {
			return "", &lifecycle.Ending{Until: now.Add(day)}
		}
		if !asked {
			old.Asked = now
		}
		tell := cannot && (old.Failure != nil || !asked && v.Compromised) // nothing is to come
		if waited := now.Sub(old.Asked); waited < testPatience && !tell {
			old.Until = now.Add(min(max(waited, 5*time.Second), testPatience-waited))
			return "", &old
		}
		if cannot {
			if err == nil || provider.KindOf(err) == provider.KindUnsupported {
				err = w.cannotEnd()
			}
			return "", w.unverified(old, err, day)
		}
	}
	if err := as.revoke(ctx, v.ProviderID, v.Name); err != nil {
		f, wait := w.fail(old.Failure, lifecycle.StepRevoke, lifecycle.WhyRetry, err)
		return "", &lifecycle.Ending{Failure: f, Until: wait.Until}
	}
	if !tests && !lists {
		return lifecycle.ByAnswer, nil
	}
	how, err := w.seenDead(ctx, as, v, tests, lists)
	if how != "" {
		return how, nil
	}
	old.Asked, old.Until = now, now.Add(5*time.Second)
	if !asked {
		return "", &old
	}
	return "", w.unverified(old, err, 0)
}

// unverified is the ending of a version that is not seen to be dead: it is looked at
// again after a pause, a few times.
func (w *work) unverified(e lifecycle.Ending, err error, pause time.Duration) *lifecycle.Ending {
	f, wait := w.fail(e.Failure, lifecycle.StepVerify, lifecycle.WhyRetry, err)
	if e.Failure, e.Until = f, later(wait.Until, w.now().Add(pause)); f.Count >= maxUnverified {
		e.Until = time.Time{}
	}
	return &e
}

func (w *work) cannotEnd() error {
	return &provider.Error{Op: "revoke", Kind: provider.KindUnsupported,
		Msg: "the engine cannot end this version: end it at the service and write resolve/" + w.rec.Name}
}

// note is a failure that was no call.
func (w *work) note(v *lifecycle.Version, step lifecycle.Step, err error) *lifecycle.Failure {
	var prev *lifecycle.Failure
	if v.Ending != nil {
		prev = v.Ending.Failure
	}
	f, _ := w.fail(prev, step, lifecycle.WhyRetry, err)
	return f
}

func (w *work) canTest(v *lifecycle.Version) bool {
	return w.caps.Test && len(w.rec.Values[v.Number]) > 0
}

// seenDead looks whether a version is dead: the provider refuses it, or else does not
// list it. An error says that it lives, or why nobody can tell.
func (w *work) seenDead(ctx context.Context, as asked, v *lifecycle.Version, tests, lists bool) (lifecycle.Evidence, error) {
	if tests {
		refused, err := as.test(ctx, w.rec.providerKey(v))
		switch {
		case isUnsure(refused) && !w.currentWorks(ctx, v):
			err = refused // it may be of the account
		case refused != nil:
			return lifecycle.ByTest, nil
		case err == nil:
			return "", &provider.Error{Op: "revoke", Kind: provider.KindTransient, Msg: "the key still works after it was revoked"}
		}
		if !lists {
			return "", err
		}
	}
	remote, err := as.list(ctx, "")
	if err != nil {
		return "", err
	}
	if err := w.missing(remote, v); err != nil {
		return "", err
	}
	return lifecycle.ByList, nil
}

// currentWorks tells whether another version than v, the current one, is accepted: then
// what refuses v is not of their account.
func (w *work) currentWorks(ctx context.Context, v *lifecycle.Version) bool {
	cur := w.rec.Life.Current()
	if cur == nil || cur.Number == v.Number || !w.canTest(cur) {
		return false
	}
	refused, err := w.as(ctx, cur).test(ctx, w.rec.providerKey(cur))
	return refused == nil && err == nil
}

// missing tells whether a list lacks a version. One that does not show the current
// version either, by its id or else by its name, shows nothing.
func (w *work) missing(remote []provider.RemoteKey, v *lifecycle.Version) error {
	listed := byID(remote, v)
	if cur := w.rec.Life.Current(); cur != nil && cur.Number != v.Number && cur.ProviderID != "" && !cur.Imported && !isDead(w.rec) && !byID(remote, cur) {
		if !w.byName(remote, cur) {
			return &provider.Error{Op: "list", Kind: provider.KindTransient, Msg: "the service's list does not show the current version either"}
		}
		listed = listed || w.byName(remote, v)
	}
	if listed {
		return &provider.Error{Op: "revoke", Kind: provider.KindTransient, Msg: fmt.Sprintf("the service still lists version %d after it was revoked", v.Number)}
	}
	return nil
}

// byID tells whether a list has a version by its identifier, byName whether it has it by
// the name under which it was made.
func byID(remote []provider.RemoteKey, v *lifecycle.Version) bool {
	return v.ProviderID != "" && slices.ContainsFunc(remote, func(r provider.RemoteKey) bool { return r.ID == v.ProviderID })
}

func (w *work) byName(remote []provider.RemoteKey, v *lifecycle.Version) bool {
	return w.caps.Named && slices.ContainsFunc(remote, func(r provider.RemoteKey) bool { return lifecycle.ListedAs(v.Name, r.Name) })
}

// isGone tells that a key is deleted and nothing of it is alive, as far as its versions
// and intents say. Who reads it finds nothing, though its record may wait for a list.
func (b *backend) isGone(rec *keyRecord) bool {
	return rec.Deleting != nil && rec.Life.Alive() == 0 && !b.intents.open(rec.Name)
}

// eraseIfGone removes a deleted key once nothing of it is alive, and the provider's
// list has had time to show what else there is. A provider that cannot be asked what
// is left keeps the record for two days.
func (w *work) eraseIfGone(ctx context.Context) error {
	now := w.now()
	if !w.b.isGone(w.rec) || now.Before(w.rec.Deleting.LookAt) {
		return nil
	}
	ended := w.rec.Deleting.At
	for v := range w.rec.Life.All() {
		ended = later(ended, v.RevokedAt)
	}
	at := w.rec.Asked.Add(lateList)
	if !now.Before(at) || w.keeps() {
		if err := w.lastSweep(ctx); err == nil || !now.Before(ended.Add(2*day)) {
			return w.erase(ctx)
		}
		at = now.Add(time.Hour)
	}
	next := w.rec.clone()
	next.Deleting = &deletion{At: w.rec.Deleting.At, LookAt: at}
	return w.save(ctx, next)
}

// eraseNow removes a deleted key of which nothing is alive before a late list can show
// more, because somebody wants its name or its provider; errKept: it cannot.
func (w *work) eraseNow(ctx context.Context) error {
	if !w.b.isGone(w.rec) || w.lastSweep(ctx) != nil {
		return errKept
	}
	return w.erase(ctx)
}

var errKept = errors.New("the key is still being deleted")
