package apikeys

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

const (
	minHookSecret = 16 // bytes
	maxHookSecret = 1024
	maxHookEvents = 32
	maxHookURL    = 2048
	maxHookCA     = 64 << 10
)

func (b *backend) pathWebhooks() []*framework.Path {
	return []*framework.Path{{
		Pattern: "webhooks/?",
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ListOperation: b.reads(b.handleWebhookList, "List the webhooks."),
		},
		HelpSynopsis:    "List the webhooks.",
		HelpDescription: "A webhook tells another system of every change, because Vault's community edition has no subscription to events.",
	}, {
		Pattern: "webhooks/" + providerPattern,
		Fields: map[string]*framework.FieldSchema{
			"name":            {Type: framework.TypeString, Description: "Name of the webhook."},
			"url":             {Type: framework.TypeString, Description: "Where events are posted to; https, and not a private address unless allow_addresses says so."},
			"secret":          {Type: framework.TypeString, Description: "At least 16 bytes; signs each event. Written, never read back.", DisplayAttrs: &framework.DisplayAttributes{Sensitive: true}},
			"events":          {Type: framework.TypeCommaStringSlice, Description: "Which kinds, with * for any: rotate,rotate-fail,revoke-*. Empty: all."},
			"allow_addresses": {Type: framework.TypeCommaStringSlice, Description: "Addresses or networks beyond the public ones that may be reached."},
			"allow_http":      {Type: framework.TypeBool, Description: "Allow http:// too, to allow_addresses only."},
			"ca_pem":          {Type: framework.TypeString, Description: "Certificates that the receiver's is checked against; empty: the system's."},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation:   b.reads(b.handleWebhookRead, "Read a webhook and how its deliveries went."),
			logical.CreateOperation: b.writes(b.handleWebhookWrite, "Create a webhook."),
			logical.UpdateOperation: b.writes(b.handleWebhookWrite, "Change a webhook."),
			logical.DeleteOperation: b.writes(b.handleWebhookDelete, "Delete a webhook."),
		},
		ExistenceCheck: b.webhookExists,
		HelpSynopsis:   "Tell another system of every change.",
		HelpDescription: `
Each event is posted as JSON: id, type, time, mount, key, data; never a secret.
The header Strongroom-Signature is t=UNIX,v1=HEX, where HEX is the HMAC-SHA256,
under the secret, of the decimal time, a full stop and the body. Any answer but
2xx is tried again, up to 8 times over about two hours. What waits is stored, up
to 5,000 events for each webhook, and goes on after a restart; where there was room
for no more, an event missed says how many there were: read status then. An event may come
twice: its id, which the header Strongroom-Delivery has too, stays the same.

Kinds: rotate, rotate-fail, revoke, revoke-fail, rollback, compromised, reap,
uncertain, resolve, due (a key must be replaced by hand), in-use (a replaced
version is still used shortly before it is revoked), dead (the service refuses the
current version), alive (it does no longer), key-create,
key-update, key-delete, provider-update, provider-delete, config-update,
webhook-update, webhook-delete, reconcile, clock, missed.`,
	}}
}

func (b *backend) webhookExists(ctx context.Context, req *logical.Request, d *framework.FieldData) (bool, error) {
	if err := b.start(ctx, req.Storage); err != nil {
		return false, err
	}
	rec, _ := b.hooks.get(d.Get("name").(string))
	return rec != nil, nil
}

func (b *backend) handleWebhookList(context.Context, *logical.Request, *framework.FieldData) (*logical.Response, error) {
	return logical.ListResponse(b.hooks.names()), nil
}

func (b *backend) handleWebhookRead(_ context.Context, _ *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	rec, deliveries := b.hooks.get(d.Get("name").(string))
	if rec == nil {
		return nil, nil
	}
	return &logical.Response{Data: map[string]any{
		"url": rec.URL, "events": rec.Events, "allow_addresses": rec.AllowAddresses, "allow_http": rec.AllowHTTP,
		"ca_pem": rec.CAPEM, "deliveries": deliveries,
	}}, nil
}

func (b *backend) handleWebhookWrite(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get("name").(string)
	if err := checkProviderName(name); err != nil {
		return nil, err
	}
	unlock, err := b.locks.lock(ctx, "webhook:"+name)
	if err != nil {
		return nil, err
	}
	defer unlock()
	next := &webhookRecord{Name: name}
	if old, _ := b.hooks.get(name); old != nil {
		copied := *old
		next = &copied
	}
	takeString(d, "url", &next.URL)
	takeString(d, "secret", &next.Secret)
	takeString(d, "ca_pem", &next.CAPEM)
	takeBool(d, "allow_http", &next.AllowHTTP)
	if v, ok := d.GetOk("events"); ok {
		next.Events = v.([]string)
	}
	if v, ok := d.GetOk("allow_addresses"); ok {
		next.AllowAddresses = v.([]string)
	}
	if err := next.validate(); err != nil {
		return nil, refuse("", "webhook %q: %s", name, strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	if err := (store{req.Storage}).putWebhook(ctx, next); err != nil {
		return nil, err
	}
	// Before it takes effect: whom it told so far should know.
	b.emitChange(ctx, "webhook-update", "webhooks/"+name)
	return nil, b.hooks.set(name, next)
}

// validate reports every fault at once.
func (r *webhookRecord) validate() error {
	var errs []error
	if len(r.Secret) < minHookSecret || len(r.Secret) > maxHookSecret {
		errs = append(errs, fmt.Errorf("secret: must have %d to %d bytes", minHookSecret, maxHookSecret))
	}
	if len(r.Events) > maxHookEvents {
		errs = append(errs, fmt.Errorf("events: %d are too many, at most %d", len(r.Events), maxHookEvents))
	}
	for _, pattern := range r.Events {
		if _, err := path.Match(pattern, ""); err != nil || pattern == "" {
			errs = append(errs, fmt.Errorf("events: %.80q is no pattern", pattern))
		}
	}
	if len(r.CAPEM) > maxHookCA {
		errs = append(errs, fmt.Errorf("ca_pem: at most %d bytes", maxHookCA))
	}
	client, err := r.client()
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	u, err := url.Parse(r.URL)
	switch {
	case len(r.URL) > maxHookURL:
		errs = append(errs, fmt.Errorf("url: at most %d bytes", maxHookURL))
	case err != nil:
		errs = append(errs, fmt.Errorf("url: not a URL"))
	default:
		if err := client.CheckURL(u); err != nil {
			errs = append(errs, fmt.Errorf("url %q: %w", u.Redacted(), err))
		}
	}
	return errors.Join(errs...)
}

func (b *backend) handleWebhookDelete(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get("name").(string)
	unlock, err := b.locks.lock(ctx, "webhook:"+name)
	if err != nil {
		return nil, err
	}
	defer unlock()
	st := store{req.Storage}
	if err := st.removeWebhook(ctx, name); err != nil { // commit point: what waits for it goes with the next start at the latest
		return nil, err
	}
	if err := b.hooks.set(name, nil); err != nil {
		return nil, err
	}
	b.emitChange(ctx, "webhook-delete", "webhooks/"+name)
	return nil, st.removeEvents(ctx, name)
}
