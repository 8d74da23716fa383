package apikeys

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"strongroom.example/plugin/lifecycle"
)

func (b *backend) pathMetrics() []*framework.Path {
	return []*framework.Path{{
		Pattern: "metrics",
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: b.reads(b.handleMetrics, "Read the mount's metrics in the Prometheus text format."),
		},
		HelpSynopsis: "The mount's metrics in the Prometheus text format.",
		HelpDescription: `
A plugin cannot add to sys/metrics, so these are scraped beside it, in the same
way: with a token whose policy allows to read this path. They name no key.`,
	}}
}

// metric is one line of the Prometheus text format (exposition format 0.0.4).
type metric struct {
	name, kind, help string
	value            int64
}

func (b *backend) metrics() []metric {
	now := b.clock.now()
	rotate, review, check := b.index.dueCount(now.Unix())
	entries, bytes := b.cache.stats()
	clock, skew := b.clock.state()
	var delivered, failed, dropped int64
	for _, name := range b.hooks.names() {
		d, f, x := b.hooks.counts(name)
		delivered, failed, dropped = delivered+d, failed+f, dropped+x
	}
	s := &b.stats
	return []metric{
		{"keys", "gauge", "Keys in the mount.", int64(b.index.size())},
		{"due_rotations", "gauge", "Rotations that are due and have not begun.", int64(rotate)},
		{"due_reviews", "gauge", "Revocations, retries and recoveries that are due.", int64(review)},
		{"due_checks", "gauge", "Looks at current keys that are due.", int64(check)},
		{"open_intents", "gauge", "Mints whose end is not known.", int64(b.intents.size())},
		{"fenced", "gauge", "1 while the engine waits for reconcile.", int64(boolInt(b.fence.closed() != ""))},
		{"clock_believed", "gauge", "0 while the machine's clock is not believed.", int64(boolInt(clock == lifecycle.ClockOK))},
		{"clock_skew_seconds", "gauge", "The machine's clock minus the engine's time.", seconds(skew)},
		{"waiting_reads", "gauge", "Reads that wait for a new version.", int64(b.waiters.size())},
		{"cached_keys", "gauge", "Keys in memory.", int64(entries)},
		{"cached_bytes", "gauge", "About how much memory they take.", int64(bytes)},
		{"rotations_total", "counter", "Versions that became current.", s.rotations.Load()},
		{"revocations_total", "counter", "Versions that were ended.", s.revocations.Load()},
		{"failures_total", "counter", "Calls to providers that failed.", s.failures.Load()},
		{"reaped_total", "counter", "Keys found after an interruption and ended.", s.reaped.Load()},
		{"checks_total", "counter", "Looks at current keys at their services.", s.checks.Load()},
		{"reads_total", "counter", "Reads of creds.", s.reads.Load()},
		{"reads_unchanged_total", "counter", "Reads of creds that were answered with 304.", s.notModified.Load()},
		{"waits_total", "counter", "Reads that had to wait.", s.waits.Load()},
		{"webhooks_delivered_total", "counter", "Events that webhooks took.", delivered},
		{"webhooks_failed_total", "counter", "Events that webhooks refused for good.", failed},
		{"webhooks_dropped_total", "counter", "Events for which there was no room.", dropped},
	}
}

func (b *backend) handleMetrics(context.Context, *logical.Request, *framework.FieldData) (*logical.Response, error) {
	mount := b.fence.mount()
	var text strings.Builder
	for _, m := range b.metrics() {
		fmt.Fprintf(&text, "# HELP vault_apikeys_%s %s\n# TYPE vault_apikeys_%s %s\nvault_apikeys_%s{mount=%q} %d\n",
			m.name, m.help, m.name, m.kind, m.name, mount, m.value)
	}
	return &logical.Response{Data: map[string]any{
		logical.HTTPStatusCode:  http.StatusOK,
		logical.HTTPContentType: "text/plain; version=0.0.4",
		logical.HTTPRawBody:     []byte(text.String()),
	}}, nil
}
