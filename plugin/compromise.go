package apikeys

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

// campaign is the revocation of every key made with a provider. It is stored
// before the first key is touched and removed after the last one is marked, so
// that a crash in between only interrupts it: the next tick goes on.
type campaign struct {
	Provider string    `json:"provider"`
	Started  time.Time `json:"started"`
	// Credential is the key that is the provider's own credential, while it is
	// still to be replaced.
	Credential string `json:"credential,omitempty"`
	// Except is the provider's own credential, which has been dealt with.
	Except string `json:"except,omitempty"`
}

// compromiseProvider replaces and revokes a provider's credential, where it is
// a key, and marks every key made with it as known to others. The scheduler
// then replaces and revokes them, without the provider's cap.
func (b *backend) compromiseProvider(ctx context.Context, st store, rec *providerRecord, resp *logical.Response) (int, error) {
	c := &campaign{Provider: rec.Name, Started: b.clock.now(), Credential: rec.CredentialKey}
	if err := st.putCampaign(ctx, c); err != nil { // commit point
		return 0, err
	}
	return b.runCampaign(ctx, st, c, resp)
}

// runCampaign does what is not done yet; it may be run again at any time.
func (b *backend) runCampaign(ctx context.Context, st store, c *campaign, resp *logical.Response) (marked int, err error) {
	if c.Credential != "" {
		if err := b.replaceCredential(ctx, st, c, resp); err != nil {
			return 0, fmt.Errorf("credential %q: %w", c.Credential, err)
		}
		next := *c
		next.Credential, next.Except = "", c.Credential
		if err := st.putCampaign(ctx, &next); err != nil {
			return 0, err
		}
		c = &next
	}
	names, err := b.mostUrgentFirst(ctx, st, c.Provider)
	if err != nil {
		return 0, err
	}
	for _, name := range names {
		if name == c.Except {
			continue
		}
		ok, err := b.markCompromised(ctx, st, name, c.Started)
		if err != nil {
			return marked, fmt.Errorf("key %q: %w", name, err)
		}
		if ok {
			marked++
		}
	}
	return marked, st.removeCampaign(ctx, c.Provider)
}

// replaceCredential ends the credential that was in use when the campaign
// began, unless an interrupted run has done so.
func (b *backend) replaceCredential(ctx context.Context, st store, c *campaign, resp *logical.Response) error {
	err := b.withKey(ctx, st.s, c.Credential, func(ctx context.Context, w *work) error {
		if cur := w.rec.Life.Current(); cur == nil || cur.Created.After(c.Started) {
			return nil
		}
		return w.rotateCredential(ctx, c.Provider, true, resp)
	})
	if errors.Is(err, errNoKey) {
		return nil
	}
	return err
}

// mostUrgentFirst orders a provider's keys: those with the most versions alive
// first, and of them the one whose current version has been out the longest.
func (b *backend) mostUrgentFirst(ctx context.Context, st store, provider string) ([]string, error) {
	type item struct {
		name  string
		alive int
		since time.Time
	}
	var items []item
	for _, name := range b.index.ofProvider(provider) {
		snap, err := b.snapshot(ctx, st.s, name)
		if err != nil {
			return nil, err
		}
		if snap != nil {
			items = append(items, item{name, snap.rec.Life.Alive(), snap.rec.LastRotation})
		}
	}
	slices.SortStableFunc(items, func(a, b item) int {
		return cmp.Or(cmp.Compare(b.alive, a.alive), a.since.Compare(b.since))
	})
	names := make([]string, len(items))
	for i := range items {
		names[i] = items[i].name
	}
	return names, nil
}

// markCompromised stores that every version of a key made before a time must
// end at once.
func (b *backend) markCompromised(ctx context.Context, st store, name string, before time.Time) (marked bool, err error) {
	err = b.withRecord(ctx, st.s, name, func(ctx context.Context, w *work) error {
		if cur := w.rec.Life.Current(); cur != nil && cur.Created.After(before) {
			return nil // it was replaced since
		}
		next := w.rec.clone()
		if len(next.Life.Compromise(w.now())) == 0 {
			return nil
		}
		next.MintFailure, next.RevokeFailure, next.Requested = nil, nil, time.Time{}
		marked = true
		if err := w.save(ctx, next); err != nil {
			return err
		}
		b.emit(ctx, "compromised", name, "provider", next.Def.Provider)
		return nil
	})
	if errors.Is(err, errNoKey) {
		return false, nil
	}
	return marked, err
}

// resumeCampaigns goes on with what a crash has interrupted.
func (b *backend) resumeCampaigns(ctx context.Context, st store) error {
	names, err := st.campaigns(ctx)
	if err != nil {
		return err
	}
	for _, name := range names {
		c, err := st.campaign(ctx, name)
		if err != nil {
			return err
		}
		if c == nil {
			continue
		}
		if _, err := b.runCampaign(ctx, st, c, &logical.Response{Data: map[string]any{}}); err != nil {
			return err
		}
	}
	return nil
}
