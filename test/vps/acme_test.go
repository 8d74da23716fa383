package vps_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"strongroom.example/appliance/base/proc"
	"strongroom.example/test/vaulttest"
)

const (
	authorityCA = "/root/acme-ca.pem"
	// authorityRoots is where Pebble tells what its certificates verify with.
	authorityRoots = outsideAddr + ":15000"
	acmeConfig     = "/root/acme.toml"
)

// TestCertificates is the life of one machine's certificate, and of its master
// key: by ACME from a CA outside that rejects one nonce in five, then one of
// the operator's own that is renewed.
func TestCertificates(t *testing.T) {
	t.Parallel()
	m := boot(t, "acme")
	ca := startAuthority(t, m)
	for _, step := range []struct {
		name string
		do   func(*testing.T, *machine, *authority)
	}{
		{"bad input changes nothing", testBadACME},
		{"by ACME", testACMEInstall},
		{"metrics", testFrontMetrics},
		{"a front that hangs is started again", testFrontHangs},
		{"a reboot keeps the certificate", testACMEReboot},
		{"the master key is rotated", testMasterKeyRotated},
		{"one of the operator's own", testOwnCertificate},
		{"renewed", testOwnCertificateRenewed},
		{"recovered on another machine", testRecoveredElsewhere},
	} {
		if !t.Run(step.name, func(t *testing.T) { step.do(t, m, ca) }) {
			t.Logf("%s", m.in(t, "sh", "-c", "journalctl --no-pager -n 60 -u 'strongroom-*' -u vault"))
			return
		}
	}
}

// authority is Let's Encrypt's test CA in the network around a machine, with
// the name server of that network.
type authority struct {
	pebble *proc.Child
	set    *proc.Set
	roots  *x509.CertPool
	serial *big.Int // of the certificate that the machine serves

	company *ownCA // that of the operator's own certificate
}

func startAuthority(t *testing.T, m *machine) *authority {
	t.Helper()
	bin, dns := vaulttest.Bin(t, "pebble"), vaulttest.Bin(t, "pebble-challtestsrv")
	dir := t.TempDir()
	cert, key := selfSigned(t, outsideAddr)
	conf, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": "0.0.0.0:443", "managementListenAddress": "0.0.0.0:15000",
		"certificate": filepath.Join(dir, "crt"), "privateKey": filepath.Join(dir, "key"), "httpPort": 80, "tlsPort": 443,
	}})
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"crt": cert, "key": key, "conf": conf} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m.write(t, authorityCA, cert)
	m.write(t, "/etc/resolv.conf", []byte("nameserver "+outsideAddr+"\n"))
	m.sh(t, "chmod 644 /etc/resolv.conf")

	a := &authority{set: proc.NewSet()}
	t.Cleanup(func() {
		if err := a.set.Close(); err != nil {
			t.Error(err)
		}
	})
	start := func(name string, env []string, addr string, args ...string) *proc.Child {
		child, err := a.set.Start(proc.Spec{Name: name, Path: "/usr/bin/nsenter", LogFile: filepath.Join(dir, name+".log"), Env: env,
			Args: append([]string{"--target", m.namespace(t), "--net", "--"}, args...)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if err := child.WaitUp(ctx, func(ctx context.Context) error { return m.listening(ctx, addr) }); err != nil {
			t.Fatal(err)
		}
		return child
	}
	start("dns", nil, "127.0.0.1:8055", dns, "-dnsserver", ":53", "-management", "127.0.0.1:8055",
		"-defaultIPv4", inside, "-defaultIPv6", inside6, "-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", "")
	a.pebble = start("pebble", []string{"PEBBLE_WFE_NONCEREJECT=20", "PEBBLE_VA_NOSLEEP=1"}, outsideAddr+":443",
		bin, "-config", filepath.Join(dir, "conf"), "-dnsserver", "127.0.0.1:53")
	own := x509.NewCertPool()
	own.AppendCertsFromPEM(cert)
	c := &http.Client{Timeout: patience, Transport: &http.Transport{DialContext: m.outside, TLSClientConfig: &tls.Config{RootCAs: own}}}
	res, err := c.Get("https://" + authorityRoots + "/roots/0")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	root, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	a.roots = x509.NewCertPool()
	if !a.roots.AppendCertsFromPEM(root) {
		t.Fatalf("no root in %q", root)
	}
	return a
}

// served waits from outside for a certificate that verifies with roots and is
// wanted.
func served(t *testing.T, m *machine, roots *x509.CertPool, wanted func(*x509.Certificate) bool) *x509.Certificate {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		cert, err := func() (*x509.Certificate, error) {
			raw, err := m.outside(ctx, "tcp", net.JoinHostPort(inside, "443"))
			if err != nil {
				return nil, err
			}
			defer raw.Close()
			conn := tls.Client(raw, &tls.Config{RootCAs: roots, ServerName: domain})
			if err := conn.HandshakeContext(ctx); err != nil {
				return nil, err
			}
			return conn.ConnectionState().PeerCertificates[0], nil
		}()
		if err == nil && wanted(cert) {
			return cert
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("the certificate is not served: %v\n%s", err, m.sh(t, "journalctl --no-pager -n 40 -u strongroom-front -u strongroom-front-certificate"))
		}
	}
}

func anyCertificate(*x509.Certificate) bool { return true }

func (m *machine) installWith(t *testing.T, config string) result {
	t.Helper()
	return m.in(t, "/root/strongroom-installer", "install", "--yes", "--config", config, "--vault-binary", "/root/vault")
}

func testBadACME(t *testing.T, m *machine, _ *authority) {
	const head = "domain = \"" + domain + "\"\nemail = \"ops@example.com\"\n[vault]\nversion = \"1.21.1\"\nallow_old = true\n"
	for _, c := range []struct {
		name, tables string
		code         int
		want         string
	}{
		{"not https", "[tls.acme]\ndirectory = \"http://10.99.0.1/dir\"\n", 2, "/root/bad.toml:7: tls.acme.directory"},
		{"DNS without its token", "[tls.acme]\ndns = \"hetzner\"\n", 2, "tls.acme.dns_token: is required"},
		{"no such root", "[tls.acme]\ndirectory = \"https://10.99.0.1/dir\"\nca_file = \"/root/none.pem\"\n", 4, "tls.acme.ca_file"},
		{"no such certificate", "[tls]\nmode = \"files\"\ncert_file = \"/root/none.crt\"\nkey_file = \"/root/none.key\"\n", 4, "tls.cert_file"},
	} {
		m.write(t, "/root/bad.toml", []byte(head+c.tables))
		r := m.installWith(t, "/root/bad.toml")
		if r.code != c.code || !strings.Contains(r.String(), c.want) {
			t.Errorf("%s: exit code %d, want %d with %q:\n%s", c.name, r.code, c.code, c.want, r)
		}
	}
	m.write(t, "/root/bad.toml", []byte(strings.Replace(head, domain, "elsewhere.example.com", 1)))
	m.write(t, "/etc/hosts", []byte("127.0.0.1 localhost\n198.51.100.1 elsewhere.example.com\n"))
	defer m.write(t, "/etc/hosts", []byte("127.0.0.1 localhost\n"))
	m.sh(t, "chmod 644 /etc/hosts")
	if r := m.installWith(t, "/root/bad.toml"); r.code != 4 || !strings.Contains(r.String(), "points to 198.51.100.1") {
		t.Errorf("domain elsewhere: exit code %d:\n%s", r.code, r)
	}
	// A name that is here, and whose owner lets another authority issue alone.
	m.write(t, "/root/bad.toml", []byte(head))
	names := &http.Client{Timeout: patience, Transport: &http.Transport{DialContext: m.outside}}
	caa := func(call, body string) {
		res, err := names.Post("http://127.0.0.1:8055/"+call, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s", call, res.Status)
		}
	}
	caa("add-caa", `{"host": "example.com.", "policies": [{"tag": "issue", "value": "ca.example"}]}`)
	if r := m.installWith(t, "/root/bad.toml"); r.code != 4 || !strings.Contains(r.String(), `those of "example.com" allow ["ca.example"], not "letsencrypt.org"`) {
		t.Errorf("CAA: exit code %d:\n%s", r.code, r)
	}
	caa("clear-caa", `{"host": "example.com."}`)
	if out := m.sh(t, "ls -d /etc/strongroom /usr/local/bin/* 2>/dev/null || true"); out != "" {
		t.Errorf("something was changed:\n%s", out)
	}
}

func testACMEInstall(t *testing.T, m *machine, a *authority) {
	m.sh(t, "mkdir -p "+backupDir)
	m.write(t, acmeConfig, fmt.Appendf(nil, `domain = %q
email = "ops@example.com"

[vault]
version = "1.21.1"
allow_old = true

[tls.acme]
directory = "https://%s/dir"
ca_file = %q

[[backup.to]]
type = "dir"
path = %q
`, domain, outsideAddr, authorityCA, backupDir))
	m.sh(t, "chmod 644 /etc/hosts")
	r := m.installWith(t, acmeConfig)
	if r.code != 0 {
		t.Fatalf("exit code %d:\n%s", r.code, r)
	}
	cert := served(t, m, a.roots, anyCertificate)
	a.serial = cert.SerialNumber
	t.Logf("installed in %.1f s; certificate %x of %q", r.took.Seconds(), cert.SerialNumber, cert.Issuer.CommonName)
	c := m.client(a.roots)
	res, err := c.Get("https://" + domain + "/v1/sys/health")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 200 || res.Header.Get("Strict-Transport-Security") == "" {
		t.Errorf("health: %s, HSTS %q", res.Status, res.Header.Get("Strict-Transport-Security"))
	}
	res, err = c.Get("http://" + domain + "/v1/sys/health?x=y")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if to := res.Header.Get("Location"); res.StatusCode != 308 || to != "https://"+domain+"/v1/sys/health?x=y" {
		t.Errorf("plain HTTP: %s to %q", res.Status, to)
	}
	if r := m.in(t, "/root/strongroom-installer", "plan"); r.code != 0 {
		t.Errorf("plan afterwards: exit code %d:\n%s", r.code, r)
	}
	// The storage, the budget in it included, is in the first snapshot.
	out := m.in(t, "strongroom", "snapshot", "list")
	if out.code != 0 || !strings.Contains(out.stdout, "Z") {
		t.Errorf("snapshot list: %s", out)
	}
}

// frontMetrics reads the front's metrics as the monitor does.
func frontMetrics(t *testing.T, m *machine) string {
	t.Helper()
	const socket = "/run/strongroom-front/metrics.sock"
	if out := m.sh(t, "stat -c '%a %U:%G' "+filepath.Dir(socket)+" "+socket); out != "750 strongroom-front:strongroom-front\n660 strongroom-front:strongroom-front\n" {
		t.Errorf("modes and owners of the metrics' socket: %s", out)
	}
	// From this side, through its init: the machine has no curl.
	pid := m.namespace(t)
	children, err := os.ReadFile("/proc/" + pid + "/task/" + pid + "/children")
	if err != nil || len(bytes.Fields(children)) == 0 {
		t.Fatalf("the machine's init is not there: %v", err)
	}
	init := string(bytes.Fields(children)[0])
	c := &http.Client{Timeout: patience, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", "/proc/"+init+"/root"+socket)
	}}}
	res, err := c.Get("http://front/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func testFrontMetrics(t *testing.T, m *machine, _ *authority) {
	text := frontMetrics(t, m)
	for _, want := range []string{
		`strongroom_front_certificates_obtained_total{renewal="false"} 1`,
		`strongroom_front_acme_failed_orders{ca="` + outsideAddr + `"} 0`,
		`strongroom_front_acme_issued{ca="` + outsideAddr + `"} 1`,
		`strongroom_front_acme_orders_left{ca="` + outsideAddr + `"} 3`,
		`strongroom_front_certificate_not_after_seconds{name="` + domain + `"} 1.`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in:\n%s", want, text)
		}
	}
}

// restarted waits until a unit's process is another than pid.
func restarted(t *testing.T, m *machine, unit, pid string) {
	t.Helper()
	m.sh(t, fmt.Sprintf("for i in $(seq 3000); do p=$(systemctl show -p MainPID --value %s); [ $p != %s ] && [ $p != 0 ] && systemctl is-active -q %s && exit 0; sleep 0.1; done; exit 1", unit, pid, unit))
}

func mainPID(t *testing.T, m *machine, unit string) string {
	t.Helper()
	return strings.TrimSpace(m.sh(t, "systemctl show -p MainPID --value "+unit))
}

func testFrontHangs(t *testing.T, m *machine, a *authority) {
	const dropIn = "/run/systemd/system/strongroom-front.service.d/short.conf"
	if out := m.sh(t, "systemctl show -p WatchdogUSec --value strongroom-front"); out != "30s\n" {
		t.Errorf("watchdog: %q", out)
	}
	m.sh(t, "mkdir -p "+filepath.Dir(dropIn)+"; printf '[Service]\\nWatchdogSec=8\\n' >"+dropIn+"; systemctl daemon-reload; systemctl restart strongroom-front")
	pid := mainPID(t, m, "strongroom-front")
	served(t, m, a.roots, anyCertificate)
	m.sh(t, "kill -STOP "+pid)
	start := time.Now()
	restarted(t, m, "strongroom-front", pid)
	cert := served(t, m, a.roots, anyCertificate)
	t.Logf("answers again %.1f s after it hung, with a watchdog of 8 s", time.Since(start).Seconds())
	if cert.SerialNumber.Cmp(a.serial) != 0 {
		t.Error("a restart has ordered a certificate")
	}
	if out := m.sh(t, "systemctl show -p Result -p NRestarts strongroom-front; journalctl --no-pager -u strongroom-front"); !strings.Contains(out, "atchdog timeout") {
		t.Errorf("systemd knows of no watchdog timeout:\n%s", out)
	}
	m.sh(t, "rm -r "+filepath.Dir(dropIn)+"; systemctl daemon-reload; systemctl restart strongroom-front")
}

func testACMEReboot(t *testing.T, m *machine, a *authority) {
	// With the CA away, only the certificate of before can be served.
	if err := a.pebble.Stop(); err != nil {
		t.Fatal(err)
	}
	if r := m.run(t, "reboot", m.name); r.code != 0 {
		t.Fatalf("reboot: %s", r)
	}
	m.sh(t, onPage(t, "certificates.md", "warnings")+" --no-pager")
	if out := m.in(t, "sh", "-c", onPage(t, "certificates.md", "local")); !strings.Contains(out.String(), "permission denied") && !strings.Contains(out.String(), "missing client token") {
		t.Errorf("the CLI over Vault's socket, without a token: %s", out)
	}
	if cert := served(t, m, a.roots, anyCertificate); cert.SerialNumber.Cmp(a.serial) != 0 {
		t.Error("the certificate after the reboot is another one")
	}
}
