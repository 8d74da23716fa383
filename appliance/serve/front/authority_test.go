package front

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"path/filepath"
	"strings"
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
		crt, key, err := newRoot(tt.names, now)
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
		if err := mayName(pair.Leaf, []string{tt.name}); (err == nil) != tt.permitted || err != nil && !errors.Is(err, ErrRootNames) {
			t.Errorf("a root of %q, asked for %q: %v", tt.names, tt.name, err)
		}
	}
}

// Another name wants another root, by a person's word; a root from before there were
// constraints stays valid, for any name.
func TestRootOfOtherNames(t *testing.T) {
	first := usedStorage(t)
	root := readRoot(first.RootFile)
	if root == nil || !root.PermittedDNSDomainsCritical || len(root.ExcludedDNSDomains) != 1 || len(root.PermittedIPRanges) != 1 {
		t.Fatalf("the root is for %v", root)
	}
	c := copyOf(t, first)
	c.Names = []string{"127.0.0.1", "localhost"}
	f := launch(t, c).start()
	<-f.done
	if said := f.output(); !strings.Contains(said, "the internal CA's root is for other names") || !strings.Contains(said, "front new-root") {
		t.Fatalf("it said\n%s", said)
	}
	if !bytes.Equal(readFile(t, c.RootFile), readFile(t, first.RootFile)) {
		t.Error("clients are given another root")
	}
	if _, err := NewRoot(c, time.Now()); err != nil {
		t.Fatal(err)
	}
	if res, _ := startFront(t, c).get("/v1/sys/health"); res.StatusCode != 200 {
		t.Errorf("got %s", res.Status)
	}

	old := copyOf(t, first)
	remove(t, old.Storage)
	remove(t, old.RootFile)
	crt, key := rootOfBefore(t)
	writeTo(t, filepath.Join(old.Storage, rootKey+".crt"), crt)
	writeTo(t, filepath.Join(old.Storage, rootKey+".key"), key)
	old.Names = []string{"localhost", "127.0.0.1"}
	startFront(t, old)
	if !bytes.Equal(readFile(t, old.RootFile), crt) {
		t.Error("a root of before is replaced")
	}
}

// rootOfBefore is one as earlier versions made it, for every name.
func rootOfBefore(t *testing.T) (crt, key []byte) {
	t.Helper()
	crt, key, err := newRoot([]string{"x"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(crt, key)
	if err != nil {
		t.Fatal(err)
	}
	free := &x509.Certificate{
		SerialNumber: pair.Leaf.SerialNumber, Subject: pair.Leaf.Subject, NotBefore: pair.Leaf.NotBefore, NotAfter: pair.Leaf.NotAfter,
		IsCA: true, BasicConstraintsValid: true, MaxPathLen: 1, KeyUsage: pair.Leaf.KeyUsage,
	}
	der, err := x509.CreateCertificate(rand.Reader, free, free, pair.Leaf.PublicKey, pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), key
}
