package apikeys

import (
	"context"
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
// come. Each step may be repeated.
func (w *work) end(ctx context.Context, v *lifecycle.Version) error {
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
	if v.Keep || v.ProviderID == "" || !w.caps.Revoke {
		if !v.Compromised || v.Keep && w.rec.Deleting != nil {
			return lifecycle.ByNobody, nil // it is given up
		}
		return "", &lifecycle.Ending{Failure: w.note(v, lifecycle.StepRevoke, &provider.Error{Op: "revoke", Kind: provider.KindUnsupported,
			Msg: "the engine cannot end this version: end it at the service and write resolve/" + w.rec.Name})}
	}
	old := lifecycle.Ending{}
	if v.Ending != nil {
		old = *v.Ending
	}
	as, now := w.as(ctx, v), w.now()
	if w.rec.Life.Twin(v, now) != nil {
		// By this identifier another version lives. Its value may be dead all the same.
		if refused, _ := w.testDead(ctx, as, v); refused {
			return lifecycle.ByTest, nil
		}
		return "", &lifecycle.Ending{Until: now.Add(day)}
	}
	asked := !old.Asked.IsZero()
	if asked {
		// It may have taken a while: look, before it is asked again.
		if how, _ := w.seenDead(ctx, as, v); how != "" {
			return how, nil
		}
		if waited := now.Sub(old.Asked); waited < testPatience {
			old.Until = now.Add(min(max(waited, 5*time.Second), testPatience-waited))
			return "", &old
		}
	}
	if err := as.revoke(ctx, v.ProviderID, v.Name); err != nil {
		f, wait := w.fail(old.Failure, lifecycle.StepRevoke, lifecycle.WhyRetry, err)
		return "", &lifecycle.Ending{Failure: f, Until: wait.Until}
	}
	how, err := w.seenDead(ctx, as, v)
	if how != "" {
		return how, nil
	}
	old.Asked, old.Until = now, now.Add(5*time.Second)
	if !asked {
		return "", &old
	}
	f, wait := w.fail(old.Failure, lifecycle.StepVerify, lifecycle.WhyRetry, err)
	if old.Failure, old.Until = f, wait.Until; f.Count >= maxUnverified {
		old.Until = time.Time{}
	}
	return "", &old
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

func (w *work) testDead(ctx context.Context, as asked, v *lifecycle.Version) (dead bool, err error) {
	if !w.caps.Test || len(w.rec.Values[v.Number]) == 0 {
		return false, nil
	}
	refused, err := as.test(ctx, w.rec.providerKey(v))
	return refused != nil, err
}

// seenDead looks whether a version that was revoked is dead: the provider refuses
// it, or else does not list it. Where it can do neither, its word must do.
func (w *work) seenDead(ctx context.Context, as asked, v *lifecycle.Version) (lifecycle.Evidence, error) {
	tested := w.caps.Test && len(w.rec.Values[v.Number]) > 0
	dead, err := w.testDead(ctx, as, v)
	switch {
	case dead:
		return lifecycle.ByTest, nil
	case tested && err == nil:
		return "", &provider.Error{Op: "revoke", Kind: provider.KindTransient, Msg: "the key still works after it was revoked"}
	case !w.caps.List && tested:
		return "", err
	case !w.caps.List:
		return lifecycle.ByAnswer, nil
	}
	remote, err := as.list(ctx, "")
	if err != nil {
		return "", err
	}
	if slices.ContainsFunc(remote, func(r provider.RemoteKey) bool { return r.ID == v.ProviderID }) {
		return "", &provider.Error{Op: "revoke", Kind: provider.KindTransient, Msg: fmt.Sprintf("the service still lists version %d after it was revoked", v.Number)}
	}
	return lifecycle.ByList, nil
}

// eraseIfGone removes a deleted key once nothing of it is alive. A provider that
// cannot be asked what is left keeps the record for two days.
func (w *work) eraseIfGone(ctx context.Context) error {
	gone, now := w.rec.Deleting, w.now()
	if gone == nil || w.rec.Life.Alive() > 0 || w.b.intents.open(w.rec.Name) || now.Before(gone.LookAt) {
		return nil
	}
	ended := gone.At
	for i := range w.rec.Life.Versions {
		ended = later(ended, w.rec.Life.Versions[i].RevokedAt)
	}
	if err := w.lastSweep(ctx); err != nil && now.Before(ended.Add(2*day)) {
		next := w.rec.clone()
		next.Deleting = &deletion{At: gone.At, LookAt: now.Add(time.Hour)}
		return w.save(ctx, next)
	}
	return w.erase(ctx)
}
