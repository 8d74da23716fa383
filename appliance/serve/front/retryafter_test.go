package front

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"strongroom.example/config"
)

func TestParseRetryAfter(t *testing.T) {
	now := time.Date(2026, 12, 1, 10, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"3600": time.Hour, "Tue, 01 Dec 2026 12:00:00 GMT": 2 * time.Hour,
		"99999999": maxRetryAfter, "Tue, 01 Dec 2036 12:00:00 GMT": maxRetryAfter,
		"0": 0, "-5": 0, "": 0, "soon": 0, "Tue, 01 Dec 2026 09:00:00 GMT": 0, "1e3": 0,
	} {
		wait, ok := parseRetryAfter(text, now)
		if ok != (want > 0) || ok && wait != want {
			t.Errorf("%q: %v, %t", text, wait, ok)
		}
	}
}

// A hold outlives a restart, ends by itself, and one of a clock that was ahead holds
// nothing.
func TestHeldCA(t *testing.T) {
	now := time.Date(2026, 12, 1, 10, 0, 0, 0, time.UTC)
	dir := t.TempDir()
	b := newBudget(dir, func() time.Time { return now })
	if err := b.hold("ca.example", now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	b = newBudget(dir, func() time.Time { return now })
	if err := b.check("ca.example", []string{"a"}); !errors.Is(err, ErrBudget) || !errors.Is(err, errHeld) || !strings.Contains(err.Error(), "11:00:00") {
		t.Errorf("within the hour: %v", err)
	}
	if err := b.check("other.example", []string{"a"}); err != nil {
		t.Errorf("another CA: %v", err)
	}
	for _, later := range []time.Duration{time.Hour, -30 * 24 * time.Hour} {
		b.now = func() time.Time { return now.Add(later) }
		if err := b.check("ca.example", []string{"a"}); err != nil {
			t.Errorf("%v later: %v", later, err)
		}
	}
}

// caProxy stands before a CA and sees its orders.
type caProxy struct {
	*httptest.Server
	root   string                                                  // file
	orders func(w http.ResponseWriter, payload string) (done bool) // of newOrder; may be nil
}

func newCAProxy(t *testing.T, p *pebble) *caProxy {
	t.Helper()
	to, err := url.Parse(p.directory)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(readFile(t, p.root))
	c := &caProxy{root: filepath.Join(t.TempDir(), "root.pem")}
	pass := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = to.Scheme, to.Host },
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}},
	}
	c.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "order-plz") && c.orders != nil {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return
			}
			var jws struct{ Payload string }
			_ = json.Unmarshal(body, &jws)
			payload, _ := base64.RawURLEncoding.DecodeString(jws.Payload)
			if c.orders(w, string(payload)) {
				return
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
		}
		pass.ServeHTTP(w, r)
	}))
	t.Cleanup(c.Close)
	pemText := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate().Raw})
	if err := os.WriteFile(c.root, pemText, 0o600); err != nil {
		t.Fatal(err)
	}
	return c
}

// A CA that says when it wants to be asked again is left alone until then, after a
// restart too.
func TestACMERetryAfter(t *testing.T) {
	v := newBackend(t, http.HandlerFunc(echo))
	c := acmeConfig(t, v, "vault.example.org")
	p := newPebble(t, portOf(t, c.Redirect[0]), portOf(t, c.Listen[0]))
	proxy := newCAProxy(t, p)
	var orders atomic.Int64
	proxy.orders = func(w http.ResponseWriter, _ string) bool {
		orders.Add(1)
		w.Header().Set("Retry-After", "86400")
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusTooManyRequests)
		_, _ = io.WriteString(w, `{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many","status":429}`)
		return true
	}
	c.ACME = &config.FrontACME{CA: proxy.directory(t), TrustedRoots: []string{proxy.root}, Resolvers: []string{p.dns}}
	f := launch(t, c).start()
	f.waitOutput("asked to be left alone")
	f.stop(t)
	var l ledger
	if err := json.Unmarshal(readFile(t, filepath.Join(c.Storage, budgetFile)), &l); err != nil {
		t.Fatal(err)
	}
	until := l.NotBefore[caName(c.ACME.CA)]
	if wait := time.Until(until); wait < 23*time.Hour || wait > 24*time.Hour {
		t.Errorf("held until %v: %+v", until, l)
	}
	n := orders.Load()
	f = launch(t, c).start()
	f.waitOutput("asked to be left alone")
	f.stop(t)
	if orders.Load() != n {
		t.Errorf("%d orders after the CA has asked to be left alone", orders.Load()-n)
	}
}

// directory is the CA's through the proxy: on loopback, which its certificate has.
func (c *caProxy) directory(t *testing.T) string {
	t.Helper()
	return "https://" + c.Listener.Addr().String() + "/dir"
}

// A renewal says which certificate it replaces, a first order nothing.
func TestACMEReplaces(t *testing.T) {
	v := newBackend(t, http.HandlerFunc(echo))
	c := acmeConfig(t, v, "vault.example.org")
	p := newPebble(t, portOf(t, c.Redirect[0]), portOf(t, c.Listen[0]))
	proxy := newCAProxy(t, p)
	seen := make(chan string, 10)
	proxy.orders = func(_ http.ResponseWriter, payload string) bool {
		seen <- payload
		return false
	}
	c.ACME = &config.FrontACME{CA: proxy.directory(t), TrustedRoots: []string{proxy.root}, Resolvers: []string{p.dns}}
	f := launch(t, c).start()
	f.waitOutput("certificate obtained successfully")
	f.stop(t)
	for n := len(seen); n > 0; n-- { // the CA refuses some for their nonce
		if first := <-seen; strings.Contains(first, "replaces") {
			t.Errorf("the first order: %s", first)
		}
	}
	// The CA says that it is to be renewed now (ARI).
	renewNow(t, c, "vault.example.org")
	f = launch(t, c).start()
	f.waitOutput("certificate renewed successfully")
	if second := <-seen; !strings.Contains(second, `"replaces":"`) {
		t.Errorf("the renewal: %s", second)
	}
}

// renewNow puts a window that is over into what certmagic has stored of the CA's renewal
// information.
func renewNow(t *testing.T, c Config, name string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(c.Storage, "certificates", "*", name, name+".json"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	var meta map[string]any
	if err := json.Unmarshal(readFile(t, files[0]), &meta); err != nil {
		t.Fatal(err)
	}
	past := time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)
	data, ok := meta["issuer_data"].(map[string]any)
	if !ok {
		t.Fatalf("%v", meta)
	}
	data["renewal_info"] = map[string]any{
		"suggestedWindow": map[string]any{"start": time.Now().Add(-2 * time.Hour).UTC().Format(time.RFC3339), "end": past},
		"_selectedTime":   past, "_retryAfter": time.Now().Add(time.Hour).UTC().Format(time.RFC3339),
	}
	text, err := json.Marshal(meta)
	if err != nil {
		t.Fatal(err)
	}
	writeTo(t, files[0], text)
}
