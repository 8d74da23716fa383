// Package localtls makes the certificates of the link from the front to Vault
// on 127.0.0.1: a CA of its own, a server certificate for Vault and a client
// certificate for the front. Vault takes X-Forwarded-For from whoever shows
// that client certificate, so nobody else on the machine can pretend to be
// the front.
//
// It is not a CA to be kept: its key is forgotten once both certificates are
// signed, so no third one can ever appear. To renew, make all of it anew.
package localtls

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"time"
)

// Lifetime of the certificates. They are pinned, local and made anew at each
// upgrade; an expiry in between would only be an outage.
const Lifetime = 10 * 365 * 24 * time.Hour

// ClientName is the common name of the front's certificate.
const ClientName = "strongroom-front"

// Bundle is PEM, all of it.
type Bundle struct {
	CA        []byte // certificate; not secret
	ServerCrt []byte
	ServerKey []byte // secret
	ClientCrt []byte
	ClientKey []byte // secret
}

// New makes a bundle valid from an hour before now (clocks step at boot) for
// Lifetime.
func New(now time.Time, rand io.Reader) (*Bundle, error) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand)
	if err != nil {
		return nil, fmt.Errorf("make link certificates: %w", err)
	}
	ca := template(now, "strongroom link CA")
	ca.IsCA, ca.BasicConstraintsValid, ca.MaxPathLenZero = true, true, true
	ca.KeyUsage = x509.KeyUsageCertSign
	if ca.SerialNumber, err = serial(rand); err != nil {
		return nil, err
	}
	caDER, err := x509.CreateCertificate(rand, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return nil, fmt.Errorf("make link CA: %w", err)
	}

	server := template(now, "vault")
	server.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	server.DNSNames = []string{"localhost"}
	server.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	client := template(now, ClientName)
	client.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}

	b := &Bundle{CA: encode("CERTIFICATE", caDER)}
	if b.ServerCrt, b.ServerKey, err = sign(server, ca, caKey, rand); err != nil {
		return nil, err
	}
	if b.ClientCrt, b.ClientKey, err = sign(client, ca, caKey, rand); err != nil {
		return nil, err
	}
	return b, nil
}

func template(now time.Time, name string) *x509.Certificate {
	return &x509.Certificate{
		Subject:   pkix.Name{CommonName: name},
		NotBefore: now.Add(-time.Hour),
		NotAfter:  now.Add(Lifetime),
		KeyUsage:  x509.KeyUsageDigitalSignature,
	}
}

func sign(leaf, ca *x509.Certificate, caKey *ecdsa.PrivateKey, rand io.Reader) (crt, key []byte, err error) {
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand)
	if err != nil {
		return nil, nil, fmt.Errorf("make key for %q: %w", leaf.Subject.CommonName, err)
	}
	if leaf.SerialNumber, err = serial(rand); err != nil {
		return nil, nil, err
	}
	der, err := x509.CreateCertificate(rand, leaf, ca, leafKey.Public(), caKey)
	if err != nil {
		return nil, nil, fmt.Errorf("sign certificate of %q: %w", leaf.Subject.CommonName, err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(leafKey)
	if err != nil {
		return nil, nil, fmt.Errorf("encode key of %q: %w", leaf.Subject.CommonName, err)
	}
	return encode("CERTIFICATE", der), encode("PRIVATE KEY", keyDER), nil
}

// serial is 126 random bits with the top one set: positive, unique, and within
// the 20 octets of RFC 5280, section 4.1.2.2.
func serial(rand io.Reader) (*big.Int, error) {
	b := make([]byte, 16)
	if _, err := io.ReadFull(rand, b); err != nil {
		return nil, fmt.Errorf("make serial number: %w", err)
	}
	b[0] = b[0]&0x3f | 0x40
	return new(big.Int).SetBytes(b), nil
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
