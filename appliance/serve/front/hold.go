package front

import (
	"net"
	"sync"

	"github.com/caddyserver/caddy/v2"
)

const holdID = "caddy.listeners.strongroom_hold"

// hold keeps a listener from accepting until the front is ready. Caddy starts
// its parts in no fixed order, so a listener may be up before the certificates
// are loaded; with systemd's sockets, clients are waiting there already.
type hold struct{ ready <-chan struct{} }

var _ caddy.ListenerWrapper = (*hold)(nil)

// CaddyModule names the module.
func (*hold) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: holdID, New: func() caddy.Module { return new(hold) }}
}

// Provision prepares it.
func (h *hold) Provision(ctx caddy.Context) error {
	s, err := sharedState(ctx)
	if err == nil {
		h.ready = s.ready
	}
	return err
}

// WrapListener holds ln.
func (h *hold) WrapListener(ln net.Listener) net.Listener {
	return &heldListener{Listener: ln, ready: h.ready, closed: make(chan struct{})}
}

type heldListener struct {
	net.Listener
	ready  <-chan struct{}
	closed chan struct{}
	once   sync.Once
}

func (l *heldListener) Accept() (net.Conn, error) {
	select {
	case <-l.ready:
		return l.Listener.Accept()
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *heldListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}
