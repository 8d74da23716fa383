package apikeys

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"strongroom.example/plugin/lifecycle"
	"strongroom.example/plugin/provider"
)

func (b *backend) pathImport() []*framework.Path {
	return []*framework.Path{{
		Pattern: "import/" + namePattern,
		Fields: map[string]*framework.FieldSchema{
			"name":            nameField(),
			"key":             {Type: framework.TypeString, Description: "The key itself (key=- reads it from standard input). The end of the line is no part of a key of one line.", DisplayAttrs: &framework.DisplayAttributes{Sensitive: true}},
			"values":          {Type: framework.TypeMap, Description: "In place of key, or beside it: several named values.", DisplayAttrs: &framework.DisplayAttributes{Sensitive: true}},
			"provider_key_id": {Type: framework.TypeString, Description: "The provider's identifier of the key. Without it the engine cannot revoke it."},
			"expire_time":     {Type: framework.TypeTime, Description: "When the provider ends the key by itself; RFC 3339 or unix seconds."},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation: b.writes(b.handleImport, "Bring in a key that was made elsewhere."),
		},
		HelpSynopsis: "Bring in a key that was made elsewhere.",
		HelpDescription: `
It becomes the current version, and the one before enters its grace period, as
with a rotation. Where the provider can test keys, it is tested first. For
providers that cannot make keys this is the way to rotate.`,
	}}
}

func (b *backend) handleImport(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name, err := keyName(d)
	if err != nil {
		return nil, err
	}
	if err := b.fence.check(); err != nil {
		return nil, err
	}
	key, err := b.takeImport(d)
	if err != nil {
		return nil, err
	}
	var resp *logical.Response
	err = b.withKey(ctx, req.Storage, name, func(ctx context.Context, w *work) (err error) {
		resp, err = w.importKey(ctx, key)
		return err
	})
	if errors.Is(err, errNoKey) {
		return nil, refuse("write keys/"+name+" first", "there is no key %q", name)
	}
	return resp, err
}

func (b *backend) takeImport(d *framework.FieldData) (provider.Key, error) {
	key := provider.Key{ID: d.Get("provider_key_id").(string)}
	if v, ok := d.GetOk("values"); ok {
		values, err := stringMap(v.(map[string]any), "values")
		if err != nil {
			return key, err
		}
		key.Values = values
	}
	if v, ok := d.GetOk("key"); ok {
		if key.Values == nil {
			key.Values = map[string]string{}
		}
		key.Values[provider.PrimaryValue] = oneLine(v.(string))
	}
	if key.Values[provider.PrimaryValue] == "" {
		return key, refuse("write key=- and give it on standard input", "the key is missing")
	}
	if checkMinted(key) != nil {
		return key, refuse("", "values: at most %d, together at most %d bytes", maxValues, maxValueBytes)
	}
	if len(key.ID) > maxKeyName {
		return key, refuse("", "provider_key_id: at most %d bytes", maxKeyName)
	}
	if v, ok := d.GetOk("expire_time"); ok {
		key.Expires = v.(time.Time)
		if !key.Expires.After(b.clock.now()) {
			return key, refuse("", "expire_time %s is over", stamp(key.Expires))
		}
	}
	return key, nil
}

// oneLine takes the line end off a key of one line: files and echo end so, no
// service issues such keys, and no HTTP header can carry one. What has several
// lines, as a private key in PEM, stays as it is.
func oneLine(key string) string {
	line := strings.TrimSuffix(strings.TrimSuffix(key, "\n"), "\r")
	if strings.ContainsAny(line, "\r\n") {
		return key
	}
	return line
}

func (w *work) importKey(ctx context.Context, key provider.Key) (*logical.Response, error) {
	rec := w.rec
	if rec.Deleting != nil {
		return nil, refuse("", "key %q is being deleted", rec.Name)
	}
	if v := rec.Life.Pending(); v != nil {
		return nil, refuse("wait for it", "version %d of key %q is being brought in", v.Number, rec.Name)
	}
	for i := range rec.Life.Versions {
		if n := rec.Life.Versions[i].Number; maps.Equal(rec.Values[n], key.Values) {
			return nil, refuse("", "this key is version %d of %q already", n, rec.Name)
		}
	}
	if w.caps.Test {
		callCtx, cancel := w.call(ctx)
		err := w.prov.Test(callCtx, rec.Def.Parameters, key)
		cancel()
		if err != nil && provider.KindOf(err) == provider.KindUnauthorized {
			return nil, refuse("", "the provider refuses the key: %s", publicMessage(err))
		}
		if err != nil {
			return nil, providerFault("the key could not be tested, nothing was changed", err)
		}
	}
	next, now := rec.clone(), w.now()
	number := next.Life.Last + 1
	if err := next.Life.Add(lifecycle.Version{
		Number: number, State: lifecycle.Pending, ProviderID: key.ID, Created: now, Expires: key.Expires, Imported: true,
	}); err != nil {
		return nil, err
	}
	next.setValues(number, key.Values)
	if err := w.promote(ctx, next); err != nil {
		return nil, err
	}
	resp := &logical.Response{Data: map[string]any{"version": number}}
	if key.ID == "" && w.caps.Revoke && !w.caps.Local {
		resp.AddWarning(fmt.Sprintf("without provider_key_id version %d cannot be revoked at the provider when its time is over", number))
	}
	return resp, nil
}
