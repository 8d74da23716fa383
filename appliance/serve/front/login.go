package front

import (
	"bytes"
	"context"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	lru "github.com/hashicorp/golang-lru"

	"strongroom.example/appliance/base/pause"
)

// What log-ins that fail may take. Vault itself locks a name after five of them.
const (
	// An address (an IPv6 /64) may fail so often at once, and once more in so many
	// seconds.
	addressTries = 20
	addressPause = 6 * time.Second
	// Of a name so many cost nothing; then each waits longer, wherever it comes from.
	nameTries  = 3
	namePause  = time.Minute // and one is forgotten
	firstDelay = 500 * time.Millisecond
	maxDelay   = 8 * time.Second
	// maxHeld are those that wait at once.
	maxHeld = 1000
	// An address that has logged in as a name does not wait for it, for so long.
	friendsFor = 24 * time.Hour
	// A log-in that fails is answered at a multiple of this, so that the time tells no
	// more than the words.
	answerStep = 500 * time.Millisecond
)

// The one answer to a log-in that fails, whether the name exists, is locked or not.
const (
	failedByName = "invalid username or password; after five wrong ones a name is locked for 15 minutes"
	failedByRole = "invalid role or secret ID"
)

// logins bounds log-ins that fail.
type logins struct {
	now  func() time.Time
	wait func(context.Context, time.Duration) error

	mu      sync.Mutex
	addrs   *lru.Cache // *leak by netip.Prefix
	names   *lru.Cache // *leak by name
	friends *lru.Cache // time.Time by friend
	held    int
}

// friend is an address that has logged in as a name.
type friend struct {
	name string
	addr netip.Prefix
}

// leak is a count that goes back by itself.
type leak struct {
	level float64
	at    time.Time
}

func (l *leak) now(now time.Time, each time.Duration) float64 {
	l.level = max(0, l.level-now.Sub(l.at).Seconds()/each.Seconds())
	l.at = now
	return l.level
}

func (l *leak) giveBack() { l.level = max(0, l.level-1) }

func newLogins(now func() time.Time) (*logins, error) {
	l := &logins{now: now, wait: pause.For}
	var err error
	for _, c := range []**lru.Cache{&l.addrs, &l.names, &l.friends} {
		if *c, err = lru.New(maxClients); err != nil {
			return nil, err
		}
	}
	return l, nil
}

func leakOf(c *lru.Cache, key any) *leak {
	if v, ok := c.Get(key); ok {
		return v.(*leak)
	}
	l := &leak{}
	c.Add(key, l)
	return l
}

// begin lets a log-in in, after the delay that its name has; name is "" where there is
// none. end is to be called with how it ended.
func (l *logins) begin(ctx context.Context, addr netip.Addr, name string) (end func(status int), v verdict) {
	who := friend{name, clientKey(addr)}
	l.mu.Lock()
	now := l.now()
	of := leakOf(l.addrs, who.addr)
	if over := of.now(now, addressPause) + 1 - addressTries; over > 0 {
		l.mu.Unlock()
		return nil, verdict{status: http.StatusTooManyRequests, text: "too many log-ins from this address that failed", wait: time.Duration(over * float64(addressPause))}
	}
	var tried *leak
	var delay time.Duration
	if name != "" {
		tried = leakOf(l.names, name)
		if delay = delayOf(tried.now(now, namePause)); delay > 0 && l.knows(who, now) {
			delay = 0
		}
	}
	if delay > 0 && l.held >= maxHeld {
		l.mu.Unlock()
		return nil, verdict{status: http.StatusTooManyRequests, text: "too many log-ins wait", wait: maxDelay}
	}
	of.level++
	if tried != nil {
		tried.level = min(tried.level+1, nameTries+8) // however many it were, it is forgotten in minutes
	}
	if delay > 0 {
		l.held++
	}
	l.mu.Unlock()
	end = func(status int) {
		l.mu.Lock()
		defer l.mu.Unlock()
		well := status >= 200 && status < 400
		if !well && status != 0 && status != http.StatusTooManyRequests && status < 500 {
			return
		}
		of.giveBack()
		if tried != nil {
			tried.giveBack()
		}
		if well && name != "" {
			l.friends.Add(who, l.now())
		}
	}
	if delay > 0 {
		err := l.wait(ctx, delay)
		l.mu.Lock()
		l.held--
		l.mu.Unlock()
		if err != nil {
			return end, refusedGone
		}
	}
	return end, passed
}

func (l *logins) knows(who friend, now time.Time) bool {
	at, ok := l.friends.Get(who)
	return ok && now.Sub(at.(time.Time)) < friendsFor
}

// delayOf is how long a log-in waits after so many that failed.
func delayOf(tries float64) time.Duration {
	over := int(tries) - nameTries
	if over < 0 {
		return 0
	}
	return min(firstDelay<<min(over, 8), maxDelay)
}

// login says whether a request may be a log-in in any reading of its path, and at which
// name; "" for one without a name in its path.
func (t target) login() (name string, is bool) {
	is = t.class == login
	for _, reading := range t.readings {
		for i := range reading {
			if !strings.EqualFold(reading[i], "auth") {
				continue
			}
			is = is || matches("auth/**/login", reading[i:])
			if at := strings.ToLower(strings.Join(reading, "/")); matches("auth/**/login/+", reading[i:]) && len(at) > len(name) {
				name, is = at, true
			}
		}
	}
	return name, is
}

// serveLogin answers as Vault does where that has let somebody in, and otherwise in one
// way, so that nobody learns which names there are: to a name that is locked Vault
// answers differently, and sooner.
func (g *gate) serveLogin(w *recorder, r *http.Request, next caddyhttp.Handler, named bool) (fault string, err error) {
	start := g.logins.now()
	kept := &answer{header: w.Header().Clone()}
	if err := next.ServeHTTP(kept, r); err != nil {
		return "", err
	}
	if kept.status == statusGone {
		return "", context.Canceled
	}
	status, body := max(kept.status, http.StatusOK), kept.body.Bytes()
	refused := status >= 400 && status < 500 && status != http.StatusTooManyRequests && status != http.StatusRequestEntityTooLarge
	locked := status == http.StatusForbidden && bytes.Contains(body, []byte("permission denied"))
	var text string
	switch {
	case refused && named:
		text = failedByName
	case locked, refused && bytes.Contains(body, []byte(failedByRole)):
		text = failedByRole
	default:
		for k, v := range kept.header {
			w.Header()[k] = v
		}
		w.WriteHeader(status)
		_, _ = w.Write(body) // an error means that the client has gone, and the recorder knows
		return "", nil
	}
	if over := g.logins.now().Sub(start) % answerStep; over >= 0 {
		if err := g.logins.wait(r.Context(), answerStep-over); err != nil {
			return "", context.Canceled
		}
	}
	refuse(w, verdict{status: http.StatusBadRequest, text: text})
	if locked {
		return "Vault has locked this log-in, or does not allow it", nil
	}
	return "", nil
}
