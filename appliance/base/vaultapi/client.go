// Package vaultapi is how the appliance speaks to its Vault: HashiCorp's own
// client, with an address and a token that are given and never taken from the
// environment, and one function for each thing the appliance does there.
//
// It is not a policy: what is mounted, registered and granted is decided by
// its callers (the installer, the demo, the timer jobs).
package vaultapi

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/hashicorp/vault/api"
)

// Options say where Vault is and who is asking.
type Options struct {
	// Address is https://HOST:PORT or unix:///PATH (absolute).
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

// Client is a connection to one Vault. It is safe for concurrent use, SetToken
// excepted.
type Client struct {
	api *api.Client
}

// New checks o and makes the client; it does not connect.
func New(o Options) (*Client, error) {
	tlsConfig, err := o.tls()
	if err != nil {
		return nil, err
	}
	timeout := o.Timeout
	if timeout == 0 {
		timeout = time.Minute
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = tlsConfig
	// Vault is on this machine or in its own network; a proxy from the
	// environment would be handed every token.
	transport.Proxy = nil
	c, err := api.NewClient(&api.Config{
		Address: o.Address,
		HttpClient: &http.Client{
			Transport:     transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		Timeout:    timeout,
		MaxRetries: 2,
	})
	if err != nil {
		return nil, fmt.Errorf("vault client for %q: %w", o.Address, err)
	}
	// The library reads VAULT_TOKEN and VAULT_NAMESPACE by itself.
	c.ClearNamespace()
	c.SetToken(o.Token)
	return &Client{api: c}, nil
}

func (o Options) tls() (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.CACert != "" {
		pem, err := os.ReadFile(o.CACert)
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

// SetToken makes every later call use token.
func (c *Client) SetToken(token string) { c.api.SetToken(token) }

// API is HashiCorp's client below, for calls that this package has no name for.
func (c *Client) API() *api.Client { return c.api }
