package apikeys

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"strongroom.example/plugin/provider"
)

// providerTable holds the mount's providers: their records and, built when
// first needed, the providers themselves.
type providerTable struct {
	mu      sync.RWMutex
	records map[string]*providerRecord
	built   map[string]provider.Provider
}

func newProviderTable() *providerTable {
	return &providerTable{records: map[string]*providerRecord{}, built: map[string]provider.Provider{}}
}

func (t *providerTable) load(ctx context.Context, st store) error {
	names, err := st.providers(ctx)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := t.reload(ctx, st, name); err != nil {
			return err
		}
	}
	return nil
}

func (t *providerTable) reload(ctx context.Context, st store, name string) error {
	rec, err := st.provider(ctx, name)
	if err != nil {
		return err
	}
	t.set(name, rec)
	return nil
}

// set replaces a record after it was written; nil removes it.
func (t *providerTable) set(name string, rec *providerRecord) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.built, name)
	if rec == nil {
		delete(t.records, name)
		return
	}
	t.records[name] = rec
}

// reset makes the next use build the provider anew, because its credential has
// changed elsewhere.
func (t *providerTable) reset(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.built, name)
}

func (t *providerTable) record(name string) *providerRecord {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.records[name]
}

func (t *providerTable) size() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.records)
}

func (t *providerTable) names() []string {
	t.mu.RLock()
	defer t.mu.RUnlock()
	out := make([]string, 0, len(t.records))
	for name := range t.records {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// usingKey lists the providers whose credential is the key of this name.
func (t *providerTable) usingKey(key string) []string {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var out []string
	for name, rec := range t.records {
		if rec.CredentialKey != "" && rec.CredentialKey == key {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// provider gives the provider of this name, built and ready.
func (b *backend) provider(ctx context.Context, name string) (provider.Provider, error) {
	t := b.providers
	t.mu.RLock()
	p, rec := t.built[name], t.records[name]
	t.mu.RUnlock()
	if p != nil {
		return p, nil
	}
	if rec == nil {
		return nil, refuse("write providers/"+name+" first", "there is no provider %q", name)
	}
	p, err := b.buildProvider(ctx, rec)
	if err != nil {
		return nil, fmt.Errorf("provider %q: %w", name, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.records[name] == rec { // not replaced meanwhile
		t.built[name] = p
	}
	return p, nil
}

// buildProvider validates a record by building what it describes.
func (b *backend) buildProvider(ctx context.Context, rec *providerRecord) (provider.Provider, error) {
	factory := b.opts.Providers[rec.Type]
	if factory == nil {
		return nil, refuse("known are "+strings.Join(b.providerTypes(), ", "), "type %q is not known", rec.Type)
	}
	credential := rec.Credential
	if rec.CredentialKey != "" {
		values, err := b.credentialOf(ctx, rec.CredentialKey)
		if err != nil {
			return nil, err
		}
		credential = values
	}
	return factory(provider.Config{
		Name: rec.Name, Settings: rec.Settings, Credential: credential,
		Now: b.clock.now, Rand: b.opts.Rand, Password: b.password(),
	})
}

func (b *backend) record(ctx context.Context, name string) (*keyRecord, error) {
	if snap := b.cache.get(name); snap != nil {
		return snap.rec, nil
	}
	return (store{b.storage}).key(ctx, name)
}

func (b *backend) providerTypes() []string {
	var out []string
	for name := range b.opts.Providers {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// credentialOf is the current values of the key that a provider uses as its
// own credential.
func (b *backend) credentialOf(ctx context.Context, key string) (map[string]string, error) {
	// Not by way of a snapshot: to make one, the key's provider is asked for,
	// which may be the very provider that is being built.
	rec, err := b.record(ctx, key)
	if err != nil {
		return nil, err
	}
	if rec == nil {
		return nil, refuse("create it, or write credential", "credential_key %q: there is no such key", key)
	}
	cur := rec.Life.Current()
	if cur == nil || rec.Values[cur.Number] == nil {
		return nil, refuse("", "credential_key %q: it has no version in use", key)
	}
	return rec.Values[cur.Number], nil
}

// password generates from a Vault password policy.
func (b *backend) password() func(context.Context, string) (string, error) {
	sys := b.System()
	if sys == nil {
		return nil
	}
	return sys.GeneratePasswordFromPolicy
}
