package safehttp

import (
	"bufio"
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestCheckAddress(t *testing.T) {
	for _, tc := range []struct {
		addr  string
		allow []string
		ok    bool
	}{
		{"8.8.8.8", nil, true},
		{"2606:4700::1111", nil, true},
		{"10.1.2.3", nil, false},
		{"172.31.255.255", nil, false},
		{"172.32.0.1", nil, true},
		{"192.168.0.1", nil, false},
		{"127.0.0.1", nil, false},
		{"127.255.255.254", nil, false},
		{"0.0.0.0", nil, false},
		{"100.64.0.1", nil, false},
		{"100.127.255.255", nil, false},
		{"100.128.0.1", nil, true},
		{"169.254.169.254", nil, false},
		{"168.63.129.16", nil, false},
		{"192.0.2.1", nil, false},
		{"198.18.0.1", nil, false},
		{"203.0.113.9", nil, false},
		{"224.0.0.1", nil, false},
		{"255.255.255.255", nil, false},
		{"::", nil, false},
		{"::1", nil, false},
		{"::127.0.0.1", nil, false},
		{"::ffff:127.0.0.1", nil, false},
		{"::ffff:8.8.8.8", nil, false},
		{"::ffff:0:7f00:1", nil, false},
		{"64:ff9b::7f00:1", nil, false},
		{"64:ff9b::808:808", nil, false},
		{"64:ff9b:1::1", nil, false},
		{"2002:7f00:1::", nil, false},
		{"2001::1", nil, false},
		{"2001:db8::1", nil, false},
		{"2001:4860:4860::8888", nil, true},
		{"3fff::1", nil, false},
		{"fc00::1", nil, false},
		{"fd00:ec2::254", nil, false},
		{"fe80::1", nil, false},
		{"fe80::1%eth0", nil, false},
		{"fec0::1", nil, false},
		{"ff02::1", nil, false},
		{"4000::1", nil, false},

		{"10.1.2.3", []string{"10.1.2.0/24"}, true},
		{"10.1.3.3", []string{"10.1.2.0/24"}, false},
		{"127.0.0.1", []string{"127.0.0.1"}, true},
		{"fd12::1", []string{"fc00::/7"}, true},
		{"fe80::1%eth0", []string{"fe80::/10"}, false},
		{"::ffff:10.1.2.3", []string{"10.1.2.0/24"}, false},
		{"169.254.169.254", []string{"169.254.0.0/16"}, false},
		{"169.254.1.1", []string{"169.254.0.0/16"}, true},
		{"169.254.169.254", []string{"169.254.169.254/32"}, true},
		{"fd00:ec2::254", []string{"fc00::/7"}, false},
		// Each cloud's metadata needs an exception for that very address.
		{"169.254.170.23", []string{"169.254.0.0/16"}, false},
		{"169.254.42.42", []string{"169.254.0.0/16"}, false},
		{"192.0.0.192", []string{"192.0.0.0/24"}, false},
		{"100.100.100.200", []string{"100.64.0.0/10"}, false},
		{"fd00:ec2::23", []string{"fd00::/8"}, false},
		{"fd00:ec2::254", []string{"fd00:ec2::/64"}, false},
		{"fd20:ce::254", []string{"fd20::/16"}, false},
		{"fd00:42::42", []string{"fc00::/7"}, false},
		{"fd00:c1::a9fe:a9fe", []string{"fd00:c1::/32"}, false},
		{"fd00:a9fe:a9fe::1", []string{"fd00::/8"}, false},
		{"fe80::a9fe:a9fe", []string{"fe80::/10"}, false},
		{"2001:19f0:fc00::a9fe:a9fe", nil, false},
		{"fd12:3456::a9fe:a9fe", []string{"fd12:3456::/32"}, false},
		{"fd00:ec2::254", []string{"fd00:ec2::254"}, true},
		{"fd20:ce::254", []string{"fd20:ce::254/128"}, true},
		{"fd20:cf::254", []string{"fd20::/16"}, true},
		{"64:ff9b::a9fe:a9fe", []string{"64:ff9b::/96"}, false},
		{"64:ff9b:1::a9fe:a9fe", []string{"64:ff9b:1::/48"}, false},
		{"64:ff9b:1::7f00:1", []string{"64:ff9b:1::/48"}, false},
		{"64:ff9b:1::808:808", []string{"64:ff9b:1::/48"}, true},
		{"::ffff:0:a00:1", []string{"::ffff:0:0:0/96"}, false},
		{"::10.0.0.1", []string{"::/96"}, false},
		{"64:ff9b::808:808", []string{"64:ff9b::/96"}, true},
		{"64:ff9b::7f00:1", []string{"64:ff9b::/96"}, false},
		{"64:ff9b::a01:203", []string{"64:ff9b::/96", "10.1.2.3"}, true},
		{"2002:a01:203::1", []string{"2002::/16"}, false},
	} {
		allow, err := ParsePrefixes(tc.allow)
		if err != nil {
			t.Fatal(err)
		}
		if err := (Policy{Allow: allow}).Check(netip.MustParseAddr(tc.addr)); (err == nil) != tc.ok {
			t.Errorf("%s with %v allowed: %v, want ok=%v", tc.addr, tc.allow, err, tc.ok)
		}
	}
}

func TestParsePrefixes(t *testing.T) {
	for _, bad := range []string{"", "x", "10.0.0.1/8", "0.0.0.0/0", "128.0.0.0/1", "::/0", "::ffff:1.2.3.4", "::ffff:1.2.3.0/120", "fe80::1%eth0", "10.0.0.0/33", "example.com"} {
		if got, err := ParsePrefixes([]string{bad}); err == nil {
			t.Errorf("%q is accepted as %v", bad, got)
		}
	}
}

func TestCheckURL(t *testing.T) {
	loopback := []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	for _, tc := range []struct {
		url  string
		o    Options
		want string // "" for allowed
	}{
		{"https://api.example.com/v1", Options{}, ""},
		{"https://api.example.com:8443/v1", Options{}, ""},
		{"https://1.1.1.1/", Options{}, ""},
		{"http://api.example.com/", Options{}, "https://"},
		{"http://api.example.com/", Options{AllowHTTP: true, Allow: loopback}, ""}, // decided when dialled
		{"http://1.1.1.1/", Options{AllowHTTP: true, Allow: loopback}, "allow_addresses"},
		{"http://127.0.0.1/", Options{AllowHTTP: true, Allow: loopback}, ""},
		{"http://127.0.0.1/", Options{Allow: loopback}, "https://"},
		{"https://127.0.0.1/", Options{}, "loopback"},
		{"https://[::1]/", Options{}, "loopback"},
		{"https://[::ffff:127.0.0.1]/", Options{}, "mapped"},
		{"https://169.254.169.254/latest", Options{}, "link-local"},
		{"ftp://example.com/", Options{}, "https://"},
		{"file:///etc/passwd", Options{}, "https://"},
		{"https:///x", Options{}, "no host"},
		{"https:x", Options{}, "no host"},
		{"https://user:pw@example.com/", Options{}, "user name"},
		{"https://example.com/#x", Options{}, "fragment"},
	} {
		u, err := url.Parse(tc.url)
		if err != nil {
			t.Fatal(err)
		}
		err = New(tc.o).CheckURL(u)
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", tc.url, err, tc.want)
		}
	}
}

// tlsServer is a server on 127.0.0.1 with a client that may reach it.
func tlsServer(t *testing.T, h http.HandlerFunc, change func(*Options)) (*Client, string) {
	t.Helper()
	s := httptest.NewTLSServer(h)
	t.Cleanup(s.Close)
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	o := Options{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}, RootCAs: roots, Timeout: 5 * time.Second}
	if change != nil {
		change(&o)
	}
	return New(o), s.URL
}

func get(t *testing.T, c *Client, ctx context.Context, target string) (*Response, *Error) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, target, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.Do(ctx, req)
	if err == nil {
		return res, nil
	}
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("%T is no *Error: %v", err, err)
	}
	return nil, e
}

func TestAnswer(t *testing.T) {
	c, target := tlsServer(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-A", "b")
		w.WriteHeader(http.StatusTeapot)
		io.WriteString(w, "short")
	}, nil)
	res, e := get(t, c, t.Context(), target)
	if e != nil || res.Status != http.StatusTeapot || string(res.Body) != "short" || res.Header.Get("X-A") != "b" {
		t.Fatalf("%+v, %v", res, e)
	}
}

func TestRedirectIsNotFollowed(t *testing.T) {
	hits := 0
	c, target := tlsServer(t, func(w http.ResponseWriter, r *http.Request) {
		hits++
		http.Redirect(w, r, "https://169.254.169.254/", http.StatusTemporaryRedirect)
	}, nil)
	res, e := get(t, c, t.Context(), target)
	if e != nil || res.Status != http.StatusTemporaryRedirect || hits != 1 {
		t.Fatalf("%+v, %v, %d hits", res, e, hits)
	}
}

// The name resolves to an address that is forbidden: the check is on the
// address, whatever the name promises.
func TestNameThatLeadsInside(t *testing.T) {
	c := New(Options{})
	for _, target := range []string{"https://localhost:1/", "https://127.0.0.1.:1/", "https://0x7f.1:1/"} {
		_, e := get(t, c, t.Context(), target)
		if e == nil || e.Sent {
			t.Fatalf("%s: %+v, want an unsent error", target, e)
		}
	}
	_, e := get(t, c, t.Context(), "https://localhost:1/")
	if !strings.Contains(e.Msg, "not dialled") || !strings.Contains(e.Msg, "loopback") {
		t.Fatalf("got %q", e.Msg)
	}
}

func TestHTTPOnlyToAllowedAddresses(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok") }))
	defer s.Close()
	_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
	o := Options{AllowHTTP: true, Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}}
	if res, e := get(t, New(o), t.Context(), "http://127.0.0.1:"+port); e != nil || string(res.Body) != "ok" {
		t.Fatal(e)
	}
	o.Allow = []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}
	if _, e := get(t, New(o), t.Context(), "http://localhost:"+port); e == nil || !strings.Contains(e.Msg, "explicitly allowed") {
		t.Fatalf("%+v", e)
	}
}

func TestEnvironmentsProxyIsIgnored(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	t.Setenv("ALL_PROXY", "http://127.0.0.1:1")
	c, target := tlsServer(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "direct") }, nil)
	if res, e := get(t, c, t.Context(), target); e != nil || string(res.Body) != "direct" {
		t.Fatal(e)
	}
}

func TestUntrustedCertificate(t *testing.T) {
	c, target := tlsServer(t, func(http.ResponseWriter, *http.Request) {}, func(o *Options) { o.RootCAs = x509.NewCertPool() })
	if _, e := get(t, c, t.Context(), target); e == nil || e.Sent || !strings.Contains(e.Msg, "certificate") {
		t.Fatalf("%+v, want unsent and the certificate named", e)
	}
}

func TestLimits(t *testing.T) {
	const canary = "canary-5e2f"
	hold := make(chan struct{})
	defer close(hold)
	for _, tc := range []struct {
		name   string
		h      http.HandlerFunc
		change func(*Options)
		check  func(e *Error) bool
	}{
		{"too large with a length", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, strings.Repeat("x", 101)) },
			func(o *Options) { o.MaxBody = 100 }, func(e *Error) bool { return e.Sent && e.TooLarge && e.Status == 200 }},
		{"endless", func(w http.ResponseWriter, r *http.Request) {
			for {
				if _, err := io.WriteString(w, strings.Repeat("x", 1<<16)); err != nil {
					return
				}
			}
		}, nil, func(e *Error) bool { return e.Sent && e.TooLarge }},
		{"silent", func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-hold:
			case <-r.Context().Done():
			}
		}, func(o *Options) { o.Timeout = 2 * time.Second }, func(e *Error) bool { return e.Sent && e.Timeout }},
		{"body never ends", func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, canary)
			w.(http.Flusher).Flush()
			select {
			case <-hold:
			case <-r.Context().Done():
			}
		}, func(o *Options) { o.Timeout = 2 * time.Second }, func(e *Error) bool { return e.Sent && e.Timeout && e.Status == 200 }},
		{"cut off", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, canary)
		}, nil, func(e *Error) bool { return e.Sent && !e.Timeout && e.Status == 200 }},
		{"no HTTP", func(w http.ResponseWriter, r *http.Request) {
			conn, rw, err := w.(http.Hijacker).Hijack()
			if err != nil {
				panic(err)
			}
			writeClose(conn, rw, canary+" this is no HTTP\r\n\r\n")
		}, nil, func(e *Error) bool { return e.Sent && !e.Timeout }},
		{"huge header", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Big", strings.Repeat(canary, 20000))
		}, nil, func(e *Error) bool { return e.Sent }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, target := tlsServer(t, tc.h, tc.change)
			res, e := get(t, c, t.Context(), target)
			if e == nil || !tc.check(e) {
				t.Fatalf("%+v, %+v", res, e)
			}
			for err := error(e); err != nil; err = errors.Unwrap(err) {
				if strings.Contains(err.Error(), canary) {
					t.Fatalf("the server's words are in the error: %v", err)
				}
			}
		})
	}
}

func writeClose(conn net.Conn, rw *bufio.ReadWriter, s string) {
	rw.WriteString(s)
	rw.Flush()
	conn.Close()
}

func TestCancelled(t *testing.T) {
	entered := make(chan struct{})
	c, target := tlsServer(t, func(w http.ResponseWriter, r *http.Request) { close(entered); <-r.Context().Done() }, nil)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-entered; cancel() }()
	if _, e := get(t, c, ctx, target); e == nil || !e.Sent || !errors.Is(e, context.Canceled) {
		t.Fatalf("%+v", e)
	}
	if _, e := get(t, c, ctx, target); e == nil || e.Sent || !errors.Is(e, context.Canceled) {
		t.Fatalf("cancelled beforehand: %+v", e)
	}
}

func TestRefusedConnection(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	c := New(Options{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}})
	if _, e := get(t, c, t.Context(), "https://"+addr); e == nil || e.Sent || !strings.Contains(e.Msg, "refused") {
		t.Fatalf("%+v", e)
	}
}
