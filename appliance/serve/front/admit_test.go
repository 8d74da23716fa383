package front

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

func TestAdmission(t *testing.T) {
	a := &admission{inAll: 3000, by: map[netip.Prefix]int{}}
	local := netip.MustParseAddr("192.0.2.200")
	fill := func(format string, n int) (in int) {
		for i := range n {
			addr := format
			if strings.Contains(format, "%") {
				addr = fmt.Sprintf(format, i)
			}
			if a.enter(netip.MustParseAddr(addr), local) {
				in++
			}
		}
		return in
	}
	if in := fill("192.0.2.1", 600); in != connsByClient {
		t.Errorf("%d from one IPv4 address", in)
	}
	if in := fill("::ffff:192.0.2.1", 1); in != 0 {
		t.Errorf("%d more from it, written as IPv6", in)
	}
	if in := fill("2001:db8:0:1::%x", 600); in != connsByClient {
		t.Errorf("%d from one /64", in)
	}
	if in := fill("2001:db8:0:1%03x::1", 4000); in != connsBySite-connsByClient {
		t.Errorf("%d more from one /48", in)
	}
	if in := fill("2001:db8:1:%x::1", 4000); in != connsBySite {
		t.Errorf("%d from another /48", in)
	}
	if in := fill("2001:db8:2:%x::1", 4000); in != 3000-2*connsBySite-connsByClient {
		t.Errorf("%d more make it full", in)
	}
	if in := fill("198.51.100.1", 1); in != 0 {
		t.Error("one more than there may be in all")
	}
	if !a.enter(local, local) {
		t.Error("the front's own look is refused when others have taken all")
	}
	a.leave(local)
	for range 600 {
		if a.by[netip.MustParsePrefix("192.0.2.1/32")] > 0 {
			a.leave(netip.MustParseAddr("192.0.2.1"))
		}
	}
	if a.by[netip.MustParsePrefix("192.0.2.1/32")] != 0 || fill("198.51.100.1", 600) != connsByClient {
		t.Error("who has left is counted on")
	}
}

// A front that is full closes what is too much at once, serves who is in, and is alive.
func TestFullFront(t *testing.T) {
	v := newBackend(t, http.HandlerFunc(echo))
	c := baseConfig(t, v)
	c.Redirect = []string{freePort(t)}
	c.Metrics = socketIn(t)
	f := startFront(t, c)
	f.get("/v1/sys/health") // keeps its connection
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	closed := 0
	for i := range connsByClient + 20 {
		addr := c.Listen[0]
		if i%2 == 1 {
			addr = c.Redirect[0]
		}
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			closed++ // reset before the dial has returned
			continue
		}
		conns = append(conns, conn)
	}
	for _, conn := range conns[len(conns)-10:] {
		if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1)); err == nil || strings.Contains(err.Error(), "timeout") {
			t.Errorf("one connection too many is kept: %v", err)
		}
	}
	if res, _ := f.get("/v1/sys/health"); res.StatusCode != 200 {
		t.Errorf("who is in: %s", res.Status)
	}
	if n := scrape(t, c.Metrics)["strongroom_front_connections_refused_total"]; n < 10 {
		t.Errorf("%v connections are refused", n)
	}
}

// A listener's own look counts as alive where the front refuses it for being one too
// many, and not where nobody accepts.
func TestAliveWhenFull(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	a := &admission{inAll: 10, by: map[netip.Prefix]int{netip.MustParsePrefix("127.0.0.1/32"): connsByClient}}
	full := &admittingListener{Listener: ln, admission: a}
	go func() { _, _ = full.Accept() }()
	if err := alive(t.Context(), ln.Addr().String(), a); err != nil {
		t.Errorf("full: %v", err)
	}
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	if err := alive(t.Context(), gone.Addr().String(), a); err == nil {
		t.Error("nobody listens, and that is alive")
	}
}

// A header that is never whole ends its connection, by HTTP/2 as by HTTP/1.1; one that
// is idle and answers pings stays.
func TestUnfinishedHeaders(t *testing.T) {
	if testing.Short() {
		t.Skip("waits 20 seconds")
	}
	t.Parallel()
	v := newBackend(t, http.HandlerFunc(echo))
	f := startFront(t, baseConfig(t, v))
	f.get("/v1/sys/health")
	dial := func(proto string) *tls.Conn {
		conf := f.client.Transport.(*http.Transport).TLSClientConfig.Clone()
		conf.NextProtos = []string{proto}
		conn, err := tls.Dial("tcp", f.config.Listen[0], conf)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	one, two := dial("http/1.1"), dial("h2")
	fmt.Fprint(one, "GET /v1/secret/data/x HTTP/1.1\r\nHost: ")
	io.WriteString(two, http2.ClientPreface)
	fr := http2.NewFramer(two, two)
	var block strings.Builder
	enc := hpack.NewEncoder(&block)
	for _, h := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "localhost"}, {":path", "/v1/secret/data/x"}} {
		if err := enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}); err != nil {
			t.Fatal(err)
		}
	}
	if err := fr.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	if err := fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte(block.String()), EndStream: true}); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	for name, conn := range map[string]*tls.Conn{"HTTP/1.1": one, "HTTP/2": two} {
		if err := conn.SetReadDeadline(start.Add(patience)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, conn); err != nil && strings.Contains(err.Error(), "timeout") {
			t.Errorf("%s: the connection is kept: %v", name, err)
		}
		if took := time.Since(start); took > idleTimeout/2 {
			t.Errorf("%s: closed after %s, as if it were idle", name, took)
		}
	}
	if res, _ := f.get("/v1/sys/health"); res.StatusCode != 200 || res.ProtoMajor != 2 {
		t.Errorf("who answers pings: %s %s", res.Proto, res.Status)
	}
}
