package front

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
)

const retryAfterID = "caddy.logging.writers.strongroom_retry_after"

// retryAfters are what CAs have asked for in Retry-After (RFC 8555, section 6.6), by
// their hosts. certmagic hands neither the header nor its own HTTP client out; its ACME
// client logs each answer's header, and that log ends here. One for the process, as
// Caddy's logging is.
var retryAfters = &retryAfter{now: time.Now}

type retryAfter struct {
	now func() time.Time

	mu sync.Mutex
	at map[string]time.Time
}

// until is when ca may be asked again; zero where it has not said.
func (a *retryAfter) until(ca string) time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.at[ca]
}

// Write takes one line of the ACME client's log.
func (a *retryAfter) Write(p []byte) (int, error) {
	if !bytes.Contains(p, []byte(`"Retry-After"`)) {
		return len(p), nil
	}
	var line struct {
		URL     string      `json:"url"`
		Status  int         `json:"status_code"`
		Headers http.Header `json:"response_headers"`
	}
	// An order that is being worked on has the header, too, with a 200.
	if err := json.Unmarshal(p, &line); err != nil || line.Status != http.StatusTooManyRequests && line.Status != http.StatusServiceUnavailable {
		return len(p), nil //nolint:nilerr // a line of another form tells nothing
	}
	a.note(caName(line.URL), line.Headers)
	return len(p), nil
}

// note takes the header of a refusal.
func (a *retryAfter) note(ca string, h http.Header) {
	wait, ok := parseRetryAfter(h.Get("Retry-After"), a.now())
	if !ok {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.at == nil {
		a.at = map[string]time.Time{}
	}
	a.at[ca] = a.now().Add(wait)
}

// maxRetryAfter is how long a CA is believed at most: none of their windows is longer.
const maxRetryAfter = issuedWindow

// parseRetryAfter reads seconds or a date (RFC 9110, section 10.2.3).
func parseRetryAfter(text string, now time.Time) (wait time.Duration, ok bool) {
	if n, err := strconv.ParseUint(text, 10, 32); err == nil {
		return min(time.Duration(n)*time.Second, maxRetryAfter), n > 0
	}
	at, err := http.ParseTime(text)
	return min(at.Sub(now), maxRetryAfter), err == nil && at.After(now)
}

// retryAfterWriter is where Caddy's logging finds retryAfters.
type retryAfterWriter struct{}

var _ caddy.WriterOpener = retryAfterWriter{}

// CaddyModule names the module.
func (retryAfterWriter) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: retryAfterID, New: func() caddy.Module { return new(retryAfterWriter) }}
}

// String implements caddy.WriterOpener.
func (retryAfterWriter) String() string { return "Retry-After" }

// WriterKey implements caddy.WriterOpener.
func (retryAfterWriter) WriterKey() string { return "strongroom:retry-after" }

// OpenWriter implements caddy.WriterOpener.
func (retryAfterWriter) OpenWriter() (io.WriteCloser, error) {
	return struct {
		io.Writer
		io.Closer
	}{retryAfters, io.NopCloser(nil)}, nil
}

// errHeld says that a CA wants to be left alone for a while.
var errHeld = errors.New("the CA has asked to be left alone (Retry-After)")
