package apikeys

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"

	"strongroom.example/plugin/provider"
)

// providerTable holds the mount's providers: their records and, built when
// first needed, the providers themselves, or why they cannot be.
type providerTable struct {
	mu      sync.RWMutex
	records map[string]*providerRecord
	built   map[string]map[int]builtProvider // by name and identity
	// changes counts per name, so that what was begun before a change is not kept.
	changes map[string]int
}

type builtProvider struct {
	provider.Provider
	account string
	err     error
}

func newProviderTable() *providerTable {
	return &providerTable{records: map[string]*providerRecord{}, built: map[string]map[int]builtProvider{}, changes: map[string]int{}}
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
	var newer *newerFormat
	if errors.As(err, &newer) || errors.Is(err, errDamaged) {
		rec, err = &providerRecord{Name: name, unreadable: err}, nil // the mount goes on without it
	}
	if err != nil {
		return err
	}
	t.set(name, rec)
	return nil
}

// set replaces a record after it was written; nil removes it.
func (t *providerTable) set(name string, rec *providerRecord) {
	t.reset(name)
	t.mu.Lock()
	defer t.mu.Unlock()
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
	t.changes[name]++
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
	rec := b.providers.record(name)
	if rec == nil {
		return nil, refuse("write providers/"+name+" first", "there is no provider %q", name)
	}
	return b.providerAs(ctx, name, rec.Identity)
}

// providerAs gives a provider with the identity that it had at some time. Why one
// cannot be built is remembered, too, unless storage was at fault.
func (b *backend) providerAs(ctx context.Context, name string, identity int) (provider.Provider, error) {
	t := b.providers
	t.mu.RLock()
	have, ok := t.built[name][identity]
	rec, changes := t.records[name], t.changes[name]
	t.mu.RUnlock()
	if ok {
		return have.Provider, have.err
	}
	if rec == nil {
		return nil, refuse("write providers/"+name+" first", "there is no provider %q", name)
	}
	rec, err := rec.as(identity)
	var p provider.Provider
	if err == nil {
		p, err = b.buildProvider(ctx, rec)
	}
	var storage *storageFault
	if errors.As(err, &storage) {
		return nil, fmt.Errorf("provider %q: %w", name, err)
	}
	if err != nil {
		err = refuse("", "provider %q: %v", name, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.changes[name] == changes {
		if t.built[name] == nil {
			t.built[name] = map[int]builtProvider{}
		}
		t.built[name][identity] = builtProvider{p, accountOf(rec, p), err}
	}
	return p, err
}

// as is the record with the identity that it had at some time.
func (r *providerRecord) as(identity int) (*providerRecord, error) {
	if identity == r.Identity {
		return r, nil
	}
	past := r.Past[identity]
	if past == nil {
		return nil, refuse("", "where it asked for this version is not known any more")
	}
	then := *r
	if then.Settings = maps.Clone(r.Settings); then.Settings == nil {
		then.Settings = map[string]any{}
	}
	moved := slices.ContainsFunc(placed, func(request string) bool { return past.Settings[request] != nil })
	maps.DeleteFunc(then.Settings, func(name string, _ any) bool {
		return identifies(name) || moved && (name == "auth" || slices.Contains(placed, name))
	})
	maps.Copy(then.Settings, past.Settings)
	if past.Credential != nil || past.CredentialKey != "" {
		then.Credential, then.CredentialKey = past.Credential, past.CredentialKey
	}
	return &then, nil
}

// identifies tells whether a setting says where, or as whom, a provider asks. The
// rest, how it asks, holds for old versions as it is now, so that a mistake in it
// can be put right.
func identifies(setting string) bool {
	return setting == "base_url" || setting == "variables" || setting == "region" || strings.HasSuffix(setting, "_endpoint")
}

// placed are the settings that are requests: the place may stand in the URL of
// each, in place of a variable.
var placed = []string{"create", "list", "test", "last_used", "revoke"}

// moved tells whether the requests go to another place. A single request that
// goes elsewhere than it did is a mistake put right: it is create that says where
// keys are made or, without it, all of them together.
func moved(before, after map[string]any) bool {
	some := false
	for _, request := range placed {
		from, to := placeOf(before, request), placeOf(after, request)
		if from == "" || to == "" {
			continue
		}
		if request == "create" || from == to {
			return from != to
		}
		some = true
	}
	return some
}

// placeOf is scheme, host and port of a request's URL, as they are written.
func placeOf(settings map[string]any, request string) string {
	fields, _ := settings[request].(map[string]any)
	url, _ := fields["url"].(string)
	scheme, rest, ok := strings.Cut(url, "://")
	if !ok {
		scheme, rest = "", url
	}
	host, _, _ := strings.Cut(rest, "/")
	return strings.ToLower(scheme + " " + host)
}

// maxPastIdentities bounds how often where a provider asks can change and be
// remembered.
const maxPastIdentities = 16

// keepIdentity notes in next, a copy of old that has changed, where old has asked.
func (r *providerRecord) keepIdentity(old *providerRecord) {
	before, after := map[string]any{}, map[string]any{}
	for _, one := range []struct{ from, to map[string]any }{{old.Settings, before}, {r.Settings, after}} {
		for name, v := range one.from {
			if identifies(name) {
				one.to[name] = v
			}
		}
	}
	if moved(old.Settings, r.Settings) {
		for _, name := range append([]string{"auth"}, placed...) {
			if v, ok := old.Settings[name]; ok {
				before[name] = v
			}
		}
	} else if reflect.DeepEqual(before, after) {
		return
	}
	past := &pastIdentity{Settings: before}
	if old.CredentialKey != r.CredentialKey || !maps.Equal(old.Credential, r.Credential) {
		past.Credential, past.CredentialKey = old.Credential, old.CredentialKey
	}
	if r.Past = maps.Clone(old.Past); r.Past == nil {
		r.Past = map[int]*pastIdentity{}
	}
	r.Past[old.Identity] = past
	delete(r.Past, old.Identity-maxPastIdentities)
	r.Identity = old.Identity + 1
}

// buildProvider validates a record by building what it describes.
func (b *backend) buildProvider(ctx context.Context, rec *providerRecord) (provider.Provider, error) {
	if rec.unreadable != nil {
		return nil, refuse("", "%v", rec.unreadable)
	}
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

// storageFault is an error that says nothing about what was to be read.
type storageFault struct{ error }

func (s *storageFault) Unwrap() error { return s.error }

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
		return nil, &storageFault{err}
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
