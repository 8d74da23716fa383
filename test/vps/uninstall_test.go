package vps_test

import (
	"net/http"
	"strings"
	"testing"
)

// others makes what an uninstallation must not touch, and tells how it is.
func others(t *testing.T, m *machine) func() string {
	t.Helper()
	m.sh(t, `mkdir -p /etc/systemd/system/vault.service.d /etc/vault-of-others
		printf '[Service]\nNice=1\n' >/etc/systemd/system/vault.service.d/mine.conf
		printf '[Service]\nExecStart=/bin/true\n' >/etc/systemd/system/strongroomy.service
		echo mine >/usr/local/bin/mine; echo mine >/etc/vault-of-others/x
		nft add table inet mine`)
	look := func() string {
		return m.sh(t, "cat /etc/systemd/system/vault.service.d/mine.conf /etc/systemd/system/strongroomy.service /usr/local/bin/mine /etc/vault-of-others/x; nft list tables; cat /root/.ssh/authorized_keys")
	}
	return func() string { return strings.ReplaceAll(look(), "table inet strongroom\n", "") }
}

// gone checks that nothing of the appliance runs or could.
func gone(t *testing.T, m *machine) {
	t.Helper()
	for what, script := range map[string]string{
		"processes": "pgrep -a -f '/usr/local/bin/(vault|strongroom)' || true",
		"units":     "ls /etc/systemd/system | grep -E '^(strongroom-.*|vault\\.service)$' || true",
		"loaded":    "systemctl list-units --all --no-legend 'strongroom-*' vault.service | grep -v not-found || true",
		"links":     "find /etc/systemd/system -xtype l",
		"programs":  "ls -d /usr/local/bin/vault /usr/local/bin/strongroom /usr/local/lib/strongroom 2>/dev/null || true",
		"system":    "ls /etc/sysctl.d/60-strongroom.conf /etc/profile.d/strongroom.sh /etc/security/limits.d/60-strongroom.conf 2>/dev/null || true",
		"firewall":  "nft list tables | grep -w strongroom || true",
		"listeners": "ss -Hltun | grep -E ':(80|443|8200|8201) ' || true",
	} {
		if out := strings.TrimSpace(m.sh(t, script)); out != "" {
			t.Errorf("%s are left:\n%s", what, out)
		}
	}
}

// testUninstall takes the appliance off, and brings the same Vault back.
func testUninstall(t *testing.T, m *machine) {
	check := others(t, m)
	want := check()
	before := m.stored(t, login(t, m))
	installer := "/root/new-installer"
	if r := m.in(t, installer, "uninstall"); r.code != 4 || !strings.Contains(r.stderr, "say --yes") {
		t.Errorf("nobody there: exit code %d:\n%s", r.code, r)
	}
	r := m.in(t, "sh", "-ec", docsCode(t, "uninstall.md", "uninstall", installer)+" --yes")
	if r.code != 0 || !strings.Contains(r.stdout, "Kept     /var/lib/vault") || !strings.Contains(r.stdout, "The data is still here") {
		t.Fatalf("exit code %d:\n%s", r.code, r)
	}
	gone(t, m)
	if got := check(); got != want {
		t.Errorf("something of others was touched:\n%s\nit was:\n%s", got, want)
	}
	m.sh(t, "test -d /var/lib/vault/raft -a -s /etc/strongroom/credentials/master-key -a -s /var/lib/strongroom/escrow/admin.age")
	if r := m.in(t, installer, "uninstall", "--yes"); r.code != 0 || !strings.Contains(r.stdout, "Nothing to remove") {
		t.Errorf("again: exit code %d:\n%s", r.code, r)
	}

	r = m.in(t, installer, "install", "--yes", "--vault-binary", "/root/next-vault", "--allow-old-vault")
	if r.code != 0 && r.code != 3 {
		t.Fatalf("installed again: exit code %d:\n%s", r.code, r)
	}
	unsealed(t, m)
	if got := m.stored(t, login(t, m)); got != before {
		t.Error("it is not the same Vault")
	}
}

func testPurge(t *testing.T, m *machine) {
	check := others(t, m)
	want := check()
	installer := "/root/new-installer"
	for _, args := range [][]string{{"--yes"}, {"--confirm-domain", "vault.example.org"}} {
		if r := m.in(t, append([]string{installer, "uninstall", "--purge"}, args...)...); r.code != 4 {
			t.Errorf("%v: exit code %d:\n%s", args, r.code, r)
		}
	}
	if status, _ := m.vault(t, m.client(roots(t, m)), "GET", "sys/health", "", nil); status != http.StatusOK {
		t.Fatalf("Vault's health is %d after purges that were not confirmed", status)
	}
	r := m.in(t, installer, "uninstall", "--purge", "--confirm-domain", domain)
	if r.code != 0 || strings.Count(r.stdout, "WARNING: ") != 2 {
		t.Fatalf("exit code %d:\n%s", r.code, r)
	}
	gone(t, m)
	if got := check(); got != want {
		t.Errorf("something of others was touched:\n%s\nit was:\n%s", got, want)
	}
	if out := m.sh(t, `ls -d /etc/strongroom /var/lib/vault /var/lib/strongroom* /var/log/vault 2>/dev/null; grep -E '^(vault|strongroom)' /etc/passwd /etc/group || true`); out != "" {
		t.Errorf("left:\n%s", out)
	}
}
