package apikeys

import (
	"context"
	"fmt"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"strongroom.example/plugin/provider"
)

func (b *backend) pathProviderRotate() []*framework.Path {
	return []*framework.Path{{
		Pattern: "providers/" + providerPattern + "/rotate",
		Fields: map[string]*framework.FieldSchema{
			"name":        {Type: framework.TypeString, Description: "Name of the provider."},
			"compromised": {Type: framework.TypeBool, Description: "The provider's credential is known to others: revoke it and every key made with it at once."},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation: b.writes(b.handleProviderRotate, "Rotate the provider's own credential."),
		},
		HelpSynopsis: "Rotate the provider's own credential.",
		HelpDescription: `
The credential is the key that credential_key names; it rotates like every
other. compromised=true also marks every key made with the provider, the ones
with the most versions alive and then the oldest first; the engine replaces and
revokes them at once, and goes on after a restart. Where the credential is
written by hand, write the new one to providers/NAME before.`,
	}, {
		Pattern: "providers/" + providerPattern + "/dry_run",
		Fields: map[string]*framework.FieldSchema{
			"name":       {Type: framework.TypeString, Description: "Name of the provider."},
			"parameters": {Type: framework.TypeMap, Description: "The parameters of a key, as in keys/NAME."},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation: b.writes(b.handleDryRun, "Show the requests that the provider would send."),
		},
		HelpSynopsis:    "Show the requests that the provider would send.",
		HelpDescription: "Nothing is sent. Secrets are masked.",
	}}
}

func (b *backend) handleProviderRotate(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name, compromised := d.Get("name").(string), d.Get("compromised").(bool)
	rec := b.providers.record(name)
	if rec == nil {
		return nil, refuse("", "there is no provider %q", name)
	}
	if err := b.fence.check(); err != nil {
		return nil, err
	}
	if rec.CredentialKey == "" && !compromised {
		return nil, refuse("write a new one to providers/"+name+", or set credential_key",
			"the credential of provider %q was written by hand", name)
	}
	st := store{req.Storage}
	resp := &logical.Response{Data: map[string]any{}}
	if !compromised {
		return resp, b.withKey(ctx, st.s, rec.CredentialKey, func(ctx context.Context, w *work) error {
			out, err := w.rotate(ctx, false)
			if err == nil {
				addCredential(resp, out.response())
			}
			return err
		})
	}
	credential, keys, err := b.compromiseProvider(context.WithoutCancel(ctx), st, rec)
	if err != nil {
		b.interrupted.Store(true)
		b.wakeUp()
		return nil, fmt.Errorf("the keys are marked, the engine goes on: %w", err)
	}
	resp.Data["marked_keys"] = keys
	if credential != nil {
		addCredential(resp, credential.response())
	}
	b.wakeUp()
	return resp, nil
}

// addCredential tells what became of the provider's own credential.
func addCredential(to, of *logical.Response) {
	to.Data["credential"] = of.Data
	for _, text := range of.Warnings {
		to.AddWarning(text)
	}
}

func (b *backend) handleDryRun(ctx context.Context, _ *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get("name").(string)
	p, err := b.provider(ctx, name)
	if err != nil {
		return nil, err
	}
	runner, ok := p.(provider.DryRunner)
	if !ok {
		return nil, refuse("", "provider %q sends no requests of its own", name)
	}
	params, err := normalizeJSON(d.Get("parameters").(map[string]any))
	if err != nil {
		return nil, refuse("", "parameters: %v", err)
	}
	if err := p.ValidateParameters(params); err != nil {
		return nil, refuse("", "%v", err)
	}
	requests, err := runner.DryRun(params)
	if err != nil {
		return nil, refuse("", "%v", err)
	}
	shown := make([]map[string]any, len(requests))
	for i, r := range requests {
		shown[i] = map[string]any{"operation": r.Op, "method": r.Method, "url": r.URL, "header": r.Header, "body": r.Body}
	}
	return &logical.Response{Data: map[string]any{"requests": shown}}, nil
}
