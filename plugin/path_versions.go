package apikeys

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"strongroom.example/plugin/lifecycle"
)

func (b *backend) pathVersions() []*framework.Path {
	return []*framework.Path{b.listing("the keys that have versions", "versions"), {
		Pattern: "versions/" + namePattern,
		Fields: map[string]*framework.FieldSchema{
			"name":      nameField(),
			"last_used": {Type: framework.TypeBool, Query: true, Description: "With a read: ask the provider now when each living version was last used."},
			"version":   {Type: framework.TypeInt, Query: true, Description: "With DELETE: the version to revoke."},
			"force":     {Type: framework.TypeBool, Query: true, Description: "With DELETE: revoke it even though readers were promised it for longer."},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation:   b.reads(b.ofKey(b.handleVersionsRead), "Read the states and times of all versions."),
			logical.DeleteOperation: b.writes(b.onKey(takeVersionsDelete), "Revoke one version before its time."),
		},
		HelpSynopsis: "The versions of a key, their states and times.",
		HelpDescription: `
A version is pending, current, grace, revoked, expired where the service has ended
it by itself, or given_up: the engine cannot end it, or was told not to, so it may
live. readable tells whether creds gives it. The answer holds no key.
last_used_time is what the provider said shortly before the version's end, or
says now with last_used=true; not every provider knows it.

DELETE with version=N revokes a version in grace now. As readers were promised
it for longer, it needs force=true. The current version cannot be revoked: rotate
first, or use rotate with compromised=true.`,
	}}
}

func (b *backend) handleVersionsRead(ctx context.Context, snap *snapshot, d *framework.FieldData) (*logical.Response, error) {
	versions := map[string]any{}
	for v := range snap.rec.Life.All() {
		versions[itoa(v.Number)] = versionData(snap.rec, v, b.clock.now())
	}
	data := b.stateOf(snap)
	data["versions"] = versions
	resp := &logical.Response{Data: data}
	if d.Get("last_used").(bool) {
		if err := b.addLastUsed(ctx, snap, versions, resp); err != nil {
			return nil, err
		}
	}
	return resp, nil
}

func versionData(rec *keyRecord, v *lifecycle.Version, now time.Time) map[string]any {
	used, checked := time.Time{}, time.Time{}
	if u := rec.Uses[v.Number]; u != nil {
		used, checked = u.LastUsed, u.Checked
	}
	state := string(v.State)
	switch {
	case v.Alive() && v.ExpiredAt(now):
		state = "expired"
	case v.GivenUp():
		state = "given_up"
	}
	return map[string]any{
		"last_used_time":         stamp(used),
		"last_used_checked_time": stamp(checked),
		"state":                  state,
		"created_time":           stamp(v.Created),
		"current_since":          stamp(v.Promoted),
		"retired_time":           stamp(v.Retired),
		"revoke_time":            stamp(v.RevokeAt),
		"revoked_time":           stamp(v.RevokedAt),
		"expire_time":            stamp(v.Expires),
		"promised_grace":         seconds(v.Grace),
		"doubted_time":           stamp(v.Doubted),
		"name":                   v.Name,
		"provider_key_id":        v.ProviderID,
		"compromised":            v.Compromised,
		"imported":               v.Imported,
		"found":                  v.Found,
		"kept_at_provider":       v.Keep,
		"readable":               len(rec.Values[v.Number]) > 0 && v.ReadableAt(now),
		"verifiable_hashed":      len(rec.Hashes[v.Number]) > 0,
		"evidence":               string(v.Evidence),
		"revocation_failure":     endingData(v),
	}
}

func takeVersionsDelete(d *framework.FieldData) (verb, error) {
	number, force := d.Get("version").(int), d.Get("force").(bool)
	if number < 1 {
		return nil, refuse("add version=N", "version %d: which one?", number)
	}
	return func(ctx context.Context, w *work) (*logical.Response, error) {
		next, now := w.rec.clone(), w.now()
		if err := next.Life.Retire(number, now, now, force); err != nil {
			return nil, retireRefusal(w.rec, number, err)
		}
		before := *w.rec.Life.Find(number)
		if err := w.save(ctx, next); err != nil {
			return nil, err
		}
		if err := w.revokeDue(ctx); err != nil {
			return nil, err
		}
		resp := &logical.Response{}
		if before.ReadableAt(now) {
			resp.AddWarning(fmt.Sprintf("readers were promised version %d until %s; who still uses it is cut off", number, stamp(before.RevokeAt)))
		}
		if err := w.notDead(number); err != nil {
			resp.AddWarning("it is not revoked at the provider yet, the engine goes on trying: " + publicMessage(err))
		}
		return resp, nil
	}, nil
}

// notDead is why a version that should be revoked is not seen to be; nil: it is.
func (w *work) notDead(number int) error {
	v := w.rec.Life.Find(number)
	switch {
	case v == nil || !v.Alive():
		return nil
	case v.Ending != nil && v.Ending.Failure != nil:
		return refuse("", "%s", v.Ending.Failure.Message)
	}
	return refuse("", "the service has not ended version %d so far", number)
}

func retireRefusal(rec *keyRecord, number int, err error) error {
	switch {
	case errors.Is(err, lifecycle.ErrPromise):
		return refuse("force=true revokes it all the same", "readers of key %q were promised version %d until %s",
			rec.Name, number, stamp(rec.Life.Find(number).RevokeAt))
	case errors.Is(err, lifecycle.ErrCurrent):
		return refuse("rotate first, or use rotate with compromised=true", "version %d of key %q is the current one", number, rec.Name)
	case errors.Is(err, lifecycle.ErrNotAlive):
		return refuse("", "version %d of key %q is revoked already", number, rec.Name)
	}
	return refuse("versions/"+rec.Name+" lists them", "key %q has no version %d", rec.Name, number)
}
