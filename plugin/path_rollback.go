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

func (b *backend) pathRollback() []*framework.Path {
	return []*framework.Path{{
		Pattern: "rollback/" + namePattern,
		Fields: map[string]*framework.FieldSchema{
			"name":    nameField(),
			"version": {Type: framework.TypeInt, Required: true, Description: "The version that becomes the current one; it must be in its grace period."},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation: b.writes(b.onKey(takeRollback), "Make a version that is still alive the current one."),
		},
		HelpSynopsis: "Make a version that is still alive the current one.",
		HelpDescription: `
The version that was current enters its grace period. Where the provider can
test keys, the old one is tested first. A version that is compromised, past its
grace period or kept as a hash only cannot come back. The next rotation is
counted from now.`,
	}}
}

func takeRollback(d *framework.FieldData) (verb, error) {
	number := d.Get("version").(int)
	return func(ctx context.Context, w *work) (*logical.Response, error) {
		return &logical.Response{Data: map[string]any{"version": number}}, w.rollback(ctx, number)
	}, nil
}

func (w *work) rollback(ctx context.Context, number int) error {
	if w.rec.Deleting != nil {
		return refuse("", "key %q is being deleted", w.rec.Name)
	}
	next, now := w.rec.clone(), w.now()
	if v := next.Life.Pending(); v != nil {
		// It would take over as soon as it works.
		if err := next.Life.Retire(v.Number, now, now, true); err != nil {
			return err
		}
	}
	if err := next.Life.Rollback(number, now, w.b.config.get().graceOf(&next.Def)); err != nil {
		return rollbackRefusal(w.rec, number, err)
	}
	if len(next.Values[number]) == 0 {
		return refuse("", "version %d of key %q is kept as a hash only", number, next.Name)
	}
	if w.caps.Test {
		v := next.Life.Find(number)
		refused, err := w.as(ctx, v).test(ctx, next.providerKey(v))
		if refused != nil {
			return refuse("", "the provider no longer accepts version %d of key %q", number, next.Name)
		}
		if err != nil {
			return &fault{fmt.Sprintf("version %d could not be tested, nothing was changed", number), err}
		}
	}
	w.keepRetired(next)
	next.LastRotation, next.ScheduleFrom, next.Requested = now, now, time.Time{}
	next.MintFailure, next.Wait = nil, nil
	if err := hashOld(next, w.b.opts.Rand); err != nil {
		return err
	}
	if err := w.save(ctx, next); err != nil {
		return err
	}
	w.b.emit(ctx, "rollback", next.Name, "version", itoa(number))
	return w.closeIntents(ctx)
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
