package apikeys

import (
	"context"
	"fmt"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"strongroom.example/plugin/provider"
)

func (b *backend) pathProviderTrial() []*framework.Path {
	return []*framework.Path{{
		Pattern: "providers/" + providerPattern + "/trial",
		Fields: map[string]*framework.FieldSchema{
			"name":       {Type: framework.TypeString, Description: "Name of the provider."},
			"parameters": {Type: framework.TypeMap, Description: "The parameters of a key, as in keys/NAME."},
			"key":        {Type: framework.TypeString, Description: "A key of this provider, whose current version is tested. Not with live."},
			"live":       {Type: framework.TypeBool, Description: "Make a key at the service, test it, look for it in the list, and end it."},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation: b.writes(b.handleTrial, "Try a provider before it is trusted."),
			logical.ReadOperation:   b.reads(b.handleTrialRead, "Read the last live trial."),
		},
		HelpSynopsis: "Try a provider before it is trusted.",
		HelpDescription: `
Without live nothing is changed at the service: the list is read, a key is
tested, and what each path of the declaration selects is shown, masked. With
live one key is made and ended again. It goes on after the answer, and after a
restart; read this path for how it went. It is refused where a new key would
end the current one, where the account has no free place, and where a key could
not be ended again.`,
	}}
}

func (b *backend) handleTrial(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get("name").(string)
	rec := b.providers.record(name)
	if rec == nil {
		return nil, refuse("write providers/"+name+" first", "there is no provider %q", name)
	}
	p, err := b.provider(ctx, name)
	if err != nil {
		return nil, err
	}
	params, err := normalizeJSON(d.Get("parameters").(map[string]any))
	if err != nil {
		return nil, refuse("", "parameters: %v", err)
	}
	if err := p.ValidateParameters(params); err != nil {
		return nil, refuse("", "%v", err)
	}
	keyName, live := d.Get("key").(string), d.Get("live").(bool)
	if !live {
		steps, err := b.tryReading(ctx, req.Storage, name, p, params, keyName)
		if err != nil {
			return nil, err
		}
		return &logical.Response{Data: b.shownTrial(rec, &trial{Provider: name, Steps: steps}, "read_only")}, nil
	}
	if keyName != "" {
		return nil, refuse("leave one of them out", "key and live do not go together: a live trial makes a key of its own")
	}
	if err := b.fence.check(); err != nil {
		return nil, err
	}
	if err := b.trials.begin(name); err != nil {
		return nil, err
	}
	t, err := b.beginTrial(ctx, rec, p, params)
	if err == nil {
		// The commit point: from here on the key will be found and ended.
		err = store{req.Storage}.put(ctx, trialPrefix+name, t)
	}
	if err != nil {
		b.trials.done(name, t) // storage may hold it all the same
		return nil, err
	}
	finished := make(chan struct{})
	b.running.Add(1)
	go func() {
		defer b.running.Done()
		defer close(finished)
		b.tryLive(b.stopped, store{req.Storage}, t, p)
	}()
	waitFor(ctx, finished, trialAnswer)
	select {
	case <-finished:
		return &logical.Response{Data: b.shownTrial(rec, t, "")}, nil
	default:
		return &logical.Response{Data: map[string]any{"state": "running", "provider": name, "key_name": t.Name}}, nil
	}
}

// beginTrial refuses what could do harm, and says what the key will be called.
func (b *backend) beginTrial(ctx context.Context, rec *providerRecord, p provider.Provider, params map[string]any) (*trial, error) {
	caps := p.Capabilities()
	switch {
	case caps.Local:
		return nil, refuse("there is nothing to try", "provider %q issues its keys itself", rec.Name)
	case !caps.Mint:
		return nil, refuse("try it without live", "provider %q makes no keys", rec.Name)
	case caps.FromCurrent || !caps.Overlap:
		return nil, refuse("try it without live", "with provider %q a new key ends the current one", rec.Name)
	case !caps.Revoke:
		return nil, refuse("try it without live", "provider %q cannot revoke: the trial's key would stay", rec.Name)
	case caps.MaxKeys > 0 && !caps.List:
		return nil, refuse("try it without live", "provider %q takes %s and cannot list them: nobody knows whether there is a free place", rec.Name, count(caps.MaxKeys, "key"))
	}
	t := &trial{Provider: rec.Name, Identity: rec.Identity, Parameters: params, Started: b.clock.now()}
	if caps.List {
		callCtx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		keys, err := p.List(callCtx, params, "")
		if err != nil {
			return nil, &fault{"the keys at the service could not be listed, nothing was made", err}
		}
		if caps.MaxKeys > 0 && len(keys) >= caps.MaxKeys {
			return nil, refuse("end one that nobody needs", "the account has no free place: %s of %d", count(len(keys), "key"), caps.MaxKeys)
		}
		for _, k := range keys[:min(len(keys), maxTrialKnown)] {
			t.Known = append(t.Known, k.ID)
		}
	}
	uid, err := b.randomID(uidLength)
	if err != nil {
		return nil, err
	}
	attempt, err := b.randomID(attemptLength)
	if err != nil {
		return nil, err
	}
	name, err := b.fence.mintName(uid, "trial", 1, attempt)
	if err != nil {
		return nil, err
	}
	t.Name = name.String()
	return t, nil
}

// tryReading asks the service what changes nothing there.
func (b *backend) tryReading(ctx context.Context, s logical.Storage, name string, p provider.Provider, params map[string]any, keyName string) ([]trialStep, error) {
	t := &trial{}
	caps := p.Capabilities()
	callCtx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	inspect := func(op string, key provider.Key) []provider.Selected {
		if inspector, ok := p.(provider.Inspector); ok {
			found, _ := inspector.Inspect(callCtx, op, params, key)
			return found
		}
		return nil
	}
	if caps.List {
		keys, err := p.List(callCtx, params, "")
		named := 0
		for _, k := range keys {
			if k.Name != "" {
				named++
			}
		}
		t.step("list", err, "%s, %d of them with a name", count(len(keys), "key"), named)
		t.Steps[0].Selected = inspect("list", provider.Key{})
	}
	if keyName == "" {
		if caps.Test {
			t.Steps = append(t.Steps, trialStep{Op: "test", OK: true, Message: "not tried: name a key of this provider (key=NAME)"})
		}
		return t.Steps, nil
	}
	snap, err := b.snapshot(ctx, s, keyName)
	if err != nil {
		return nil, err
	}
	if snap == nil || snap.rec.Def.Provider != name || snap.rec.Life.Current() == nil {
		return nil, refuse("", "key %q is none of provider %q with a version in use", keyName, name)
	}
	key := snap.rec.providerKey(snap.rec.Life.Current())
	at, told, err := provider.Examine(callCtx, p, params, key)
	message := "the key works"
	if told {
		message = fmt.Sprintf("the key works; it ends at %v", stamp(at))
	}
	t.step("test", err, "%s", message)
	t.Steps[len(t.Steps)-1].Selected = inspect("test", key)
	return t.Steps, nil
}

func (b *backend) handleTrialRead(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name := d.Get("name").(string)
	rec := b.providers.record(name)
	if rec == nil {
		return nil, nil
	}
	t := &trial{}
	if ok, err := (store{req.Storage}).get(ctx, trialPrefix+name, t); err != nil || !ok {
		return nil, err
	}
	return &logical.Response{Data: b.shownTrial(rec, t, "")}, nil
}

// shownTrial is a trial as it is answered.
func (b *backend) shownTrial(rec *providerRecord, t *trial, state string) map[string]any {
	steps := make([]map[string]any, len(t.Steps))
	for i, s := range t.Steps {
		steps[i] = map[string]any{"step": s.Op, "ok": s.OK, "message": s.Message}
		if len(s.Selected) > 0 {
			selected := make([]map[string]any, len(s.Selected))
			for j, one := range s.Selected {
				selected[j] = map[string]any{"field": one.Field, "path": one.Path, "shown": one.Shown}
			}
			steps[i]["selected"] = selected
		}
	}
	heldTo := []string{}
	for _, field := range []string{"held_to", "held_to_date", "held_to_source"} {
		if v, _ := rec.Settings[field].(string); v != "" {
			heldTo = append(heldTo, v)
		}
	}
	switch {
	case state != "":
	case t.Finished.IsZero():
		state = "unfinished"
	case t.passed():
		state = "passed"
	default:
		state = "failed"
	}
	data := map[string]any{"provider": t.Provider, "state": state, "steps": steps, "held_to": strings.Join(heldTo, ", ")}
	if t.Name != "" {
		data["key_name"], data["provider_key_id"], data["may_be_left"] = t.Name, t.KeyID, t.Left
		data["started_time"], data["finished_time"] = stamp(t.Started), stamp(t.Finished)
	}
	return data
}
