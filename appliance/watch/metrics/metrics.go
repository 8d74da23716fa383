// Package metrics tells Prometheus what the appliance's parts have left to be
// seen: the certificate, the jobs' states, Vault's health, the state of keys, the
// audit logs, and the front's own counts. See docs/monitoring.md.
//
// It judges nothing: that is for the rules in config/alerts. It names no key and
// holds no secret, so whoever can reach the port on loopback may read it.
package metrics

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"strongroom.example/appliance/watch/evidence"
)

// Options say where to look. What is nil or empty is left out.
type Options struct {
	Version string // the program's own
	Places  evidence.Places
	// AuditState is the folder of the audit job's state, AuditLogs that of the
	// logs.
	AuditState, AuditLogs string
	// Certificate says hello to the front.
	Certificate func(context.Context) (evidence.Certificate, error)
	// FrontSocket is the unix socket of the front's metrics.
	FrontSocket string
	// Vault, where Vault is to be asked.
	Vault *Vault

	Log *slog.Logger     // none when nil
	Now func() time.Time // time.Now when nil
}

// How long an answer of a part that costs something is kept.
const (
	certificateFor = time.Minute
	keysFor        = 30 * time.Second
	// partTimeout is below the ten seconds that Prometheus waits by default.
	partTimeout = 5 * time.Second
)

// Collector collects at each scrape; it is a prometheus.Collector.
type Collector struct {
	o     Options
	descs map[string]*prometheus.Desc
	parts []part
}

var _ prometheus.Collector = (*Collector)(nil)

// part is one source. What it emits before an error counts.
type part struct {
	name    string
	collect func(ctx context.Context, e *emitter) error
}

// New makes a collector.
func New(o Options) *Collector {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	c := &Collector{o: o, descs: map[string]*prometheus.Desc{}}
	for _, m := range table {
		c.descs[m.name] = prometheus.NewDesc(prefix+m.name, m.help, m.labels, nil)
	}
	add := func(on bool, name string, f func(context.Context, *emitter) error) {
		if on {
			c.parts = append(c.parts, part{name, f})
		}
	}
	add(true, "snapshot", c.snapshot)
	add(true, "drill", c.drill)
	add(true, "doctor", c.doctor)
	add(o.AuditState != "", "audit", c.audit)
	add(true, "watched", c.watched)
	if o.Certificate != nil {
		add(true, "certificate", c.certificate(kept(certificateFor, o.Now, o.Certificate)))
	}
	if o.Vault != nil {
		add(true, "vault", c.vault)
		add(true, "keys", c.keys(kept(keysFor, o.Now, o.Vault.keys)))
		add(true, "locked", c.locked(kept(keysFor, o.Now, o.Vault.lockedOut)))
	}
	return c
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		ch <- d
	}
}

// Collect implements prometheus.Collector: all parts at once. One that fails is
// told by strongroom_collector_success and takes nothing else along.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	var wg sync.WaitGroup
	for _, p := range c.parts {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), partTimeout)
			defer cancel()
			e := &emitter{c: c, ch: ch}
			start := time.Now()
			err := p.collect(ctx, e)
			ok := err == nil || errors.Is(err, evidence.ErrNone)
			if !ok {
				c.o.Log.Warn("part of the metrics is missing", "part", p.name, "error", err)
			}
			e.bool("collector_success", ok, p.name)
			e.set("collector_duration_seconds", time.Since(start).Seconds(), p.name)
		})
	}
	wg.Wait()
	e := &emitter{c: c, ch: ch}
	e.set("build_info", 1, c.o.Version)
}

// emitter writes metrics of the table.
type emitter struct {
	c  *Collector
	ch chan<- prometheus.Metric
}

// set emits one sample; name is without the prefix.
func (e *emitter) set(name string, v float64, labels ...string) {
	d, ok := e.c.descs[name]
	if !ok {
		panic(fmt.Sprintf("metrics: %q is not in the table", name)) // any test that scrapes finds it
	}
	e.ch <- prometheus.MustNewConstMetric(d, kindOf(name), v, labels...)
}

func (e *emitter) bool(name string, v bool, labels ...string) {
	n := 0.0
	if v {
		n = 1
	}
	e.set(name, n, labels...)
}

// time emits a Unix time in seconds; 0 for never, so that its age is beyond any
// limit.
func (e *emitter) time(name string, t time.Time, labels ...string) {
	v := 0.0
	if !t.IsZero() {
		v = float64(t.UnixMilli()) / 1000
	}
	e.set(name, v, labels...)
}

// kept asks at most once in a while; an answer is kept that long, a fault too.
func kept[T any](d time.Duration, now func() time.Time, ask func(context.Context) (T, error)) func(context.Context) (T, error) {
	var (
		mu   sync.Mutex
		at   time.Time
		last T
		err  error
	)
	return func(ctx context.Context) (T, error) {
		mu.Lock()
		defer mu.Unlock()
		if t := now(); at.IsZero() || t.Sub(at) >= d || t.Before(at) {
			last, err = ask(ctx)
			at = t
		}
		return last, err
	}
}
