package apikeys

import (
	"context"
	"slices"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

func (b *backend) pathConfig() []*framework.Path {
	seconds := func(text string) *framework.FieldSchema {
		return &framework.FieldSchema{Type: framework.TypeDurationSecond, Description: text}
	}
	number := func(text string) *framework.FieldSchema {
		return &framework.FieldSchema{Type: framework.TypeInt, Description: text}
	}
	return []*framework.Path{{
		Pattern: "config",
		Fields: map[string]*framework.FieldSchema{
			"rotation_period": seconds("How long a version is current, for keys that don't say. Default 90 days."),
			"grace_period":    seconds("How long a replaced version stays valid, for keys that don't say. Default 7 days."),
			"max_versions":    number("How many versions of a key are remembered; those alive always are. Default 10."),
			"jitter":          seconds("By how much rotations are spread, at most a tenth of the period. Default 1 hour."),
			"warn_before":     seconds("How long before a key must be replaced by hand its reads carry a warning. Default 14 days."),
			"spread_distance": seconds("How far apart the rotations within a spread_group are. Default 1 day."),
			"retry_base":      seconds("The pause after a first failure; it doubles with each further one. Default 30 s."),
			"retry_max":       seconds("The longest pause between tries. Default 1 hour."),
			"max_wait":        seconds("How long a read may wait for a new version, at most 60 s; 0 ends all waits at once."),
			"max_waiters":     number("How many reads may wait at once. Default 10000."),
			"cache_bytes":     number("How much memory the keys in memory may take, in bytes. Default 96 MiB."),
			"revoke_in_use":   {Type: framework.TypeString, Description: "What to do where a replaced version is still used at the end of its grace and the provider can tell: warn, or delay, which lets it live for up to one more grace period. Default warn."},
			"accept_clock":    {Type: framework.TypeBool, Description: "Believe the machine's clock as it is now, after status has said that it jumped."},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation:   b.reads(b.handleConfigRead, "Read the mount's defaults and limits."),
			logical.UpdateOperation: b.writes(b.handleConfigWrite, "Change the mount's defaults and limits."),
		},
		HelpSynopsis: "Defaults and limits of the mount.",
		HelpDescription: `
Durations are seconds, or text such as 90d or 12h. A field that is not given
keeps its value. A change of a default concerns every key that does not say
otherwise, at once; the grace period that readers of a current version were
promised stays as it was.`,
	}}
}

func (b *backend) handleConfigRead(context.Context, *logical.Request, *framework.FieldData) (*logical.Response, error) {
	c := b.config.get()
	return &logical.Response{Data: map[string]any{
		"rotation_period": seconds(c.RotationPeriod),
		"grace_period":    seconds(c.GracePeriod),
		"max_versions":    c.MaxVersions,
		"jitter":          seconds(c.Jitter),
		"warn_before":     seconds(c.WarnBefore),
		"spread_distance": seconds(c.SpreadDistance),
		"retry_base":      seconds(c.RetryBase),
		"retry_max":       seconds(c.RetryMax),
		"max_wait":        seconds(c.MaxWait),
		"max_waiters":     c.MaxWaiters,
		"cache_bytes":     c.CacheBytes,
		"revoke_in_use":   c.RevokeInUse,
	}}, nil
}

func (b *backend) handleConfigWrite(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	unlock, err := b.locks.lock(ctx, "config:")
	if err != nil {
		return nil, err
	}
	defer unlock()
	next := *b.config.get()
	for field, to := range next.durations() {
		if err := takeDuration(d, field, to); err != nil {
			return nil, err
		}
	}
	takeInt(d, "max_versions", &next.MaxVersions)
	takeInt(d, "max_waiters", &next.MaxWaiters)
	takeInt(d, "cache_bytes", &next.CacheBytes)
	takeString(d, "revoke_in_use", &next.RevokeInUse)
	if err := next.validate(); err != nil {
		return nil, refuse("", "%v", err)
	}
	if err := b.applyConfig(ctx, store{req.Storage}, &next, d.Get("accept_clock").(bool)); err != nil {
		return nil, err
	}
	b.emitChange(ctx, "config-update", "config")
	return nil, nil
}

// applyConfig stores a configuration, and a clock that is believed. Where that
// changes when keys are due, every key is looked at.
func (b *backend) applyConfig(ctx context.Context, st store, next *mountConfig, acceptClock bool) error {
	old := b.config.get()
	switch {
	case acceptClock:
		next.Before = nil // by whatever clock
	case old.RotationPeriod != next.RotationPeriod || old.Jitter != next.Jitter:
		next.Before = append(slices.Clone(old.Before), policyBefore{b.clock.now(), old.RotationPeriod, old.Jitter})
		next.Before = next.Before[max(0, len(next.Before)-maxBefore):]
	}
	set := func() error {
		if err := st.put(ctx, configKey, next); err != nil { // commit point
			return err
		}
		b.config.set(next)
		if acceptClock {
			b.clock.accept()
			if err := b.campaigns.notBeyond(ctx, st, b.clock.now()); err != nil {
				return err
			}
			return b.clock.save(ctx, st, true)
		}
		return nil
	}
	if acceptClock || old.RotationPeriod != next.RotationPeriod || old.Jitter != next.Jitter || old.WarnBefore != next.WarnBefore {
		if err := b.changed(ctx, st, "", set); err != nil {
			return err
		}
	} else {
		if err := set(); err != nil {
			return err
		}
		b.cache.purge()
	}
	b.cache.resize(next.CacheBytes)
	if next.MaxWait == 0 {
		b.waiters.endAll()
	}
	return nil
}
