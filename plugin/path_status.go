package apikeys

import (
	"context"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"strongroom.example/plugin/condition"
)

func (b *backend) pathStatus() []*framework.Path {
	return []*framework.Path{{
		Pattern: "status",
		Fields: map[string]*framework.FieldSchema{
			"all":   {Type: framework.TypeBool, Query: true, Description: "Show the healthy keys too."},
			"after": {Type: framework.TypeString, Query: true, Description: "Begin after the key of this name."},
			"limit": {Type: framework.TypeInt, Query: true, Default: 1000, Description: "Look at no more than so many keys."},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: b.reads(b.handleStatus, "Read what is due, overdue, failing or in recovery."),
		},
		HelpSynopsis: "What is due, overdue, failing or in recovery.",
		HelpDescription: `
fence says whether the engine may act, clock whether it believes the machine's
clock. keys holds those whose condition is not ok, page by page: next is what to
give as after for the following page.`,
	}}
}

const maxStatusPage = 5000

func (b *backend) handleStatus(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	limit := d.Get("limit").(int)
	if limit < 1 || limit > maxStatusPage {
		return nil, refuse("", "limit %d: must be from 1 to %d", limit, maxStatusPage)
	}
	names := b.index.page(d.Get("after").(string), limit)
	keys := map[string]any{}
	for _, name := range names {
		snap, err := b.snapshot(ctx, req.Storage, name)
		if err != nil {
			return nil, err
		}
		if snap == nil {
			continue
		}
		if state := b.stateOf(snap); d.Get("all").(bool) || state["condition"] != string(condition.OK) {
			keys[name] = state
		}
	}
	data := b.mountState()
	data["keys"] = keys
	if len(names) == limit {
		data["next"] = names[limit-1]
	}
	return &logical.Response{Data: data}, nil
}

func (b *backend) mountState() map[string]any {
	now := b.clock.now()
	clock, skew := b.clock.state()
	entries, bytes := b.cache.stats()
	rotate, review := b.index.dueCount(now.Unix())
	fence := map[string]any{"closed": false}
	if reason := b.fence.closed(); reason != "" {
		fence = map[string]any{"closed": true, "reason": reason}
	}
	hooks := map[string]any{}
	for _, name := range b.hooks.names() {
		_, hooks[name] = b.hooks.get(name)
	}
	return map[string]any{
		"webhooks":        hooks,
		"active":          b.writable(),
		"fence":           fence,
		"clock":           map[string]any{"state": string(clock), "engine_time": stamp(now), "skew": seconds(skew)},
		"key_count":       b.index.size(),
		"providers":       b.providers.names(),
		"due_rotations":   rotate,
		"due_reviews":     review,
		"open_intents":    b.intents.size(),
		"waiting_reads":   b.waiters.size(),
		"cached_keys":     entries,
		"cached_bytes":    bytes,
		"rotations":       b.stats.rotations.Load(),
		"revocations":     b.stats.revocations.Load(),
		"failures":        b.stats.failures.Load(),
		"reaped":          b.stats.reaped.Load(),
		"reads":           b.stats.reads.Load(),
		"reads_unchanged": b.stats.notModified.Load(),
		"version":         b.opts.Version,
		"storage_format":  storageFormat,
	}
}

// page gives up to limit names after the one given.
func (x *keyIndex) page(after string, limit int) []string {
	x.mu.RLock()
	defer x.mu.RUnlock()
	i := 0
	if after != "" {
		i = x.searchAfter(after)
	}
	end := min(i+limit, len(x.names))
	return append([]string(nil), x.names[i:end]...)
}

// dueCount counts what is due at now.
func (x *keyIndex) dueCount(now int64) (rotate, review int) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, q := range x.queues {
		rotate += q.rotate.dueCount(now)
		review += q.review.dueCount(now)
	}
	return rotate, review
}
