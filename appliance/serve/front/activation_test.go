package front

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"strongroom.example/config"
)

// systemd stands in for the service manager: it holds the sockets, across
// restarts of the front.
type systemd struct {
	https, http *net.TCPListener
	files       []*os.File
}

func newSystemd(t *testing.T) *systemd {
	t.Helper()
	s := &systemd{}
	var err error
	if s.https, err = net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
		t.Fatal(err)
	}
	if s.http, err = net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
		t.Fatal(err)
	}
	for _, l := range []interface{ File() (*os.File, error) }{s.http, s.https} {
		f, err := l.File()
		if err != nil {
			t.Fatal(err)
		}
		s.files = append(s.files, f)
	}
	t.Cleanup(func() {
		s.https.Close()
		s.http.Close()
		for _, f := range s.files {
			f.Close()
		}
	})
	return s
}

// activate starts a front on the sockets and waits for what it says.
func (s *systemd) activate(t *testing.T, c Config, want string) *testFront {
	t.Helper()
	f := launch(t, c, s.files...).start("LISTEN_FDS=2", "LISTEN_FDNAMES=http:https")
	f.waitOutput("READY\n")
	f.waitOutput(want)
	f.url = "https://" + s.https.Addr().String()
	return f
}

// Everything of a front works on systemd's sockets: HTTP/1.1 and 2, redirects
// and both challenges.
func TestSocketActivation(t *testing.T) {
	for _, challenge := range []string{"HTTP-01", "TLS-ALPN-01"} {
		t.Run(challenge, func(t *testing.T) {
			v := newBackend(t, http.HandlerFunc(echo))
			s := newSystemd(t)
			c := acmeConfig(t, v, "vault.example.org")
			c.Listen, c.Redirect = []string{"fd:https"}, []string{"fd:http"}
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
			if c.Redirect == nil {
				return
			}
			direct := &http.Client{Timeout: patience, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
			res, err := direct.Get("http://" + s.http.Addr().String() + "/v1/sys/health")
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

// No datagram is listened for, whatever the file of an earlier version says, and no
// answer names HTTP/3: what comes in its early data can be sent again.
func TestNoHTTP3(t *testing.T) {
	v := newBackend(t, http.HandlerFunc(echo))
	c := baseConfig(t, v)
	c.HTTP3, c.HTTP3Enabled = []string{"fd:http3"}, true
	f := startFront(t, c)
	if res, _ := f.get("/v1/sys/health"); res.StatusCode != 200 || res.Header.Get("Alt-Svc") != "" {
		t.Errorf("%s, Alt-Svc %q", res.Status, res.Header.Get("Alt-Svc"))
	}
	f.waitOutput("http3_enabled have no effect")
	addr, err := net.ResolveUDPAddr("udp", c.Listen[0])
	if err != nil {
		t.Fatal(err)
	}
	if pc, err := net.ListenUDP("udp", addr); err != nil {
		t.Errorf("somebody listens for datagrams: %v", err)
	} else {
		pc.Close()
	}
}
