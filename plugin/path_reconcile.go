package apikeys

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

const maxReconcileSeconds = 80 // Vault ends a request after 90

func (b *backend) pathReconcile() []*framework.Path {
	return []*framework.Path{{
		Pattern: "reconcile",
		Fields: map[string]*framework.FieldSchema{
			"dry_run":         {Type: framework.TypeBool, Description: "Only tell what would be done."},
			"accept_problems": {Type: framework.TypeBool, Description: "Lift the fence although some keys could not be checked."},
			"max_seconds":     {Type: framework.TypeInt, Default: 60, Description: "Return after so many seconds, done or not; the next call goes on."},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation:   b.reads(b.handleReconcileRead, "Read the fence and the last reconcile."),
			logical.UpdateOperation: b.writes(b.handleReconcile, "Compare every key with its provider and lift the fence."),
		},
		HelpSynopsis: "After a restore: compare every key with its provider, then act again.",
		HelpDescription: `
After a restore the engine serves reads but mints, revokes and reaps nothing,
because its storage may be older than the world. reconcile tests every key at
its provider, makes a new version where the provider has a later one (its value
cannot be read back), keeps that later one alive for a full grace period, and
then lifts the fence. A key that another installation has made is never ended.

Write it again while done is false. Keys that could not be checked keep the
fence closed; accept_problems=true lifts it all the same. Version numbers jump
by 1000, so that none comes twice.`,
	}}
}

func (b *backend) handleReconcileRead(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	var progress reconcileRecord
	if _, err := (store{req.Storage}).get(ctx, reconcileKey, &progress); err != nil {
		return nil, err
	}
	data := b.reconcileData(&progress)
	data["fence_reason"] = b.fence.closed()
	return &logical.Response{Data: data}, nil
}

func (b *backend) reconcileData(p *reconcileRecord) map[string]any {
	return map[string]any{
		"done":          !p.Finished.IsZero() && b.fence.closed() == "",
		"fenced":        b.fence.closed() != "",
		"started_time":  stamp(p.Started),
		"finished_time": stamp(p.Finished),
		"keys":          b.index.size(),
		"checked":       p.Checked,
		"renewed":       p.Renewed,
		"found_later":   p.Found,
		"found_dead":    p.Dead,
		"foreign":       p.Foreign,
		"problems":      p.Problems,
	}
}

func (b *backend) handleReconcile(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	limit := d.Get("max_seconds").(int)
	if limit < 1 || limit > maxReconcileSeconds {
		return nil, refuse("", "max_seconds %d: must be from 1 to %d", limit, maxReconcileSeconds)
	}
	if !b.writable() {
		return nil, logical.ErrReadOnly
	}
	unlock, err := b.locks.lock(ctx, "reconcile:")
	if err != nil {
		return nil, err
	}
	defer unlock()
	ctx = context.WithoutCancel(ctx)
	st, dry := store{req.Storage}, d.Get("dry_run").(bool)
	progress, err := b.reconcile(ctx, st, time.Duration(limit)*time.Second, dry)
	if err != nil {
		return nil, fmt.Errorf("reconcile: %w", err)
	}
	blocked := progress.Blocked
	resp := &logical.Response{}
	switch {
	case dry:
		resp.AddWarning("dry_run: nothing was changed")
	case progress.Finished.IsZero():
		resp.AddWarning("not done yet: write reconcile again")
	case blocked > 0 && !d.Get("accept_problems").(bool):
		resp.AddWarning(fmt.Sprintf("%s could not be checked, the fence stays closed: write reconcile again, or accept_problems=true", count(blocked, "key")))
	default:
		if err := b.fence.lift(ctx, st); err != nil {
			return nil, err
		}
		b.emit(ctx, "reconcile", "")
		if err := b.changed(ctx, st, "", func() error { return nil }); err != nil {
			return nil, err
		}
	}
	resp.Data = b.reconcileData(progress)
	return resp, nil
}
