package vaultapi

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A server is believed by its CA only, and gets our certificate if it asks.
func TestTLS(t *testing.T) {
	seen := 0
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = len(r.TLS.PeerCertificates)
		answers(200, `{"data":{}}`)(w, r)
	}))
	s.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	s.StartTLS()
	t.Cleanup(s.Close)
	dir := t.TempDir()
	file := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	pair := s.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	certPEM, keyPEM := file("cert.pem", "CERTIFICATE", pair.Certificate[0]), file("key.pem", "PRIVATE KEY", key)
	endless := dir + "/endless" // as /dev/zero is, but for a test that fails
	if err := os.WriteFile(endless, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(endless, 4<<20); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		o       Options
		fault   string // of New
		trusted bool
		shown   int
	}{
		"with its CA":          {o: Options{CACert: certPEM, Token: "t"}, trusted: true},
		"and our certificate":  {o: Options{CACert: certPEM, ClientCert: certPEM, ClientKey: keyPEM, Token: "t"}, trusted: true, shown: 1},
		"the system's roots":   {o: Options{Token: "t"}},
		"no CA file":           {o: Options{CACert: dir + "/none"}, fault: "no such file"},
		"no file of a CA":      {o: Options{CACert: endless}, fault: "more than 1048576 bytes"},
		"no certificate in it": {o: Options{CACert: keyPEM}, fault: "holds no PEM certificate"},
		"no key":               {o: Options{ClientCert: certPEM}, fault: "both or neither"},
		"no certificate":       {o: Options{ClientKey: keyPEM}, fault: "both or neither"},
		"the two exchanged":    {o: Options{ClientCert: keyPEM, ClientKey: certPEM}, fault: "vault client certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			tt.o.Address = s.URL
			c, err := New(tt.o)
			if tt.fault != "" {
				if err == nil || !strings.Contains(err.Error(), tt.fault) {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			seen = -1
			_, err = c.Once(0).Read(t.Context(), "a")
			if (err == nil) != tt.trusted || tt.trusted && seen != tt.shown || !tt.trusted && seen != -1 {
				t.Errorf("%d certificates, %v", seen, err)
			}
		})
	}
}
