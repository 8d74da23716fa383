package front

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"strongroom.example/config"
)

// testCA signs certificates as a company's own CA does.
type testCA struct {
	t    testing.TB
	cert *x509.Certificate
	key  crypto.Signer
	ocsp string // URL of its responder, or ""
	next int64
}

func newTestCA(t testing.TB) *testCA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &testCA{t: t, cert: cert, key: key, next: 2}
}

func (ca *testCA) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw})
}

func (ca *testCA) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	return pool
}

// issue gives a chain and its key for names, until end.
func (ca *testCA) issue(end time.Time, names ...string) (chain, key []byte) {
	ca.t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		ca.t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(ca.next), DNSNames: names, NotBefore: time.Now().Add(-time.Hour), NotAfter: end,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	if ca.ocsp != "" {
		tmpl.OCSPServer = []string{ca.ocsp}
	}
	ca.next++
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca.cert, k.Public(), ca.key)
	if err != nil {
		ca.t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		ca.t.Fatal(err)
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), ca.pem()...),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}

// put replaces a file as a renewal does.
func put(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func TestFileWatch(t *testing.T) {
	ca := newTestCA(t)
	day := time.Now().Add(24 * time.Hour)
	dir := t.TempDir()
	var served []byte
	w := &fileWatch{
		files: config.FrontFiles{Cert: filepath.Join(dir, "crt"), Key: filepath.Join(dir, "key")},
		names: []string{"vault.example.org"}, now: time.Now,
		use: func(_ context.Context, cert, _ []byte) error { served = bytes.Clone(cert); return nil },
	}
	if err := w.load(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("without files: %v", err)
	}
	first, key := ca.issue(day, "vault.example.org")
	put(t, w.files.Cert, first)
	put(t, w.files.Key, key)
	if err := w.load(t.Context()); err != nil || !bytes.Equal(served, first) {
		t.Fatalf("load: %v", err)
	}
	step := func(what string, changed bool, fault error, want []byte) {
		t.Helper()
		got, err := w.poll(t.Context())
		if got != changed || !errors.Is(err, fault) {
			t.Errorf("%s: changed %v, %v; want %v, %v", what, got, err, changed, fault)
		}
		if err != nil && (strings.Contains(err.Error(), "BEGIN") || strings.Contains(err.Error(), "PRIVATE")) {
			t.Errorf("%s: the fault quotes the file: %v", what, err)
		}
		if !bytes.Equal(served, want) {
			t.Errorf("%s: another certificate is served", what)
		}
	}
	step("nothing new", false, nil, first)
	second, key2 := ca.issue(day, "vault.example.org", "other.example.org")
	put(t, w.files.Cert, second)
	step("the certificate without its key", true, ErrPair, first)
	step("the same again", false, nil, first)
	put(t, w.files.Key, key2)
	step("the key too", true, nil, second)
	other, key3 := ca.issue(day, "elsewhere.example.org")
	put(t, w.files.Cert, other)
	put(t, w.files.Key, key3)
	step("for another name", true, ErrCertificate, second)
	old, key4 := ca.issue(time.Now().Add(-time.Minute), "vault.example.org")
	put(t, w.files.Cert, old)
	put(t, w.files.Key, key4)
	step("an expired one", true, ErrCertificate, second)
	if err := w.load(t.Context()); err != nil || !bytes.Equal(served, old) {
		t.Errorf("at the start an expired one is served: %v", err)
	}
	if err := os.Remove(w.files.Key); err != nil {
		t.Fatal(err)
	}
	step("no key", false, os.ErrNotExist, old)
	put(t, w.files.Cert, second)
	put(t, w.files.Key, key2)
	step("there again", true, nil, second)
	put(t, w.files.Cert, []byte("canary-in-the-file"))
	if _, err := w.poll(t.Context()); !errors.Is(err, ErrPair) || strings.Contains(err.Error(), "canary") {
		t.Errorf("a text file: %v", err)
	}
}

func TestTakeCertificate(t *testing.T) {
	ca := newTestCA(t)
	dir := t.TempDir()
	c := Config{Issuer: config.TLSFiles, Names: []string{"vault.example.org"}}
	c.Files.Cert = filepath.Join(dir, "files.pem")
	c.Files.Key = c.Files.Cert
	now := time.Now()
	cert, key := ca.issue(now.Add(time.Hour), "vault.example.org")
	if changed, err := TakeCertificate(c, append([]byte("subject=…\n"), cert...), key, now); err != nil || !changed {
		t.Fatalf("changed %v, %v", changed, err)
	}
	if changed, err := TakeCertificate(c, cert, key, now); err != nil || changed {
		t.Errorf("the same again: changed %v, %v", changed, err)
	}
	whole := readFile(t, c.Files.Cert)
	if fi, err := os.Stat(c.Files.Cert); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
	if err := CheckPair(whole, whole, c.Names, now); err != nil {
		t.Errorf("what was written: %v", err)
	}
	_, otherKey := ca.issue(now.Add(time.Hour), "vault.example.org")
	for name, try := range map[string]func() (bool, error){
		"another's key": func() (bool, error) { return TakeCertificate(c, cert, otherKey, now) },
		"expired":       func() (bool, error) { return TakeCertificate(c, cert, key, now.Add(2*time.Hour)) },
		"not yet valid": func() (bool, error) { return TakeCertificate(c, cert, key, now.Add(-2*time.Hour)) },
		"another mode":  func() (bool, error) { return TakeCertificate(Config{Issuer: config.TLSACME}, cert, key, now) },
		"another name": func() (bool, error) {
			d := c
			d.Names = []string{"x.example.org"}
			return TakeCertificate(d, cert, key, now)
		},
	} {
		if changed, err := try(); err == nil || changed {
			t.Errorf("%s: changed %v, %v", name, changed, err)
		}
		if !bytes.Equal(readFile(t, c.Files.Cert), whole) {
			t.Errorf("%s: the file was changed", name)
		}
	}
}

// A running front takes a renewed certificate over by itself, with an OCSP
// response stapled; connections are not cut.
func TestFrontTakesARenewalOver(t *testing.T) {
	ca := newTestCA(t)
	responder := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		q, err := ocsp.ParseRequest(b)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		res, err := ocsp.CreateResponse(ca.cert, ca.cert, ocsp.Response{Status: ocsp.Good, SerialNumber: q.SerialNumber,
			ThisUpdate: time.Now().Add(-time.Minute), NextUpdate: time.Now().Add(time.Hour)}, ca.key)
		if err != nil {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		w.Write(res)
	}))
	defer responder.Close()
	v := newBackend(t, http.HandlerFunc(echo))
	c := baseConfig(t, v)
	dir := t.TempDir()
	c.Issuer, c.RootFile, c.Names = config.TLSFiles, "", []string{"vault.example.org"}
	c.Files = config.FrontFiles{Cert: filepath.Join(dir, "crt"), Key: filepath.Join(dir, "key")}
	c.Metrics = socketIn(t)
	day := time.Now().Add(24 * time.Hour)
	ca.ocsp = responder.URL
	cert, key := ca.issue(day, "vault.example.org")
	put(t, c.Files.Cert, cert)
	put(t, c.Files.Key, key)
	f := launch(t, c).start()
	f.waitOutput("READY\n")
	dial := func() *tls.Conn {
		t.Helper()
		conn, err := tls.Dial("tcp", c.Listen[0], &tls.Config{RootCAs: ca.pool(), ServerName: "vault.example.org"})
		if err != nil {
			t.Fatalf("%v\n%s", err, f.output())
		}
		return conn
	}
	kept := dial()
	defer kept.Close()
	// It is a connection that waits for its next request: for the first one a
	// front gives 10 s.
	from := bufio.NewReader(kept)
	ask := func() error {
		if err := kept.SetDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		if _, err := io.WriteString(kept, "GET /v1/sys/health HTTP/1.1\r\nHost: vault.example.org\r\n\r\n"); err != nil {
			return err
		}
		res, err := http.ReadResponse(from, nil)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		_, err = io.Copy(io.Discard, res.Body)
		return err
	}
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	serial := kept.ConnectionState().PeerCertificates[0].SerialNumber
	staple, err := ocsp.ParseResponse(kept.ConnectionState().OCSPResponse, ca.cert)
	if err != nil || staple.Status != ocsp.Good || staple.SerialNumber.Cmp(serial) != 0 {
		t.Errorf("stapled OCSP response: %+v, %v", staple, err)
	}
	ca.ocsp = "" // the renewed one's CA has none any more
	cert, key = ca.issue(day.Add(time.Hour), "vault.example.org")
	put(t, c.Files.Key, key)
	put(t, c.Files.Cert, cert)
	f.waitOutput("another certificate is served")
	conn := dial()
	conn.Close()
	if got := conn.ConnectionState(); got.PeerCertificates[0].SerialNumber.Cmp(serial) == 0 || len(got.OCSPResponse) != 0 {
		t.Errorf("serial %v, %d bytes of OCSP; want the renewed certificate", got.PeerCertificates[0].SerialNumber, len(got.OCSPResponse))
	}
	// A client that names nobody gets the same one.
	nameless, err := tls.Dial("tcp", c.Listen[0], &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	nameless.Close()
	if nameless.ConnectionState().PeerCertificates[0].SerialNumber.Cmp(serial) == 0 {
		t.Error("a client without SNI gets the old certificate")
	}
	if err := ask(); err != nil {
		t.Errorf("the connection of before: %v", err)
	}
	m := scrape(t, c.Metrics)
	if m[`strongroom_front_certificate_reloads_total{result="ok"}`] != 1 || m[`strongroom_front_certificate_not_after_seconds{name="vault.example.org"}`] != float64(day.Add(time.Hour).Unix()) {
		t.Errorf("metrics: %v", m)
	}
}

// A responder that never answers does not keep the front from serving.
func TestOCSPResponderIsSilent(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the time limit of 30 seconds")
	}
	t.Parallel()
	gone := make(chan struct{})
	responder := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-gone }))
	defer responder.Close()
	defer close(gone)
	ca := newTestCA(t)
	ca.ocsp = responder.URL
	v := newBackend(t, http.HandlerFunc(echo))
	c := baseConfig(t, v)
	dir := t.TempDir()
	c.Issuer, c.RootFile, c.Names = config.TLSFiles, "", []string{"vault.example.org"}
	c.Files = config.FrontFiles{Cert: filepath.Join(dir, "crt"), Key: filepath.Join(dir, "key")}
	cert, key := ca.issue(time.Now().Add(24*time.Hour), "vault.example.org")
	put(t, c.Files.Cert, cert)
	put(t, c.Files.Key, key)
	f := launch(t, c).start()
	// After the 30 s that the responder is given.
	deadline := time.After(patience)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !strings.Contains(f.output(), "READY\n") {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not ready:\n%s", f.output())
		}
	}
}
