package front

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
	"github.com/caddyserver/certmagic"

	"strongroom.example/appliance/base/atomicfile"
	"strongroom.example/appliance/serve/authority"
	"strongroom.example/config"
)

// drainPoll is how often a stop looks whether requests are still in flight.
const drainPoll = 20 * time.Millisecond

const (
	certificatePoll = 5 * time.Millisecond
	certificateWait = 20 * time.Second
)

// register makes our modules known to Caddy, which panics the second time.
var register = sync.OnceFunc(func() {
	for _, m := range []caddy.Module{new(gate), new(state), new(probe), new(plainErrors), new(hold), new(admit), new(guardedACME), new(hetznerDNS), new(filesIssuer), journalWriter{}, retryAfterWriter{}} {
		caddy.RegisterModule(m)
	}
})

// Hooks tell the caller about the front's life. All may be nil.
type Hooks struct {
	// Ready is called once it accepts connections. alive then says whether it
	// still does, for a watchdog.
	Ready func(alive func(context.Context) error)
	// Stopping is called before it drains.
	Stopping func()
}

// Run serves until ctx ends, then closes the listeners (systemd's sockets stay
// open and queue) and waits up to c.Drain for requests in flight. c must have
// been validated.
func Run(ctx context.Context, c Config, hooks Hooks) error {
	register()
	if err := os.MkdirAll(c.Storage, 0o700); err != nil {
		return fmt.Errorf("front storage: %w", err)
	}
	healed, release, err := heal(c, time.Now())
	if err != nil {
		return err
	}
	defer release()
	// Caddy keeps an id of its own here; the default is a home folder, which a
	// service has none of.
	if err := os.Setenv("XDG_DATA_HOME", c.Storage); err != nil {
		return err
	}
	socks := inherited()
	// Caddy takes the sockets by number, so nothing else would keep them from
	// being collected, and closed, before it does.
	defer runtime.KeepAlive(socks.files)
	cfg, err := caddyConfig(c, socks)
	if err != nil {
		return err
	}
	address, err := socks.dialAddress(c.Listen[0])
	if err != nil {
		return err
	}
	b, err := encode(cfg)
	if err != nil {
		return err
	}
	if err := caddy.Load(b, true); err != nil {
		return fmt.Errorf("start front: %w", err)
	}
	healed.say()
	if c.HTTP3Enabled || len(c.HTTP3) > 0 {
		caddy.Log().Named("front").Warn("http3 and http3_enabled have no effect: HTTP/3 is not spoken any more")
	}
	g, err := activeGate()
	var shared *state
	if err == nil {
		shared, err = sharedState(caddy.ActiveContext())
	}
	if err == nil && c.Issuer == config.TLSFiles {
		w := &fileWatch{files: c.Files, names: c.Names, now: time.Now, use: shared.files.use}
		if err = w.load(ctx); err == nil {
			tick := time.NewTicker(filesPoll)
			defer tick.Stop()
			go w.watch(ctx, tick.C, shared, caddy.Log().Named("files"))
		}
	}
	switch {
	case err != nil:
	case c.Issuer == config.TLSInternal: // signs within milliseconds
		var app *caddytls.TLS
		if app, err = activeTLS(); err == nil {
			err = waitForCertificates(ctx, app, c.Names)
		}
	case c.Issuer == config.TLSACME:
		err = loadStored(ctx, c)
	}
	if err == nil && c.RootFile != "" {
		err = publishRoot(c)
	}
	if err != nil {
		return errors.Join(err, caddy.Stop())
	}
	if c.Metrics != "" {
		stop, err := serveMetrics(c.Metrics, g, shared, c)
		if err != nil {
			// Clients come first: the front serves without them too.
			caddy.Log().Named("metrics").Error("metrics are off: " + err.Error())
		} else {
			defer stop()
		}
	}
	close(shared.ready) // the listeners accept from here on
	if hooks.Ready != nil {
		hooks.Ready(func(ctx context.Context) error { return alive(ctx, address, shared.admission) })
	}
	var ended error
	invalid := make(chan error, 2)
	end := func(err error) { invalid <- err }
	if c.Issuer == config.TLSInternal {
		tick := time.NewTicker(validPoll)
		defer tick.Stop()
		go watchValid(ctx, tick.C, time.Now, c.Names, caddytls.AllMatchingCertificates, end)
		if c.Authority != "" {
			tick := time.NewTicker(duePoll)
			defer tick.Stop()
			go watchDue(ctx, tick.C, time.Now, c, end)
		}
	}
	select {
	case <-ctx.Done():
	case ended = <-invalid:
	}
	if hooks.Stopping != nil {
		hooks.Stopping()
	}
	return errors.Join(ended, drain(g, c.Drain))
}

// activeGate finds the handler that Caddy has made from its configuration.
func activeGate() (*gate, error) {
	app, err := caddy.ActiveContext().App("http")
	if err != nil {
		return nil, fmt.Errorf("start front: %w", err)
	}
	for _, route := range app.(*caddyhttp.App).Servers[serverHTTPS].Routes {
		for _, h := range route.Handlers {
			if g, ok := h.(*gate); ok {
				return g, nil
			}
		}
	}
	return nil, errors.New("start front: its gate is not among Caddy's handlers")
}

// errNoCertificate is that of waitForCertificates when its time is over.
var errNoCertificate = errors.New("no certificate could be loaded")

// storedNames are those of names for which storage has a certificate of one of the
// issuers: certmagic loads no other.
func storedNames(storage string, issuers []string, names []string) []string {
	var out []string
	for _, name := range names {
		if slices.ContainsFunc(issuers, func(issuer string) bool {
			keys := certmagic.StorageKeys
			return !slices.ContainsFunc([]string{keys.SiteCert(issuer, name), keys.SitePrivateKey(issuer, name), keys.SiteMeta(issuer, name)},
				func(key string) bool { _, err := os.Stat(filepath.Join(storage, key)); return err != nil })
		}) {
			out = append(out, name)
		}
	}
	return out
}

// activeTLS is Caddy's part that holds the certificates.
func activeTLS() (*caddytls.TLS, error) {
	app, err := caddy.ActiveContext().App("tls")
	if err != nil {
		return nil, fmt.Errorf("start front: %w", err)
	}
	return app.(*caddytls.TLS), nil
}

// loadStored returns once the certificates are loaded that storage has, or cannot
// be. A public CA needs the front itself to be up before it signs, but what it has
// signed before certmagic loads beside the start, and clients may be waiting at
// systemd's sockets already.
func loadStored(ctx context.Context, c Config) error {
	app, err := activeTLS()
	if err != nil {
		return err
	}
	var issuers []string
	for _, policy := range app.Automation.Policies {
		for _, issuer := range policy.Issuers {
			issuers = append(issuers, issuer.IssuerKey())
		}
	}
	if err = waitForCertificates(ctx, app, storedNames(c.Storage, issuers, c.Names)); errors.Is(err, errNoCertificate) {
		caddy.Log().Named("certificates").Error(err.Error())
		return nil
	}
	return err
}

// waitForCertificates returns once there is one for every name.
func waitForCertificates(ctx context.Context, app *caddytls.TLS, names []string) error {
	tick := time.NewTicker(certificatePoll)
	defer tick.Stop()
	timeout := time.After(certificateWait)
	for _, name := range names {
		for !app.HasCertificateForSubject(name) {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return ctx.Err()
			case <-timeout:
				return fmt.Errorf("start front: %w for %q in %s", errNoCertificate, name, certificateWait)
			}
		}
	}
	return nil
}

// alive begins a TLS handshake. An alert is an answer too: before the first
// certificate is there it is the only one; and so is the end of a connection that is
// one too many.
func alive(ctx context.Context, address string, a *admission) error {
	refused := a.refused.Load()
	d := tls.Dialer{Config: &tls.Config{
		// Whether clients trust the certificate is not asked here.
		InsecureSkipVerify: true, //nolint:gosec
	}}
	conn, err := d.DialContext(ctx, "tcp", address)
	// crypto/tls reports an alert that came as an OpError of this name.
	if alert := (*net.OpError)(nil); errors.As(err, &alert) && alert.Op == "remote error" {
		return nil
	}
	if err != nil && a.refused.Load() != refused {
		return nil
	}
	if err != nil {
		return fmt.Errorf("front does not answer at %s: %w", address, err)
	}
	return conn.Close()
}

// drain stops Caddy, which closes the listeners at once and leaves what is in
// flight to end by itself, and waits for that end.
func drain(g *gate, limit time.Duration) error {
	if err := caddy.Stop(); err != nil {
		return fmt.Errorf("stop front: %w", err)
	}
	tick := time.NewTicker(drainPoll)
	defer tick.Stop()
	timeout := time.After(limit)
	for g.inFlight.Load() > 0 || g.active.Load() > 0 {
		select {
		case <-tick.C:
		case <-timeout:
			return fmt.Errorf("stop front: %d requests cut off after %s", g.inFlight.Load(), limit)
		}
	}
	return nil
}

// publishRoot copies the internal CA's root to where clients find it.
func publishRoot(c Config) error {
	root, err := os.ReadFile(filepath.Join(c.Storage, "pki", "authorities", "local", "root.crt"))
	if err != nil {
		return fmt.Errorf("front's root certificate: %w", err)
	}
	old, err := os.ReadFile(c.RootFile)
	switch {
	case err == nil && bytes.Equal(old, root):
		return nil
	case readRoot(c.RootFile) != nil:
		return fmt.Errorf("%w: clients trust that in %s, and the storage has another", authority.ErrRoot, c.RootFile)
	}
	return atomicfile.Write(c.RootFile, root, 0o644)
}
