package apikeys

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"strongroom.example/plugin/lifecycle"
)

// mountConfig is the mount's defaults and limits, as config holds them.
type mountConfig struct {
	RotationPeriod time.Duration `json:"rotation_period"`
	GracePeriod    time.Duration `json:"grace_period"`
	MaxVersions    int           `json:"max_versions"`
	Jitter         time.Duration `json:"jitter"`
	WarnBefore     time.Duration `json:"warn_before"`
	SpreadDistance time.Duration `json:"spread_distance"`
	RetryBase      time.Duration `json:"retry_base"`
	RetryMax       time.Duration `json:"retry_max"`
	MaxWait        time.Duration `json:"max_wait"`
	MaxWaiters     int           `json:"max_waiters"`
	CacheBytes     int           `json:"cache_bytes"`
	RevokeInUse    string        `json:"revoke_in_use"`
	// Before is what decided before changes when keys rotate: readers of keys that do not
	// overlap were promised them by that.
	Before []policyBefore `json:"before,omitempty"`
}

// policyBefore is what of a configuration decides when keys rotate, until At.
type policyBefore struct {
	At             time.Time     `json:"at"`
	RotationPeriod time.Duration `json:"rotation_period"`
	Jitter         time.Duration `json:"jitter"`
}

// maxBefore bounds how many changes are remembered.
const maxBefore = 16

// Bounds of the mount's configuration and of keys.
const (
	minVersions    = 2
	maxVersions    = 100
	maxWarnBefore  = 365 * 24 * time.Hour
	maxSpread      = 365 * 24 * time.Hour
	minRetry       = time.Second
	maxRetry       = 7 * 24 * time.Hour
	maxWaitLimit   = 60 * time.Second
	maxWaitersTop  = 100_000
	minCacheBytes  = 1 << 20
	maxCacheBytes  = 4 << 30
	day            = 24 * time.Hour
	defaultCacheMB = 96
)

func defaultConfig() *mountConfig {
	return &mountConfig{
		RotationPeriod: 90 * day,
		GracePeriod:    7 * day,
		MaxVersions:    10,
		Jitter:         time.Hour,
		WarnBefore:     14 * day,
		SpreadDistance: day,
		RetryBase:      30 * time.Second,
		RetryMax:       time.Hour,
		MaxWait:        maxWaitLimit,
		MaxWaiters:     10_000,
		CacheBytes:     defaultCacheMB << 20,
		RevokeInUse:    inUseWarn,
	}
}

// validate reports every fault at once.
func (c *mountConfig) validate() error {
	var errs []error
	within := func(name string, v, lo, hi time.Duration) {
		if v < lo || v > hi {
			errs = append(errs, fmt.Errorf("%s %s: must be from %s to %s", name, v, lo, hi))
		}
	}
	count := func(name string, v, lo, hi int) {
		if v < lo || v > hi {
			errs = append(errs, fmt.Errorf("%s %d: must be from %d to %d", name, v, lo, hi))
		}
	}
	within("rotation_period", c.RotationPeriod, lifecycle.MinPeriod, lifecycle.MaxPeriod)
	within("grace_period", c.GracePeriod, lifecycle.MinGrace, lifecycle.MaxGrace)
	within("jitter", c.Jitter, 0, lifecycle.MaxJitter)
	within("warn_before", c.WarnBefore, 0, maxWarnBefore)
	within("spread_distance", c.SpreadDistance, 0, maxSpread)
	within("retry_base", c.RetryBase, minRetry, maxRetry)
	within("retry_max", c.RetryMax, c.RetryBase, maxRetry)
	within("max_wait", c.MaxWait, 0, maxWaitLimit)
	count("max_versions", c.MaxVersions, minVersions, maxVersions)
	count("max_waiters", c.MaxWaiters, 0, maxWaitersTop)
	count("cache_bytes", c.CacheBytes, minCacheBytes, maxCacheBytes)
	if c.RevokeInUse != inUseWarn && c.RevokeInUse != inUseDelay {
		errs = append(errs, fmt.Errorf("revoke_in_use %q: must be %s or %s", c.RevokeInUse, inUseWarn, inUseDelay))
	}
	return errors.Join(errs...)
}

// durations maps the fields of config that are durations to where they are kept.
func (c *mountConfig) durations() map[string]*time.Duration {
	return map[string]*time.Duration{
		"rotation_period": &c.RotationPeriod,
		"grace_period":    &c.GracePeriod,
		"jitter":          &c.Jitter,
		"warn_before":     &c.WarnBefore,
		"spread_distance": &c.SpreadDistance,
		"retry_base":      &c.RetryBase,
		"retry_max":       &c.RetryMax,
		"max_wait":        &c.MaxWait,
	}
}

// configHolder is the mount's configuration in memory.
type configHolder struct {
	mu  sync.RWMutex
	cur *mountConfig
}

func newConfigHolder() *configHolder { return &configHolder{cur: defaultConfig()} }

// get gives the configuration, which nobody changes.
func (h *configHolder) get() *mountConfig {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.cur
}

func (h *configHolder) set(c *mountConfig) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cur = c
}

// load reads it; what an older release has not written keeps its default.
func (h *configHolder) load(ctx context.Context, st store) error {
	c := defaultConfig()
	if _, err := st.get(ctx, configKey, c); err != nil {
		return err
	}
	h.set(c)
	return nil
}

// grace of a key's next version.
func (c *mountConfig) graceOf(d *keyDef) time.Duration {
	return cmp.Or(d.GracePeriod, c.GracePeriod)
}

func (c *mountConfig) versionsOf(d *keyDef) int {
	return cmp.Or(d.MaxVersions, c.MaxVersions)
}

func (c *mountConfig) spreadOf(d *keyDef) time.Duration {
	return cmp.Or(d.SpreadDistance, c.SpreadDistance)
}

func (c *mountConfig) periodOf(d *keyDef) time.Duration {
	return cmp.Or(d.RotationPeriod, c.RotationPeriod)
}

// policyOf is when a key rotates.
func (c *mountConfig) policyOf(d *keyDef) (*lifecycle.Policy, error) {
	spec := lifecycle.PolicySpec{
		Cron: d.RotationSchedule, TimeZone: d.TimeZone, Window: d.RotationWindow,
		Jitter: c.Jitter, Disabled: d.Disabled,
	}
	if spec.Cron == "" {
		spec.Period = c.periodOf(d)
	}
	return lifecycle.NewPolicy(spec)
}
