package front

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"testing"
	"time"
)

// Of connections that nobody uses the oldest goes when there are too many; one that is
// used counts as new.
func TestIdlers(t *testing.T) {
	i := newIdlers(2)
	conns := make([]net.Conn, 4)
	for n := range conns {
		conns[n], _ = net.Pipe()
	}
	for n, want := range []net.Conn{nil, nil, conns[0]} {
		if gone := i.idle(conns[n]); gone != want {
			t.Errorf("the idle connection %d sends %v away", n, gone)
		}
	}
	if i.idle(conns[2]) != nil {
		t.Error("one that is idle already is counted twice")
	}
	i.busy(conns[1])
	i.busy(conns[0]) // gone already
	if i.idle(conns[3]) != nil || i.idle(conns[1]) != conns[2] {
		t.Error("one that was used is not the newest")
	}
	if len(i.at) != i.order.Len() {
		t.Errorf("%d and %d", len(i.at), i.order.Len())
	}
}

// 10,000 idle connections of 10,000 addresses take less than 250 MB: of those that
// nobody uses the oldest go, and whoever comes is served. In short it is a few more than
// are kept.
func TestIdleConnections(t *testing.T) {
	n, protos := maxIdle+500, []string{"http/1.1"}
	if testing.Short() {
		t.Skip("opens thousands of connections")
	}
	if os.Getenv("STRONGROOM_SOAK") == "1" {
		n, protos = 10_000, []string{"http/1.1", "h2"}
	}
	const most = 250
	for _, proto := range protos {
		t.Run(proto, func(t *testing.T) {
			f := startFront(t, baseConfig(t, newBackend(t, http.HandlerFunc(echo))))
			conf := f.client.Transport.(*http.Transport).TLSClientConfig.Clone()
			conf.NextProtos, conf.ServerName = []string{proto}, "127.0.0.1"
			conns := make([]net.Conn, n)
			for i := range n {
				d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 1, byte(i>>8), byte(i))}}
				conn, err := tls.DialWithDialer(&d, "tcp", f.config.Listen[0], conf)
				if err != nil {
					t.Fatalf("connection %d: %v", i, err)
				}
				defer conn.Close()
				if conns[i] = conn; proto == "h2" {
					fmt.Fprintf(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
				} else {
					fmt.Fprintf(conn, "GET /v1/sys/health HTTP/1.1\r\nHost: localhost\r\n\r\n")
				}
				if _, err := conn.Read(make([]byte, 1<<10)); err != nil {
					t.Fatalf("connection %d: %v", i, err)
				}
			}
			rss, err := residentMB(f.cmd.Process.Pid)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d connections, %d of them kept: %.0f MB resident", n, maxIdle, rss)
			if rss > most {
				t.Errorf("%.0f MB resident, more than %d", rss, most)
			}
			if res, _ := f.get("/v1/sys/health"); res.StatusCode != 200 {
				t.Errorf("afterwards: %s", res.Status)
			}
			open := func(c net.Conn) bool {
				_ = c.SetReadDeadline(time.Now().Add(time.Second))
				for {
					if _, err := c.Read(make([]byte, 1<<10)); err != nil {
						return errors.Is(err, os.ErrDeadlineExceeded)
					}
				}
			}
			if open(conns[0]) || !open(conns[n-1]) {
				t.Error("the oldest stays, or the newest goes")
			}
		})
	}
}
