package apikeys

import (
	"context"
	"slices"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"strongroom.example/plugin/lifecycle"
)

// What revoke_in_use may say of a version that is still used although it was
// replaced.
const (
	inUseWarn  = "warn"  // say so, and revoke it at the end of its grace
	inUseDelay = "delay" // say so, and let it live on, for one more grace period at most
)

// useRecord is what the provider said of a version's last use.
type useRecord struct {
	LastUsed time.Time `json:"last_used,omitzero"` // zero: never, as far as the provider knows
	Checked  time.Time `json:"checked"`
	// HeldUntil puts the revocation off; readers do not get the version any more.
	HeldUntil time.Time `json:"held_until,omitzero"`
}

// useStep is how long before the end of its grace a version is looked at, and
// how long a revocation is put off at once.
func useStep(v *lifecycle.Version) time.Duration { return min(v.Grace/4, day) }

// useCheckAt is when to ask for a version's last use; zero: not at all.
func useCheckAt(rec *keyRecord, v *lifecycle.Version) time.Time {
	if v.State != lifecycle.Grace || v.Compromised || v.Keep || v.ProviderID == "" || v.RevokeAt.IsZero() {
		return time.Time{}
	}
	if u := rec.Uses[v.Number]; u != nil {
		return time.Time{}
	}
	return v.RevokeAt.Add(-useStep(v))
}

// usedSinceReplaced tells whether somebody still uses a replaced version.
func usedSinceReplaced(rec *keyRecord, v *lifecycle.Version) bool {
	u := rec.Uses[v.Number]
	return u != nil && v.State == lifecycle.Grace && u.LastUsed.After(v.Retired)
}

// nextUseCheck is the earliest time at which a version must be looked at; zero:
// none.
func (r *keyRecord) nextUseCheck() time.Time {
	var next time.Time
	for i := range r.Life.Versions {
		if at := useCheckAt(r, &r.Life.Versions[i]); !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	return next
}

// nextRevocation is when the next version must be revoked, with what is put off.
func (r *keyRecord) nextRevocation() time.Time {
	var next time.Time
	for v := range r.Life.Living() {
		if v.RevokeAt.IsZero() {
			continue
		}
		if v.Stuck() {
			continue // it waits for somebody
		}
		at := later(v.RevokeAt, v.RetryAt())
		if u := r.Uses[v.Number]; u != nil && holdable(v) && u.HeldUntil.After(at) {
			at = u.HeldUntil
		}
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	return next
}

// holdable tells whether a version ends by itself. One that somebody ends, be
// it for its value being known to others, is not put off.
func holdable(v *lifecycle.Version) bool {
	return v.State == lifecycle.Grace && !v.Compromised && !v.Keep && !v.EndAsked && v.RevokeAt.Equal(v.Retired.Add(v.Grace))
}

// checkUse warns of versions that are still used shortly before they end. An
// answer that does not come is no use: nothing but a warning depends on it.
func (w *work) checkUse(ctx context.Context) error {
	if !w.caps.LastUsed {
		return nil
	}
	for _, v := range slices.Clone(w.rec.Life.Versions) {
		if at := useCheckAt(w.rec, &v); at.IsZero() || w.now().Before(at) {
			continue
		}
		used, err := w.as(ctx, &v).lastUsed(ctx, v.ProviderID)
		if err != nil {
			w.b.Logger().Debug("the provider did not tell of a version's last use", "key", w.rec.Name, "version", v.Number, "error", publicMessage(err))
		}
		if err := w.noteUse(ctx, &v, &useRecord{LastUsed: used, Checked: w.now()}); err != nil {
			return err
		}
	}
	return nil
}

// noteUse stores what is known of a version's use, and tells of it.
func (w *work) noteUse(ctx context.Context, v *lifecycle.Version, u *useRecord) error {
	next := w.rec.clone()
	next.setUse(v.Number, u)
	if err := w.save(ctx, next); err != nil {
		return err
	}
	if usedSinceReplaced(next, v) {
		w.b.emit(ctx, "in-use", next.Name, "version", itoa(v.Number), "last_used_time", text(u.LastUsed), "revoke_time", text(later(v.RevokeAt, u.HeldUntil)))
	}
	return nil
}

// hold puts a revocation that is due off where the version is in use and the
// mount wants that, for one more grace period at most. Readers were promised
// less, so nothing is taken from anybody.
func (w *work) hold(ctx context.Context, v *lifecycle.Version) (held bool, err error) {
	now := w.now()
	if w.b.config.get().RevokeInUse != inUseDelay || !w.caps.LastUsed || !holdable(v) || v.ProviderID == "" {
		return false, nil
	}
	if u := w.rec.Uses[v.Number]; u != nil && now.Before(u.HeldUntil) {
		return true, nil
	}
	if w.rec.Life.Alive() >= aliveLimit(w.caps) {
		return false, nil // the next version needs its place
	}
	last := v.RevokeAt.Add(v.Grace)
	if !now.Before(last) {
		return false, nil
	}
	used, err := w.as(ctx, v).lastUsed(ctx, v.ProviderID)
	if err != nil || !used.After(now.Add(-2*useStep(v))) {
		return false, nil // nobody knows of a use
	}
	until := now.Add(useStep(v))
	if until.After(last) {
		until = last
	}
	return true, w.noteUse(ctx, v, &useRecord{LastUsed: used, Checked: now, HeldUntil: until})
}

func (r *keyRecord) setUse(version int, u *useRecord) {
	if r.Uses == nil {
		r.Uses = map[int]*useRecord{}
	}
	r.Uses[version] = u
}

// inUse is what status tells of versions that are used although replaced.
func inUse(rec *keyRecord) []map[string]any {
	var out []map[string]any
	for v := range rec.Life.All() {
		if !usedSinceReplaced(rec, v) {
			continue
		}
		u := rec.Uses[v.Number]
		out = append(out, map[string]any{
			"version": v.Number, "last_used_time": stamp(u.LastUsed), "checked_time": stamp(u.Checked),
			"revoke_time": stamp(later(v.RevokeAt, u.HeldUntil)),
		})
	}
	return out
}

// addLastUsed asks the provider now for the last use of every version that is
// alive. What it does not tell is a warning.
func (b *backend) addLastUsed(ctx context.Context, snap *snapshot, versions map[string]any, resp *logical.Response) error {
	rec := snap.rec
	w := b.workOf(ctx, store{b.storage}, snap)
	switch {
	case w.unusable != nil:
		return w.unusable
	case !w.caps.LastUsed:
		return refuse("", "provider %q does not know when keys were last used", rec.Def.Provider)
	}
	for v := range rec.Life.Living() {
		if v.ProviderID == "" {
			continue
		}
		used, err := w.as(ctx, v).lastUsed(ctx, v.ProviderID)
		if err != nil {
			resp.AddWarning("version " + itoa(v.Number) + ": " + publicMessage(err))
			continue
		}
		shown := versions[itoa(v.Number)].(map[string]any)
		shown["last_used_time"], shown["last_used_checked_time"] = stamp(used), stamp(b.clock.now())
	}
	return nil
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
