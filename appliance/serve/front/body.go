package front

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

// bounds are what a body may be. Vault writes 80 bytes for each value into both of its
// audit logs, before it does something and afterwards, also where it refuses.
type bounds struct {
	bytes  int64
	values int // of JSON, a form or a query
	depth  int // of JSON
}

var (
	// small is for what needs no token: a log-in's largest part is a JWT.
	small = bounds{64 << 10, 256, 16}
	// large is stricter in each than Vault's own listener: vault.hcl.tmpl.
	large = bounds{0, 10_000, 100}
)

// bounds of the class, for a request with a token or without; at most limit bytes.
func (c *class) bounds(token bool, limit int64) bounds {
	b := small
	if c.large && token {
		b = large
		b.bytes = limit
	}
	b.bytes = min(b.bytes, limit)
	return b
}

// What requests weigh that come to nothing, in bytes.
const (
	valueWeight = 4 * 80 // see bounds
	byteShare   = 4      // a long string is a hash there: what weighs is reading it
	loginWeight = 32 << 10
)

// scanner counts what a body holds, however it is cut.
type scanner struct {
	form, began      bool
	inString, escape bool
	depth            int
	deepest, values  int
}

func (s *scanner) feed(p []byte) {
	if !s.began {
		// A form that begins like JSON is JSON, as Vault has it.
		if rest := bytes.TrimLeft(p, " \t\r\n"); len(rest) > 0 {
			s.began = true
			s.form = s.form && rest[0] != '{' && rest[0] != '['
		}
	}
	if s.form {
		s.values += bytes.Count(p, []byte{'&'})
		return
	}
	for _, b := range p {
		switch {
		case s.escape:
			s.escape = false
		case b == '"':
			s.inString = !s.inString
		case s.inString:
			s.escape = b == '\\'
		case b == ',':
			s.values++
		case b == '{' || b == '[':
			s.values++
			s.depth++
			s.deepest = max(s.deepest, s.depth)
		case b == '}' || b == ']':
			s.depth--
		}
	}
}

// body is a request's body on its way to Vault. It ends with an error where it is
// more than it may be, or is not sent rightly, and remembers why: the proxy wraps the
// error beyond recognition.
type body struct {
	io.ReadCloser
	bounds  bounds
	left    int64
	scan    scanner
	load    *load
	weighed int // values
	fault   atomic.Pointer[verdict]
}

var errBody = errors.New("request body is refused")

func newBody(r *http.Request, b bounds, l *load) *body {
	out := &body{ReadCloser: r.Body, bounds: b, left: b.bytes, load: l}
	out.scan.form = strings.Contains(r.Header.Get("Content-Type"), "form")
	return out
}

func (b *body) Read(p []byte) (int, error) {
	if b.fault.Load() != nil {
		return 0, errBody
	}
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.ReadCloser.Read(p)
	b.left -= int64(n)
	b.scan.feed(p[:n])
	if v := b.judge(n, err); v != passed {
		b.fault.Store(&v)
		return 0, errBody
	}
	return n, err
}

func (b *body) judge(n int, err error) verdict {
	switch {
	case b.left < 0:
		return tooLarge(b.bounds.bytes)
	case b.scan.values > b.bounds.values:
		return refusedValues
	case b.scan.deepest > b.bounds.depth:
		return refusedDepth
	case err != nil && err != io.EOF:
		if ne := (net.Error)(nil); errors.As(err, &ne) && ne.Timeout() || errors.Is(err, os.ErrDeadlineExceeded) {
			return refusedSlow
		}
		return refusedMalformed
	}
	more := b.scan.values - b.weighed
	b.weighed = b.scan.values
	return b.load.add(int64(n)/byteShare + int64(more)*valueWeight)
}

// load is what one request weighs. It is given back where it comes to something.
type load struct {
	limits *limiter
	addr   netip.Addr
	weight int64
}

// add is a refusal where the address has used up what it may.
func (l *load) add(weight int64) verdict {
	if weight == 0 {
		return passed
	}
	if wait := l.limits.spend(l.addr, weight); wait > 0 {
		return verdict{status: http.StatusTooManyRequests, text: refusedWeight, wait: wait}
	}
	l.weight += weight
	return passed
}

const refusedWeight = "too much from this address that came to nothing"

// settle gives back what a request weighed that ended with this status, or without
// Vault's having looked at it.
func (l *load) settle(status int) {
	if l.weight > 0 && (status < 400 && status != 0 || status >= 502 && status <= 504) {
		l.limits.giveBack(l.addr, l.weight)
	}
}

// What of a request's line weighs nothing: so many parameters, and bytes of a path.
const (
	usualQuery = 8
	usualPath  = 1 << 10
)

// smallBody is how much is read, and judged, before Vault is asked.
const smallBody = 64 << 10

// readBody judges what r sends. What is small, or must be, is read whole first: of
// what is refused nothing reaches Vault. The rest is judged on its way.
func readBody(r *http.Request, b bounds, l *load) (*body, verdict) {
	if r.ContentLength > b.bytes {
		return nil, tooLarge(b.bytes)
	}
	values := 0
	if r.URL.RawQuery != "" {
		values = 1 + strings.Count(r.URL.RawQuery, "&")
	}
	if values > b.values {
		return nil, refusedValues
	}
	weight := int64(0)
	if values > usualQuery {
		weight = int64(values) * valueWeight
	}
	if n := len(r.URL.Path); n > usualPath {
		weight += 4 * int64(n) // it stands in each record of the audit logs
	}
	if v := l.add(weight); v != passed {
		return nil, v
	}
	if r.Body == nil || r.Body == http.NoBody {
		return nil, passed
	}
	out := newBody(r, b, l)
	r.Body = out
	if r.ContentLength > smallBody || r.ContentLength < 0 && b.bytes > smallBody {
		return out, passed
	}
	data := bytes.NewBuffer(make([]byte, 0, max(r.ContentLength, 0)+bytes.MinRead))
	if _, err := data.ReadFrom(out); err != nil {
		if v := out.fault.Load(); v != nil {
			return out, *v
		}
		return out, refusedMalformed
	}
	r.Body, r.ContentLength, r.TransferEncoding = io.NopCloser(data), int64(data.Len()), nil
	return out, passed
}

// The budget of what comes to nothing: what an address may spend at once, and how
// fast it comes back, in bytes and bytes a second.
const (
	vainBurst = 8 << 20
	vainRate  = 32 << 10
)

// spend takes weight from what addr may use up in vain, or says how long its sender
// should wait.
func (l *limiter) spend(addr netip.Addr, weight int64) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.of(siteKey(addr))
	now := l.now()
	c.spent = max(0, c.spent-now.Sub(c.at).Seconds()*vainRate)
	c.at = now
	if over := c.spent + float64(weight) - vainBurst; over > 0 && c.spent > 0 {
		return time.Duration(over / vainRate * float64(time.Second))
	}
	c.spent += float64(weight)
	return 0
}

func (l *limiter) giveBack(addr netip.Addr, weight int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.of(siteKey(addr))
	c.spent = max(0, c.spent-float64(weight))
}
