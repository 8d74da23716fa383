package vps_test

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	layout "strongroom.example/config/machine"
	"strongroom.example/test/vaulttest"
)

// A machine whose server is OpenBao: what is refused, the installation with its first
// snapshot and drill, status and doctor, the way in for recovery keys, also killed, a
// second run, a change of product, a reboot.
func TestOpenBaoLife(t *testing.T) {
	t.Parallel()
	if os.Getenv("STRONGROOM_SOAK") != "1" {
		t.Skip("long: make soak AREA=engine")
	}
	bao := filepath.Join(vaulttest.Root(t), "bin", "openbao")
	program, err := os.ReadFile(bao)
	if err != nil {
		t.Skipf("no OpenBao (scripts/openbao fetches it): %v", err)
	}
	sum := fmt.Sprintf("%x", sha256.Sum256(program))
	m := boot(t, "bao")
	m.must(t, "put", m.name, bao, "/root/bao")
	m.sh(t, "mkdir -p /srv/backup")
	const config = "domain = \"" + domain + "\"\n[vault]\nproduct = %q\n[tls]\nmode = \"internal\"\n[[backup.to]]\ntype = \"dir\"\npath = \"/srv/backup\"\n"
	m.write(t, "/root/appliance.toml", fmt.Appendf(nil, config, "openbao"))
	m.write(t, "/root/other.toml", fmt.Appendf(nil, config, "vault"))
	vault := strings.Fields(m.sh(t, "sha256sum /root/vault"))[0]
	install := func(more ...string) result {
		t.Helper()
		return m.in(t, append([]string{"/root/strongroom-installer", "install", "--yes", "--config", "/root/appliance.toml"}, more...)...)
	}

	for name, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"no program":   {nil, 4, "--vault-binary FILE --sha256 SUM"},
		"no sum":       {[]string{"--vault-binary", "/root/bao"}, 2, "nothing says which"},
		"another sum":  {[]string{"--vault-binary", "/root/bao", "--sha256", strings.Repeat("0", 64)}, 2, "it has not been run"},
		"Vault":        {[]string{"--vault-binary", "/root/vault", "--sha256", vault}, 2, "neither reads the other's storage"},
		"half a sum":   {[]string{"--vault-binary", "/root/bao", "--sha256", "12"}, 2, "64 hexadecimal digits"},
		"a sum alone":  {[]string{"--sha256", sum}, 2, "of which file?"},
		"no such file": {[]string{"--vault-binary", "/root/none", "--sha256", sum}, 2, "name the file"},
	} {
		if r := install(c.args...); r.code != c.code || !strings.Contains(r.stderr, c.says) {
			t.Errorf("%s: %s", name, r)
		}
	}
	if out := m.sh(t, "ls /etc/strongroom /usr/local/bin 2>&1 || true"); strings.Contains(out, "appliance.toml") || strings.Contains(out, "strongroom\n") {
		t.Fatalf("something was done:\n%s", out)
	}

	given := []string{"--vault-binary", "/root/bao", "--sha256", sum}
	if r := install(given...); r.code != 0 {
		t.Fatalf("install: %s", r)
	}
	well := func(when string) {
		t.Helper()
		if out := m.sh(t, "strongroom status || true"); !strings.Contains(out, "unsealed, active · OpenBao ") || !strings.Contains(out, "✓ Drill") {
			t.Errorf("%s, status:\n%s", when, out)
		}
		// The escrow is on this disk alone: that, and nothing else.
		if out := m.sh(t, "strongroom doctor || true"); !strings.Contains(out, " 0 warnings, 1 failed, 0 could not be looked at") || !strings.Contains(out, "✗ 29  escrow") {
			t.Errorf("%s, doctor:\n%s", when, out)
		}
	}
	well("installed")
	if r := m.in(t, "/root/strongroom-installer", "plan", "--config", "/root/appliance.toml"); r.code != 0 {
		t.Errorf("a second run would change something: %s", r)
	}

	// The recovery keys make a root token, and no trace of that is left.
	m.write(t, "/root/shares", []byte(m.escrow(t, "recovery-keys-1.age")))
	const root = "umask 077; strongroom generate-root </root/shares >/root/token && VAULT_ADDR=unix://" + layout.VaultSocket + " VAULT_TOKEN=$(cat /root/token) vault token revoke -self"
	before := m.sh(t, "cat "+layout.VaultHCL)
	shut := func(when string) {
		t.Helper()
		if now := m.sh(t, "cat "+layout.VaultHCL); now != before {
			t.Errorf("%s, vault.hcl is\n%s", when, now)
		}
		if r := m.in(t, "test", "-e", layout.DoorSocket); r.code == 0 {
			t.Errorf("%s, the door is there", when)
		}
	}
	m.sh(t, root)
	shut("a root token is made")
	// Killed with the door open, it leaves it, the doctor sees it, and the next start
	// closes it.
	m.sh(t, "strongroom generate-root </root/shares >/dev/null 2>&1 & p=$!; for i in $(seq 1200); do [ -S "+layout.DoorSocket+" ] && break; sleep 0.05; done; kill -9 $p; wait $p || true")
	m.sh(t, "for i in $(seq 600); do VAULT_ADDR=unix://"+layout.VaultSocket+" vault status >/dev/null 2>&1 && break; sleep 0.1; done")
	if out := m.sh(t, "strongroom doctor || true"); !strings.Contains(out, "lets callers without a token at generate-root, on unix "+layout.DoorSocket) {
		t.Errorf("the doctor does not see the door:\n%s", out)
	}
	m.sh(t, "systemctl restart vault")
	shut("OpenBao has started again")

	for name, args := range map[string][]string{
		"by the configuration": {"--config", "/root/other.toml", "--vault-binary", "/root/vault", "--allow-old-vault"},
		"by the flag":          {"--product", "vault", "--vault-binary", "/root/vault", "--allow-old-vault"},
	} {
		r := m.in(t, append([]string{"/root/strongroom-installer", "install", "--yes"}, args...)...)
		if r.code != 4 || !strings.Contains(r.stderr, `the data on this machine is of "openbao"`) {
			t.Errorf("a change of product %s: %s", name, r)
		}
	}
	if r := m.in(t, "/root/strongroom-installer", "upgrade", "--yes", "--vault-binary", "/root/vault", "--sha256", vault); r.code != 2 || !strings.Contains(r.stderr, "neither reads the other's storage") {
		t.Errorf("an upgrade to Vault: %s", r)
	}

	m.must(t, "reboot", m.name)
	m.sh(t, "for i in $(seq 600); do VAULT_ADDR=unix://"+layout.VaultSocket+" vault status >/dev/null 2>&1 && break; sleep 0.1; done")
	well("rebooted")
	shut("rebooted")
}
