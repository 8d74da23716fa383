package apikeys

import (
	"context"
	"errors"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

func (b *backend) pathResolve() []*framework.Path {
	return []*framework.Path{{
		Pattern: "resolve/" + namePattern,
		Fields: map[string]*framework.FieldSchema{
			"name": nameField(),
			"action": {Type: framework.TypeString, Required: true, AllowedValues: []any{"absent", "revoke"},
				Description: "absent: you have looked, the key is not at the provider (any more). revoke: revoke the one in provider_key_id."},
			"provider_key_id": {Type: framework.TypeString, Description: "The provider's identifier of the key to revoke."},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation: b.writes(b.handleResolve, "Say how an uncertain rotation ended."),
		},
		HelpSynopsis: "Say how an uncertain rotation ended.",
		HelpDescription: `
When the answer to a request for a new key is lost and the provider cannot list
its keys, the engine does not know whether the key exists, and does not rotate
again before a person has looked. status and keys/NAME show the name under which
it would be there. If it is not there, write action=absent. If it is, either end
it there and write action=absent, or let the engine do it with action=revoke; or,
if you can see it, write it to import/NAME and then action=absent.`,
	}}
}

func (b *backend) handleResolve(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name, err := keyName(d)
	if err != nil {
		return nil, err
	}
	if err := b.fence.check(); err != nil {
		return nil, err
	}
	action, id := d.Get("action").(string), d.Get("provider_key_id").(string)
	if action != "absent" && action != "revoke" {
		return nil, refuse("absent or revoke", "action %q is not known", action)
	}
	if (action == "revoke") != (id != "") {
		return nil, refuse("it belongs to action=revoke, and only there", "provider_key_id %q", id)
	}
	err = b.withKey(ctx, req.Storage, name, func(ctx context.Context, w *work) error {
		return w.resolve(ctx, id)
	})
	if errors.Is(err, errNoKey) {
		return nil, refuse("", "there is no key %q", name)
	}
	return nil, err
}

func (w *work) resolve(ctx context.Context, revokeID string) error {
	if w.rec.Uncertain == nil {
		return refuse("", "nothing about key %q is uncertain", w.rec.Name)
	}
	if revokeID != "" {
		if v := w.rec.Life.ByProviderID(revokeID); v != nil {
			return refuse("that one is not the uncertain one", "provider_key_id %q is version %d", revokeID, v.Number)
		}
		if !w.caps.Revoke {
			return refuse("end it there, and write action=absent", "provider %q cannot revoke", w.rec.Def.Provider)
		}
		callCtx, cancel := w.call(ctx)
		err := w.prov.Revoke(callCtx, w.rec.Def.Parameters, revokeID)
		cancel()
		if err != nil {
			return providerFault("the key could not be revoked, the rotation stays uncertain", err)
		}
	}
	for _, in := range w.b.intents.of(w.rec.Name) {
		if err := w.closeIntent(ctx, in); err != nil {
			return err
		}
	}
	next := w.rec.clone()
	next.Uncertain, next.MintFailure = nil, nil
	if err := w.save(ctx, next); err != nil {
		return err
	}
	w.b.emit(ctx, "resolve", next.Name)
	return nil
}
