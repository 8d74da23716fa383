package metrics

import (
	"context"
	"errors"
	"sync"
	"time"

	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/appliance/watch/evidence"
)

// ErrNoLogin: there is no login for what Vault tells only to a token.
var ErrNoLogin = errors.New("no login for Vault")

// loginPause keeps a login that is refused from being tried at every scrape, and
// a token that a policy refuses from being replaced at every question.
const loginPause = 30 * time.Second

// Vault asks one Vault, and logs in again when its token has ended.
type Vault struct {
	client *vaultapi.Client
	mount  string // of the engine for API keys
	// login makes the client use a token, or answers ErrNoLogin; end ends that
	// token where it was made for this.
	login func(context.Context, *vaultapi.Client) (end func(context.Context) error, err error)
	end   func(context.Context) error
	now   func() time.Time

	mu     sync.Mutex
	tried  time.Time
	logged bool
	fault  error
}

// NewVault asks through client; login gives it a token.
func NewVault(client *vaultapi.Client, mount string, login func(context.Context, *vaultapi.Client) (func(context.Context) error, error)) *Vault {
	return &Vault{client: client, mount: mount, login: login, now: time.Now}
}

// as does one thing with a token. One that Vault refuses is ended and replaced,
// unless it is so young that another would fare no better.
func (v *Vault) as(ctx context.Context, do func() error) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.logged {
		if err := v.logIn(ctx); err != nil {
			return err
		}
	}
	err := do()
	if vaultapi.IsDenied(err) {
		if age := v.now().Sub(v.tried); age >= 0 && age < loginPause {
			return err
		}
		v.logged = false
		// A token that has ended already can't be ended: nothing is lost.
		_ = v.end(ctx)
		if lerr := v.logIn(ctx); lerr != nil {
			return errors.Join(err, lerr)
		}
		err = do()
	}
	return err
}

func (v *Vault) logIn(ctx context.Context) error {
	if now := v.now(); !v.tried.IsZero() && v.fault != nil && now.Sub(v.tried) < loginPause && !now.Before(v.tried) {
		return v.fault
	}
	v.tried = v.now()
	v.end, v.fault = v.login(ctx, v.client)
	v.logged = v.fault == nil
	return v.fault
}

// End ends the token, if there is one.
func (v *Vault) End(ctx context.Context) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.logged {
		return nil
	}
	v.logged = false
	return v.end(ctx)
}

func (v *Vault) keys(ctx context.Context) (k evidence.Keys, err error) {
	err = v.as(ctx, func() error {
		k, err = evidence.ReadKeys(ctx, v.client, v.mount)
		return err
	})
	return k, err
}

func (v *Vault) lockedOut(ctx context.Context) (l evidence.LockedOut, err error) {
	err = v.as(ctx, func() error {
		l, err = evidence.ReadLockedOut(ctx, v.client)
		return err
	})
	return l, err
}

// engine is what the secrets engine counts, in Prometheus' text format.
func (v *Vault) engine(ctx context.Context) (text []byte, err error) {
	err = v.as(ctx, func() error {
		text, err = v.client.Raw(ctx, v.mount+"/metrics", nil)
		return err
	})
	return text, err
}

// Telemetry is Vault's own, in Prometheus' text format. On the local socket it
// takes no token; elsewhere the AppRole's.
// https://developer.hashicorp.com/vault/api-docs/system/metrics
func (v *Vault) Telemetry(ctx context.Context) (text []byte, err error) {
	query := map[string][]string{"format": {"prometheus"}}
	v.mu.Lock()
	text, err = v.client.Raw(ctx, "sys/metrics", query)
	v.mu.Unlock()
	if !vaultapi.IsDenied(err) && !vaultapi.IsBadRequest(err) {
		return text, err
	}
	err = v.as(ctx, func() error {
		text, err = v.client.Raw(ctx, "sys/metrics", query)
		return err
	})
	return text, err
}
