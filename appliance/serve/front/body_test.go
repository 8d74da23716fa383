package front

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

func TestScanner(t *testing.T) {
	for text, want := range map[string]scanner{
		`{}`:                           {values: 1, deepest: 1},
		`{"a":"b"}`:                    {values: 1, deepest: 1},
		`["","",""]`:                   {values: 3, deepest: 1},
		`[[],[[]]]`:                    {values: 5, deepest: 3},
		`{"a":"[,{\"\\","b":["x"]}`:    {values: 3, deepest: 2},
		`"a,b`:                         {},
		strings.Repeat("[", 200):       {values: 200, deepest: 200},
		strings.Repeat(`{"":`, 50):     {values: 50, deepest: 50},
		"a=1&b=2&c":                    {form: true, values: 2},
		` {"dsn":"x?a=1&b=2,&c","":1}`: {values: 2, deepest: 1},
		`"=&&&`:                        {form: true, values: 3},
	} {
		for cut := range 3 {
			s := scanner{form: strings.Contains(text, "&")}
			if cut == 0 {
				s.feed([]byte(text))
			} else {
				for chunk := range slicesChunk([]byte(text), cut) {
					s.feed(chunk)
				}
			}
			if s.values != want.values || s.deepest != want.deepest || s.form != want.form {
				t.Errorf("%.40q in pieces of %d: %+v, want %+v", text, cut, s, want)
			}
		}
	}
}

func slicesChunk(p []byte, n int) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for ; len(p) > 0; p = p[min(n, len(p)):] {
			if !yield(p[:min(n, len(p))]) {
				return
			}
		}
	}
}

// bench is a gate by itself, with what it logs; vault stands behind it.
func newGate(t testing.TB, vault http.HandlerFunc) (*gate, *observer.ObservedLogs, caddyhttp.Handler) {
	t.Helper()
	core, logs := observer.New(zapcore.InfoLevel)
	g := &gate{BodyBytes: 1 << 20, log: zap.New(core), took: newDurations()}
	g.journal.now = time.Now
	var err error
	if g.limits, err = newLimiter(0, 0, 0, func() time.Time { return time.Unix(1_800_000_000, 0) }); err != nil {
		t.Fatal(err)
	}
	if g.logins, err = newLogins(g.limits.now); err != nil {
		t.Fatal(err)
	}
	g.logins.wait = func(context.Context, time.Duration) error { return nil }
	return g, logs, caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		if r.Body != nil {
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				return fmt.Errorf("proxy: %s", err) //nolint:errorlint // as the proxy does
			}
		}
		if err := r.Context().Err(); err != nil {
			return err
		}
		vault(w, r)
		return nil
	})
}

// What a body may be, by class: what is more is refused before Vault is asked.
func TestBodiesByClass(t *testing.T) {
	field := func(n int) string {
		m := map[string]string{}
		for i := range n {
			m[fmt.Sprint("field-", i)] = "value"
		}
		b, err := json.Marshal(map[string]any{"data": m})
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	list := func(n int) string { return `{"a":[` + strings.TrimSuffix(strings.Repeat(`"",`, n), ",") + `]}` }
	for _, tt := range []struct {
		name, path, token, body string
		want                    int
	}{
		{"a log-in", "/v1/auth/userpass/login/x", "", `{"password":"x"}`, 200},
		{"a log-in with a long JWT", "/v1/auth/jwt/login", "", `{"role":"x","jwt":"` + strings.Repeat("x", 30<<10) + `"}`, 200},
		{"a log-in of 89 KB", "/v1/auth/userpass/login/x", "", `{"a":"` + strings.Repeat("x", 89<<10) + `"}`, 413},
		{"a log-in of many values", "/v1/auth/userpass/login/x", "", list(300), 400},
		{"a log-in of many values, with a token", "/v1/auth/userpass/login/x", "t", list(300), 400},
		{"an open path, with a token", "/v1/identity/oidc/provider/x/token", "t", list(300), 400},
		{"a form of many values", "/v1/identity/oidc/provider/x/token", "", strings.Repeat("a&", 300), 400},
		{"a log-in nested deeply", "/v1/auth/userpass/login/x", "", strings.Repeat(`{"a":`, 20) + strings.Repeat("}", 20), 400},
		{"a secret without a token, 89 KB", "/v1/secret/data/x", "", `{"a":"` + strings.Repeat("x", 89<<10) + `"}`, 413},
		{"a secret without a token, many values", "/v1/secret/data/x", "", list(300), 400},
		{"a secret of 3,000 fields", "/v1/secret/data/x", "t", field(3000), 200},
		{"a secret just below 1 MiB", "/v1/secret/data/x", "t", `{"data":{"a":"` + strings.Repeat("x", 1<<20-20) + `"}}`, 200},
		{"a secret above 1 MiB", "/v1/secret/data/x", "t", `{"data":{"a":"` + strings.Repeat("x", 1<<20) + `"}}`, 413},
		{"a secret of 30,000 values", "/v1/secret/data/x", "t", list(30_000), 400},
		{"a secret nested 90 deep", "/v1/secret/data/x", "t", strings.Repeat(`{"a":`, 90) + "1" + strings.Repeat("}", 90), 200},
		{"a secret nested 200 deep", "/v1/secret/data/x", "t", strings.Repeat(`{"a":`, 200) + "1" + strings.Repeat("}", 200), 400},
		{"a query of many values", "/v1/secret/data/x?" + strings.Repeat("a&", 300), "", "", 400},
		{"a query of some values", "/v1/secret/data/x?" + strings.Repeat("a&", 100), "", "", 200},
	} {
		for _, known := range []bool{true, false} {
			asked := false
			g, _, next := newGate(t, func(http.ResponseWriter, *http.Request) { asked = true })
			r := httptest.NewRequest("POST", tt.path, strings.NewReader(tt.body))
			if strings.HasPrefix(tt.body, "a&") {
				r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			}
			r.Header.Set(headerToken, tt.token)
			if !known {
				r.ContentLength, r.Body = -1, io.NopCloser(strings.NewReader(tt.body))
			}
			w := httptest.NewRecorder()
			if err := g.ServeHTTP(w, r, next); err != nil {
				t.Fatal(err)
			}
			if w.Code != tt.want || asked != (tt.want == 200) {
				t.Errorf("%s (length known: %v): %d %s, Vault asked: %v, want %d", tt.name, known, w.Code, w.Body, asked, tt.want)
			}
			if tt.want != 200 && !strings.HasPrefix(w.Body.String(), `{"errors":["`) {
				t.Errorf("%s: %s", tt.name, w.Body)
			}
		}
	}
}

// What comes to nothing is weighed: after some of it an address waits, and its reads
// and what Vault takes are not held up by what others, or it itself, has sent before.
func TestWhatComesToNothingIsWeighed(t *testing.T) {
	status, asked := 403, 0
	g, _, next := newGate(t, func(w http.ResponseWriter, r *http.Request) { asked++; w.WriteHeader(status) })
	send := func(addr, token, path, body string) *httptest.ResponseRecorder {
		t.Helper()
		r := httptest.NewRequest("POST", path, strings.NewReader(body))
		if body == "" {
			r.Method = "GET"
		}
		r.RemoteAddr = addr
		r.Header.Set(headerToken, token)
		w := httptest.NewRecorder()
		if err := g.ServeHTTP(w, r, next); err != nil {
			t.Fatal(err)
		}
		return w
	}
	many := `["` + strings.Repeat(`aaaaaa","`, 9000) + `"]`
	for range 40 {
		send("192.0.2.1:1", "bogus", "/v1/secret/data/x", many)
	}
	if asked == 0 || asked > 4 {
		t.Errorf("Vault has written down %d of 40 bodies with %d values", asked, 9000)
	}
	w := send("192.0.2.1:1", "bogus", "/v1/secret/data/x", many)
	if w.Code != 429 || w.Header().Get("Retry-After") == "" || !strings.Contains(w.Body.String(), "came to nothing") {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
	status = 200
	if w := send("192.0.2.1:1", "t", "/v1/secret/data/x", ""); w.Code != 200 {
		t.Errorf("a read from there: %d", w.Code)
	}
	if w := send("192.0.2.2:1", "t", "/v1/secret/data/x", many); w.Code != 200 {
		t.Errorf("a write from elsewhere: %d", w.Code)
	}
	for range 100 {
		if w := send("192.0.2.3:1", "t", "/v1/secret/data/x", many); w.Code != 200 {
			t.Fatalf("writes that Vault takes: %d", w.Code)
		}
	}
	status, asked = 403, 0
	for range 1000 {
		send("192.0.2.4:1", "bogus", "/v1/secret/data/"+strings.Repeat("x", 12_000), "")
	}
	if asked > 200 {
		t.Errorf("Vault has written down %d paths of 12 KB, eight times", asked)
	}
	status, asked = 400, 0
	for i := range 1000 {
		send(fmt.Sprintf("[2001:db8:0:%x::1]:1", i), "", "/v1/auth/userpass/login/anna", `{"password":"x"}`)
	}
	if asked < 100 || asked > 300 {
		t.Errorf("%d of 1000 passwords are tried at once from one /48", asked)
	}
}

// slowBody ends as a body does whose sender is too slow, or sends it wrongly.
type slowBody struct {
	data io.Reader
	err  error
}

func (s slowBody) Read(p []byte) (int, error) {
	if n, _ := s.data.Read(p); n > 0 {
		return n, nil
	}
	return 0, s.err
}
func (slowBody) Close() error { return nil }

// No request is left without an answer, and none counts as Vault's failure that its
// sender has spoilt.
func TestEveryRequestIsAnswered(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error
		want int
	}{
		{"slow, HTTP/1.1", &net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}, 408},
		{"slow, HTTP/2", fmt.Errorf("%w", os.ErrDeadlineExceeded), 408},
		{"cut short", io.ErrUnexpectedEOF, 400},
		{"malformed chunk", errors.New("malformed chunked encoding"), 400},
		{"reset", &net.OpError{Op: "read", Err: errors.New("connection reset by peer")}, 400},
	} {
		for _, size := range []int{10, 100 << 10} {
			for _, proto := range []int{1, 2} {
				g, logs, next := newGate(t, func(http.ResponseWriter, *http.Request) { t.Errorf("%s: Vault has the request", tt.name) })
				r := httptest.NewRequest("POST", "/v1/secret/data/x?code=secret", slowBody{bytes.NewReader(make([]byte, size)), tt.err})
				r.ContentLength, r.ProtoMajor = 200<<10, proto
				if size == 10 {
					r.ContentLength = 20
				}
				ctx, cancel := context.WithCancel(r.Context())
				cancel() // as net/http does when it has met the fault
				r = r.WithContext(ctx)
				r.Header.Set(headerToken, "t")
				w := httptest.NewRecorder()
				if err := g.ServeHTTP(w, r, next); err != nil {
					t.Fatal(err)
				}
				if w.Code != tt.want || !strings.HasPrefix(w.Body.String(), `{"errors":["`) || (w.Header().Get("Connection") == "close") != (proto == 1) {
					t.Errorf("%s, %d bytes: %d %v %s", tt.name, size, w.Code, w.Header(), w.Body)
				}
				if g.counts.failed.Load() != 0 || g.counts.malformed.Load() != 1 || logs.Len() != 1 {
					t.Errorf("%s: %d failed, %d malformed, %d records", tt.name, g.counts.failed.Load(), g.counts.malformed.Load(), logs.Len())
				}
			}
		}
	}
	// Caddy's own words for one that it takes for cancelled.
	for _, path := range []string{"/v1/secret/data/x", "/v1/sys/health"} {
		g, logs, _ := newGate(t, nil)
		w := httptest.NewRecorder()
		err := g.ServeHTTP(w, httptest.NewRequest("GET", path, nil), caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
			w.WriteHeader(499)
			return nil
		}))
		if err != nil || w.Code != 408 || logs.Len() != 1 || g.counts.failed.Load() != 0 {
			t.Errorf("%s: %v, %d %s", path, err, w.Code, w.Body)
		}
	}
	// Whatever else cancels a request.
	g, logs, next := newGate(t, func(http.ResponseWriter, *http.Request) {})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := httptest.NewRecorder()
	if err := g.ServeHTTP(w, httptest.NewRequest("GET", "/v1/secret/data/x", nil).WithContext(ctx), next); err != nil || w.Code != 408 || logs.Len() != 1 {
		t.Errorf("cancelled: %v, %d, %d records", err, w.Code, logs.Len())
	}
}

// An answer that breaks off is recorded with its size, as whose fault it is.
func TestBrokenAnswerIsRecorded(t *testing.T) {
	for _, gone := range []bool{true, false} {
		g, logs, _ := newGate(t, nil)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic that ends the connection is swallowed")
				}
			}()
			r := httptest.NewRequest("GET", "/v1/secret/data/x?state=secret", nil).WithContext(ctx)
			_ = g.ServeHTTP(httptest.NewRecorder(), r, caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
				_, _ = w.Write(make([]byte, 213_000))
				if gone {
					cancel()
				}
				panic(http.ErrAbortHandler)
			}))
		}()
		all := logs.All()
		if len(all) != 1 || g.inFlight.Load() != 0 || g.counts.byClass[2].Load() != 1 {
			t.Fatalf("%d records, %d in flight", len(all), g.inFlight.Load())
		}
		f := all[0].ContextMap()
		if f["bytes"] != int64(213_000) || strings.Contains(fmt.Sprint(f), "secret}") || (f["fault"] == "client went away") != gone || (g.counts.failed.Load() == 0) != gone {
			t.Errorf("client gone: %v; %v, %d failed", gone, f, g.counts.failed.Load())
		}
	}
}

// As it goes over the wire: what is malformed gets 400 and the end of its connection,
// and is not taken for the next request.
func TestMalformedBodies(t *testing.T) {
	v := newBackend(t, http.HandlerFunc(echo))
	c := baseConfig(t, v)
	c.Metrics = socketIn(t)
	f := startFront(t, c)
	const head = "POST /v1/secret/data/x HTTP/1.1\r\nHost: localhost\r\nX-Vault-Token: t\r\n"
	inputs := []string{
		"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
		"Transfer-Encoding: chunked\r\n\r\n5\r\nabcdefgh\r\n0\r\n\r\n",
		"Transfer-Encoding: chunked\r\n\r\n5\r\nabc",
		"Content-Length: 100\r\n\r\nabc",
		"Content-Length: 100000\r\n\r\n" + strings.Repeat("x", 90_000),
		"Content-Length: -1\r\n\r\nabc",
		"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
		"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
	}
	for _, in := range inputs {
		conf := f.client.Transport.(*http.Transport).TLSClientConfig.Clone()
		conf.NextProtos = []string{"http/1.1"}
		conn, err := tls.Dial("tcp", c.Listen[0], conf)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(conn, head+in)
		if err := conn.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(conn)
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		res, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(got)), nil)
		if err != nil || res.StatusCode != 400 || !res.Close || bytes.Count(got, []byte("HTTP/1.1 ")) != 1 {
			t.Errorf("%.60q: %v\n%s", in, err, got)
		}
	}
	m := scrape(t, c.Metrics)
	if m["strongroom_front_upstream_failures_total"] != 0 || m["strongroom_front_malformed_total"] < 4 {
		t.Errorf("%v failures of Vault, %v malformed requests", m["strongroom_front_upstream_failures_total"], m["strongroom_front_malformed_total"])
	}
}
