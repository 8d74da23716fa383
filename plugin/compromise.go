package apikeys

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"strongroom.example/plugin/lifecycle"
)

// campaign says that every key made with a provider, and the key that was its
// credential, are known to others as far as they were made by Started. One write
// begins it, whatever the number of keys: who reads or works on a key asks it, and
// the scheduler looks at all of them, which stores the marks.
type campaign struct {
	Provider string    `json:"provider"`
	Started  time.Time `json:"started"`
	// Credential is the key that was the provider's own credential then, while it
	// is still to be replaced; Except is it afterwards.
	Credential string `json:"credential,omitempty"`
	Except     string `json:"except,omitempty"`
	// Done: the scheduler has looked at every key. The date goes on to hold, for
	// what was being made at that moment.
	Done bool `json:"done,omitempty"`
}

// campaigns are those of the mount, by provider.
type campaigns struct {
	mu         sync.RWMutex
	byProvider map[string]*campaign
}

func newCampaigns() *campaigns { return &campaigns{byProvider: map[string]*campaign{}} }

func (c *campaigns) load(ctx context.Context, st store) error {
	all, err := st.campaignsAndDates(ctx)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.byProvider)
	for _, one := range all {
		if have := c.byProvider[one.Provider]; have == nil || !have.Started.After(one.Started) {
			c.byProvider[one.Provider] = one
		}
	}
	return nil
}

func (c *campaigns) set(provider string, one *campaign) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if one == nil {
		delete(c.byProvider, provider)
		return
	}
	c.byProvider[provider] = one
}

// date is until when versions of a key must have been made for a campaign to
// mark them; zero: there is none.
func (c *campaigns) date(rec *keyRecord) time.Time {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var at time.Time
	if len(c.byProvider) == 0 {
		return at
	}
	if one := c.byProvider[rec.Def.Provider]; one != nil {
		at = one.Started
	}
	for _, one := range c.byProvider {
		if one.Credential == rec.Name || one.Except == rec.Name {
			at = later(at, one.Started)
		}
	}
	return at
}

// mark gives the record as campaigns make it, and the versions that are marked by
// that. It changes nothing in place.
func (c *campaigns) mark(rec *keyRecord) (*keyRecord, []int) {
	date := c.date(rec)
	if date.IsZero() || !rec.Life.Exposed(date) {
		return rec, nil
	}
	next := rec.clone()
	return next, next.compromise(date, date, date)
}

// madeNow is what a version that is begun at now counts as made: after every
// campaign there was, however coarse the clock is, or wherever it was set to.
func (w *work) madeNow() time.Time {
	now := w.now()
	if date := w.b.campaigns.date(w.rec); !now.After(date) {
		return date.Add(1)
	}
	return now
}

// notBeyond forgets the dates that a clock has left in the future, of campaigns
// that are done: all marks are stored. Of another the date decides until they are;
// see finishLooks.
func (c *campaigns) notBeyond(ctx context.Context, st store, now time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, one := range c.byProvider {
		if !one.Done || !one.Started.After(now) {
			continue
		}
		if err := st.removeCampaigns(ctx, name); err != nil {
			return err
		}
		delete(c.byProvider, name)
	}
	return nil
}

// campaignDate is that of a campaign that begins now: everything that is there was made
// before, by whatever clock, and after the campaigns that there were.
func (b *backend) campaignDate() time.Time {
	b.lookMu.Lock()
	at := later(b.clock.now(), later(b.clock.before(), b.look.Made))
	b.lookMu.Unlock()
	if last := b.index.lastRotation(); last.After(at.Add(time.Second)) {
		at = last // by a clock that was ahead, and the key was not looked at since
	}
	b.campaigns.mu.RLock()
	defer b.campaigns.mu.RUnlock()
	for _, one := range b.campaigns.byProvider {
		at = later(at, one.Started.Add(1))
	}
	return at
}

func (c *campaigns) running() []*campaign {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var out []*campaign
	for _, one := range c.byProvider {
		if !one.Done {
			out = append(out, one)
		}
	}
	slices.SortFunc(out, func(a, b *campaign) int { return a.Started.Compare(b.Started) })
	return out
}

// look is that the keys of some providers, or all, must be looked at because what
// decides when they are due has changed. It is stored before the change, and
// removed when that is done, so that a restart in between looks again.
type look struct {
	All       bool     `json:"all,omitempty"`
	Providers []string `json:"providers,omitempty"`
	// Made is by when every key was made that is not looked at: a clock that is
	// accepted may be behind it.
	Made time.Time `json:"made,omitzero"`
}

// changed makes a change that concerns many keys: store what the next start has
// to look at; set; forget what was made from the old; have every key looked at.
// In that order what is made meanwhile is either forgotten or made anew.
func (b *backend) changed(ctx context.Context, st store, provider string, set func() error) error {
	b.lookMu.Lock()
	defer b.lookMu.Unlock()
	next := look{All: b.look.All || provider == "", Providers: slices.Clone(b.look.Providers), Made: later(b.look.Made, b.clock.now())}
	if provider != "" && !slices.Contains(next.Providers, provider) {
		next.Providers = append(next.Providers, provider)
	}
	if b.index.countOf(provider) > 0 {
		if err := st.put(ctx, lookKey, next); err != nil {
			return err
		}
		b.look = next
	}
	if err := set(); err != nil {
		return err
	}
	b.cache.purge()
	b.index.lookAt(provider)
	b.wakeUp()
	return nil
}

// resumeLooks has the scheduler look at what an earlier run has not. Of one that was
// killed the index may lag behind, so it looks at everything, in the background.
func (b *backend) resumeLooks(ctx context.Context, st store) error {
	b.lookMu.Lock()
	defer b.lookMu.Unlock()
	b.look = look{}
	if _, err := st.get(ctx, lookKey, &b.look); err != nil {
		return err
	}
	clean := false
	if found, err := st.get(ctx, cleanKey, &clean); err != nil {
		return err
	} else if found && b.writable() {
		if err := st.remove(ctx, cleanKey); err != nil {
			return err
		}
	}
	if b.look.All || !clean && b.index.size() > 0 {
		b.index.lookAt("")
	}
	for _, name := range b.look.Providers {
		b.index.lookAt(name)
	}
	return nil
}

// finishLooks notes that every key was looked at: campaigns are done, and a start
// has nothing to look at again once the index is stored.
func (b *backend) finishLooks(ctx context.Context, st store) error {
	running := b.campaigns.running()
	b.lookMu.Lock()
	defer b.lookMu.Unlock()
	for _, c := range running {
		if c.Credential != "" {
			return nil // its keys come after that
		}
	}
	if len(running) == 0 && !b.look.All && len(b.look.Providers) == 0 || b.index.looks("") > 0 {
		return nil
	}
	if err := b.index.flush(ctx, st); err != nil {
		return err
	}
	// Of a campaign by a clock of before the date goes: what is made from now on needs no such
	// one. What was made meanwhile counts as made after it, and is looked at once more.
	before := func(c *campaign) bool { return c.Started.After(b.clock.now().Add(lifecycle.ClockSlack)) }
	again := look{All: true}
	for _, c := range running {
		if before(c) {
			again.Made = later(later(again.Made, b.look.Made), c.Started.Add(1))
		}
	}
	if !again.Made.IsZero() {
		if err := st.put(ctx, lookKey, again); err != nil {
			return err
		}
		b.look = again
	}
	for _, c := range running {
		if before(c) {
			if err := st.removeCampaigns(ctx, c.Provider); err != nil {
				return err
			}
			b.campaigns.set(c.Provider, nil)
			continue
		}
		done := *c
		done.Done = true
		if err := st.finishCampaign(ctx, &done); err != nil {
			return err
		}
		b.campaigns.set(c.Provider, &done)
	}
	switch {
	case !again.Made.IsZero():
		b.index.lookAt("")
	case b.look.All || len(b.look.Providers) > 0:
		if err := st.remove(ctx, lookKey); err != nil {
			return err
		}
		b.look = look{}
	}
	return nil
}

// compromiseProvider marks a provider's credential, where it is a key, and every
// key made with it as known to others. The scheduler replaces and revokes the keys,
// without the provider's cap. It gives what became of the credential, nil where it
// is none of the mount's keys, and how many keys there are.
func (b *backend) compromiseProvider(ctx context.Context, st store, rec *providerRecord) (*compromised, int, error) {
	c := &campaign{Provider: rec.Name, Started: b.campaignDate(), Credential: rec.CredentialKey}
	if err := st.putCampaign(ctx, c); err != nil { // commit point
		return nil, 0, err
	}
	b.campaigns.set(rec.Name, c)
	b.cache.purge()
	return b.runCampaign(ctx, st, c)
}

// runCampaign does what is not done yet; it may be run again at any time. The
// credential comes first: what is made with the old one is known to others, too.
func (b *backend) runCampaign(ctx context.Context, st store, c *campaign) (out *compromised, keys int, err error) {
	if c.Credential != "" {
		err := b.withKey(ctx, st.s, c.Credential, func(ctx context.Context, w *work) (err error) {
			if cur := w.rec.Life.Current(); cur == nil || cur.Created.After(c.Started) {
				return nil
			}
			out, err = w.compromise(ctx, 0)
			return err
		})
		if err != nil && !errors.Is(err, errNoKey) {
			return nil, 0, fmt.Errorf("credential %q: %w", c.Credential, err)
		}
		next := *c
		next.Credential, next.Except = "", c.Credential
		if err := st.putCampaign(ctx, &next); err != nil {
			return nil, 0, err
		}
		b.campaigns.set(c.Provider, &next)
	}
	keys = b.index.lookAt(c.Provider)
	if c.Credential != "" && b.index.providerOf(c.Credential) == c.Provider {
		keys-- // it has been dealt with
	}
	return out, keys, nil
}

// resumeCampaigns goes on with what a crash has interrupted.
func (b *backend) resumeCampaigns(ctx context.Context, st store) {
	defer b.running.Done()
	for _, c := range b.campaigns.running() {
		if _, _, err := b.runCampaign(ctx, st, c); err != nil && ctx.Err() == nil {
			b.interrupted.Store(true)
			b.Logger().Error("an interrupted revocation could not go on yet", "error", publicError(err))
		}
	}
}
