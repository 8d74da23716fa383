package authority

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// rootYears is how long a root of the internal CA is valid.
const rootYears = 10

// NewRoot makes a root that can sign for names alone, and what is below them: whoever
// has its key can be nobody else to those who trust it. PEM, the key too.
func NewRoot(names []string, now time.Time) (crt, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, nil, err
	}
	t := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "Strongroom front root"},
		NotBefore: now.Add(-time.Minute), NotAfter: now.AddDate(rootYears, 0, 0),
		IsCA: true, BasicConstraintsValid: true, MaxPathLen: 1, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		PermittedDNSDomainsCritical: true, // of all constraints
	}
	for _, name := range names {
		if ip, err := netip.ParseAddr(name); err == nil {
			t.PermittedIPRanges = append(t.PermittedIPRanges, &net.IPNet{IP: ip.AsSlice(), Mask: net.CIDRMask(ip.BitLen(), ip.BitLen())})
		} else {
			t.PermittedDNSDomains = append(t.PermittedDNSDomains, name)
		}
	}
	// Of a kind that nothing is permitted of, all is (RFC 5280, section 4.2.1.10).
	if len(t.PermittedDNSDomains) == 0 {
		t.ExcludedDNSDomains = []string{""}
	}
	if len(t.PermittedIPRanges) == 0 {
		for _, bytes := range []int{net.IPv4len, net.IPv6len} {
			t.ExcludedIPRanges = append(t.ExcludedIPRanges, &net.IPNet{IP: make(net.IP, bytes), Mask: net.CIDRMask(0, 8*bytes)})
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, private.Public(), private)
	if err != nil {
		return nil, nil, fmt.Errorf("make a root: %w", err)
	}
	if key, err = encodeKey(private); err != nil {
		return nil, nil, fmt.Errorf("make a root: %w", err)
	}
	return encodeCertificate(der), key, nil
}

// MayName is nil if a root may sign for names. One of an older version may for all.
func MayName(root *x509.Certificate, names []string) error {
	in := func(ranges []*net.IPNet, ip net.IP) bool {
		return slices.ContainsFunc(ranges, func(r *net.IPNet) bool { return r.Contains(ip) })
	}
	below := func(domains []string, name string) bool {
		return slices.ContainsFunc(domains, func(d string) bool { return d == "" || name == d || strings.HasSuffix(name, "."+d) })
	}
	for _, name := range names {
		may := len(root.PermittedDNSDomains) == 0 && !below(root.ExcludedDNSDomains, name) || below(root.PermittedDNSDomains, name)
		if ip := net.ParseIP(name); ip != nil {
			may = len(root.PermittedIPRanges) == 0 && !in(root.ExcludedIPRanges, ip) || in(root.PermittedIPRanges, ip)
		}
		if !may {
			return fmt.Errorf("%w: it may not sign for %q, as it was made for %s: strongroom front new-root makes another, which every client must be given",
				ErrNames, name, strings.Join(namesOf(root), ", "))
		}
	}
	return nil
}

// namesOf are what a root may sign for.
func namesOf(root *x509.Certificate) []string {
	out := slices.Clone(root.PermittedDNSDomains)
	for _, r := range root.PermittedIPRanges {
		out = append(out, r.IP.String())
	}
	return out
}

// ErrNames says that the configuration has another name than the root was made for.
var ErrNames = errors.New("the internal CA's root is for other names")

// ReadRoot is a CA's certificate in PEM, nil where text is none.
func ReadRoot(text []byte) *x509.Certificate {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil
	}
	root, err := x509.ParseCertificate(block.Bytes)
	if err != nil || !root.IsCA {
		return nil
	}
	return root
}

// Fingerprint is a certificate's SHA-256, in hex.
func Fingerprint(crt *x509.Certificate) string {
	sum := sha256.Sum256(crt.Raw)
	return hex.EncodeToString(sum[:])
}

func encodeCertificate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func encodeKey(private *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		return nil, err
	}
	defer clear(der)
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
}
