package front

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"strongroom.example/config"
)

const (
	metricsPath = "/metrics"
	// metricsMode lets the monitor in, which is in the front's group.
	metricsMode    = 0o660
	metricsTimeout = 10 * time.Second
)

// serveMetrics answers a scrape at the unix socket, in Prometheus' text format,
// until stop is called. A socket that a killed front has left is replaced.
// Nothing of it reaches the outside.
func serveMetrics(socket string, g *gate, s *state, c Config) (stop func(), err error) {
	fault := func(err error) (func(), error) { return nil, fmt.Errorf("metrics socket %q: %w", socket, err) }
	if fi, err := os.Lstat(socket); err == nil && fi.Mode().Type() != fs.ModeSocket {
		return fault(errors.New("something that isn't a socket is there"))
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault(err)
	}
	ln, err := net.Listen("unix", socket)
	if err != nil {
		return fault(err)
	}
	if err := os.Chmod(socket, metricsMode); err != nil {
		return fault(errors.Join(err, ln.Close()))
	}
	registry := prometheus.NewPedanticRegistry()
	for _, m := range []prometheus.Collector{g.took, &frontCollector{gate: g, state: s, config: c}} {
		if err := registry.Register(m); err != nil {
			return fault(errors.Join(err, ln.Close()))
		}
	}
	mux := http.NewServeMux()
	mux.Handle("GET "+metricsPath, promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: metricsTimeout, ReadTimeout: metricsTimeout,
		WriteTimeout: metricsTimeout, IdleTimeout: time.Minute, MaxHeaderBytes: 8 << 10}
	go func() {
		if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			caddy.Log().Named("metrics").Error("metrics are off: " + err.Error())
		}
	}()
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if srv.Shutdown(ctx) != nil {
			srv.Close()
		}
	}, nil
}

// durationBuckets, in seconds: a read of a key takes a millisecond, a long poll
// a minute.
var durationBuckets = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, 1, 5, 30, 90}

func newDurations() prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "strongroom_front_request_duration_seconds", Help: "Time from a request's header to the end of its answer.",
		Buckets: durationBuckets,
	})
}

// frontCollector reads the counts where they are kept, at each scrape.
type frontCollector struct {
	gate   *gate
	state  *state
	config Config
}

var _ prometheus.Collector = (*frontCollector)(nil)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("strongroom_front_"+name, help, labels, nil)
}

var (
	descRequests     = desc("requests_total", "Requests by the class of their status code; none: the client went away before one.", "code")
	descConnsRefused = desc("connections_refused_total", "Connections that were closed at once, as there were enough from that network, or in all.")
	descMalformed    = desc("malformed_total", "Requests whose body the client did not send rightly, or in time, or whose answer it did not wait for.")
	descErrors       = desc("server_errors_total", "Answers of 5xx to requests with a token, where one is asked for.")
	descRefused      = desc("refused_total", "Requests that do not pass from outside: by path, method, header or body.")
	descLimited      = desc("limited_total", "Requests answered 429, because of the limits per client address.")
	descFailed       = desc("upstream_failures_total", "Requests that Vault did not answer.")
	descInFlight     = desc("requests_in_flight", "Requests under way.")
	descConnections  = desc("connections", "Open connections over TCP; busy: with a request under way, or new.", "state")
	descNotAfter     = desc("certificate_not_after_seconds", "End of the certificate that is served for the name, as a Unix time; 0: there is none.", "name")
	descObtained     = desc("certificates_obtained_total", "Certificates that were issued to the front, new ones and renewals.", "renewal")
	descCertFailed   = desc("certificate_failures_total", "Attempts to get a certificate that failed, those included that the preflight or the budget stopped.")
	descReload       = desc("certificate_reloads_total", "Changes of the files of issuer \"files\" that were taken over (ok) or could not be (failed).", "result")
	descOrders       = desc("acme_failed_orders", "Orders that failed at the CA within the last hour.", "ca")
	descIssued       = desc("acme_issued", "Certificates that the CA has issued within the last seven days.", "ca")
	descBudget       = desc("acme_orders_left", "Orders that may be placed now before the budget is used up.", "ca")
	descStart        = desc("start_time_seconds", "Start of the front, as a Unix time.")
)

// Describe implements prometheus.Collector.
func (*frontCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descRequests, descErrors, descRefused, descMalformed, descConnsRefused, descLimited, descFailed, descInFlight, descConnections,
		descNotAfter, descObtained, descCertFailed, descReload, descOrders, descIssued, descBudget, descStart} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (f *frontCollector) Collect(ch chan<- prometheus.Metric) {
	count := func(d *prometheus.Desc, n uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	g := f.gate
	for class := range g.counts.byClass {
		count(descRequests, g.counts.byClass[class].Load(), className(class))
	}
	count(descErrors, g.counts.errors.Load())
	count(descRefused, g.counts.refused.Load())
	count(descConnsRefused, f.state.admission.refused.Load())
	count(descMalformed, g.counts.malformed.Load())
	count(descLimited, g.counts.limited.Load())
	count(descFailed, g.counts.failed.Load())
	gauge(descInFlight, float64(g.inFlight.Load()))
	busy := g.active.Load()
	gauge(descConnections, float64(busy), "busy")
	gauge(descConnections, float64(max(g.open.Load()-busy, 0)), "idle")
	for _, name := range f.config.Names {
		end := 0.0
		if f.state.files != nil {
			gauge(descNotAfter, float64(f.state.files.current.Load().NotAfter.Unix()), name)
			continue
		}
		// The one that lasts longest is the one that is served.
		for _, cert := range caddytls.AllMatchingCertificates(name) {
			end = max(end, float64(cert.Leaf.NotAfter.Unix()))
		}
		gauge(descNotAfter, end, name)
	}
	count(descObtained, f.state.obtained.Load(), "false")
	count(descObtained, f.state.renewed.Load(), "true")
	count(descCertFailed, f.state.certFailed.Load())
	if f.config.Issuer == config.TLSFiles {
		count(descReload, f.state.reloaded.Load(), "ok")
		count(descReload, f.state.reloadFailed.Load(), "failed")
	}
	if f.config.Issuer == config.TLSACME {
		f.collectBudget(gauge)
	}
	gauge(descStart, float64(f.state.started.Unix()))
}

// collectBudget shows the ledger for the CAs that are configured. A ledger that
// cannot be read leaves no orders.
func (f *frontCollector) collectBudget(gauge func(*prometheus.Desc, float64, ...string)) {
	for _, directory := range []string{f.config.ACME.CA, f.config.ACME.Staging, f.config.ACME.Fallback} {
		if directory == "" {
			continue
		}
		ca := caName(directory)
		failed, issued, left := f.state.budget.used(ca, f.config.Names)
		gauge(descOrders, float64(failed), ca)
		gauge(descIssued, float64(issued), ca)
		gauge(descBudget, float64(left), ca)
	}
}

// className names the classes of gateCounts.
func className(class int) string {
	if class == 0 {
		return "none"
	}
	return string(rune('0'+class)) + "xx"
}
