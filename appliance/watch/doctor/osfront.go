package doctor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"strongroom.example/appliance/watch/evidence"
)

// HTTPSFront is the front at an address, host:port. Its certificate is not
// verified: status shows what it is, and nothing secret is sent.
type HTTPSFront struct{ Address string }

var _ Front = HTTPSFront{}

// Hello implements Front.
func (f HTTPSFront) Hello(ctx context.Context, name string, lowest, highest uint16) (tls.ConnectionState, error) {
	state, err := evidence.Hello(ctx, f.Address, name, lowest, highest)
	// The alert has no type of its own: crypto/tls gives its text, RFC 8446, 6.2.
	if err != nil && strings.Contains(err.Error(), "protocol version not supported") {
		err = fmt.Errorf("%w: %w", errVersions, err)
	}
	return state, err
}

// errVersions is a front that speaks none of the versions that were offered.
var errVersions = errors.New("the versions are refused")

// maxAnswer bounds what is read of an answer, in bytes.
const maxAnswer = 64 << 10

// Get implements Front.
func (f HTTPSFront) Get(ctx context.Context, name, path string) (Answer, error) {
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{ServerName: name, InsecureSkipVerify: true, MinVersion: tls.VersionTLS12},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, f.Address)
		},
	}
	defer transport.CloseIdleConnections()
	c := http.Client{
		Transport: transport, Timeout: 10 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+name+"/", nil)
	if err != nil {
		return Answer{}, fmt.Errorf("ask the front: %w", err)
	}
	// Opaque goes out as it is, whatever its encoding.
	req.URL = &url.URL{Scheme: "https", Host: name, Opaque: path}
	resp, err := c.Do(req)
	if err != nil {
		// The URL in url.Error is made for the wire, and not for reading.
		var sent *url.Error
		if errors.As(err, &sent) {
			err = sent.Err
		}
		return Answer{}, fmt.Errorf("ask the front for %s: %w", path, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return Answer{}, fmt.Errorf("ask the front: %w", err)
	}
	return Answer{resp.StatusCode, resp.Header, string(body)}, nil
}
