package steps

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"

	"strongroom.example/config"
	"strongroom.example/config/machine"
	"strongroom.example/installer/host"
)

// A root that was made for another domain is found before anything is changed: with it
// the front would not start.
func TestPreflightOfTheFrontsRoot(t *testing.T) {
	made := func(domains ...string) []byte {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		c := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, PermittedDNSDomains: domains}
		der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	e := newVPS(t).env()
	for name, c := range map[string]struct {
		text []byte
		ok   bool
	}{
		"none yet": {nil, true}, "of before": {made(), true}, "of this domain": {made(e.Config.Domain), true}, "of one above it": {made("other.example", e.Config.Domain[strings.Index(e.Config.Domain, ".")+1:]), true},
		"of another": {made("other.example"), false}, "of one that ends alike": {made("t" + e.Config.Domain[1:]), false}, "damaged": {make([]byte, 300), true},
	} {
		v := newVPS(t)
		if c.text != nil {
			v.Files[machine.FrontRoot] = &host.Node{Data: c.text}
		}
		e := v.env()
		e.Config.TLS.Mode = config.TLSInternal
		err := preflight{e}.certificate(t.Context())
		if (err == nil) != c.ok || err != nil && !strings.Contains(err.Error(), "other.example") && !strings.Contains(err.Error(), "was made for") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
