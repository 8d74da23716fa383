package generated

import (
	"crypto/rand"
	"testing"
	"time"

	"strongroom.example/plugin/provider"
	"strongroom.example/plugin/provider/conformance"
)

func TestConformance(t *testing.T) {
	conformance.Run(t, conformance.Subject{
		New: func(t *testing.T) (provider.Provider, conformance.Service) {
			p, err := New(provider.Config{Name: "generated", Rand: rand.Reader, Now: time.Now})
			if err != nil {
				t.Fatal(err)
			}
			return p, nowhere{}
		},
		Params: map[string]any{"prefix": "team_", "length": 30, "checksum": "crc32"},
		BadParams: map[string]map[string]any{
			"too short":   {"length": 10},
			"bad letters": {"characters": "aa"},
		},
	})
}

// nowhere is the other side of a provider that has none.
type nowhere struct{}

func (nowhere) Alive() []provider.RemoteKey { return nil }
func (nowhere) Works(provider.Key) bool     { return true }
func (nowhere) Seed(string) provider.Key    { panic("there is no service") }
func (nowhere) Faults() *conformance.Faults { return nil }
func (nowhere) Deny()                       {}
func (nowhere) Secrets() []string           { return nil }
func (nowhere) ErrorBody(string) string     { return "" }
