package apikeys

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

// createAgain defines a key whose predecessor of that name is being deleted. The
// versions of that one run out as they would have, and numbers go on after
// theirs. Where that cannot be, the refusal says how it can.
func (w *work) createAgain(ctx context.Context, d *framework.FieldData) (*logical.Response, error) {
	b, old := w.b, w.rec
	if err := b.fence.check(); err != nil {
		return nil, err
	}
	def := keyDef{}
	if err := b.takeDef(d, &def); err != nil {
		return nil, err
	}
	if _, err := b.checkDef(ctx, old.Name, &def, nil); err != nil {
		return nil, err
	}
	until := fmt.Sprintf("wait until %s, or end it now: DELETE keys/%s with revoke_now=true", text(later(w.now(), old.lastRevocation())), old.Name)
	if def.Provider != old.Def.Provider {
		if err := w.eraseNow(ctx); !errors.Is(err, errKept) {
			return nil, errors.Join(err, errNoKey)
		}
		return nil, refuse(until, "key %q is being deleted, and provider %q has to end its last version", old.Name, old.Def.Provider)
	}
	if !w.prov.Capabilities().Overlap && old.Life.Alive() > 0 {
		return nil, refuse(until, "key %q is being deleted, and its provider lets no two keys live: a new one would cut its readers off", old.Name)
	}
	next, now := old.clone(), w.now()
	next.keepParameters()
	next.Deleting, next.Def, next.Created = nil, def, now
	next.LastRotation, next.ScheduleFrom, next.Requested, next.Reminded = time.Time{}, time.Time{}, time.Time{}, time.Time{}
	next.MintFailure, next.Wait = nil, nil
	if err := w.save(ctx, next); err != nil {
		return nil, err
	}
	b.emit(ctx, "key-create", next.Name)
	resp := &logical.Response{}
	switch due := w.snap().rotation(now).At; {
	case !w.caps.Mint:
		resp.AddWarning(fmt.Sprintf("the provider cannot make keys: write the first one to import/%s", next.Name))
		return resp, nil
	case b.intents.open(next.Name) || due.After(now):
		resp.AddWarning("the first version is made when the provider has room for it: " + text(due))
		return resp, nil
	}
	if err := w.mint(ctx); err != nil {
		return nil, err
	}
	if err := w.notCreated(ctx); err != nil || w.failed == nil {
		return nil, err
	}
	resp.AddWarning("the first version is not ready yet, the engine goes on trying: " + publicMessage(w.failed))
	return resp, nil
}

// lastRevocation is when the last version that is alive ends; zero: none is, or
// it is not known when.
func (r *keyRecord) lastRevocation() (last time.Time) {
	for v := range r.Life.Living() {
		if v.RevokeAt.After(last) {
			last = v.RevokeAt
		}
	}
	return last
}
