package front

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
)

const stateID = "strongroom"

// state is what the front's modules share: a Caddy app that runs nothing.
type state struct {
	Dir string `json:"dir"`

	started   time.Time
	nonce     string // tells this process from any other that might answer
	budget    *budget
	admission *admission
	ready     chan struct{} // closed by Run once certificates are loaded
	files     *filesIssuer  // with issuer "files"

	// Counts since the start, for the metrics.
	obtained, renewed, certFailed atomic.Uint64 // certificates of an issuer
	reloaded, reloadFailed        atomic.Uint64 // changes of the operator's files
}

var (
	_ caddy.App           = (*state)(nil)
	_ caddyevents.Handler = (*state)(nil)
)

// CaddyModule names the module.
func (*state) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: stateID, New: func() caddy.Module { return new(state) }}
}

// Provision prepares it.
func (s *state) Provision(ctx caddy.Context) error {
	b := make([]byte, 16)
	if _, err := rand.Read(b); err != nil {
		return err
	}
	s.started = time.Now()
	s.ready = make(chan struct{})
	s.nonce = hex.EncodeToString(b)
	s.budget = newBudget(s.Dir, time.Now)
	var err error
	if s.admission, err = newAdmission(); err != nil {
		return err
	}
	app, err := ctx.App("events")
	if err != nil {
		return err
	}
	// certmagic's events: https://github.com/caddyserver/certmagic#events
	for _, name := range []string{"cert_obtained", "cert_failed"} {
		if err := app.(*caddyevents.App).On(name, s); err != nil {
			return err
		}
	}
	return nil
}

// Handle counts what becomes of attempts to get a certificate.
func (s *state) Handle(_ context.Context, e caddy.Event) error {
	switch renewal, _ := e.Data["renewal"].(bool); {
	case e.Name() == "cert_failed":
		s.certFailed.Add(1)
	case renewal:
		s.renewed.Add(1)
	default:
		s.obtained.Add(1)
	}
	return nil
}

// Start does nothing.
func (*state) Start() error { return nil }

// Stop does nothing.
func (*state) Stop() error { return nil }

func sharedState(ctx caddy.Context) (*state, error) {
	app, err := ctx.App(stateID)
	if err != nil {
		return nil, err
	}
	return app.(*state), nil
}
