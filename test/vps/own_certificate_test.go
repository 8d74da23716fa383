package vps_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"
)

// ownCA is a company's own authority.
type ownCA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	next int64
}

func newOwnCA(t *testing.T) *ownCA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "the company's CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &ownCA{cert: cert, key: key, next: 2}
}

// issue writes a pair for the domain into the machine, certificate first, as
// renewals do.
func (ca *ownCA) issue(t *testing.T, m *machine, life time.Duration) *big.Int {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(ca.next), DNSNames: []string{domain}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(life)}
	ca.next++
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca.cert, key.Public(), ca.key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	m.write(t, ownCert, bytes.Join([][]byte{
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw})}, nil))
	m.write(t, ownKey, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
	return tmpl.SerialNumber
}

const (
	ownDir    = "/etc/ssl/own"
	ownCert   = ownDir + "/vault.crt"
	ownKey    = ownDir + "/vault.key"
	backupDir = "/srv/backup"
)

func testOwnCertificate(t *testing.T, m *machine, a *authority) {
	a.company = newOwnCA(t)
	serial := a.company.issue(t, m, time.Hour)
	text := string(m.read(t, acmeConfig))
	i, j := strings.Index(text, "[tls.acme]"), strings.Index(text, "[[backup.to]]")
	m.write(t, acmeConfig, []byte(text[:i]+fmt.Sprintf("[tls]\nmode = \"files\"\ncert_file = %q\nkey_file = %q\n\n"+
		"[backup]\nfiles = [\"/var/lib/strongroom-front\", \"/etc/strongroom\", %q]\n\n", ownCert, ownKey, ownDir)+text[j:]))
	if r := m.installWith(t, acmeConfig); r.code != 0 {
		t.Fatalf("exit code %d:\n%s", r.code, r)
	}
	pool := x509.NewCertPool()
	pool.AddCert(a.company.cert)
	a.roots = pool
	if cert := served(t, m, a.roots, anyCertificate); cert.SerialNumber.Cmp(serial) != 0 {
		t.Errorf("serial %v, want %v", cert.SerialNumber, serial)
	}
	if out := m.sh(t, "stat -c '%a %U' /var/lib/strongroom-front/files.pem; systemctl is-active strongroom-front-certificate.path"); out != "600 strongroom-front\nactive\n" {
		t.Errorf("as the front has it: %s", out)
	}
	if r := m.in(t, "/root/strongroom-installer", "plan"); r.code != 0 {
		t.Errorf("plan afterwards: exit code %d:\n%s", r.code, r)
	}
}

func testOwnCertificateRenewed(t *testing.T, m *machine, a *authority) {
	pid := mainPID(t, m, "strongroom-front")
	is := func(serial *big.Int) func(*x509.Certificate) bool {
		return func(c *x509.Certificate) bool { return c.SerialNumber.Cmp(serial) == 0 }
	}
	second := a.company.issue(t, m, time.Hour)
	start := time.Now()
	served(t, m, a.roots, is(second))
	t.Logf("a renewed certificate is served %.1f s after it was written", time.Since(start).Seconds())
	// One that would not do is refused, and said so; what is served stays.
	a.company.issue(t, m, -time.Hour)
	m.sh(t, "for i in $(seq 3000); do systemctl is-failed -q strongroom-front-certificate && exit 0; sleep 0.1; done; exit 1")
	if out := m.sh(t, "journalctl --no-pager -u strongroom-front-certificate -n 20"); !strings.Contains(out, "not fit to be served") || strings.Contains(out, "PRIVATE") {
		t.Errorf("the journal says:\n%s", out)
	}
	served(t, m, a.roots, is(second))
	if out := m.sh(t, onPage(t, "certificates.md", "handed")+" --no-pager"); !strings.Contains(out, "Another certificate is handed") {
		t.Errorf("the page's look at it:\n%s", out)
	}
	third := a.company.issue(t, m, 2*time.Hour)
	m.sh(t, onPage(t, "certificates.md", "renewed"))
	served(t, m, a.roots, is(third))
	if now := mainPID(t, m, "strongroom-front"); now != pid {
		t.Error("the front was restarted for it")
	}
	if text := frontMetrics(t, m); !strings.Contains(text, `strongroom_front_certificate_reloads_total{result="ok"} 2`) {
		t.Errorf("metrics:\n%s", text)
	}
}
