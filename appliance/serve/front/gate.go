package front

import (
	"context"
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
	logins   *logins
	log      *zap.Logger
	journal  journal
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
	malformed                atomic.Uint64
	errors                   atomic.Uint64 // 5xx to who has presented a token
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
	g.journal.now = time.Now
	g.took = newDurations()
	if g.limits, err = newLimiter(g.RequestsPerSecond, g.Burst, g.Concurrent, time.Now); err != nil {
		return err
	}
	if g.logins, err = newLogins(time.Now); err != nil {
		return err
	}
	if srv, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok {
		srv.RegisterConnState(g.connState())
		srv.RegisterConnContext(pingIdle())
	}
	return nil
}

// connState counts connections, and those that are busy, so that a stop can
// wait until the last byte of the last answer is out, not only until a handler
// returns.
func (g *gate) connState() func(net.Conn, http.ConnState) {
	var busy syncSet[net.Conn]
	idle := newIdlers(maxIdle)
	return func(c net.Conn, s http.ConnState) {
		if s == http.StateIdle {
			if gone := idle.idle(c); gone != nil {
				go gone.Close() // says goodbye first, which its other end may not take
			}
		} else {
			idle.busy(c)
		}
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
	start := time.Now()
	rec := &recorder{ResponseWriterWrapper: &caddyhttp.ResponseWriterWrapper{ResponseWriter: w}}
	ended := brokenOff // by a panic of the proxy's
	// One record for every request, however it ends.
	defer func() {
		g.inFlight.Add(-1)
		took := time.Since(start)
		g.took.Observe(took.Seconds())
		g.counts.byClass[min(max(rec.status/100, 0), 5)].Add(1)
		if rec.known && rec.status >= 500 {
			g.counts.errors.Add(1)
		}
		switch {
		case rec.broken, ended == brokenOff && r.Context().Err() != nil:
			ended = "client went away"
		case ended == brokenOff:
			g.counts.failed.Add(1)
		}
		g.record(r, rec, took, ended)
	}()
	ended = g.serve(rec, r, next)
	return nil
}

const brokenOff = "Vault's answer broke off"

// serve returns what is to be logged about a request that did not get through.
func (g *gate) serve(w *recorder, r *http.Request, next caddyhttp.Handler) (fault string) {
	addr := remoteAddr(r.RemoteAddr)
	leave, wait := g.limits.enter(addr)
	if leave == nil {
		g.counts.limited.Add(1)
		refuse(w, verdict{status: http.StatusTooManyRequests, text: "too many requests from this address", wait: wait})
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
	name, isLogin := to.login()
	if writes := r.Method == http.MethodPost || r.Method == http.MethodPut; v == passed && !writes {
		isLogin = false
		if name != "" && r.Method != http.MethodOptions { // Vault's answer would tell whether the name is locked
			v = refusedMethod
		}
	}
	if v != passed {
		return g.refuse(w, r, v)
	}
	if isLogin {
		end, v := g.logins.begin(r.Context(), addr, name)
		if end != nil {
			defer func() { end(w.status) }()
		}
		if v != passed {
			return g.refuse(w, r, v)
		}
	}
	known := presented(r.Header)
	w.known = known && to.class == token
	load := &load{limits: g.limits, addr: addr}
	defer func() { load.settle(w.status) }()
	if r.Method == http.MethodPost || r.Method == http.MethodPut {
		v = load.add(to.class.weight)
	}
	var body *body
	if v == passed {
		body, v = readBody(r, to.class.bounds(known, g.BodyBytes), load)
	}
	if v != passed {
		return g.refuse(w, r, v)
	}
	for _, h := range clientHeaders {
		r.Header.Del(h)
	}
	var err error
	if fields := hidden[lastOfSys(r.URL.Path)]; fields != nil {
		err = serveHiding(w, r, next, fields)
	} else if isLogin {
		fault, err = g.serveLogin(w, r, next, name != "")
	} else {
		err = next.ServeHTTP(w, r)
	}
	if err == nil && !w.gone {
		return fault
	}
	if body != nil && body.fault.Load() != nil {
		v = *body.fault.Load()
	} else if w.gone || r.Context().Err() != nil || errors.Is(err, context.Canceled) {
		v = refusedGone
	}
	if v != passed {
		return g.refuse(w, r, v)
	}
	g.counts.failed.Add(1)
	status := http.StatusBadGateway
	if he := (caddyhttp.HandlerError{}); errors.As(err, &he) && he.StatusCode >= 400 {
		status = he.StatusCode
	}
	refuse(w, verdict{status: status, text: vaultSilent})
	return err.Error()
}

// refuse counts and answers a refusal, and gives what is to be logged about it. What
// is left of a body is not read: it could be taken for the next request.
func (g *gate) refuse(w *recorder, r *http.Request, v verdict) string {
	switch {
	case v.status == http.StatusTooManyRequests:
		g.counts.limited.Add(1)
	case v == refusedSlow, v == refusedMalformed, v == refusedGone:
		g.counts.malformed.Add(1)
	default:
		g.counts.refused.Add(1)
	}
	if r.ProtoMajor == 1 && r.Body != nil && r.Body != http.NoBody {
		w.Header().Set("Connection", "close")
	}
	refuse(w, v)
	return v.text
}

// clientHeaders are what a client must not say for itself. The proxy sets
// X-Forwarded-* anew from the connection.
var clientHeaders = []string{
	"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Port", "X-Forwarded-Proto",
	"X-Real-Ip", "X-Client-Ip", "True-Client-Ip", "Upgrade", "Via",
}

const vaultSilent = "Vault does not answer: it may be restarting, try again"

func tooLarge(limit int64) verdict {
	return verdict{status: http.StatusRequestEntityTooLarge, text: "request body is above " + strconv.FormatInt(limit, 10) + " bytes"}
}

// refuse answers in the shape of Vault's own errors, unless it is too late for that.
func refuse(w *recorder, v verdict) {
	if w.status != 0 {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if v.wait > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(v.wait.Seconds()))))
	}
	w.WriteHeader(v.status)
	// An error here means that the client has gone.
	_ = json.NewEncoder(w).Encode(map[string][]string{"errors": {v.text}})
}

// recorder notes status and size, and dresses each answer.
type recorder struct {
	*caddyhttp.ResponseWriterWrapper
	status int
	bytes  int64
	broken bool // a write has failed: nobody reads
	gone   bool // Caddy took the client for gone, and has no answer
	known  bool // a token is asked for, and presented
}

// hsts is two years, in seconds. It is for this name alone: where it is an apex, what
// is below it is somebody else's to decide.
const hsts = "max-age=63072000"

// statusGone is Caddy's for a request that was cancelled, which has no body: but a
// client whose own body was at fault may well be there.
const statusGone = 499

func (r *recorder) WriteHeader(status int) {
	if status == statusGone && r.status == 0 {
		r.gone = true
		return
	}
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
	r.broken = r.broken || err != nil
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
