package front

import (
	"encoding/json"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

const gateID = "http.handlers.strongroom_gate"

// gate is the one handler in front of the proxy: limits, the allow-list, the
// headers and the access log. It is a Caddy module, so its exported fields are
// its JSON configuration.
type gate struct {
	UI                bool    `json:"ui"`
	RequestsPerSecond float64 `json:"requests_per_second"`
	Burst             int     `json:"burst"`
	Concurrent        int     `json:"concurrent"`
	BodyBytes         int64   `json:"body_bytes"`

	limits   *limiter
	log      *zap.Logger
	inFlight atomic.Int64 // requests
	active   atomic.Int64 // connections that are new or have a request under way
	open     atomic.Int64 // connections
	counts   counts
	took     prometheus.Histogram
}

// counts are what metrics show, since the start.
type counts struct {
	byClass                  [6]atomic.Uint64 // requests, by status/100; 0: no status was sent
	refused, limited, failed atomic.Uint64
}

var (
	_ caddy.Provisioner           = (*gate)(nil)
	_ caddyhttp.MiddlewareHandler = (*gate)(nil)
)

// CaddyModule names the module.
func (*gate) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: gateID, New: func() caddy.Module { return new(gate) }}
}

// Provision prepares the handler.
func (g *gate) Provision(ctx caddy.Context) (err error) {
	g.log = caddy.Log().Named("access")
	g.took = newDurations()
	if g.limits, err = newLimiter(g.RequestsPerSecond, g.Burst, g.Concurrent, time.Now); err != nil {
		return err
	}
	if srv, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok {
		srv.RegisterConnState(g.connState())
	}
	return nil
}

// connState counts connections, and those that are busy, so that a stop can
// wait until the last byte of the last answer is out, not only until a handler
// returns.
func (g *gate) connState() func(net.Conn, http.ConnState) {
	var busy syncSet[net.Conn]
	return func(c net.Conn, s http.ConnState) {
		switch s {
		case http.StateNew:
			g.open.Add(1)
		case http.StateClosed, http.StateHijacked:
			g.open.Add(-1)
		}
		switch s {
		case http.StateNew, http.StateActive:
			// A new one may have its request on the way already. One that stays
			// silent is closed after headerTimeout.
			if busy.add(c) {
				g.active.Add(1)
			}
		case http.StateIdle, http.StateClosed, http.StateHijacked:
			if busy.remove(c) {
				g.active.Add(-1)
			}
		}
	}
}

// ServeHTTP answers r itself or hands it to the proxy. It never returns an
// error: Caddy's own error log would show the request's headers.
func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	g.inFlight.Add(1)
	defer g.inFlight.Add(-1)
	start := time.Now()
	rec := &recorder{ResponseWriterWrapper: &caddyhttp.ResponseWriterWrapper{ResponseWriter: w}}
	fault := g.serve(rec, r, next)
	took := time.Since(start)
	g.took.Observe(took.Seconds())
	g.counts.byClass[min(max(rec.status/100, 0), 5)].Add(1)
	logAccess(g.log, r, rec, took, fault)
	return nil
}

// serve returns what is to be logged about a request that did not get through.
func (g *gate) serve(w *recorder, r *http.Request, next caddyhttp.Handler) (fault string) {
	leave, wait := g.limits.enter(remoteAddr(r.RemoteAddr))
	if leave == nil {
		g.counts.limited.Add(1)
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
		refuse(w, http.StatusTooManyRequests, "too many requests from this address")
		return "rate limit"
	}
	defer leave()

	v, to := judge(r.Method, r.URL, r.Header.Get(headerNamespace), g.UI)
	if v == passed {
		v = to.class.check(r.Header)
	}
	if v == passed && wrapped(r.Header) {
		v = g.wrapping(r, to, next)
	}
	if v != passed {
		g.counts.refused.Add(1)
		refuse(w, v.status, v.text)
		return v.text
	}
	if r.ContentLength > g.BodyBytes {
		g.counts.refused.Add(1)
		refuse(w, http.StatusRequestEntityTooLarge, tooLarge(g.BodyBytes))
		return "body too large"
	}
	body := &boundedBody{ReadCloser: r.Body, left: g.BodyBytes}
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = body
	}
	for _, h := range clientHeaders {
		r.Header.Del(h)
	}
	err := next.ServeHTTP(w, r)
	switch {
	case err == nil:
		return ""
	case r.Context().Err() != nil:
		return "client went away"
	}
	g.counts.failed.Add(1)
	if w.status != 0 { // too late to tell the client
		return err.Error()
	}
	status := http.StatusBadGateway
	if he := (caddyhttp.HandlerError{}); errors.As(err, &he) && he.StatusCode >= 400 {
		status = he.StatusCode
	}
	if body.exceeded.Load() {
		refuse(w, http.StatusRequestEntityTooLarge, tooLarge(g.BodyBytes))
		return "body too large"
	}
	refuse(w, status, vaultSilent)
	return err.Error()
}

// clientHeaders are what a client must not say for itself. The proxy sets
// X-Forwarded-* anew from the connection.
var clientHeaders = []string{
	"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Port", "X-Forwarded-Proto",
	"X-Real-Ip", "X-Client-Ip", "True-Client-Ip", "Upgrade", "Via",
}

const vaultSilent = "Vault does not answer: it may be restarting, try again"

func tooLarge(limit int64) string {
	return "request body is above " + strconv.FormatInt(limit, 10) + " bytes"
}

// refuse answers in the shape of Vault's own errors.
func refuse(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	// An error here means that the client has gone.
	_ = json.NewEncoder(w).Encode(map[string][]string{"errors": {text}})
}

// boundedBody ends with an error after left bytes, and remembers it: the proxy
// wraps that error beyond recognition.
type boundedBody struct {
	io.ReadCloser
	left     int64
	exceeded atomic.Bool
}

var errBodyTooLarge = errors.New("request body too large")

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.exceeded.Load() {
		return 0, errBodyTooLarge
	}
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.ReadCloser.Read(p)
	if int64(n) > b.left {
		b.exceeded.Store(true)
		return 0, errBodyTooLarge
	}
	b.left -= int64(n)
	return n, err
}

// recorder notes status and size, and dresses each answer.
type recorder struct {
	*caddyhttp.ResponseWriterWrapper
	status int
	bytes  int64
}

// hsts is two years, in seconds: https://hstspreload.org asks for one at least.
const hsts = "max-age=63072000; includeSubDomains"

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 && status >= 200 {
		r.status = status
		h := r.Header()
		h.Set("Strict-Transport-Security", hsts)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Del("Server")
		h.Del("Via")
	}
	r.ResponseWriterWrapper.WriteHeader(status)
}

func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.WriteHeader(http.StatusOK)
	}
	n, err := r.ResponseWriterWrapper.Write(p)
	r.bytes += int64(n)
	return n, err
}

func (r *recorder) ReadFrom(src io.Reader) (int64, error) {
	if r.status == 0 {
		r.WriteHeader(http.StatusOK)
	}
	n, err := r.ResponseWriterWrapper.ReadFrom(src)
	r.bytes += n
	return n, err
}
