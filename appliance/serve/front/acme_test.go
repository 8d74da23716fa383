package front

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"strongroom.example/config"
)

// acmeConfig is a front that gets its certificate from p.
func acmeConfig(t *testing.T, v *backend, name string) Config {
	c := baseConfig(t, v)
	c.Issuer, c.RootFile, c.Names = config.TLSACME, "", []string{name}
	c.Redirect = []string{freePort(t)}
	return c
}

func portOf(t *testing.T, addr string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// waitServed gives the certificate at addr, as soon as there is one.
func waitServed(t testing.TB, addr, name string) *x509.Certificate {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(patience)
	for {
		conn, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, ServerName: name})
		if err == nil {
			defer conn.Close()
			return conn.ConnectionState().PeerCertificates[0]
		}
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatalf("no certificate is served: %v", err)
		}
	}
}

// useACME makes a front's client trust p and call it by its name.
func (f *testFront) useACME(p *pebble, addr string) {
	name := f.config.Names[0]
	waitServed(f.t, addr, name)
	f.client = &http.Client{Timeout: patience, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: p.trust(), ServerName: name},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, addr)
		},
	}}
	f.url = "https://" + name
}

func TestACME(t *testing.T) {
	for _, tt := range []struct {
		name    string
		staging bool
		edit    func(*Config)
	}{
		{"HTTP-01 after a rehearsal", true, func(*Config) {}},
		{"TLS-ALPN-01 alone", false, func(c *Config) { c.Redirect = nil }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := newBackend(t, http.HandlerFunc(echo))
			c := acmeConfig(t, v, "vault.example.org")
			httpPort := portOf(t, c.Redirect[0])
			tt.edit(&c)
			p := newPebble(t, httpPort, portOf(t, c.Listen[0]))
			c.ACME = &config.FrontACME{CA: p.directory, TrustedRoots: []string{p.root}, Resolvers: []string{p.dns}}
			var stage *pebble
			if tt.staging {
				stage = newPebble(t, httpPort, portOf(t, c.Listen[0]))
				both := filepath.Join(t.TempDir(), "roots.pem")
				if err := os.WriteFile(both, append(readFile(t, p.root), readFile(t, stage.root)...), 0o600); err != nil {
					t.Fatal(err)
				}
				c.ACME.Staging, c.ACME.TrustedRoots = stage.directory, []string{both}
			}
			f := launch(t, c).start()
			f.waitOutput("READY\n")
			f.waitOutput("certificate obtained successfully")
			f.useACME(p, c.Listen[0])
			res, _ := f.get("/v1/sys/health")
			if res.StatusCode != 200 || res.TLS.PeerCertificates[0].DNSNames[0] != "vault.example.org" {
				t.Fatalf("got %s from %v", res.Status, res.TLS.PeerCertificates[0].DNSNames)
			}
			var l ledger
			if err := json.Unmarshal(readFile(t, filepath.Join(c.Storage, "acme-budget.json")), &l); err != nil {
				t.Fatal(err)
			}
			issued := 1
			if tt.staging {
				issued = 2
				if len(l.Rehearsed) != 1 {
					t.Errorf("the rehearsal is not written down: %+v", l)
				}
			}
			if len(l.Failures) != 0 || len(l.Issued) != issued || l.LastError != "" {
				t.Errorf("ledger %+v, want %d issued and no failure", l, issued)
			}
			// A restart keeps the certificate and orders nothing.
			f.stop(t)
			p.down()
			f = launch(t, c).start()
			f.waitOutput("READY\n")
			chain := res.TLS.VerifiedChains[0]
			pool := x509.NewCertPool()
			pool.AddCert(chain[len(chain)-1])
			conf := &tls.Config{RootCAs: pool, ServerName: c.Names[0]}
			conn, err := tls.Dial("tcp", c.Listen[0], conf)
			if err != nil {
				t.Fatalf("after a restart with the CA down: %v\n%s", err, f.output())
			}
			if !conn.ConnectionState().PeerCertificates[0].Equal(res.TLS.PeerCertificates[0]) {
				t.Error("a restart has a new certificate")
			}
			conn.Close()
		})
	}
}

// Certificates are loaded beside the start. A client that comes while this takes long,
// here since a CA's OCSP responder does, waits for its end and gets no alert.
func TestACMERestartWaitsForItsCertificates(t *testing.T) {
	ca := newTestCA(t)
	asked, answer := make(chan struct{}, 1), make(chan struct{})
	responder := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case asked <- struct{}{}:
		default:
		}
		<-answer
		w.WriteHeader(http.StatusInternalServerError)
	}))
	defer responder.Close()
	var once sync.Once
	release := func() { once.Do(func() { close(answer) }) }
	defer release() // before the responder's Close, which waits for its answers
	ca.ocsp = responder.URL
	c := acmeConfig(t, newBackend(t, http.HandlerFunc(echo)), "vault.example.org")
	const directory = "https://127.0.0.1:1/dir"
	c.ACME = &config.FrontACME{CA: directory, Resolvers: []string{"127.0.0.1:1"}}
	issuer := (&certmagic.ACMEIssuer{CA: directory}).IssuerKey()
	chain, key := ca.issue(time.Now().Add(24*time.Hour), c.Names...)
	for name, data := range map[string][]byte{
		certmagic.StorageKeys.SiteCert(issuer, c.Names[0]):       chain,
		certmagic.StorageKeys.SitePrivateKey(issuer, c.Names[0]): key,
		certmagic.StorageKeys.SiteMeta(issuer, c.Names[0]):       []byte(`{"sans": ["vault.example.org"]}`),
	} {
		file := filepath.Join(c.Storage, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		put(t, file, data)
	}
	f := launch(t, c).start()
	<-asked // it is in the middle of loading
	// systemd's socket is there before the front is; this one is not.
	up, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	for {
		conn, err := new(net.Dialer).DialContext(up, "tcp", c.Listen[0])
		if err == nil {
			conn.Close()
			break
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatalf("%v\n%s", err, f.output())
		}
		runtime.Gosched()
	}
	answered := make(chan error, 1)
	go func() {
		conn, err := tls.Dial("tcp", c.Listen[0], &tls.Config{RootCAs: ca.pool(), ServerName: c.Names[0]})
		if err == nil {
			conn.Close()
		}
		answered <- err
	}()
	select {
	case err := <-answered:
		t.Fatalf("answered before the certificate was loaded: %v\n%s", err, f.output())
	case <-time.After(time.Second): // long enough for the alert that it got
	}
	release()
	if err := <-answered; err != nil {
		t.Fatalf("%v\n%s", err, f.output())
	}
	f.waitOutput("READY\n")
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What cannot succeed is never ordered: the ledger stays without a failure,
// and the CA without an order.
func TestACMEPreflight(t *testing.T) {
	tests := []struct {
		name string
		edit func(*testing.T, *pebble, *Config)
		want string
	}{
		{"no address", func(_ *testing.T, p *pebble, _ *Config) {
			p.record("set-default-ipv4", map[string]any{"ip": ""})
		}, "has no A or AAAA record"},
		{"another machine's address", func(_ *testing.T, p *pebble, _ *Config) {
			p.record("add-a", map[string]any{"host": "vault.example.org", "addresses": []string{"127.0.0.1", "127.0.0.9"}})
		}, "127.0.0.9"},
		{"a forgotten AAAA record", func(_ *testing.T, p *pebble, _ *Config) {
			p.record("add-aaaa", map[string]any{"host": "vault.example.org", "addresses": []string{"100::1"}})
		}, "100::1"},
		{"CA down", func(_ *testing.T, p *pebble, _ *Config) { p.down() }, "CA does not answer"},
		{"resolver down", func(_ *testing.T, _ *pebble, c *Config) { c.ACME.Resolvers = []string{"127.0.0.1:1"} }, "look up A of"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := newBackend(t, http.HandlerFunc(echo))
			c := acmeConfig(t, v, "vault.example.org")
			p := newPebble(t, portOf(t, c.Redirect[0]), portOf(t, c.Listen[0]))
			c.ACME = &config.FrontACME{CA: p.directory, TrustedRoots: []string{p.root}, Resolvers: []string{p.dns}}
			tt.edit(t, p, &c)
			f := launch(t, c).start()
			f.waitOutput("READY\n")
			f.waitOutput("no order placed")
			f.waitOutput(tt.want)
			var l ledger
			if err := json.Unmarshal(readFile(t, filepath.Join(c.Storage, "acme-budget.json")), &l); err != nil {
				t.Fatal(err)
			}
			if len(l.Failures) != 0 || !strings.Contains(l.LastError, tt.want) {
				t.Errorf("ledger %+v, want no failure and %q as the last error", l, tt.want)
			}
		})
	}
}

// A CA that fails is asked no more once the budget is used up, across
// restarts; the fallback then is.
func TestACMEBudgetAndFallback(t *testing.T) {
	v := newBackend(t, http.HandlerFunc(echo))
	c := acmeConfig(t, v, "vault.example.org")
	httpPort, tlsPort := portOf(t, c.Redirect[0]), portOf(t, c.Listen[0])
	// The first CA validates at ports where nobody listens.
	bad, good := newPebble(t, "1", "1"), newPebble(t, httpPort, tlsPort)
	both := filepath.Join(t.TempDir(), "roots.pem")
	if err := os.WriteFile(both, append(readFile(t, bad.root), readFile(t, good.root)...), 0o600); err != nil {
		t.Fatal(err)
	}
	c.ACME = &config.FrontACME{CA: bad.directory, Fallback: good.directory, TrustedRoots: []string{both}, Resolvers: []string{good.dns}}
	f := launch(t, c).start()
	f.waitOutput("certificate obtained successfully")
	f.useACME(good, c.Listen[0])
	if res, _ := f.get("/v1/sys/health"); res.StatusCode != 200 {
		t.Fatal(res.Status)
	}
	f.stop(t)
	b := &budget{file: filepath.Join(c.Storage, "acme-budget.json"), now: time.Now}
	ca := caName(bad.directory)
	if err := b.check(ca, c.Names); err != nil {
		t.Fatalf("one failure used the budget up: %v", err)
	}
	for range maxFailures - 1 {
		if err := b.begin(ca, c.Names); err != nil {
			t.Fatal(err)
		}
	}
	// With the fallback gone and the storage of certificates lost, as after a
	// careless reinstallation, the CA is left alone.
	if err := os.RemoveAll(filepath.Join(c.Storage, "certificates")); err != nil {
		t.Fatal(err)
	}
	c.ACME.Fallback = ""
	f = launch(t, c).start()
	f.waitOutput("certificate budget is used up")
	if strings.Contains(f.output(), "trying to solve challenge") {
		t.Errorf("the CA was asked all the same:\n%s", f.output())
	}
}

// With the CA down at renewal the old certificate is served on, nothing is
// counted against the CA's limits, and the renewal is made up for.
func TestACMERenewal(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for a certificate of 75 seconds to grow old")
	}
	t.Parallel()
	v := newBackend(t, http.HandlerFunc(echo))
	c := acmeConfig(t, v, "vault.example.org")
	p := newShortPebble(t, portOf(t, c.Redirect[0]), portOf(t, c.Listen[0]), 75*time.Second)
	c.ACME = &config.FrontACME{CA: p.directory, TrustedRoots: []string{p.root}, Resolvers: []string{p.dns}}
	c.Metrics = socketIn(t)
	serving := func() *x509.Certificate { return waitServed(t, c.Listen[0], c.Names[0]) }
	f := launch(t, c).start()
	f.waitOutput("certificate obtained successfully")
	old := serving()
	f.stop(t)

	// Frozen, it keeps its accounts, and a client waits for it in vain.
	if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	// Renewal is due in the last third of a certificate's life.
	life := old.NotAfter.Sub(old.NotBefore)
	<-time.After(time.Until(old.NotBefore.Add(life*2/3 + time.Second)))
	f = launch(t, c).start()
	f.waitOutput("CA does not answer")
	// The alarm, long before the certificate ends.
	f.waitOutput("will retry")
	if n := scrape(t, c.Metrics)["strongroom_front_certificate_failures_total"]; n != 1 {
		t.Errorf("%v failures are counted, want 1", n)
	}
	if !serving().Equal(old) {
		t.Error("the old certificate is not served while the CA is down")
	}
	var l ledger
	if err := json.Unmarshal(readFile(t, filepath.Join(c.Storage, "acme-budget.json")), &l); err != nil || len(l.Failures) != 0 {
		t.Errorf("ledger %+v, %v: a CA that is down has no limits to be counted", l, err)
	}
	f.stop(t)
	if err := p.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	f = launch(t, c).start()
	f.waitOutput("certificate renewed successfully")
	// The log line comes before the certificate is in use.
	deadline := time.Now().Add(patience)
	for serving().Equal(old) {
		if time.Now().After(deadline) {
			t.Fatal("after the renewal the old certificate is served")
		}
	}
	m := scrape(t, c.Metrics)
	if m[`strongroom_front_certificates_obtained_total{renewal="true"}`] != 1 || m[`strongroom_front_certificates_obtained_total{renewal="false"}`] != 0 {
		t.Errorf("metrics after the renewal: %v", m)
	}
	ca := caName(p.directory)
	if m[`strongroom_front_acme_issued{ca="`+ca+`"}`] != 2 || m[`strongroom_front_acme_orders_left{ca="`+ca+`"}`] != 2 {
		t.Errorf("the budget after two certificates: %v", m)
	}
}

// ZeroSSL and others give certificates to accounts only that the operator has
// with them already. As a fallback such a CA is asked when the first one fails.
func TestACMEExternalAccount(t *testing.T) {
	const keyID, macKey = "kid-1", "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
	for _, tt := range []struct {
		name, mac string
		want      string // in the log
	}{
		{"known there", macKey, "certificate obtained successfully"},
		{"another key", strings.ToLower(macKey), "could not get certificate from issuer"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := newBackend(t, http.HandlerFunc(echo))
			c := acmeConfig(t, v, "vault.example.org")
			httpPort, tlsPort := portOf(t, c.Redirect[0]), portOf(t, c.Listen[0])
			// Nobody is at the ports where the first CA looks.
			bad := newPebble(t, "1", "1")
			p := newPebbleWith(t, httpPort, tlsPort, map[string]any{
				"externalAccountBindingRequired": true, "externalAccountMACKeys": map[string]string{keyID: macKey}})
			dir := t.TempDir()
			both, eab := filepath.Join(dir, "roots.pem"), filepath.Join(dir, "eab.toml")
			if err := os.WriteFile(both, append(readFile(t, bad.root), readFile(t, p.root)...), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(eab, []byte("key_id = \""+keyID+"\"\nmac_key = \""+tt.mac+"\"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			c.ACME = &config.FrontACME{CA: bad.directory, Fallback: p.directory, FallbackEABFile: eab, TrustedRoots: []string{both}, Resolvers: []string{p.dns}}
			f := launch(t, c).start()
			f.waitOutput(tt.want)
			if tt.mac == macKey {
				f.useACME(p, c.Listen[0])
				if res, _ := f.get("/v1/sys/health"); res.StatusCode != 200 {
					t.Error(res.Status)
				}
			} else {
				// The fallback was asked too, and said no.
				f.waitOutput("external account binding JWS verification error")
			}
			f.stop(t)
			if strings.Contains(f.output(), tt.mac) {
				t.Error("the account's key is in the log")
			}
			err := filepath.WalkDir(c.Storage, func(path string, d os.DirEntry, err error) error {
				if err == nil && !d.IsDir() && strings.Contains(string(readFile(t, path)), tt.mac) {
					t.Errorf("the account's key is in %s", path)
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestRedirect(t *testing.T) {
	v := newBackend(t, http.HandlerFunc(echo))
	c := baseConfig(t, v)
	c.Redirect = []string{freePort(t)}
	f := startFront(t, c)
	req, _ := http.NewRequest(http.MethodGet, "http://"+c.Redirect[0]+"/v1/sys/health?a=b", nil)
	req.Host = "evil.example.com"
	res, _ := f.do(req)
	want := fmt.Sprintf("https://127.0.0.1:%s/v1/sys/health?a=b", portOf(t, c.Listen[0]))
	if res.StatusCode != 308 || res.Header.Get("Location") != want {
		t.Fatalf("got %s to %q, want 308 to %q", res.Status, res.Header.Get("Location"), want)
	}
}
