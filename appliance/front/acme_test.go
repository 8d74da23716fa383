package front

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"strongroom/appliance/localtls"
)

// pebble is Let's Encrypt's test CA and its DNS server, the real programs.
type pebble struct {
	t          *testing.T
	directory  string
	management string
	dns        string // resolver
	dnsControl string
	root       string // file: trust for the CA's own HTTPS
	client     *http.Client
	args       []string
	env        []string
	cmd        *exec.Cmd
}

// tool finds a program that `make tools` builds.
func tool(t testing.TB, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("..", "..", "bin", name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Skipf("bin/%s is not built", name)
	}
	return path
}

// newPebble starts a CA that reaches the names at the ports, and rejects half
// of all nonces.
func newPebble(t *testing.T, httpPort, tlsPort string) *pebble {
	t.Helper()
	return newShortPebble(t, httpPort, tlsPort, 90*24*time.Hour)
}

// newShortPebble is one whose certificates last for validity.
func newShortPebble(t *testing.T, httpPort, tlsPort string, validity time.Duration) *pebble {
	t.Helper()
	bin, dnsBin := tool(t, "pebble"), tool(t, "pebble-challtestsrv")
	dir := t.TempDir()
	certs, err := localtls.New(time.Now(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p := &pebble{t: t, root: filepath.Join(dir, "root.pem"), env: []string{"PEBBLE_WFE_NONCEREJECT=50", "PEBBLE_VA_NOSLEEP=1"}}
	listen, manage := freePort(t), freePort(t)
	p.dns, p.dnsControl = freePort(t), "http://"+freePort(t)
	p.directory, p.management = "https://"+listen+"/dir", "https://"+manage
	crt, key, conf := filepath.Join(dir, "crt"), filepath.Join(dir, "key"), filepath.Join(dir, "pebble.json")
	settings, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": listen, "managementListenAddress": manage, "certificate": crt, "privateKey": key,
		"httpPort": atoi(t, httpPort), "tlsPort": atoi(t, tlsPort),
		"profiles": map[string]any{"default": map[string]any{"description": "test", "validityPeriod": int(validity.Seconds())}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for file, data := range map[string][]byte{p.root: certs.CA, crt: certs.ServerCrt, key: certs.ServerKey, conf: settings} {
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p.spawn(dnsBin, nil, "-dnsserver", p.dns, "-management", strings.TrimPrefix(p.dnsControl, "http://"), "-defaultIPv6", "",
		"-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", "")
	p.answers(http.DefaultClient, p.dnsControl)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(certs.CA)
	p.client = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	t.Cleanup(p.client.CloseIdleConnections)
	p.args = []string{bin, "-config", conf, "-dnsserver", p.dns}
	p.up()
	return p
}

func atoi(t *testing.T, s string) int {
	t.Helper()
	n, err := net.LookupPort("tcp", s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (p *pebble) spawn(path string, env []string, args ...string) *exec.Cmd {
	p.t.Helper()
	c := exec.Command(path, args...)
	c.Env = env
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
	})
	return c
}

// up starts the CA, down kills it.
func (p *pebble) up() {
	p.t.Helper()
	p.cmd = p.spawn(p.args[0], p.env, p.args[1:]...)
	p.answers(p.client, p.directory)
}

// answers waits until url is answered.
func (p *pebble) answers(client *http.Client, url string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if res, err := client.Get(url); err == nil {
			res.Body.Close()
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			p.t.Fatalf("%s does not answer", url)
		}
	}
}

func (p *pebble) down() {
	p.cmd.Process.Kill()
	p.cmd.Wait()
}

// record sets a DNS record through the test server's API.
func (p *pebble) record(call string, body map[string]any) {
	p.t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		p.t.Fatal(err)
	}
	res, err := http.Post(p.dnsControl+"/"+call, "application/json", bytes.NewReader(b))
	if err != nil {
		p.t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 200 {
		p.t.Fatalf("%s: %s", call, res.Status)
	}
}

// trust gives the pool that the CA's certificates verify with.
func (p *pebble) trust() *x509.CertPool {
	p.t.Helper()
	res, err := p.client.Get(p.management + "/roots/0")
	if err != nil {
		p.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		p.t.Fatalf("no root in %q", b)
	}
	return pool
}

// acmeConfig is a front that gets its certificate from p.
func acmeConfig(t *testing.T, v *backend, name string) Config {
	c := baseConfig(t, v)
	c.Issuer, c.RootFile, c.Names = IssuerACME, "", []string{name}
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
	timeout := time.After(20 * time.Second)
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
	f.client = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
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
			c.ACME = ACME{CA: p.directory, TrustedRoots: []string{p.root}, Resolvers: []string{p.dns}}
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
			c.ACME = ACME{CA: p.directory, TrustedRoots: []string{p.root}, Resolvers: []string{p.dns}}
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
	c.ACME = ACME{CA: bad.directory, Fallback: good.directory, TrustedRoots: []string{both}, Resolvers: []string{good.dns}}
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
		t.Skip("waits for a certificate of 30 seconds to grow old")
	}
	t.Parallel()
	v := newBackend(t, http.HandlerFunc(echo))
	c := acmeConfig(t, v, "vault.example.org")
	p := newShortPebble(t, portOf(t, c.Redirect[0]), portOf(t, c.Listen[0]), 30*time.Second)
	c.ACME = ACME{CA: p.directory, TrustedRoots: []string{p.root}, Resolvers: []string{p.dns}}
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
	deadline := time.Now().Add(20 * time.Second)
	for serving().Equal(old) {
		if time.Now().After(deadline) {
			t.Fatal("after the renewal the old certificate is served")
		}
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
