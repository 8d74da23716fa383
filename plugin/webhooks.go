package apikeys

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"strongroom.example/plugin/lifecycle"
	"strongroom.example/plugin/provider/safehttp"
)

// Limits of the delivery of webhooks.
const (
	hookQueue   = 5000 // events that wait for one receiver; further ones are dropped and counted
	hookTimeout = 10 * time.Second
	hookAnswer  = 16 << 10 // bytes of an answer that are read, and thrown away
	hookTries   = 8        // over about two hours
	hookBase    = 10 * time.Second
	hookMax     = time.Hour
)

// SignatureHeader carries t=UNIX,v1=HEX: the HMAC-SHA256, under the webhook's
// secret, of the decimal time, a full stop and the body. A receiver recomputes
// it and refuses times that are far off, so that nothing can be replayed.
const SignatureHeader = "Strongroom-Signature"

// DeliveryHeader carries the event's id, which stays the same when an event is
// delivered again.
const DeliveryHeader = "Strongroom-Delivery"

// webhookRecord is a webhook as it is stored.
type webhookRecord struct {
	Name           string   `json:"name"`
	URL            string   `json:"url"`
	Secret         string   `json:"secret"`
	Events         []string `json:"events,omitempty"` // patterns such as rotate-*; none: all
	AllowAddresses []string `json:"allow_addresses,omitempty"`
	AllowHTTP      bool     `json:"allow_http,omitempty"`
	CAPEM          string   `json:"ca_pem,omitempty"`
}

// wants tells whether a kind of event goes to this webhook.
func (r *webhookRecord) wants(kind string) bool {
	return len(r.Events) == 0 || slices.ContainsFunc(r.Events, func(pattern string) bool {
		ok, err := path.Match(pattern, kind)
		return err == nil && ok
	})
}

// client builds the client under the webhook's own policy.
func (r *webhookRecord) client() (*safehttp.Client, error) {
	var allow []netip.Prefix
	if len(r.AllowAddresses) > 0 {
		var err error
		if allow, err = safehttp.ParsePrefixes(r.AllowAddresses); err != nil {
			return nil, fmt.Errorf("allow_addresses: %w", err)
		}
	}
	opts := safehttp.Options{Allow: allow, AllowHTTP: r.AllowHTTP, Timeout: hookTimeout, MaxBody: hookAnswer}
	if r.CAPEM != "" {
		opts.RootCAs = x509.NewCertPool()
		if !opts.RootCAs.AppendCertsFromPEM([]byte(r.CAPEM)) {
			return nil, fmt.Errorf("ca_pem: no certificate in it")
		}
	}
	return safehttp.New(opts), nil
}

// hookEvent is the body of a webhook.
type hookEvent struct {
	ID    string            `json:"id"`
	Type  string            `json:"type"`
	Time  time.Time         `json:"time"`
	Mount string            `json:"mount"` // the mount's identity in key names
	Key   string            `json:"key,omitempty"`
	Data  map[string]string `json:"data,omitempty"`
}

// dispatcher delivers events to webhooks, each in its own goroutine and in
// order, so that a slow receiver neither holds up a rotation nor another
// receiver. What waits is in storage too, see webhook_queue.go.
type dispatcher struct {
	pause func(ctx context.Context, d time.Duration) // between two tries
	clock Clock
	// warn logs what goes wrong with storage.
	warn func(msg string, args ...any)

	mu    sync.Mutex
	st    store // valid once loaded
	hooks map[string]*hook
	// broken are those that are stored and cannot be used, and why.
	broken map[string]string
	done   sync.WaitGroup
	ctx    context.Context
	stop   context.CancelFunc
	// behind tells that storage may hold events that no queue does.
	behind atomic.Bool
}

// hook is one receiver.
type hook struct {
	rec    *webhookRecord
	client *safehttp.Client
	cancel context.CancelFunc
	wake   chan struct{} // of size 1: there is something in the queue

	mu                         sync.Mutex
	queue                      []hookEvent // the first one is being delivered
	coming                     int         // events that are being stored, and have a place
	delivered, failed, dropped int64
	missed                     int // dropped, and the receiver was not told
	lastError                  string
}

func newDispatcher(clock Clock, warn func(msg string, args ...any)) *dispatcher {
	d := &dispatcher{clock: clock, warn: warn, hooks: map[string]*hook{}, broken: map[string]string{}}
	d.ctx, d.stop = context.WithCancel(context.Background())
	d.pause = func(ctx context.Context, d time.Duration) { waitFor(ctx, nil, d) }
	return d
}

// set replaces a webhook, which takes over what waits; nil removes it.
func (d *dispatcher) set(name string, rec *webhookRecord) error {
	var next *hook
	if rec != nil {
		client, err := rec.client()
		if err != nil {
			return err
		}
		next = &hook{rec: rec, client: client, wake: make(chan struct{}, 1)}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.broken, name)
	old := d.hooks[name]
	if old != nil {
		old.cancel()
		delete(d.hooks, name)
	}
	if next == nil || d.ctx.Err() != nil {
		return nil
	}
	if old != nil {
		next.queue = old.waiting()
		d.behind.Store(true) // what is just being put into the old one's queue
	}
	ctx, cancel := context.WithCancel(d.ctx)
	next.cancel = cancel
	d.hooks[name] = next
	d.done.Add(1)
	go func() {
		defer d.done.Done()
		d.serve(ctx, next)
	}()
	return nil
}

// close ends every delivery. What waits is in storage.
func (d *dispatcher) close() {
	d.stop()
	d.done.Wait()
}

func (d *dispatcher) serve(ctx context.Context, h *hook) {
	for {
		e, ok := h.first()
		if !ok {
			select {
			case <-ctx.Done():
				return
			case <-h.wake:
			}
			continue
		}
		if (e.Type == "missed" || h.rec.wants(e.Type)) && !d.deliver(ctx, h, e) {
			return
		}
		d.forget(ctx, h, e)
	}
}

// deliver tries until the receiver has answered 2xx, or gives up. A receiver
// may get an event twice; its id stays the same. It tells whether the event is
// dealt with: it is not where ctx has ended.
func (d *dispatcher) deliver(ctx context.Context, h *hook, e hookEvent) bool {
	for try := 1; ctx.Err() == nil; try++ {
		err := d.post(ctx, h, e)
		if err == nil {
			h.note(func() { h.delivered++; h.lastError = "" })
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		h.note(func() { h.lastError = err.Error() })
		if try == hookTries {
			h.note(func() { h.failed++ })
			return true
		}
		d.pause(ctx, lifecycle.Backoff(try, hookBase, hookMax, lifecycle.Seed(e.ID, try)))
	}
	return false
}

func (d *dispatcher) post(ctx context.Context, h *hook, e hookEvent) error {
	body, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("encode event: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.rec.URL, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("the url cannot be used")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "strongroom-apikeys")
	req.Header.Set(DeliveryHeader, e.ID)
	req.Header.Set(SignatureHeader, sign(h.rec.Secret, d.clock.Wall(), body))
	resp, err := h.client.Do(ctx, req)
	if err != nil {
		return err // safehttp's errors quote nothing of the answer
	}
	if resp.Status < 200 || resp.Status > 299 {
		return fmt.Errorf("the receiver answered %d", resp.Status)
	}
	return nil
}

// sign makes the value of SignatureHeader.
func sign(secret string, at time.Time, body []byte) string {
	stamp := strconv.FormatInt(at.Unix(), 10)
	h := hmac.New(sha256.New, []byte(secret))
	h.Write([]byte(stamp + ".")) // a hash never fails
	h.Write(body)
	return "t=" + stamp + ",v1=" + hex.EncodeToString(h.Sum(nil))
}

func (h *hook) note(change func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change()
}

// names lists the webhooks.
func (d *dispatcher) names() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]string, 0, len(d.hooks))
	for name := range d.hooks {
		out = append(out, name)
	}
	for name := range d.broken {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// get gives a webhook and how its deliveries went; nil where there is none.
func (d *dispatcher) get(name string) (*webhookRecord, map[string]any) {
	d.mu.Lock()
	h, broken := d.hooks[name], d.broken[name]
	d.mu.Unlock()
	if broken != "" {
		return &webhookRecord{Name: name}, map[string]any{"last_error": broken}
	}
	if h == nil {
		return nil, nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.rec, map[string]any{
		"delivered": h.delivered, "failed": h.failed, "dropped": h.dropped, "waiting": len(h.queue) + h.coming, "last_error": h.lastError,
	}
}

// counts gives how many events a webhook took, refused and had no room for.
func (d *dispatcher) counts(name string) (delivered, failed, dropped int64) {
	d.mu.Lock()
	h := d.hooks[name]
	d.mu.Unlock()
	if h == nil {
		return 0, 0, 0
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.delivered, h.failed, h.dropped
}

// load reads every webhook.
func (d *dispatcher) load(ctx context.Context, st store) error {
	d.mu.Lock()
	d.st = st
	d.mu.Unlock()
	d.behind.Store(true)
	names, err := st.webhooks(ctx)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := d.reload(ctx, st, name); err != nil {
			// The mount is there for keys: it goes on without a webhook that cannot be used.
			d.warn("a webhook cannot be used: write it anew", "webhook", name, "error", err)
			d.note(name, err)
		}
	}
	return nil
}

// note keeps why a webhook that is stored cannot be used.
func (d *dispatcher) note(name string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.broken[name] = truncate(err.Error(), 500)
}

func (d *dispatcher) reload(ctx context.Context, st store, name string) error {
	rec, err := st.webhook(ctx, name)
	if err != nil {
		return err
	}
	return d.set(name, rec)
}
