package apikeys

import (
	"context"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"strongroom.example/plugin/lifecycle"
)

func (b *backend) pathResolve() []*framework.Path {
	return []*framework.Path{{
		Pattern: "resolve/" + namePattern,
		Fields: map[string]*framework.FieldSchema{
			"name": nameField(),
			"action": {Type: framework.TypeString, Required: true, AllowedValues: []any{"absent", "revoke"},
				Description: "absent: you have looked, the key is not at the provider (any more). revoke: revoke the one in provider_key_id."},
			"provider_key_id": {Type: framework.TypeString, Description: "The provider's identifier of the key to revoke."},
			"version":         {Type: framework.TypeInt, Description: "A version that was revoked and is not seen to be dead. absent: you have seen that it is. revoke: try again."},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation: b.writes(b.onKey(takeResolve), "Say how an uncertain rotation ended."),
		},
		HelpSynopsis: "Say how an uncertain rotation ended.",
		HelpDescription: `
When the answer to a request for a new key is lost and the provider cannot list
its keys, the engine does not know whether the key exists, and does not rotate
again before a person has looked. status and keys/NAME show the name under which
it would be there. If it is not there, write action=absent. If it is, either end
it there and write action=absent, or let the engine do it with action=revoke; or,
if you can see it, write it to import/NAME and then action=absent.

A version that was revoked, but is not seen to be dead after several tries, waits
for a person too (revoked_unverified): look, and write version=N action=absent, or
version=N action=revoke, which tries again.`,
	}}
}

func takeResolve(d *framework.FieldData) (verb, error) {
	action, id, number := d.Get("action").(string), d.Get("provider_key_id").(string), d.Get("version").(int)
	switch {
	case action != "absent" && action != "revoke":
		return nil, refuse("absent or revoke", "action %q is not known", action)
	case number != 0 && id != "":
		return nil, refuse("write one of them", "version %d and provider_key_id %q", number, id)
	case number == 0 && (action == "revoke") != (id != ""):
		return nil, refuse("it belongs to action=revoke, and only there", "provider_key_id %q", id)
	}
	return func(ctx context.Context, w *work) (*logical.Response, error) {
		if number != 0 {
			return nil, w.resolveVersion(ctx, number, action)
		}
		return nil, w.resolve(ctx, id)
	}, nil
}

func (w *work) resolve(ctx context.Context, revokeID string) error {
	if w.rec.Uncertain == nil {
		return refuse("", "nothing about key %q is uncertain", w.rec.Name)
	}
	if revokeID != "" {
		if err := w.revokeUnknown(ctx, revokeID); err != nil {
			return err
		}
	}
	for _, in := range w.b.intents.of(w.rec.Name) {
		if v := w.rec.Life.ByName(in.Name); v != nil && v.State == lifecycle.Pending {
			continue
		}
		if err := w.closeIntent(ctx, in); err != nil {
			return err
		}
	}
	next := w.rec.clone()
	next.Uncertain, next.MintFailure, next.Wait = nil, nil, nil
	if err := w.save(ctx, next); err != nil {
		return err
	}
	w.b.emit(ctx, "resolve", next.Name)
	return nil
}

// revokeUnknown ends a key at the provider that is no version of any key here.
func (w *work) revokeUnknown(ctx context.Context, id string) error {
	if v := w.rec.Life.ByProviderID(id); v != nil {
		return refuse("that one is not the uncertain one", "provider_key_id %q is version %d", id, v.Number)
	}
	if left, err := w.withoutHolder(ctx, []string{id}); err != nil {
		return err
	} else if len(left) == 0 {
		return refuse("that one is not the uncertain one", "provider_key_id %q is a version of another key of this mount", id)
	}
	switch {
	case w.unusable != nil:
		return w.unusable
	case !w.caps.Revoke:
		return refuse("end it there, and write action=absent", "provider %q cannot revoke", w.rec.Def.Provider)
	}
	as := w.asNow()
	for _, in := range w.b.intents.of(w.rec.Name) {
		if in.Name == w.rec.Uncertain.Name {
			as = w.asIntent(ctx, &in)
		}
	}
	if err := as.revoke(ctx, id, ""); err != nil {
		return &fault{"the key could not be revoked, the rotation stays uncertain", err}
	}
	return nil
}

// resolveVersion takes a person's word for the end of a version that the engine
// could not see, or tries again to end it.
func (w *work) resolveVersion(ctx context.Context, number int, action string) error {
	v := w.rec.Life.Find(number)
	if v == nil || v.Ending == nil {
		return refuse("versions/"+w.rec.Name+" shows which do", "version %d of key %q does not wait for anybody", number, w.rec.Name)
	}
	next := w.rec.clone()
	next.Life.Find(number).Ending = nil
	if action == "absent" {
		if err := next.Life.MarkRevoked(number, w.now(), lifecycle.ByPerson); err != nil {
			return err
		}
	}
	if err := w.save(ctx, next); err != nil {
		return err
	}
	w.b.emit(ctx, "resolve", next.Name, "version", itoa(number))
	return w.b.advance(ctx, w)
}
