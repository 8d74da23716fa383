package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"strongroom.example/appliance/watch/evidence"
	"strongroom.example/appliance/watch/status"
	"strongroom.example/test/vaulttest"
)

// statusArgs is the command line for a scratch Vault, whose front is elsewhere.
func statusArgs(t *testing.T, s *vaulttest.Server, verb string, more ...string) []string {
	t.Helper()
	dir := vaulttest.Dir(t)
	conf := filepath.Join(dir, "appliance.toml")
	if err := os.WriteFile(conf, []byte("domain = \"vault.example.com\"\n[tls]\nmode = \"internal\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return append([]string{verb, "--address", "unix://" + s.Layout.VaultSocket(), "--config", conf, "--states", filepath.Join(dir, "none"), "--front", "127.0.0.1:1"}, more...)
}

// lookToken is a file with a token.
func lookToken(t *testing.T, token string) string {
	t.Helper()
	p := filepath.Join(vaulttest.Dir(t), "token")
	if err := os.WriteFile(p, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestStatus shows a real Vault with real keys, with and without a login, and
// sealed.
func TestStatus(t *testing.T) {
	t.Setenv("VAULT_TOKEN", "")
	t.Setenv("HOME", t.TempDir())
	s := vaulttest.New(t)
	s.MountAPIKeys(t)
	logical := vaulttest.API(s.Root).Logical()
	for _, w := range []struct {
		path string
		data map[string]any
	}{
		{"apikeys/providers/own", map[string]any{"type": "generated"}},
		{"apikeys/keys/app/production/billing", map[string]any{"provider": "own", "rotation_period": "30d"}},
		{"apikeys/providers/by-hand", map[string]any{"type": "manual"}},
		{"apikeys/keys/app/production/console", map[string]any{"provider": "by-hand"}},
	} {
		if _, err := logical.WriteWithContext(t.Context(), w.path, w.data); err != nil {
			t.Fatal(err)
		}
	}
	args := statusArgs(t, s, "status")
	withToken := append(args, "--token-file", lookToken(t, s.RootToken))

	health, err := s.Root.Health(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	version := strings.TrimPrefix(health.Server().String(), "Vault ") // Vault's own is told alone
	out := mustRun(t, 0, withToken...)
	for _, want := range []string{
		"✓ Vault        unsealed, active · " + version + " · 1 raft node", "✗ Certificate  no connection", "✗ Backup       never taken",
		"! Drill        never done", "✗ Escrow", "! Doctor       never ran", "! API keys     2 keys, 1 need somebody",
		"app/production/console", "awaiting_import", "Next rotations", "app/production/billing",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("status lacks %q:\n%s", want, out)
		}
	}
	// On no terminal there are no colours.
	if strings.Contains(out, "\x1b") || strings.Contains(out, s.RootToken) {
		t.Errorf("colours or the token in:\n%s", out)
	}

	var r status.Report
	text := mustRun(t, 0, append(withToken, "--json")...)
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		t.Fatal(err)
	}
	if r.Vault == nil || r.Vault.Sealed || !r.Vault.Tested || r.Raft == nil || !r.Raft.Nodes[0].Leader || r.Keys == nil || r.Keys.Count != 2 {
		t.Errorf("report %s", text)
	}
	for _, k := range r.Keys.Keys {
		left := k.NextRotation.Sub(r.At)
		if k.Name == "app/production/billing" && (left < 20*24*time.Hour || left > 30*24*time.Hour+time.Second) { // told in full seconds
			t.Errorf("%s rotates in %v", k.Name, left)
		}
	}

	// Nobody in particular sees what needs no token, and why there is no more.
	out = mustRun(t, 0, args...)
	for _, want := range []string{"✓ Vault        unsealed, active", "Not shown", "raft, API keys and next rotations: not logged in to Vault", "vault login"} {
		if !strings.Contains(out, want) {
			t.Errorf("without a login it lacks %q:\n%s", want, out)
		}
	}
	out = mustRun(t, 0, append(args, "--token-file", lookToken(t, "hvs.no-such-token"))...)
	if !strings.Contains(out, "the login may not read this") || strings.Contains(out, "hvs.no-such") {
		t.Errorf("with a dead token:\n%s", out)
	}
	// A Vault that was started uninitialised looks every five seconds whether it can be
	// unsealed, until it has seen that once: a seal meanwhile would not last.
	s.KillAndWait(t)
	if err := vaulttest.API(s.Root).Sys().SealWithContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out = mustRun(t, 0, withToken...); !strings.Contains(out, "✗ Vault        SEALED") {
		t.Errorf("sealed:\n%s", out)
	}
	s.Process.Kill()
	if err := s.Set.Close(); err != nil {
		t.Fatal(err)
	}
	if out = mustRun(t, 0, withToken...); !strings.Contains(out, "✗ Vault        does not answer") {
		t.Errorf("stopped:\n%s", out)
	}

	for name, bad := range map[string][]string{
		"watch without a terminal": {"--watch"}, "watch as JSON": {"--watch", "--json"}, "interval": {"--interval", "1ms"},
		"surplus": {"now"}, "address": {"--address", "gopher://x"},
	} {
		if code, out := strongroom(t.Context(), append(args, bad...)...); code != 2 {
			t.Errorf("%s: exit code %d:\n%s", name, code, out)
		}
	}
}

// The certificate is the one that the real front presents.
func TestFrontsCertificate(t *testing.T) {
	t.Parallel()
	_, url := frontedVault(t)
	c, err := evidence.ReadCertificate(t.Context(), strings.TrimPrefix(url, "https://"), "localhost")
	if err != nil {
		t.Fatal(err)
	}
	if !c.Covers || c.Version != "TLS 1.3" || c.Left(time.Now()) <= 0 || c.Issuer == "" {
		t.Errorf("certificate %+v", c)
	}
}
