package apikeys

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"slices"
	"time"

	"strongroom.example/plugin/lifecycle"
	"strongroom.example/plugin/provider"
)

// Services count requests and keys by account, whatever the providers are called
// that ask them. So what is paused, capped or full is an account.

// accountOf tells providers of one account by what they share: the name that the
// operator has given it or, without one, type, place and credential. It holds no
// secret in clear, and is kept in memory only. Vault's own keys, and those of a
// provider without a credential, are of no account: "".
func accountOf(rec *providerRecord, p provider.Provider) string {
	if rec == nil || p == nil || p.Capabilities().Local {
		return ""
	}
	if rec.Account != "" {
		return "named " + rec.Account
	}
	if len(rec.Credential) == 0 && rec.CredentialKey == "" {
		return ""
	}
	var places []string
	if d, ok := p.(provider.Destined); ok {
		for _, one := range d.Destinations() {
			if one.Secret == provider.SecretCredential {
				places = append(places, one.Origin)
			}
		}
		slices.Sort(places)
	}
	settings := map[string]any{}
	for name, v := range rec.Settings {
		if identifies(name) && len(places) == 0 {
			settings[name] = v
		}
	}
	raw, err := json.Marshal([]any{rec.Type, slices.Compact(places), settings, rec.Credential, rec.CredentialKey})
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(raw)
	return "same " + string(sum[:])
}

// account is the account of a provider; of one that was not asked so far, or has
// none, it is the provider itself.
func (t *providerTable) account(name string) string {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if rec := t.records[name]; rec != nil {
		if a := t.built[name][rec.Identity].account; a != "" {
			return a
		}
	}
	return "provider " + name
}

const (
	// crowdedLook is how soon a key is looked at again whose account is full, though
	// nothing was seen to free a place.
	crowdedLook = 6 * time.Hour
	// maxCounted bounds how many keys of an account are counted for each rotation.
	// Beyond it the service says so itself.
	maxCounted = 2000
)

// crowd is an account that is full: how many versions of how many keys are alive,
// and when the first of them ends.
type crowd struct {
	alive, keys int
	until       time.Time
}

// crowded tells whether a further version has no place at the service, because of
// versions of other keys whose end is known. nil: it has, or only the service knows.
func (w *work) crowded(ctx context.Context) (*crowd, error) {
	limit := w.caps.MaxKeys
	if limit == 0 || w.unusable != nil || w.rec.Life.Current() != nil && !w.caps.Overlap {
		return nil, nil
	}
	names := w.ofAccount(ctx)
	if len(names) > maxCounted {
		return nil, nil
	}
	pool := provider.Pool(w.prov, w.rec.Def.Parameters)
	full := &crowd{}
	for _, name := range names {
		rec := w.rec
		if name != rec.Name {
			var err error
			if rec, err = w.b.record(ctx, name); err != nil {
				return nil, err
			}
		}
		if rec == nil {
			continue
		}
		p, err := w.b.provider(ctx, rec.Def.Provider)
		if err != nil || provider.Pool(p, rec.Def.Parameters) != pool {
			continue
		}
		full.keys++
		full.alive += rec.Life.Alive() + boolInt(w.b.intents.open(name))
		full.until = earlierTime(full.until, rec.nextRevocation())
	}
	if full.alive < limit || !full.until.After(w.now()) {
		return nil, nil
	}
	return full, nil
}

// ofAccount names the keys of the account.
func (w *work) ofAccount(ctx context.Context) (names []string) {
	for _, p := range w.b.providers.names() {
		_, _ = w.b.provider(ctx, p) // what cannot be built is of no account
		if w.b.providers.account(p) == w.b.providers.account(w.rec.Def.Provider) {
			names = append(names, w.b.index.ofProvider(p)...)
		}
	}
	return names
}

// placeFreed has the keys looked at that wait for a place in the account.
func (w *work) placeFreed(ctx context.Context) {
	for _, name := range w.ofAccount(ctx) {
		if rec, err := w.b.record(ctx, name); err == nil && rec != nil && rec.Wait.For(lifecycle.WhyLimit) {
			w.b.index.review(name, w.now())
		}
	}
	w.b.wakeUp()
}

// earlierTime is the earlier of two times, where zero is never.
func earlierTime(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
