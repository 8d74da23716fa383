package apikeys

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"strongroom.example/plugin/lifecycle"
	"strongroom.example/plugin/provider"
)

func (b *backend) pathRollback() []*framework.Path {
	return []*framework.Path{{
		Pattern: "rollback/" + namePattern,
		Fields: map[string]*framework.FieldSchema{
			"name":    nameField(),
			"version": {Type: framework.TypeInt, Required: true, Description: "The version that becomes the current one; it must be in its grace period."},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation: b.writes(b.handleRollback, "Make a version that is still alive the current one."),
		},
		HelpSynopsis: "Make a version that is still alive the current one.",
		HelpDescription: `
The version that was current enters its grace period. Where the provider can
test keys, the old one is tested first. A version that is compromised, past its
grace period or kept as a hash only cannot come back. The next rotation is
counted from now.`,
	}}
}

func (b *backend) handleRollback(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name, err := keyName(d)
	if err != nil {
		return nil, err
	}
	if err := b.fence.check(); err != nil {
		return nil, err
	}
	number := d.Get("version").(int)
	err = b.withKey(ctx, req.Storage, name, func(ctx context.Context, w *work) error {
		return w.rollback(ctx, number)
	})
	if errors.Is(err, errNoKey) {
		return nil, refuse("", "there is no key %q", name)
	}
	if err != nil {
		return nil, err
	}
	return &logical.Response{Data: map[string]any{"version": number}}, nil
}

func (w *work) rollback(ctx context.Context, number int) error {
	if w.rec.Deleting != nil {
		return refuse("", "key %q is being deleted", w.rec.Name)
	}
	next, now := w.rec.clone(), w.now()
	if err := next.Life.Rollback(number, now, w.b.config.get().graceOf(&next.Def)); err != nil {
		return rollbackRefusal(w.rec, number, err)
	}
	if len(next.Values[number]) == 0 {
		return refuse("", "version %d of key %q is kept as a hash only", number, next.Name)
	}
	if w.caps.Test {
		callCtx, cancel := w.call(ctx)
		err := w.prov.Test(callCtx, next.Def.Parameters, next.providerKey(next.Life.Find(number)))
		cancel()
		if provider.KindOf(err) == provider.KindUnauthorized && err != nil {
			return refuse("", "the provider no longer accepts version %d of key %q", number, next.Name)
		}
		if err != nil {
			return providerFault(fmt.Sprintf("version %d could not be tested, nothing was changed", number), err)
		}
	}
	next.LastRotation, next.ScheduleFrom, next.Requested = now, now, time.Time{}
	if err := hashOld(next, w.b.opts.Rand); err != nil {
		return err
	}
	if err := w.save(ctx, next); err != nil {
		return err
	}
	w.b.emit(ctx, "rollback", next.Name, "version", fmt.Sprint(number))
	return nil
}

func rollbackRefusal(rec *keyRecord, number int, err error) error {
	switch {
	case errors.Is(err, lifecycle.ErrCompromised):
		return refuse("rotate instead", "version %d of key %q is compromised", number, rec.Name)
	case errors.Is(err, lifecycle.ErrCurrent):
		return refuse("", "version %d of key %q is the current one", number, rec.Name)
	case errors.Is(err, lifecycle.ErrNotAlive):
		return refuse("versions/"+rec.Name+" shows which are in grace", "version %d of key %q is not alive any more", number, rec.Name)
	}
	return refuse("versions/"+rec.Name+" lists them", "key %q has no version %d", rec.Name, number)
}
