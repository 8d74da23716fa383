package apikeys

import (
	"context"
	"errors"
	"sync"
	"time"

	"strongroom.example/plugin/lifecycle"
	"strongroom.example/plugin/provider"
)

// callTimeout bounds one call to a provider, whose own limit is its timeout, at
// most 80 s. What goes on behind a request may go on after it: work on a key does
// not end with who has asked for it.
const callTimeout = 85 * time.Second

// asked is a provider as a key was made with it: the identity and parameters of
// that time, which are those by which it is found, tested and ended.
type asked struct {
	w      *work
	prov   provider.Provider
	params map[string]any
	// counts is the kind of call as which all count; "": each as its own.
	counts string
}

// as is the provider as it made a version.
func (w *work) as(ctx context.Context, v *lifecycle.Version) asked {
	return w.identity(ctx, v.Identity, w.rec.parameters(v.Number))
}

// asNow is the provider as it makes the next version.
func (w *work) asNow() asked { return asked{w: w, prov: w.prov, params: w.rec.Def.Parameters} }

// asIntent is the provider as it was asked for a key.
func (w *work) asIntent(ctx context.Context, in *intent) asked {
	params := in.Parameters
	if params == nil {
		params = w.rec.Def.Parameters // 0.1 did not say
	}
	return w.identity(ctx, in.Identity, params)
}

func (w *work) identity(ctx context.Context, number int, params map[string]any) asked {
	prov := w.prov
	if rec := w.b.providers.record(w.rec.Def.Provider); rec != nil && rec.Identity != number {
		p, err := w.b.providerAs(ctx, rec.Name, number)
		if prov = p; err != nil {
			prov = unusable{err}
		}
	}
	return asked{w: w, prov: prov, params: params}
}

// ask makes one call, within its time. What comes of it is noted for all keys of
// the provider.
func (a asked) ask(ctx context.Context, op string, call func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err := call(ctx)
	if a.counts != "" {
		op = a.counts
	}
	a.w.b.health.note(a.w.b.providers.account(a.w.rec.Def.Provider), op, err, a.w.now(), a.w.b.config.get())
	return err
}

func (a asked) create(ctx context.Context, req provider.CreateRequest) (key provider.Key, err error) {
	if a.w.lost != nil {
		return key, a.w.lost
	}
	req.Parameters = a.params
	err = a.ask(ctx, "create", func(ctx context.Context) (err error) {
		key, err = a.prov.Create(ctx, req)
		return err
	})
	return key, err
}

func (a asked) list(ctx context.Context, prefix string) (found []provider.RemoteKey, err error) {
	err = a.ask(ctx, "list", func(ctx context.Context) (err error) {
		found, err = a.prov.List(ctx, a.params, prefix)
		return err
	})
	return found, err
}

// revoke ends the key with this id, which was made under this name; empty: nobody
// knows.
func (a asked) revoke(ctx context.Context, id, name string) error {
	if a.w.lost != nil {
		return a.w.lost
	}
	return a.ask(ctx, "revoke", func(ctx context.Context) error { return provider.Revoke(ctx, a.prov, a.params, id, name) })
}

func (a asked) lastUsed(ctx context.Context, id string) (at time.Time, err error) {
	err = a.ask(ctx, "last_used", func(ctx context.Context) (err error) {
		at, err = a.prov.LastUsed(ctx, a.params, id)
		return err
	})
	return at, err
}

// test asks whether a key works: refused is the provider's word that it does not,
// and err that nobody knows.
func (a asked) test(ctx context.Context, key provider.Key) (refused, err error) {
	_, refused, err = a.examine(ctx, key)
	return refused, err
}

// examine is test, and also learns when the key ends by itself, as far as the
// provider tells that here; else key.Expires is what is known.
func (a asked) examine(ctx context.Context, key provider.Key) (end time.Time, refused, err error) {
	end = key.Expires
	err = a.ask(ctx, "test", func(ctx context.Context) error {
		at, told, err := provider.Examine(ctx, a.prov, a.params, key)
		if provider.Refused(err) {
			refused = err
			return nil // an answer, and no fault
		}
		if told {
			end = at
		}
		return err
	})
	return end, refused, err
}

// isUnsure tells that what refused a key may be of its account, or of a right.
func isUnsure(refused error) bool {
	var pe *provider.Error
	return errors.As(refused, &pe) && pe.Unsure
}

// unusable stands for a provider that cannot be built: nothing that is asked of it
// has an effect.
type unusable struct{ why error }

func (u unusable) fail(op string) error {
	return &provider.Error{Op: op, Kind: provider.KindTransient, Msg: "the provider cannot be used: " + publicMessage(u.why), Err: u.why}
}

func (u unusable) Capabilities() provider.Capabilities { return provider.Capabilities{} }

func (u unusable) ValidateParameters(map[string]any) error { return u.why }

func (u unusable) Create(context.Context, provider.CreateRequest) (provider.Key, error) {
	return provider.Key{}, u.fail("create")
}

func (u unusable) List(context.Context, map[string]any, string) ([]provider.RemoteKey, error) {
	return nil, u.fail("list")
}

func (u unusable) Test(context.Context, map[string]any, provider.Key) error { return u.fail("test") }

func (u unusable) Revoke(context.Context, map[string]any, string) error { return u.fail("revoke") }

func (u unusable) LastUsed(context.Context, map[string]any, string) (time.Time, error) {
	return time.Time{}, u.fail("last_used")
}

// An account is left alone for a while when so many calls of one kind have failed
// in a row, whichever keys they were for; it is then asked for one key at a time.
const (
	failuresBeforePause = 5
	maxProviderPause    = 5 * time.Minute
)

// providerHealth knows which accounts are not to be asked for a while. It is in
// memory only: each key has its own waits besides.
type providerHealth struct {
	mu sync.Mutex
	of map[string]map[string]*callHealth // by account and kind of call
}

type callHealth struct {
	failures int
	until    time.Time
}

func newProviderHealth() *providerHealth {
	return &providerHealth{of: map[string]map[string]*callHealth{}}
}

func (h *providerHealth) note(account, op string, err error, now time.Time, cfg *mountConfig) {
	h.mu.Lock()
	defer h.mu.Unlock()
	calls := h.of[account]
	if calls == nil {
		calls = map[string]*callHealth{}
		h.of[account] = calls
	}
	if err == nil {
		delete(calls, op)
		return
	}
	c := calls[op]
	if c == nil {
		c = &callHealth{}
		calls[op] = c
	}
	c.failures++
	if n := c.failures - failuresBeforePause; n >= 0 {
		c.until = now.Add(min(lifecycle.Backoff(n+1, cfg.RetryBase, cfg.RetryMax, uint64(n)), maxProviderPause))
	}
	var pe *provider.Error
	if errors.As(err, &pe) && pe.Kind == provider.KindRateLimited {
		c.until = later(c.until, now.Add(min(max(pe.RetryAfter, cfg.RetryBase), maxRetry)))
	}
}

// forget begins anew with an account whose provider was changed.
func (h *providerHealth) forget(account string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.of, account)
}

// pauses gives until when no rotation, and until when nothing else, is to be begun. A
// check of a current key waits for all there is, and nothing waits for a check.
func (h *providerHealth) pauses(account string) (rotate, review, check time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for op, c := range h.of[account] {
		check = later(check, c.until)
		switch op {
		case opCheck:
		case "create", "test":
			rotate = later(rotate, c.until)
		default:
			review = later(review, c.until)
		}
	}
	return rotate, review, check
}
