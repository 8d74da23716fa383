// Package vaultapi is the only door to Vault: what the appliance and the
// installer ask of it, how an answer is read, and what a refusal means.
//
// Nothing comes from the environment: no VAULT_* variable and no proxy reaches
// a request. Nothing is wrapped but by Wrap. A request is repeated only if it
// changes nothing, or if it surely was never sent; a change whose answer was
// lost is told as such (IsUncertain). An answer without data is an error, and
// so is one that somebody has wrapped on the way.
//
// It is not a policy: what is mounted, registered and granted is decided by
// its callers (the installer, the demo, the timer jobs).
package vaultapi

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"

	"strongroom.example/appliance/base/atomicfile"
	"strongroom.example/appliance/base/pause"
)

// Options say where Vault is and who is asking.
type Options struct {
	// Address is https://HOST:PORT, unix:///PATH (absolute), or http:// at a
	// loopback address: nothing goes in clear to another machine.
	Address string
	// CACert is the PEM file that the server's certificate must chain to; empty
	// for the system's roots. Ignored on a unix socket.
	CACert string
	// ClientCert and ClientKey are PEM files for mutual TLS; both or neither.
	ClientCert, ClientKey string
	// Token may be empty: for calls that need none, or until SetToken.
	Token string
	// Timeout of one request, snapshots excepted; 0 means 60 s.
	Timeout time.Duration
}

// Client is a connection to one Vault. It is safe for concurrent use.
type Client struct {
	address string   // as it was given
	base    *url.URL // what requests are made to
	http    *http.Client
	timeout time.Duration
	repeats int
	pause   func(context.Context, time.Duration) error

	mu    sync.RWMutex
	token string
}

// New checks o and makes the client; it does not connect.
func New(o Options) (*Client, error) {
	base, dial, err := o.where()
	if err != nil {
		return nil, err
	}
	tlsConfig, err := o.tls()
	if err != nil {
		return nil, err
	}
	c := &Client{
		address: o.Address, base: base, timeout: o.Timeout, repeats: 2, token: o.Token, pause: pause.For,
		http: &http.Client{
			// Vault is on this machine or in its own network: there is no proxy, as
			// one from the environment would be handed every token.
			Transport: &http.Transport{
				DialContext: dial, TLSClientConfig: tlsConfig, ForceAttemptHTTP2: true,
				TLSHandshakeTimeout: 10 * time.Second, MaxIdleConnsPerHost: 16, IdleConnTimeout: 90 * time.Second,
			},
			// Nor is a token sent to wherever an answer points.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	if c.timeout == 0 {
		c.timeout = time.Minute
	}
	return c, nil
}

type dialer func(ctx context.Context, network, address string) (net.Conn, error)

// where is what requests are made to, and how it is reached.
func (o Options) where() (*url.URL, dialer, error) {
	u, err := url.Parse(o.Address)
	if err != nil {
		// The parser quotes all of it, and a password may stand in front of the @.
		return nil, nil, fmt.Errorf("vault's address is no URL: %w", err.(*url.Error).Err)
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, nil, fmt.Errorf("vault's address %q has a user, a query or a fragment: give https://HOST:PORT or unix:///PATH", u.Redacted())
	}
	d := &net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}
	switch {
	case u.Scheme == "unix" && u.Host == "" && strings.HasPrefix(u.Path, "/"):
		socket := u.Path
		return &url.URL{Scheme: "http", Host: "localhost"}, func(ctx context.Context, _, _ string) (net.Conn, error) {
			return d.DialContext(ctx, "unix", socket)
		}, nil
	case u.Scheme == "https" && u.Hostname() != "":
		return u, d.DialContext, nil
	case u.Scheme == "http" && loopback(u.Hostname()):
		// A name may be anybody's: what it resolved to is looked at again.
		d.Control = func(_, address string, _ syscall.RawConn) error {
			if host, _, err := net.SplitHostPort(address); err != nil || !loopback(host) {
				return fmt.Errorf("%w: %q is at %s", ErrClear, u.Hostname(), address)
			}
			return nil
		}
		return u, d.DialContext, nil
	case u.Scheme == "http" && u.Hostname() != "":
		return nil, nil, fmt.Errorf("vault's address %q: %w", o.Address, ErrClear)
	}
	return nil, nil, fmt.Errorf("vault's address %q is neither https://HOST:PORT nor unix:///PATH", o.Address)
}

// loopback says whether a host is this machine, as far as its name tells.
func loopback(host string) bool {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().IsLoopback()
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

func (o Options) tls() (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.CACert != "" {
		pem, err := atomicfile.ReadSmall(o.CACert, atomicfile.MaxSmall)
		if err != nil {
			return nil, fmt.Errorf("vault CA certificate: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("vault CA certificate %q holds no PEM certificate", o.CACert)
		}
	}
	if (o.ClientCert == "") != (o.ClientKey == "") {
		return nil, fmt.Errorf("vault client certificate %q and key %q: both or neither must be given", o.ClientCert, o.ClientKey)
	}
	if o.ClientCert != "" {
		pair, err := tls.LoadX509KeyPair(o.ClientCert, o.ClientKey)
		if err != nil {
			return nil, fmt.Errorf("vault client certificate %q: %w", o.ClientCert, err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}

// Address is what the client was made with.
func (c *Client) Address() string { return c.address }

// SetToken makes every later call use token.
func (c *Client) SetToken(token string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.token = token
}

// Token is the one in use. It is secret.
func (c *Client) Token() string {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.token
}

// Once is the same client for somebody who is waiting, or a timer that comes
// again: it repeats nothing, and no request takes longer than limit; 0 leaves
// that as it is.
func (c *Client) Once(limit time.Duration) *Client {
	one := c.As(c.Token())
	one.repeats = 0
	if limit != 0 {
		one.timeout = limit
	}
	return one
}

// As is the same connection, used by whoever holds token.
func (c *Client) As(token string) *Client {
	return &Client{address: c.address, base: c.base, http: c.http, timeout: c.timeout, repeats: c.repeats, pause: c.pause, token: token}
}
