package apikeys

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"strongroom.example/plugin/condition"
	"strongroom.example/plugin/lifecycle"
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
clock. by_provider counts the keys by condition, with the earliest next and the
longest-ago last rotation, and the rotations that are due and have not begun, with
what they wait for: cap is max_rotations_per_minute, pause that the service is left
alone; rotations_by_day counts the next rotations by day (UTC),
next_rotations names the first 50; compromised is what is still to be done after a
provider's compromise. keys holds those whose condition is not ok, page by page: next
is what to give as after for the following page.`,
	}}
}

const maxStatusPage = 5000

func (b *backend) handleStatus(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	limit := d.Get("limit").(int)
	if limit < 1 || limit > maxStatusPage {
		return nil, refuse("", "limit %d: must be from 1 to %d", limit, maxStatusPage)
	}
	all := d.Get("all").(bool)
	names := b.index.page(d.Get("after").(string), limit)
	if !all {
		names = b.index.troubled(d.Get("after").(string), limit)
	}
	keys := map[string]any{}
	for _, name := range names {
		snap := b.cache.peek(name)
		if snap == nil {
			var err error
			if snap, err = b.load(ctx, req.Storage, name, false); err != nil {
				keys[name] = map[string]any{"condition": string(condition.Down), "unreadable": publicError(err)}
				continue
			}
		}
		if snap == nil {
			continue
		}
		if state := b.stateOf(snap); all || state["condition"] != string(condition.OK) {
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
	rotate, review, check := b.index.dueCount(now.Unix())
	fence := map[string]any{"closed": false}
	if reason := b.fence.closed(); reason != "" {
		fence = map[string]any{"closed": true, "reason": reason}
	}
	hooks := map[string]any{}
	for _, name := range b.hooks.names() {
		_, hooks[name] = b.hooks.get(name)
	}
	campaigns := map[string]any{}
	for _, c := range b.campaigns.running() {
		campaigns[c.Provider] = map[string]any{"started_time": stamp(c.Started), "keys_left": b.index.looks(c.Provider)}
	}
	report := b.index.report()
	providers := map[string]any{}
	for name, p := range report.providers {
		words := map[string]any{}
		for word, n := range p.conditions {
			words[string(word)] = n
		}
		told := map[string]any{"conditions": words, "next_rotation_time": unixStamp(p.next), "oldest_rotation_time": unixStamp(p.oldest)}
		if due := b.index.dueOf(name, now.Unix()); due > 0 {
			told["due_rotations"] = due
			if why, until := b.heldBack(name, now); why != lifecycle.WhyNever {
				told["rotations_wait_for"], told["rotations_wait_until"] = string(why), stamp(until)
			}
		}
		providers[name] = told
	}
	soon := make([]map[string]any, len(report.soon))
	for i, e := range report.soon {
		soon[i] = map[string]any{"name": e.name, "provider": e.provider, "condition": string(e.condition), "next_rotation_time": unixStamp(e.wanted)}
	}
	return map[string]any{
		"webhooks":         hooks,
		"by_provider":      providers,
		"next_rotations":   soon,
		"rotations_by_day": report.days,
		"compromised":      campaigns,
		"keys_to_look_at":  b.index.looks(""),
		"mount":            b.fence.mount(), // in the names of its keys at the services: sr-MOUNT-…
		"active":           b.writable(),
		"fence":            fence,
		"clock":            map[string]any{"state": string(clock), "engine_time": stamp(now), "skew": seconds(skew)},
		"key_count":        b.index.size(),
		"providers":        b.providers.names(),
		"due_rotations":    rotate,
		"due_reviews":      review,
		"due_checks":       check,
		"open_intents":     b.intents.size(),
		"waiting_reads":    b.waiters.size(),
		"cached_keys":      entries,
		"cached_bytes":     bytes,
		"rotations":        b.stats.rotations.Load(),
		"revocations":      b.stats.revocations.Load(),
		"failures":         b.stats.failures.Load(),
		"reaped":           b.stats.reaped.Load(),
		"checks":           b.stats.checks.Load(),
		"reads":            b.stats.reads.Load(),
		"reads_unchanged":  b.stats.notModified.Load(),
		"version":          b.opts.Version,
		"storage_format":   storageFormat,
	}
}

func unixStamp(at int64) any {
	if at == 0 {
		return nil
	}
	return stamp(time.Unix(at, 0))
}

// maxSoon is how many of the next rotations status names.
const maxSoon = 50

// report is what the index tells of all keys.
type report struct {
	changes   int
	providers map[string]*providerReport
	days      map[string]int // next rotations by day, in UTC
	soon      []indexEntry   // the next ones, the earliest first
}

type providerReport struct {
	conditions   map[condition.Name]int
	next, oldest int64
}

// report counts once after a change, some milliseconds at 100,000 keys, and reads
// no key.
func (x *keyIndex) report() *report {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.told != nil && x.told.changes == x.changes {
		return x.told
	}
	r := &report{changes: x.changes, providers: map[string]*providerReport{}, days: map[string]int{}}
	days := map[int64]int{}
	for _, shard := range x.shards {
		for _, e := range shard {
			p := r.providers[e.provider]
			if p == nil {
				p = &providerReport{conditions: map[condition.Name]int{}}
				r.providers[e.provider] = p
			}
			p.conditions[e.condition]++
			p.next, p.oldest = earlier(p.next, e.wanted), earlier(p.oldest, e.rotated)
			if e.wanted == 0 {
				continue
			}
			days[e.wanted/int64(day/time.Second)]++
			if n := len(r.soon); n < maxSoon || e.wanted < r.soon[n-1].wanted {
				i, _ := slices.BinarySearchFunc(r.soon, e, func(a indexEntry, b *indexEntry) int {
					return cmp.Or(cmp.Compare(a.wanted, b.wanted), cmp.Compare(a.name, b.name))
				})
				r.soon = slices.Insert(r.soon, i, *e)[:min(n+1, maxSoon)]
			}
		}
	}
	for d, n := range days {
		r.days[time.Unix(d*int64(day/time.Second), 0).UTC().Format(time.DateOnly)] = n
	}
	x.told = r
	return r
}

// troubled gives up to limit names, after the one given, of keys whose condition is
// not ok.
func (x *keyIndex) troubled(after string, limit int) []string {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var out []string
	for name := range x.bad {
		if name > after {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out[:min(limit, len(out))]
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

// dueOf counts the rotations of a provider that are due at now.
func (x *keyIndex) dueOf(provider string, now int64) int {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if q := x.queues[provider]; q != nil {
		return q.rotate.dueCount(now)
	}
	return 0
}

// dueCount counts what is due at now.
func (x *keyIndex) dueCount(now int64) (rotate, review, check int) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, q := range x.queues {
		rotate += q.rotate.dueCount(now)
		review += q.review.dueCount(now)
		check += q.check.dueCount(now)
	}
	return rotate, review, check
}
