// Package safehttp sends one HTTP request to a server that somebody else
// named, so that neither the name nor the answer can turn it against the
// machine it runs on: https only, public addresses only (checked on the
// address that is really dialled, so DNS cannot change its mind in between),
// no redirects, no proxy from the environment, bounded time and size.
//
// It is not a general client: it keeps no connection, no cookie and no cache,
// and it never sends a request twice.
package safehttp

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"sync/atomic"
	"syscall"
	"time"
)

// Limits that hold where Options leaves them out.
const (
	DefaultTimeout = 25 * time.Second
	DefaultMaxBody = 1 << 20 // bytes
	maxHeader      = 64 << 10
)

// Options of a Client.
type Options struct {
	Allow     []netip.Prefix // addresses allowed beyond the public ones
	AllowHTTP bool           // http, too, but only to addresses in Allow
	RootCAs   *x509.CertPool // nil: the system's
	Timeout   time.Duration  // from the first packet to the last byte of the answer
	MaxBody   int64          // bytes of an answer's body
}

// Client sends requests under one policy. It is safe for concurrent use.
type Client struct {
	policy    Policy
	allowHTTP bool
	timeout   time.Duration
	maxBody   int64
	https     *http.Transport
	http      *http.Transport
}

// Response is a whole answer.
type Response struct {
	Status int
	Header http.Header
	Body   []byte
}

// Error tells what became of a request that got no whole answer. Its text
// holds nothing that the server sent.
type Error struct {
	Sent     bool // the request may have reached the server
	TooLarge bool // the answer was longer than allowed
	Timeout  bool
	Status   int // where a status had arrived before it broke
	Msg      string
	Err      error // context.Canceled and the like; nil where it could quote the answer
}

// Error is the message; it quotes no secret.
func (e *Error) Error() string { return e.Msg }

// Unwrap gives the cause where it is safe to show.
func (e *Error) Unwrap() error { return e.Err }

// New builds a client.
func New(o Options) *Client {
	c := &Client{
		policy: Policy{Allow: o.Allow}, allowHTTP: o.AllowHTTP,
		timeout: o.Timeout, maxBody: o.MaxBody,
	}
	if c.timeout <= 0 {
		c.timeout = DefaultTimeout
	}
	if c.maxBody <= 0 {
		c.maxBody = DefaultMaxBody
	}
	c.https = c.transport(o.RootCAs, c.policy.Check)
	c.http = c.transport(nil, func(a netip.Addr) error {
		if !c.policy.Excepts(a) {
			return fmt.Errorf("address %s: http is allowed to explicitly allowed addresses only", a)
		}
		return c.policy.Check(a)
	})
	return c
}

func (c *Client) transport(roots *x509.CertPool, check func(netip.Addr) error) *http.Transport {
	dialer := &net.Dialer{
		Timeout: c.timeout,
		// Control runs after the name was resolved and before the packet
		// leaves, once for each address tried.
		Control: func(network, address string, _ syscall.RawConn) error {
			if network != "tcp4" && network != "tcp6" {
				return &forbiddenError{fmt.Errorf("network %q is not allowed", network)}
			}
			ap, err := netip.ParseAddrPort(address)
			if err != nil {
				return &forbiddenError{errors.New("the address to dial is unreadable")}
			}
			if err := check(ap.Addr()); err != nil {
				return &forbiddenError{err}
			}
			return nil
		},
	}
	return &http.Transport{
		Proxy:                  nil, // never the environment's
		DialContext:            dialer.DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
		TLSHandshakeTimeout:    c.timeout,
		DisableKeepAlives:      true, // each request looks up and checks anew; none is sent twice
		DisableCompression:     true, // so that MaxBody counts what is held in memory
		MaxResponseHeaderBytes: maxHeader,
		ForceAttemptHTTP2:      false,
	}
}

type forbiddenError struct{ err error }

func (e *forbiddenError) Error() string { return e.err.Error() }

// CheckURL tells whether raw may be requested as far as the text alone shows;
// the address behind a name is checked when it is dialled.
func (c *Client) CheckURL(u *url.URL) error {
	switch {
	case u.Scheme == "http" && !c.allowHTTP:
		return errors.New("must begin with https:// (http is allowed only with allow_http, and to allow_addresses)")
	case u.Scheme != "https" && u.Scheme != "http":
		return errors.New("must begin with https://")
	case u.Opaque != "" || u.Hostname() == "":
		return errors.New("names no host")
	case u.User != nil:
		return errors.New("must not hold a user name or password")
	case u.Fragment != "":
		return errors.New("must not hold a fragment (#)")
	}
	if a, err := netip.ParseAddr(u.Hostname()); err == nil {
		if u.Scheme == "http" && !c.policy.Excepts(a) {
			return fmt.Errorf("http to %s needs it in allow_addresses", a)
		}
		return c.policy.Check(a)
	}
	return nil
}

// Do sends req once and reads the whole answer, whatever its status. An error
// is an *Error.
func (c *Client) Do(ctx context.Context, req *http.Request) (*Response, error) {
	if err := c.CheckURL(req.URL); err != nil {
		return nil, &Error{Msg: "the URL is not allowed: it " + err.Error()}
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	// From the moment a connection stands, some of the request may be on it.
	var connected atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { connected.Store(true) },
	})
	transport := c.https
	if req.URL.Scheme == "http" {
		transport = c.http
	}
	res, err := transport.RoundTrip(req.WithContext(ctx))
	if err != nil {
		return nil, describe(ctx, err, connected.Load(), 0)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, c.maxBody+1))
	if err == nil {
		// A server that sees our side close may still end its body properly:
		// what it had not sent by then is missing.
		err = ctx.Err()
	}
	if err != nil {
		return nil, describe(ctx, err, true, res.StatusCode)
	}
	if int64(len(body)) > c.maxBody {
		return nil, &Error{Sent: true, TooLarge: true, Status: res.StatusCode,
			Msg: fmt.Sprintf("the answer has more than %d bytes", c.maxBody)}
	}
	return &Response{Status: res.StatusCode, Header: res.Header, Body: body}, nil
}

// describe words an error without anything that the server could have put
// into it: net/http quotes malformed answers.
func describe(ctx context.Context, err error, sent bool, status int) *Error {
	out := &Error{Sent: sent, Status: status}
	var (
		forbidden *forbiddenError
		dns       *net.DNSError
		op        *net.OpError
		cert      *tls.CertificateVerificationError
		timeout   interface{ Timeout() bool }
	)
	isTimeout := errors.As(err, &timeout) && timeout.Timeout()
	switch {
	case errors.As(err, &forbidden):
		out.Msg, out.Err = "not dialled: "+forbidden.Error(), forbidden.err
	case errors.Is(ctx.Err(), context.Canceled):
		out.Msg, out.Err = "cancelled", context.Canceled
	case isTimeout || errors.Is(ctx.Err(), context.DeadlineExceeded):
		out.Timeout, out.Err = true, context.DeadlineExceeded
		out.Msg = "no connection in time"
		if sent {
			out.Msg = "no whole answer in time"
		}
	case sent:
		out.Msg = "the connection broke, or what came is no HTTP, before the answer was whole"
	case errors.As(err, &dns):
		out.Msg = fmt.Sprintf("the host %.100q cannot be resolved", dns.Name)
	case errors.As(err, &cert):
		out.Msg = "the server's certificate is not trusted for this host"
	case errors.As(err, &op) && op.Op == "dial":
		out.Msg, out.Err = "no connection: "+dialReason(op), op.Err
	default:
		out.Msg = "no connection: the TLS handshake failed"
	}
	return out
}

func dialReason(op *net.OpError) string {
	var errno syscall.Errno
	if errors.As(op.Err, &errno) {
		return errno.Error()
	}
	return "dialling failed"
}
