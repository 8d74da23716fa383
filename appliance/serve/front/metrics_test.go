package front

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// scrape reads the metrics at a unix socket: values by name and labels.
func scrape(t testing.TB, socket string) map[string]float64 {
	t.Helper()
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	defer tr.CloseIdleConnections()
	res, err := (&http.Client{Transport: tr, Timeout: patience}).Get("http://front" + metricsPath)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != 200 {
		t.Fatalf("scrape: %s, %v\n%s", res.Status, err, b)
	}
	out := map[string]float64{}
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		i := strings.LastIndexByte(line, ' ')
		v, err := strconv.ParseFloat(strings.TrimSpace(line[i+1:]), 64)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		out[line[:i]] = v
	}
	return out
}

// socketIn gives a short path: t.TempDir() may be too long for a socket.
func socketIn(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "front")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "m.sock")
}

func TestMetrics(t *testing.T) {
	hold, held := make(chan struct{}), make(chan struct{})
	v := newBackend(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/secret/slow" {
			close(held)
			<-hold
		}
		if r.URL.Path == "/v1/secret/gone" {
			panic(http.ErrAbortHandler)
		}
		echo(w, r)
	}))
	c := baseConfig(t, v)
	c.Metrics = socketIn(t)
	c.Limits.RequestsPerSecond, c.Limits.Burst = 0.001, 6
	// What a front that was killed has left.
	old, err := net.Listen("unix", c.Metrics)
	if err != nil {
		t.Fatal(err)
	}
	old.(*net.UnixListener).SetUnlinkOnClose(false)
	old.Close()
	f := startFront(t, c)
	if fi, err := os.Stat(c.Metrics); err != nil || fi.Mode().Perm() != 0o660 {
		t.Errorf("socket: %v, %v; want mode 0660", fi.Mode(), err)
	}
	before := scrape(t, c.Metrics)
	if end := before[`strongroom_front_certificate_not_after_seconds{name="localhost"}`]; end < float64(time.Now().Unix()) {
		t.Errorf("the certificate's end is %v", end)
	}
	if n := before[`strongroom_front_certificates_obtained_total{renewal="false"}`]; n != 2 {
		t.Errorf("%v certificates were obtained, want one for each name", n)
	}
	f.get("/v1/secret/data/app")
	f.get("/v1/secret/data/app")
	f.get("/v1/secret/gone")
	f.get("/v1/sys/raw/core")
	f.get("/elsewhere")
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.get("/v1/secret/slow")
	}()
	<-held
	during := scrape(t, c.Metrics)
	close(hold)
	<-done
	f.get("/v1/secret/data/app") // above the limit
	// A client has its answer a moment before the connection counts as idle.
	after := scrape(t, c.Metrics)
	for end := time.After(patience); after[`strongroom_front_connections{state="busy"}`] != 0; after = scrape(t, c.Metrics) {
		select {
		case <-end:
			t.Fatal("a connection stays busy")
		default:
		}
	}
	for name, want := range map[string]float64{
		`strongroom_front_requests_total{code="2xx"}`:                  3,
		`strongroom_front_requests_total{code="4xx"}`:                  3,
		`strongroom_front_requests_total{code="5xx"}`:                  1,
		`strongroom_front_requests_total{code="none"}`:                 0,
		`strongroom_front_refused_total`:                               2,
		`strongroom_front_limited_total`:                               1,
		`strongroom_front_upstream_failures_total`:                     1,
		`strongroom_front_requests_in_flight`:                          0,
		`strongroom_front_request_duration_seconds_count`:              7,
		`strongroom_front_certificate_failures_total`:                  0,
		`strongroom_front_connections{state="busy"}`:                   0,
		`strongroom_front_certificates_obtained_total{renewal="true"}`: 0,
	} {
		if got, ok := after[name]; !ok || got != want {
			t.Errorf("%s is %v (there: %v), want %v", name, got, ok, want)
		}
	}
	if n := during["strongroom_front_requests_in_flight"]; n != 1 {
		t.Errorf("%v requests in flight while one waits", n)
	}
	if n := during[`strongroom_front_connections{state="busy"}`]; n < 1 {
		t.Errorf("%v busy connections while a request waits", n)
	}
}

// A front whose metrics cannot be served still serves Vault.
func TestMetricsSocketIsTaken(t *testing.T) {
	v := newBackend(t, http.HandlerFunc(echo))
	c := baseConfig(t, v)
	c.Metrics = socketIn(t)
	if err := os.WriteFile(c.Metrics, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := startFront(t, c)
	f.waitOutput("metrics are off")
	if res, _ := f.get("/v1/secret/data/app"); res.StatusCode != 200 {
		t.Error(res.Status)
	}
	if b, err := os.ReadFile(c.Metrics); err != nil || string(b) != "mine" {
		t.Errorf("the file at the socket's place is %q, %v", b, err)
	}
}

// What Vault answers with 5xx counts as its fault where a token was sent to a path that asks
// for one; a stranger's requests raise no alert.
func TestErrorsOfStrangers(t *testing.T) {
	for _, tt := range []struct {
		path, token string
		counted     uint64
	}{
		{"/v1/secret/data/x", "t", 1}, {"/v1/secret/data/x", "", 0},
		{"/v1/auth/userpass/login/x", "t", 0}, {"/v1/sys/health", "t", 0}, {"/v1/identity/oidc/.well-known/keys", "", 0},
	} {
		g, _, next := newGate(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
		r := httptest.NewRequest(http.MethodPost, tt.path, strings.NewReader("{}"))
		if strings.Contains(tt.path, "health") {
			r.Method = http.MethodGet
		}
		r.Header.Set(headerToken, tt.token)
		w := httptest.NewRecorder()
		if err := g.ServeHTTP(w, r, next); err != nil {
			t.Fatal(err)
		}
		if got := g.counts.errors.Load(); w.Code != 500 || got != tt.counted {
			t.Errorf("%s with token %q: %d, counted %d, want %d", tt.path, tt.token, w.Code, got, tt.counted)
		}
	}
}
