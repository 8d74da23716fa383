// Package conformance holds the one suite that every provider passes, against
// a service that behaves as documented and then fails in every way that
// services fail: after the key was made, before, half-way, slowly, hugely, or
// with the credential in its answer.
//
// It is not a test of the engine: what is done about a failure is decided
// there. Here each failure must only be told apart correctly.
package conformance

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"strongroom.example/plugin/provider"
)

// Subject is a provider under test.
type Subject struct {
	// New starts a fresh service and builds a provider for it.
	New func(t *testing.T) (provider.Provider, Service)
	// Params are parameters that the provider accepts.
	Params map[string]any
	// BadParams are refused by ValidateParameters, by what is wrong with them.
	BadParams map[string]map[string]any
}

// Service is the other side, as the suite sees it past the provider's back.
type Service interface {
	// Alive are the keys that work at present.
	Alive() []provider.RemoteKey
	// Works tells whether the service accepts the key.
	Works(key provider.Key) bool
	// Seed makes a key as a person would, in the service's console.
	Seed(name string) provider.Key
	// Faults injects failures; nil for providers without a network.
	Faults() *Faults
	// Deny makes the service refuse the provider's credential.
	Deny()
	// Secrets are the credential and all values ever issued.
	Secrets() []string
	// ErrorBody is a refusal in the service's own shape.
	ErrorBody(message string) string
}

// fixture is one case's provider and service.
type fixture struct {
	provider.Provider // watched: every error is searched for secrets
	Service
	caps   provider.Capabilities
	params map[string]any
}

type testCase struct {
	name  string
	needs func(c provider.Capabilities) bool
	run   func(t *testing.T, f *fixture)
}

// Run runs every case that the provider's capabilities call for.
func Run(t *testing.T, s Subject) {
	t.Helper()
	for _, tc := range cases() {
		t.Run(tc.name, func(t *testing.T) {
			p, service := s.New(t)
			f := &fixture{
				Provider: &watched{Provider: p, t: t, secrets: service.Secrets},
				Service:  service, caps: p.Capabilities(), params: s.Params,
			}
			if tc.needs != nil && !tc.needs(f.caps) {
				t.Skip("the provider has no such capability")
			}
			tc.run(t, f)
		})
	}
	for name, params := range s.BadParams {
		t.Run("bad parameters/"+name, func(t *testing.T) {
			p, service := s.New(t)
			if err := p.ValidateParameters(params); err == nil {
				t.Fatalf("%v is accepted", params)
			}
			if !p.Capabilities().Mint {
				return
			}
			_, err := p.Create(t.Context(), provider.CreateRequest{Name: "sr-bad-1", Parameters: params})
			wantKind(t, "create with bad parameters", err, provider.KindRejected)
			if n := len(service.Alive()); n != 0 {
				t.Fatalf("%d keys were made of bad parameters", n)
			}
		})
	}
}

func cases() []testCase {
	all := lifeCases()
	all = append(all, createFaultCases()...)
	return append(all, otherFaultCases()...)
}

func mints(c provider.Capabilities) bool { return c.Mint }
func remoteMint(c provider.Capabilities) bool {
	return c.Mint && !c.Local
}

// create mints one key, out of a seeded one where the service needs that.
func (f *fixture) create(t *testing.T, name string) provider.Key {
	t.Helper()
	key, err := f.Create(t.Context(), f.request(name))
	if err != nil {
		t.Fatalf("create %q: %v", name, err)
	}
	return key
}

// request is for a key of this name. Where the service makes it out of the
// current one, that is seeded.
func (f *fixture) request(name string) provider.CreateRequest {
	req := provider.CreateRequest{Name: name, Parameters: f.params}
	if f.caps.FromCurrent {
		key := f.Seed("seeded-" + name)
		req.Current = &key
	}
	return req
}

// anyKey is a working key, minted or made by hand.
func (f *fixture) anyKey(t *testing.T, name string) provider.Key {
	t.Helper()
	if f.caps.Mint {
		return f.create(t, name)
	}
	return f.Seed(name)
}

// alive tells whether a key with this id is alive at the service.
func (f *fixture) alive(id string) bool {
	for _, k := range f.Alive() {
		if k.ID == id {
			return true
		}
	}
	return false
}

func wantKind(t *testing.T, what string, err error, kinds ...provider.Kind) {
	t.Helper()
	if err == nil {
		t.Fatalf("%s: no error, want kind %v", what, kinds)
	}
	got := provider.KindOf(err)
	for _, k := range kinds {
		if got == k {
			return
		}
	}
	t.Fatalf("%s: kind %v, want %v (%v)", what, got, kinds, err)
}

// watched fails the test when an error holds a secret, in any form that a
// careless log line could print, or is no *provider.Error.
type watched struct {
	provider.Provider
	t       *testing.T
	secrets func() []string
	mu      sync.Mutex
}

func (w *watched) look(op string, err error) {
	if err == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := err.(*provider.Error); !ok {
		w.t.Errorf("%s: the error is a %T, not a *provider.Error: %v", op, err, err)
	}
	text := fmt.Sprintf("%v\n%+v\n%#v\n%s", err, err, err, chain(err))
	for _, secret := range w.secrets() {
		if strings.Contains(text, secret) {
			w.t.Errorf("%s: a secret is in the error: %s", op, strings.ReplaceAll(text, secret, "[SECRET]"))
		}
	}
}

// chain is the text of err and of everything beneath it.
func chain(err error) string {
	if err == nil {
		return ""
	}
	text := err.Error() + "\n"
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		return text + chain(e.Unwrap())
	case interface{ Unwrap() []error }:
		for _, one := range e.Unwrap() {
			text += chain(one)
		}
	}
	return text
}

// requestText is all that a request says, for services that echo it.
func requestText(r *http.Request, body []byte) string {
	var b strings.Builder
	for name, values := range r.Header {
		fmt.Fprintf(&b, "%s: %s ", name, strings.Join(values, " "))
	}
	b.Write(body)
	return b.String()
}
