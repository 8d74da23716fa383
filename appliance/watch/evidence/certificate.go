package evidence

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"time"
)

// FrontAddress is where the front answers on an installed machine.
const FrontAddress = "127.0.0.1:443"

// Certificate is what a server presents in its TLS hello. It is not verified:
// one that has expired or has another name is evidence as well.
type Certificate struct {
	Subject   string    `json:"subject"`
	Issuer    string    `json:"issuer"`
	Names     []string  `json:"names"` // DNS names and addresses it is for
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	SHA256    string    `json:"sha256"`
	// Covers says whether it is for the name that was asked for.
	Covers bool `json:"covers"`
	// Version of TLS that was agreed on, as tls.VersionName gives it.
	Version string `json:"tls_version"`
}

// Left is how long it is still valid, negative after its end.
func (c Certificate) Left(now time.Time) time.Duration { return c.NotAfter.Sub(now) }

// DaysLeft is Left in whole days, rounded down.
func (c Certificate) DaysLeft(now time.Time) int {
	left := c.Left(now)
	days := int(left / (24 * time.Hour))
	if left < 0 {
		days--
	}
	return days
}

// ReadCertificate says hello to a TLS server at address (host:port) under a
// name, by SNI, and gives what it presents.
func ReadCertificate(ctx context.Context, address, name string) (Certificate, error) {
	state, err := Hello(ctx, address, name, tls.VersionTLS12, tls.VersionTLS13)
	if err != nil {
		return Certificate{}, err
	}
	if len(state.PeerCertificates) == 0 {
		return Certificate{}, fmt.Errorf("%s presents no certificate for %q", address, name)
	}
	return describe(state.PeerCertificates[0], name, state.Version), nil
}

func describe(leaf *x509.Certificate, name string, version uint16) Certificate {
	sum := sha256.Sum256(leaf.Raw)
	c := Certificate{
		Subject: leaf.Subject.String(), Issuer: leaf.Issuer.String(), Names: leaf.DNSNames,
		NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter, SHA256: hex.EncodeToString(sum[:]),
		Covers: leaf.VerifyHostname(name) == nil, Version: tls.VersionName(version),
	}
	for _, ip := range leaf.IPAddresses {
		c.Names = append(c.Names, ip.String())
	}
	return c
}

// helloPatience bounds a handshake.
const helloPatience = 10 * time.Second

// Hello makes a TLS handshake with versions from lowest to highest, and closes.
// It verifies no certificate and sends nothing.
func Hello(ctx context.Context, address, name string, lowest, highest uint16) (tls.ConnectionState, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, helloPatience, fmt.Errorf("no handshake within %v", helloPatience))
	defer cancel()
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return tls.ConnectionState{}, fmt.Errorf("TLS hello: %w", err)
	}
	conn := tls.Client(raw, &tls.Config{
		ServerName: name, MinVersion: lowest, MaxVersion: highest,
		// The certificate is looked at, never trusted: nothing is sent.
		InsecureSkipVerify: true,
		NextProtos:         []string{"h2", "http/1.1"},
	})
	if err := conn.HandshakeContext(ctx); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return tls.ConnectionState{}, errors.Join(fmt.Errorf("TLS hello to %s for %q: %w", address, name, err), ignoreClosed(raw.Close()))
	}
	state := conn.ConnectionState()
	// The peer may be gone already; what was to be seen has been seen.
	_ = conn.Close()
	return state, nil
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
