package authority

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"testing"
	"time"
)

// A root that signs, whoever has its key, for other names than its own: nobody who
// trusts it believes that.
func TestRootSignsForItsNamesAlone(t *testing.T) {
	now := time.Now()
	for _, tt := range []struct {
		names     []string
		name      string
		permitted bool
	}{
		{[]string{"vault.example.com"}, "vault.example.com", true},
		{[]string{"vault.example.com"}, "a.vault.example.com", true}, // below it
		{[]string{"vault.example.com"}, "example.com", false},
		{[]string{"vault.example.com"}, "evil-vault.example.com", false},
		{[]string{"vault.example.com"}, "bank.example", false},
		{[]string{"vault.example.com"}, "192.0.2.1", false},
		{[]string{"vault.example.com"}, "2001:db8::1", false},
		{[]string{"vault.example.com", "192.0.2.1"}, "192.0.2.1", true},
		{[]string{"vault.example.com", "192.0.2.1"}, "192.0.2.2", false},
		{[]string{"vault.example.com", "192.0.2.1"}, "2001:db8::1", false},
		{[]string{"2001:db8::1"}, "2001:db8::1", true},
		{[]string{"2001:db8::1"}, "2001:db8::2", false},
		{[]string{"2001:db8::1"}, "192.0.2.1", false},
		{[]string{"192.0.2.1"}, "vault.example.com", false},
	} {
		crt, key, err := NewRoot(tt.names, now)
		if err != nil {
			t.Fatal(err)
		}
		pair, err := tls.X509KeyPair(crt, key)
		if err != nil {
			t.Fatal(err)
		}
		private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		leaf := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: now.Add(-time.Minute), NotAfter: now.Add(time.Hour)}
		if ip := net.ParseIP(tt.name); ip != nil {
			leaf.IPAddresses = []net.IP{ip}
		} else {
			leaf.DNSNames = []string{tt.name}
		}
		der, err := x509.CreateCertificate(rand.Reader, leaf, pair.Leaf, private.Public(), pair.PrivateKey)
		if err != nil {
			t.Fatal(err)
		}
		if leaf, err = x509.ParseCertificate(der); err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AddCert(pair.Leaf)
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: tt.name}); (err == nil) != tt.permitted {
			t.Errorf("a root of %q, a certificate of %q: %v", tt.names, tt.name, err)
		}
		if err := MayName(pair.Leaf, []string{tt.name}); (err == nil) != tt.permitted || err != nil && !errors.Is(err, ErrNames) {
			t.Errorf("a root of %q, asked for %q: %v", tt.names, tt.name, err)
		}
	}
}
