package front

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/caddyserver/caddy/v2"
)

// Connections at once: by an IPv4 address or an IPv6 /64, by a /48, and in all. A
// connection costs some 25 KiB, and at the limit of descriptors nobody is served.
const (
	connsByClient = 512
	connsBySite   = 1024
	connsInAll    = 12_000
)

// admission counts connections before anything is read from them.
type admission struct {
	inAll   int
	refused atomic.Uint64

	mu   sync.Mutex
	open int
	by   map[netip.Prefix]int
}

// newAdmission keeps half of the descriptors for the way to Vault.
func newAdmission() (*admission, error) {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return nil, err
	}
	limit := connsInAll
	if files.Cur < 2*connsInAll+1024 {
		limit = max(int(files.Cur)/2-512, 64) //nolint:gosec // it is small
	}
	return &admission{inAll: limit, by: map[netip.Prefix]int{}}, nil
}

// enter counts a connection in, or says that there are enough. The machine's own, by
// which the front looks whether it is alive, find room when others have taken all.
func (a *admission) enter(remote, local netip.Addr) bool {
	remote, local = remote.Unmap(), local.Unmap()
	client, site := clientKey(remote), siteKey(remote)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.open >= a.inAll && remote != local || a.by[client] >= connsByClient || client != site && a.by[site] >= connsBySite {
		a.refused.Add(1)
		return false
	}
	a.open++
	a.by[client]++
	if client != site {
		a.by[site]++
	}
	return true
}

func (a *admission) leave(remote netip.Addr) {
	client, site := clientKey(remote.Unmap()), siteKey(remote.Unmap())
	a.mu.Lock()
	defer a.mu.Unlock()
	a.open--
	keys := []netip.Prefix{client, site}
	if client == site {
		keys = keys[:1]
	}
	for _, k := range keys {
		if a.by[k]--; a.by[k] == 0 {
			delete(a.by, k)
		}
	}
}

const admitID = "caddy.listeners.strongroom_admit"

// admit bounds a listener's connections, together with those of the others.
type admit struct{ admission *admission }

var _ caddy.ListenerWrapper = (*admit)(nil)

// CaddyModule names the module.
func (*admit) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: admitID, New: func() caddy.Module { return new(admit) }}
}

// Provision prepares it.
func (a *admit) Provision(ctx caddy.Context) error {
	s, err := sharedState(ctx)
	if err == nil {
		a.admission = s.admission
	}
	return err
}

// WrapListener bounds ln.
func (a *admit) WrapListener(ln net.Listener) net.Listener {
	return &admittingListener{Listener: ln, admission: a.admission}
}

type admittingListener struct {
	net.Listener
	admission *admission
}

// Accept closes what is too much at once: nobody waits behind it.
func (l *admittingListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		remote := remoteAddr(c.RemoteAddr().String())
		if l.admission.enter(remote, remoteAddr(c.LocalAddr().String())) {
			return &admittedConn{Conn: c, leave: sync.OnceFunc(func() { l.admission.leave(remote) })}, nil
		}
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // no TIME_WAIT is kept for it
		}
		_ = c.Close()
	}
}

type admittedConn struct {
	net.Conn
	leave func()
}

func (c *admittedConn) Close() error {
	c.leave()
	return c.Conn.Close()
}

// pingIdle has HTTP/2 ask a client that has sent no whole frame for headerTimeout
// whether it is there. In the middle of a header it cannot answer, so a header has to
// be whole in time here as well; net/http's own times are for HTTP/1.1.
func pingIdle() func(context.Context, net.Conn) context.Context {
	var once sync.Once
	return func(ctx context.Context, _ net.Conn) context.Context {
		once.Do(func() {
			if srv, ok := ctx.Value(http.ServerContextKey).(*http.Server); ok {
				srv.HTTP2 = &http.HTTP2Config{SendPingTimeout: headerTimeout, PingTimeout: headerTimeout}
			}
		})
		return ctx
	}
}
