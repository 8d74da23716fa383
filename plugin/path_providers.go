package apikeys

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

const maxPerMinuteLimit = 10_000

func (b *backend) pathProviders() []*framework.Path {
	return []*framework.Path{{
		Pattern: "providers/?",
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ListOperation: b.reads(b.handleProviderList, "List the providers."),
		},
		HelpSynopsis:    "List the providers.",
		HelpDescription: "A provider is a connection to a service that issues API keys.",
	}, {
		Pattern: "providers/" + providerPattern,
		Fields: map[string]*framework.FieldSchema{
			"name":                     {Type: framework.TypeString, Description: "Name of the provider."},
			"type":                     {Type: framework.TypeString, Description: "Kind of service: " + strings.Join(b.providerTypes(), ", ") + ". It cannot be changed."},
			"settings":                 {Type: framework.TypeMap, Description: "What the type needs, as an object (settings=@file.json) or as name=value. It replaces what was there."},
			"credential":               {Type: framework.TypeMap, Description: "Secret values by which the engine authenticates. Written, never read back.", DisplayAttrs: &framework.DisplayAttributes{Sensitive: true}},
			"credential_key":           {Type: framework.TypeString, Description: "In place of credential: a key of this mount whose current version is the credential, so that it rotates like every other."},
			"account":                  {Type: framework.TypeString, Description: "What you call the account at the service. Providers of one account share pauses, the cap on rotations and the limit of keys. Not given: those of one type that ask the same place with the same credential."},
			"max_rotations_per_minute": {Type: framework.TypeInt, Description: "How many rotations may start by themselves in a minute; 0: no cap. Default 30, for types that are local 0."},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation:   b.reads(b.handleProviderRead, "Read a provider, without its credential."),
			logical.CreateOperation: b.writes(b.handleProviderWrite, "Create a provider."),
			logical.UpdateOperation: b.writes(b.handleProviderWrite, "Change a provider."),
			logical.DeleteOperation: b.writes(b.handleProviderDelete, "Delete a provider that no key uses."),
		},
		ExistenceCheck: b.providerExists,
		HelpSynopsis:   "A connection to a service that issues API keys.",
		HelpDescription: `
Everything is checked before it is stored, without asking the service. A field
that is not given keeps its value.`,
	}}
}

func (b *backend) providerExists(ctx context.Context, req *logical.Request, d *framework.FieldData) (bool, error) {
	if err := b.start(ctx, req.Storage); err != nil {
		return false, err
	}
	return b.providers.record(d.Get("name").(string)) != nil, nil
}

func (b *backend) handleProviderList(context.Context, *logical.Request, *framework.FieldData) (*logical.Response, error) {
	return logical.ListResponse(b.providers.names()), nil
}

func (b *backend) handleProviderRead(_ context.Context, _ *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	rec := b.providers.record(d.Get("name").(string))
	if rec == nil {
		return nil, nil
	}
	if rec.unreadable != nil {
		return nil, refuse("", "%v", rec.unreadable)
	}
	credential := make([]string, 0, len(rec.Credential))
	for name := range rec.Credential {
		credential = append(credential, name)
	}
	slices.Sort(credential)
	data := map[string]any{
		"type":                     rec.Type,
		"settings":                 rec.Settings,
		"credential_fields":        credential,
		"credential_key":           rec.CredentialKey,
		"account":                  rec.Account,
		"max_rotations_per_minute": rec.MaxPerMinute,
		"updated_time":             stamp(rec.Updated),
	}
	if caps, known := b.capabilities(rec.Name); known {
		data["capabilities"] = map[string]any{
			"mint": caps.Mint, "list": caps.List, "named": caps.Named, "test": caps.Test, "revoke": caps.Revoke,
			"last_used": caps.LastUsed, "overlap": caps.Overlap, "local": caps.Local, "max_keys": caps.MaxKeys,
			"from_current": caps.FromCurrent, "expires": caps.Expires,
		}
	}
	return &logical.Response{Data: data}, nil
}

func (b *backend) handleProviderWrite(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get("name").(string)
	if err := checkProviderName(name); err != nil {
		return nil, err
	}
	if key := ""; takeString(d, "credential_key", &key) && key != "" {
		// The key must not be deleted before it is known to be in use.
		unlock, err := b.locks.lock(ctx, key)
		if err != nil {
			return nil, err
		}
		defer unlock()
	}
	unlock, err := b.locks.lock(ctx, "provider:"+name)
	if err != nil {
		return nil, err
	}
	defer unlock()
	old := b.providers.record(name)
	var newer *newerFormat
	if old != nil && errors.As(old.unreadable, &newer) {
		return nil, refuse("", "%v", old.unreadable)
	}
	next, given, err := b.nextProvider(ctx, d, name, old)
	if err != nil {
		return nil, err
	}
	p, err := b.buildProvider(ctx, next)
	if err != nil {
		return nil, refuse("", "provider %q: %v", name, err)
	}
	if err := b.checkDestinations(ctx, old, next, p, given); err != nil {
		return nil, err
	}
	if old == nil && p.Capabilities().Local {
		if _, given := d.GetOk("max_rotations_per_minute"); !given {
			next.MaxPerMinute = 0
		}
	}
	if old != nil {
		next.keepIdentity(old)
		if caps, known := b.capabilities(name); known && caps.Overlap != p.Capabilities().Overlap {
			if caps.Overlap {
				next.OverlapUntil = b.clock.now()
			} else {
				next.OverlapFrom = b.clock.now()
			}
		}
	}
	st := store{req.Storage}
	if err := b.changed(ctx, st, name, func() error {
		if err := st.putProvider(ctx, next); err != nil { // commit point
			return err
		}
		b.health.forget(b.providers.account(name))
		b.providers.set(name, next)
		return nil
	}); err != nil {
		return nil, err
	}
	b.emitChange(ctx, "provider-update", "providers/"+name)
	return nil, nil
}

// nextProvider lays the request over what there is. given tells that the
// request shows the credential: it was written anew or, beside credential_key,
// is the one that the key holds now.
func (b *backend) nextProvider(ctx context.Context, d *framework.FieldData, name string, old *providerRecord) (next *providerRecord, given bool, err error) {
	next = &providerRecord{Name: name, MaxPerMinute: defaultMaxPerMinute}
	if old != nil {
		copied := *old
		next = &copied
	}
	next.Updated = b.clock.now()
	if kind, ok := d.GetOk("type"); ok {
		if old != nil && old.Type != kind.(string) {
			return nil, false, refuse("write another provider", "provider %q has type %q, which cannot become %q", name, old.Type, kind)
		}
		next.Type = kind.(string)
	}
	if next.Type == "" {
		return nil, false, refuse("known are "+strings.Join(b.providerTypes(), ", "), "provider %q needs a type", name)
	}
	if v, ok := d.GetOk("settings"); ok {
		settings, err := normalizeJSON(v.(map[string]any))
		if err != nil {
			return nil, false, refuse("", "settings: %v", err)
		}
		next.Settings = settings
	}
	if v, ok := d.GetOk("credential"); ok {
		credential, err := stringMap(v.(map[string]any), "credential")
		if err != nil {
			return nil, false, err
		}
		next.Credential, given = credential, len(credential) > 0
	}
	takeString(d, "credential_key", &next.CredentialKey)
	if takeString(d, "account", &next.Account); next.Account != "" {
		if err := checkProviderName(next.Account); err != nil {
			return nil, false, refuse("1 to 64 of a-z, A-Z, 0-9, _, . and -", "account %.100q", next.Account)
		}
	}
	if given && next.CredentialKey != "" {
		// It is compared, and not kept.
		values, err := b.credentialOf(ctx, next.CredentialKey)
		if err == nil && sameSecrets(values, next.Credential) {
			next.Credential = nil
		}
	}
	takeInt(d, "max_rotations_per_minute", &next.MaxPerMinute)
	if next.MaxPerMinute < 0 || next.MaxPerMinute > maxPerMinuteLimit {
		return nil, false, refuse("", "max_rotations_per_minute %d: must be from 0 to %d", next.MaxPerMinute, maxPerMinuteLimit)
	}
	if next.CredentialKey != "" && len(next.Credential) > 0 {
		return nil, false, refuse("write the other one empty", "provider %q: only one of credential and credential_key can hold", name)
	}
	return next, given, nil
}

func (b *backend) handleProviderDelete(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get("name").(string)
	deleted := b.index.deletedOf(name)
	if len(deleted) < b.index.countOf(name) || b.fence.closed() != "" {
		deleted = nil
	}
	for _, key := range deleted {
		err := b.withKey(ctx, req.Storage, key, func(ctx context.Context, w *work) error { return w.eraseNow(ctx) })
		if err != nil && !errors.Is(err, errKept) && !errors.Is(err, errNoKey) {
			return nil, err
		}
	}
	unlock, err := b.locks.lock(ctx, "provider:"+name)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if keys := b.index.ofProvider(name); len(keys) > 0 {
		return nil, refuse("delete its keys first", "provider %q is used by %s, the first is %q", name, count(len(keys), "key"), keys[0])
	}
	if b.trials.unfinished(name) {
		return nil, refuse("read providers/"+name+"/trial, and wait for it", "a trial of provider %q is not finished", name)
	}
	if err := (store{req.Storage}).remove(ctx, trialPrefix+name); err != nil {
		return nil, err
	}
	if err := (store{req.Storage}).removeProvider(ctx, name); err != nil {
		return nil, fmt.Errorf("provider %q: %w", name, err)
	}
	b.providers.set(name, nil)
	b.campaigns.set(name, nil)
	if err := (store{req.Storage}).removeCampaigns(ctx, name); err != nil {
		return nil, err
	}
	b.emitChange(ctx, "provider-delete", "providers/"+name)
	return nil, nil
}
