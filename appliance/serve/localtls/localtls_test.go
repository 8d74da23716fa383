package localtls

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

func config(t *testing.T, b *Bundle, crt, key []byte) *tls.Config {
	t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b.CA) {
		t.Fatal("no CA in the bundle")
	}
	c := &tls.Config{RootCAs: pool, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
	if crt != nil {
		pair, err := tls.X509KeyPair(crt, key)
		if err != nil {
			t.Fatal(err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c
}

// handshake is the server's verdict on the client, and the client's on the
// server.
func handshake(t *testing.T, server, client *tls.Config, name string) (serverErr, clientErr error) {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	client = client.Clone()
	client.ServerName = name
	done := make(chan error, 1)
	go func() {
		err := tls.Server(a, server).Handshake()
		a.Close()
		done <- err
	}()
	c := tls.Client(b, client)
	clientErr = c.Handshake()
	b.Close()
	return <-done, clientErr
}

func TestMutualTLS(t *testing.T) {
	now := time.Now()
	ours, err := New(now, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := New(now, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	server := config(t, ours, ours.ServerCrt, ours.ServerKey)
	tests := []struct {
		name     string
		client   *tls.Config
		host     string
		serverOK bool
		clientOK bool
	}{
		{"the front by address", config(t, ours, ours.ClientCrt, ours.ClientKey), "127.0.0.1", true, true},
		{"the front by name", config(t, ours, ours.ClientCrt, ours.ClientKey), "localhost", true, true},
		{"server at another name", config(t, ours, ours.ClientCrt, ours.ClientKey), "example.com", false, false},
		{"no certificate", config(t, ours, nil, nil), "127.0.0.1", false, true},
		{"another CA's client", func() *tls.Config {
			c := config(t, ours, other.ClientCrt, other.ClientKey)
			// Sent whatever the server asks for, as an attacker would.
			cert := c.Certificates[0]
			c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
			return c
		}(), "127.0.0.1", false, true},
		{"Vault's own certificate as client", config(t, ours, ours.ServerCrt, ours.ServerKey), "127.0.0.1", false, true},
		{"another CA's server", config(t, other, other.ClientCrt, other.ClientKey), "127.0.0.1", false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			serverErr, clientErr := handshake(t, server, tt.client, tt.host)
			if (serverErr == nil) != tt.serverOK {
				t.Errorf("server: %v, want ok=%t", serverErr, tt.serverOK)
			}
			// With TLS 1.3 the client is done before the server judges it.
			if !tt.clientOK && clientErr == nil {
				t.Error("client accepted the server")
			}
		})
	}
}

func TestLifetime(t *testing.T) {
	now := time.Now()
	b, err := New(now.Add(-Lifetime-time.Minute), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, err = handshake(t, config(t, b, b.ServerCrt, b.ServerKey), config(t, b, b.ClientCrt, b.ClientKey), "localhost")
	var invalid x509.CertificateInvalidError
	if !errors.As(err, &invalid) || invalid.Reason != x509.Expired {
		t.Fatalf("want an expired certificate, got %v", err)
	}
}

func TestNoRandomness(t *testing.T) {
	if _, err := New(time.Now(), iotest.ErrReader(errors.New("dry"))); err == nil || !strings.Contains(err.Error(), "dry") {
		t.Fatalf("want the fault of the source of randomness, got %v", err)
	}
}
