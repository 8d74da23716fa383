package apikeys

import (
	"context"
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
			logical.UpdateOperation: b.writes(b.onKey(b.takeImport), "Bring in a key that was made elsewhere."),
		},
		HelpSynopsis: "Bring in a key that was made elsewhere.",
		HelpDescription: `
It becomes the current version, and the one before enters its grace period, as
with a rotation. Where the provider can test keys, it is tested first. For
providers that cannot make keys this is the way to rotate.`,
	}}
}

func (b *backend) takeImport(d *framework.FieldData) (verb, error) {
	key, err := b.importedKey(d)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, w *work) (*logical.Response, error) {
		number, err := w.importKey(ctx, key)
		if err != nil {
			return nil, err
		}
		resp := &logical.Response{Data: map[string]any{"version": number}}
		if key.ID == "" && w.caps.Revoke && !w.caps.Local {
			resp.AddWarning(fmt.Sprintf("without provider_key_id version %d cannot be revoked at the provider when its time is over", number))
		}
		return resp, nil
	}, nil
}

func (b *backend) importedKey(d *framework.FieldData) (provider.Key, error) {
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
		if key.Expires.UTC().Year() > 9999 {
			return key, refuse("seconds, not milliseconds", "expire_time: the year %d", key.Expires.UTC().Year())
		}
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

// importKey makes a key that a person brings the current version.
func (w *work) importKey(ctx context.Context, key provider.Key) (version int, err error) {
	rec := w.rec
	switch {
	case rec.Deleting != nil:
		return 0, refuse("", "key %q is being deleted", rec.Name)
	case w.unusable != nil:
		return 0, w.unusable
	case rec.Life.Pending() != nil:
		return 0, refuse("wait for it", "version %d of key %q is being brought in", rec.Life.Pending().Number, rec.Name)
	}
	for i := range rec.Life.Versions {
		if n := rec.Life.Versions[i].Number; maps.Equal(rec.Values[n], key.Values) {
			return 0, refuse("", "this key is version %d of %q already", n, rec.Name)
		}
		if v := &rec.Life.Versions[i]; key.ID != "" && v.ProviderID == key.ID && v.Alive() && v.EndAsked && rec.Life.Twin(v, w.now()) == nil {
			return 0, refuse("wait until it is revoked, or say that it is: resolve/"+rec.Name, "provider_key_id %q is version %d, which the engine is ending", key.ID, v.Number)
		}
	}
	if key.ID != "" {
		if left, err := w.withoutHolder(ctx, []string{key.ID}); err != nil {
			return 0, err
		} else if len(left) == 0 {
			return 0, refuse("one of the two would end the other", "provider_key_id %q is a version of another key of this mount", key.ID)
		}
	}
	if w.caps.Test {
		end, refused, err := w.asNow().examine(ctx, key)
		if refused != nil {
			return 0, refuse("", "the provider refuses the key: %s", publicMessage(refused))
		}
		if err != nil {
			return 0, &fault{"the key could not be tested, nothing was changed", err}
		}
		if !end.IsZero() && !end.After(w.now()) {
			return 0, refuse("", "the provider says that the key has ended at %s", stamp(end))
		}
		if !end.IsZero() {
			key.Expires = end
		}
	}
	next := rec.clone()
	version = next.Life.Last + 1
	v := lifecycle.Version{Number: version, State: lifecycle.Pending, ProviderID: key.ID, Created: w.madeNow(), Expires: key.Expires, Imported: true}
	if p := w.b.providers.record(rec.Def.Provider); p != nil {
		v.Identity = p.Identity
	}
	if err := next.Life.Add(v); err != nil {
		return 0, err
	}
	next.setValues(version, key.Values)
	return version, w.promote(ctx, next)
}
