package config

import (
	"slices"
	"strings"
	"testing"
)

func TestACMERehearsalAndPorts(t *testing.T) {
	for name, c := range map[string]struct {
		acme  ACME
		stage string
		ports []int
	}{
		"Let's Encrypt":  {ACME{}, ACMELetsEncryptStaging, nil},
		"no rehearsal":   {ACME{Staging: "none"}, "", nil},
		"own authority":  {ACME{Directory: "https://ca.lan:9000/dir"}, "", []int{9000}},
		"own rehearsal":  {ACME{Directory: "https://ca.lan/dir", Staging: "https://ca.lan:444/dir"}, "https://ca.lan:444/dir", []int{444}},
		"default port":   {ACME{Directory: "https://ca.lan:443/dir"}, "", nil},
		"fallback's too": {ACME{Fallback: "https://ca.lan:8443/dir"}, ACMELetsEncryptStaging, []int{8443}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := c.acme.Rehearsal(); got != c.stage {
				t.Errorf("rehearsal at %q, want %q", got, c.stage)
			}
			if got := c.acme.Ports(); !slices.Equal(got, c.ports) {
				t.Errorf("ports %v, want %v", got, c.ports)
			}
		})
	}
}

func TestRenderFrontACME(t *testing.T) {
	p := FrontParams{
		Names: []string{"vault.example.com"}, Storage: "/var/lib/f", Email: "ops@example.com", Metrics: "/run/f/m.sock",
		VaultAddress: "127.0.0.1:8200", CAFile: "/c", CertFile: "/d", KeyFile: "/e",
		TLS: TLS{Mode: TLSACME, ACME: ACME{Directory: "https://ca.lan/dir", CAFile: "/ca", EAB: "/eab",
			Fallback: "https://x/dir", FallbackEAB: "/eab2", DNS: ACMEHetzner, DNSToken: "/token"}},
	}
	b, err := RenderFront(p)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`metrics = "/run/f/m.sock"`, "[acme]\n", `email = "ops@example.com"`, `ca = "https://ca.lan/dir"`, `staging = ""`,
		`eab_file = "/eab"`, `fallback = "https://x/dir"`, `fallback_eab_file = "/eab2"`, `trusted_roots = ["/ca"]`,
		"[acme.dns]\n", `provider = "hetzner"`, `token_file = "/token"`,
	} {
		if !strings.Contains(string(b), want) {
			t.Errorf("no %q in:\n%s", want, b)
		}
	}
	p.TLS.ACME = ACME{}
	if b, err = RenderFront(p); err != nil || !strings.Contains(string(b), "staging = \""+ACMELetsEncryptStaging) || strings.Contains(string(b), "\nca = ") {
		t.Errorf("with Let's Encrypt: %v\n%s", err, b)
	}
}
