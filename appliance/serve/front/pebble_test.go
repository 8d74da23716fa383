package front

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"strongroom.example/appliance/serve/localtls"
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
	path, err := filepath.Abs(filepath.Join("..", "..", "..", "bin", name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Skipf("bin/%s is not built", name)
	}
	return path
}

// newPebble starts a CA that reaches the names at the ports, and rejects a fifth
// of all nonces: a client gives up after ten in a row.
func newPebble(t *testing.T, httpPort, tlsPort string) *pebble {
	t.Helper()
	return newShortPebble(t, httpPort, tlsPort, 90*24*time.Hour)
}

// newShortPebble is one whose certificates last for validity.
func newShortPebble(t *testing.T, httpPort, tlsPort string, validity time.Duration) *pebble {
	t.Helper()
	return newPebbleWith(t, httpPort, tlsPort, map[string]any{
		"profiles": map[string]any{"default": map[string]any{"description": "test", "validityPeriod": int(validity.Seconds())}},
	})
}

// newPebbleWith is one with further settings
// (https://github.com/letsencrypt/pebble/tree/main/test/config).
func newPebbleWith(t *testing.T, httpPort, tlsPort string, more map[string]any) *pebble {
	t.Helper()
	if testing.Short() {
		t.Skip("starts a certificate authority")
	}
	bin, dnsBin := tool(t, "pebble"), tool(t, "pebble-challtestsrv")
	dir := t.TempDir()
	certs, err := localtls.New(time.Now(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p := &pebble{t: t, root: filepath.Join(dir, "root.pem"), env: []string{"PEBBLE_WFE_NONCEREJECT=20", "PEBBLE_VA_NOSLEEP=1"}}
	listen, manage := freePort(t), freePort(t)
	p.dns, p.dnsControl = freePort(t), "http://"+freePort(t)
	p.directory, p.management = "https://"+listen+"/dir", "https://"+manage
	crt, key, conf := filepath.Join(dir, "crt"), filepath.Join(dir, "key"), filepath.Join(dir, "pebble.json")
	inner := map[string]any{
		"listenAddress": listen, "managementListenAddress": manage, "certificate": crt, "privateKey": key,
		"httpPort": atoi(t, httpPort), "tlsPort": atoi(t, tlsPort),
	}
	maps.Copy(inner, more)
	settings, err := json.Marshal(map[string]any{"pebble": inner})
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
	p.client = &http.Client{Timeout: patience, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
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
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
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
