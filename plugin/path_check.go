package apikeys

import (
	"context"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

func (b *backend) pathCheck() []*framework.Path {
	return []*framework.Path{{
		Pattern: "check/" + namePattern,
		Fields:  map[string]*framework.FieldSchema{"name": nameField()},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation:   b.reads(b.ofKey(b.handleCheckRead), "Read what the last look at the current version has shown."),
			logical.UpdateOperation: b.writes(b.onKey(takeCheck), "Ask the provider now whether the current version works."),
		},
		HelpSynopsis: "Whether the current version of a key works at its service.",
		HelpDescription: `
The engine asks the provider about once a day, by its test or else its list. A
write asks now. result is works, refused, dead, unknown (the service did not
tell; reason says why) or not_looked_at (nobody can ask; reason says why, since
from when on).

dead is a key that was refused twice, an hour or more apart: the key itself, not
its rights, its account or a limit. Nothing follows from it but the condition
dead and an event: readers still get the key, and rotate or import replaces it.
Where the test tells when the key ends, that is kept as its expire_time.`,
	}}
}

func (b *backend) handleCheckRead(_ context.Context, snap *snapshot, _ *framework.FieldData) (*logical.Response, error) {
	data := b.checkData(snap)
	data["version"], data["condition"] = currentNumber(snap.rec), string(b.conditionOf(snap))
	if cur := snap.rec.Life.Current(); cur != nil {
		data["expire_time"] = stamp(cur.Expires)
	}
	return &logical.Response{Data: data}, nil
}

func takeCheck(*framework.FieldData) (verb, error) {
	return func(ctx context.Context, w *work) (*logical.Response, error) {
		if w.snap().unchecked(w.now()) == "" {
			if err := w.check(ctx); err != nil {
				return nil, err
			}
		}
		return w.b.handleCheckRead(ctx, w.snap(), nil)
	}, nil
}
