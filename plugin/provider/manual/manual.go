// Package manual is for keys that nothing but a person can make: the engine
// reminds, and a person brings the new one in with import.
//
// It is not without use of the service: where its settings declare a request
// that tests, lists or revokes a key, these work as they do for type http, and
// an imported key is tested before it is given out.
package manual

import (
	"net/url"

	"strongroom.example/plugin/provider"
	"strongroom.example/plugin/provider/httpprov"
	"strongroom.example/plugin/provider/internal/fields"
)

// Provider mints nothing; the rest is as declared.
type Provider struct {
	*httpprov.Provider
	// ConsoleURL is where a person makes the next key; may be empty.
	ConsoleURL string
	// Instructions tell that person how; may be empty.
	Instructions string
}

var (
	_ provider.Provider  = (*Provider)(nil)
	_ provider.DryRunner = (*Provider)(nil)
	_ provider.Factory   = New
)

// New builds the provider. Beyond the settings of type http, of which create
// is refused, it knows
//
//	console_url   where the next key is made, https only
//	instructions  how, up to 4000 bytes
func New(cfg provider.Config) (provider.Provider, error) {
	m := fields.New("settings", cfg.Settings)
	p := &Provider{
		ConsoleURL:   m.String("console_url", "", 1000),
		Instructions: m.String("instructions", "", 4000),
	}
	if u, err := url.Parse(p.ConsoleURL); m.Has("console_url") && (err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil) {
		m.Fail("console_url", "%.100q must be an https URL without a user name", p.ConsoleURL)
	}
	var err error
	p.Provider, err = httpprov.Build(cfg, m, false)
	if err != nil {
		return nil, err
	}
	return p, nil
}
