package front

import (
	"net"
	"net/netip"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru"
	"golang.org/x/time/rate"
)

// maxClients bounds the limiter's memory: about 200 bytes each. The client
// that has been silent longest is forgotten first, which gives it a full
// burst again.
const maxClients = 10_000

// limiter counts requests per client address: an IPv4 address, or an IPv6 /64,
// because one subscriber has all of that.
type limiter struct {
	rate       rate.Limit // requests per second; 0 for no limit
	burst      int        // requests
	concurrent int        // requests in flight; 0 for no limit
	now        func() time.Time

	mu      sync.Mutex
	clients *lru.Cache
}

type client struct {
	bucket *rate.Limiter
	busy   int

	spent float64   // bytes, see spend
	at    time.Time // when spent was so
}

func newLimiter(perSecond float64, burst, concurrent int, now func() time.Time) (*limiter, error) {
	clients, err := lru.New(maxClients)
	if err != nil {
		return nil, err
	}
	return &limiter{rate: rate.Limit(perSecond), burst: burst, concurrent: concurrent, now: now, clients: clients}, nil
}

// enter lets a request of addr in, or says how long its sender should wait.
// leave is to be called at the request's end; it is nil after a refusal.
func (l *limiter) enter(addr netip.Addr) (leave func(), wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.of(clientKey(addr))
	if l.concurrent > 0 && c.busy >= l.concurrent {
		return nil, time.Second
	}
	if l.rate > 0 {
		now := l.now()
		r := c.bucket.ReserveN(now, 1)
		if wait := r.DelayFrom(now); wait > 0 {
			r.CancelAt(now)
			return nil, wait
		}
	}
	c.busy++
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		c.busy--
	}, 0
}

// of is what is known of a client.
func (l *limiter) of(key netip.Prefix) *client {
	if v, ok := l.clients.Get(key); ok {
		return v.(*client)
	}
	c := &client{bucket: rate.NewLimiter(l.rate, l.burst)}
	l.clients.Add(key, c)
	return c
}

// clientKey is who a limit applies to.
func clientKey(addr netip.Addr) netip.Prefix { return prefixOf(addr, 64) }

// siteKey is who has bought an address: an IPv6 /48 for one is common.
func siteKey(addr netip.Addr) netip.Prefix { return prefixOf(addr, 48) }

func prefixOf(addr netip.Addr, bits int) netip.Prefix {
	addr = addr.Unmap().WithZone("")
	if addr.Is4() {
		bits = 32
	}
	p, err := addr.Prefix(bits)
	if err != nil { // an address that is none: all of those share one limit
		return netip.Prefix{}
	}
	return p
}

// remoteAddr is the address of http.Request.RemoteAddr, or the zero Addr.
func remoteAddr(hostport string) netip.Addr {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		return netip.Addr{}
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}
	}
	return addr.Unmap()
}
