package front

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/quic-go/quic-go/http3"

	"strongroom.example/config"
)

// systemd stands in for the service manager: it holds the sockets, across
// restarts of the front.
type systemd struct {
	https, http *net.TCPListener
	udp         *net.UDPConn
	files       []*os.File
}

func newSystemd(t *testing.T) *systemd {
	t.Helper()
	s := &systemd{}
	// As in production, HTTPS and HTTP/3 have the same number; of the free ones
	// for UDP, a few are taken for TCP.
	var err error
	for range 20 {
		if s.udp, err = net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
			t.Fatal(err)
		}
		if s.https, err = net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: s.udp.LocalAddr().(*net.UDPAddr).Port}); err == nil {
			break
		}
		s.udp.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	if s.http, err = net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
		t.Fatal(err)
	}
	for _, l := range []interface{ File() (*os.File, error) }{s.http, s.https, s.udp} {
		f, err := l.File()
		if err != nil {
			t.Fatal(err)
		}
		s.files = append(s.files, f)
	}
	t.Cleanup(func() {
		s.https.Close()
		s.http.Close()
		s.udp.Close()
		for _, f := range s.files {
			f.Close()
		}
	})
	return s
}

// activate starts a front on the sockets and waits for what it says.
func (s *systemd) activate(t *testing.T, c Config, want string) *testFront {
	t.Helper()
	f := launch(t, c, s.files...).start("LISTEN_FDS=3", "LISTEN_FDNAMES=http:https:h3")
	f.waitOutput("READY\n")
	f.waitOutput(want)
	f.url = "https://" + s.https.Addr().String()
	return f
}

// Everything of a front works on systemd's sockets: HTTP/1.1 to 3, redirects
// and both challenges.
func TestSocketActivation(t *testing.T) {
	for _, challenge := range []string{"HTTP-01", "TLS-ALPN-01"} {
		t.Run(challenge, func(t *testing.T) {
			v := newBackend(t, http.HandlerFunc(echo))
			s := newSystemd(t)
			c := acmeConfig(t, v, "vault.example.org")
			c.Listen, c.Redirect, c.HTTP3 = []string{"fd:https"}, []string{"fd:http"}, []string{"fd:h3"}
			httpPort := portOf(t, s.http.Addr().String())
			if challenge == "TLS-ALPN-01" {
				// The CA sees nobody at its port for plain HTTP.
				c.Redirect, httpPort = nil, "1"
			}
			p := newPebble(t, httpPort, portOf(t, s.https.Addr().String()))
			c.ACME = &config.FrontACME{CA: p.directory, TrustedRoots: []string{p.root}, Resolvers: []string{p.dns}}
			f := s.activate(t, c, "certificate obtained successfully")
			f.useACME(p, s.https.Addr().String())
			res, _ := f.get("/v1/sys/health")
			if res.StatusCode != 200 {
				t.Fatal(res.Status)
			}
			if alt := res.Header.Get("Alt-Svc"); !strings.Contains(alt, `h3=":`+portOf(t, s.https.Addr().String())+`"`) {
				t.Errorf("Alt-Svc is %q, want HTTP/3 at port %s", alt, portOf(t, s.https.Addr().String()))
			}
			h3 := &http3.Transport{TLSClientConfig: &tls.Config{RootCAs: p.trust(), ServerName: "vault.example.org"}}
			defer h3.Close()
			res, err := (&http.Client{Transport: h3, Timeout: patience}).Get("https://" + s.udp.LocalAddr().String() + "/v1/secret/data/app")
			if err != nil {
				t.Fatalf("HTTP/3: %v\n%s", err, f.output())
			}
			body, err := io.ReadAll(res.Body)
			res.Body.Close()
			var got struct{ Header http.Header }
			if err != nil || json.Unmarshal(body, &got) != nil || res.ProtoMajor != 3 || got.Header.Get("X-Forwarded-For") != "127.0.0.1" {
				t.Errorf("HTTP/3: %s %s, %s, %v", res.Proto, res.Status, body, err)
			}
			if c.Redirect == nil {
				return
			}
			direct := &http.Client{Timeout: patience, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
			res, err = direct.Get("http://" + s.http.Addr().String() + "/v1/sys/health")
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			want := "https://vault.example.org:" + portOf(t, s.https.Addr().String()) + "/v1/sys/health"
			if got := res.Header.Get("Location"); res.StatusCode != 308 || got != want {
				t.Errorf("redirect: %s to %q, want %q", res.Status, got, want)
			}
		})
	}
}

// Clients that keep asking while the front is restarted see no refusal: the
// sockets queue what arrives in between.
func TestRestartRefusesNobody(t *testing.T) {
	v := newBackend(t, http.HandlerFunc(echo))
	s := newSystemd(t)
	c := baseConfig(t, v)
	c.Limits.RequestsPerSecond = 0
	c.Listen = []string{"fd:https"}
	f := s.activate(t, c, "server running")
	trusting, url := f.newClient().Transport.(*http.Transport), f.url+"/v1/sys/health"

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	faults := make(chan error, 4)
	answered := make(chan struct{}, 1_000_000)
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				// Each request on a connection of its own: a kept one may be
				// closed by the server just as the client writes to it.
				tr := trusting.Clone()
				tr.DisableKeepAlives = true
				res, err := (&http.Client{Transport: tr, Timeout: patience}).Get(url)
				tr.CloseIdleConnections()
				if err != nil {
					faults <- err
					return
				}
				res.Body.Close()
				if res.StatusCode != 200 {
					faults <- &net.OpError{Op: res.Status}
					return
				}
				answered <- struct{}{}
			}
		})
	}
	for range 3 {
		for range 20 { // some traffic before each restart
			select {
			case <-answered:
			case err := <-faults:
				t.Fatal(err)
			}
		}
		f.stop(t)
		f = s.activate(t, c, "server running")
	}
	cancel()
	wg.Wait()
	select {
	case err := <-faults:
		t.Errorf("a client saw the restart: %v", err)
	default:
	}
	if _, err := os.Stat(filepath.Join(c.Storage, "pki")); err != nil {
		t.Fatal(err)
	}
}
