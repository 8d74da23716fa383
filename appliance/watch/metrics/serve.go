package metrics

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// passed on are only families of these prefixes, so that nobody can tell ours in
// our place.
const (
	frontPrefix  = "strongroom_front_"
	enginePrefix = "vault_apikeys_"
)

// Handler answers GET /metrics (ours, the front's and the engine's), GET /vault
// (Vault's own telemetry) and GET /healthz.
func Handler(c *Collector) (http.Handler, error) {
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(c); err != nil {
		return nil, err
	}
	all := prometheus.Gatherers{registry}
	if c.o.FrontSocket != "" {
		all = append(all, c.text("front", frontPrefix, frontReader(c.o.FrontSocket)))
	}
	if c.o.Vault != nil {
		all = append(all, c.text("engine", enginePrefix, c.o.Vault.engine))
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(all, promhttp.HandlerOpts{
		ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: 4, ErrorLog: errorLog{c},
	}))
	mux.HandleFunc("GET /vault", c.serveTelemetry)
	mux.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	return mux, nil
}

// ErrNotLoopback says that others than this machine could reach an address.
var ErrNotLoopback = errors.New("is not an address on loopback such as 127.0.0.1:9468")

// Listen listens on an address of loopback, host:port; ErrNotLoopback else.
func Listen(address string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(address)
	if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
		return nil, fmt.Errorf("%q %w", address, ErrNotLoopback)
	}
	return net.Listen("tcp", address)
}

// Answers asks the daemon at address whether it serves, for its watchdog: past
// every proxy, on a connection of its own.
func Answers(ctx context.Context, address string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/healthz", nil)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}

// Serve answers on ln until ctx ends, and then for a moment longer, for scrapes
// under way.
func Serve(ctx context.Context, ln net.Listener, h http.Handler) error {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout: 20 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(ln) }()
	select {
	case err := <-ended:
		return fmt.Errorf("metrics: %w", err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := srv.Shutdown(stop); err != nil {
		return errors.Join(fmt.Errorf("metrics: %w", err), srv.Close())
	}
	return nil
}

func (c *Collector) serveTelemetry(w http.ResponseWriter, r *http.Request) {
	if c.o.Vault == nil {
		http.NotFound(w, r)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), partTimeout)
	defer cancel()
	text, err := c.o.Vault.Telemetry(ctx)
	if err != nil {
		c.o.Log.Warn("Vault's telemetry is missing", "error", err)
		http.Error(w, "Vault's telemetry could not be read: see the journal", http.StatusBadGateway)
		return
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	if _, err := w.Write(text); err != nil {
		c.o.Log.Debug("the scraper went away", "error", err)
	}
}

// text gathers what another program tells in Prometheus' text format. A fault
// leaves it out, and is told by strongroom_collector_success.
func (c *Collector) text(name, only string, read func(context.Context) ([]byte, error)) prometheus.Gatherer {
	return prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		ctx, cancel := context.WithTimeout(context.Background(), partTimeout)
		defer cancel()
		start := time.Now()
		families, err := parse(ctx, only, read)
		if err != nil {
			c.o.Log.Warn("part of the metrics is missing", "part", name, "error", err)
		}
		took := time.Since(start)
		reg := prometheus.NewRegistry()
		if rerr := reg.Register(collected(func(e *emitter) {
			e.bool("collector_success", err == nil, name)
			e.set("collector_duration_seconds", took.Seconds(), name)
		}, c)); rerr != nil {
			return families, rerr
		}
		own, gerr := reg.Gather()
		return append(families, own...), gerr
	})
}

func parse(ctx context.Context, only string, read func(context.Context) ([]byte, error)) ([]*dto.MetricFamily, error) {
	text, err := read(ctx)
	if err != nil {
		return nil, err
	}
	p := expfmt.NewTextParser(model.LegacyValidation)
	found, err := p.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	var out []*dto.MetricFamily
	for name, f := range found {
		if strings.HasPrefix(name, only) {
			out = append(out, f)
		}
	}
	return out, nil
}

// maxText bounds the front's answer, in bytes.
const maxText = 16 << 20

// frontReader reads the front's metrics at its unix socket.
func frontReader(socket string) func(context.Context) ([]byte, error) {
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
		MaxIdleConns: 1, IdleConnTimeout: time.Minute,
	}}
	return func(ctx context.Context) ([]byte, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://front/metrics", nil)
		if err != nil {
			return nil, err
		}
		resp, err := client.Do(req)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("the front answers %s", resp.Status)
		}
		return io.ReadAll(io.LimitReader(resp.Body, maxText))
	}
}

// collected is a collector of a few samples.
func collected(f func(*emitter), c *Collector) prometheus.Collector { return &few{f, c} }

type few struct {
	f func(*emitter)
	c *Collector
}

// Describe implements prometheus.Collector: it says nothing, which leaves it
// unchecked.
func (*few) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (f *few) Collect(ch chan<- prometheus.Metric) { f.f(&emitter{c: f.c, ch: ch}) }

// errorLog is promhttp's.
type errorLog struct{ c *Collector }

func (l errorLog) Println(v ...any) {
	l.c.o.Log.Error("metrics could not be told", "error", strings.TrimSpace(fmt.Sprintln(v...)))
}
