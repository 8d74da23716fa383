package vps_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"filippo.io/age/agessh"

	"strongroom.example/appliance/serve/escrow"
	"strongroom.example/test/vaulttest"
)

// admin is a client with the administrator's token.
func admin(t *testing.T, m *machine, a *authority) func(method, path string, body any) (int, map[string]any) {
	t.Helper()
	c := m.client(a.roots)
	note := strings.Split(strings.TrimSpace(m.escrow(t, "admin.age")), "\n")
	status, out := m.vault(t, c, "POST", "auth/userpass/login/admin", "", map[string]any{"password": note[len(note)-1]})
	auth, _ := out["auth"].(map[string]any)
	token, _ := auth["client_token"].(string)
	if status != 200 || token == "" {
		t.Fatalf("login: status %d", status)
	}
	m.write(t, "/root/.vault-token", []byte(token))
	return func(method, path string, body any) (int, map[string]any) {
		return m.vault(t, c, method, path, token, body)
	}
}

var unsealedAgain = regexp.MustCompile(`unsealed again, ([0-9.]+) s later`)

// testMasterKeyRotated gives the master key a new version as docs/unseal.md
// says, on a machine with real credentials and units: the escrow first, then a
// short restart of Vault; and what was sealed with the old version still opens.
func testMasterKeyRotated(t *testing.T, m *machine, a *authority) {
	ask := admin(t, m, a)
	if status, out := ask("POST", "secret/data/app/production/before", map[string]any{"data": map[string]any{"v": "1"}}); status != 200 {
		t.Fatalf("write: %d %v", status, out)
	}
	m.sh(t, "systemctl start strongroom-snapshot && systemctl start strongroom-verify")
	here := onPage(t, "unseal.md", "fingerprint")
	old := strings.Fields(m.sh(t, here))[0]
	if got := fingerprint(t, m, m.escrow(t, "master-key.age")); got != old {
		t.Fatalf("the escrow holds %s, the machine %s", got, old)
	}
	sealed := string(m.read(t, "/etc/strongroom/credentials/master-key"))

	r := m.in(t, "sh", "-c", onPage(t, "unseal.md", "rotate"))
	if r.code != 4 || !strings.Contains(r.String(), "must be confirmed") {
		t.Fatalf("first step: exit code %d:\n%s", r.code, r)
	}
	if string(m.read(t, "/etc/strongroom/credentials/master-key")) != sealed || strings.Fields(m.sh(t, here))[0] != old {
		t.Fatal("the first step has changed the key in force")
	}
	next := m.escrow(t, "master-key.age.next")
	m.write(t, "/root/code", []byte("AAAA-BBBB-CCCC\n"))
	confirm := onPage(t, "unseal.md", "confirm") + " </root/code"
	if r := m.in(t, "sh", "-c", confirm); r.code != 4 || !strings.Contains(r.String(), "nothing was changed") {
		t.Errorf("a wrong code: exit code %d:\n%s", r.code, r)
	}
	code := regexp.MustCompile(`(?m)^Confirmation code of this rotation: (\S+)$`).FindStringSubmatch(next)
	if code == nil {
		t.Fatal("the new escrow shows no confirmation code")
	}
	m.write(t, "/root/code", []byte(code[1]+"\n"))
	kms, vault := mainPID(t, m, "strongroom-kms"), mainPID(t, m, "vault")
	r = m.in(t, "sh", "-c", confirm+"; c=$?; rm /root/code; exit $c")
	took := unsealedAgain.FindStringSubmatch(r.String())
	if r.code != 0 || took == nil {
		t.Fatalf("second step: exit code %d:\n%s", r.code, r)
	}
	t.Logf("KMS and Vault restarted and unsealed in %s s", took[1])
	// The goal is 2 s, on a machine with nothing else to do.
	if mainPID(t, m, "strongroom-kms") == kms || mainPID(t, m, "vault") == vault {
		t.Error("a daemon is the old one")
	}
	now := strings.Fields(m.sh(t, here))[0]
	if now == old || fingerprint(t, m, m.escrow(t, "master-key.age")) != now || fingerprint(t, m, next) != now {
		t.Errorf("fingerprint %s before, %s now; the escrow has %s", old, now, fingerprint(t, m, m.escrow(t, "master-key.age")))
	}
	if out := m.sh(t, "ls /var/lib/strongroom/escrow /etc/strongroom/credentials"); strings.Contains(out, ".next") || strings.Contains(out, ".pending") {
		t.Errorf("left over:\n%s", out)
	}
	if status, _ := ask("POST", "secret/data/app/production/after", map[string]any{"data": map[string]any{"v": "2"}}); status != 200 {
		t.Errorf("write after the rotation: %d", status)
	}
	testKeyExported(t, m, now)

	// A snapshot from before the rotation is sealed with version 1.
	m.sh(t, "umask 077; systemd-creds decrypt --name=drill-key /etc/strongroom/credentials/drill-key /root/drill.key")
	// What the certificate depends on is in it too.
	m.sh(t, "mkdir /root/old && strongroom restore --identity /root/drill.key --files /root/old --yes")
	m.sh(t, "cd /root/old/var/lib/strongroom-front && test -s acme-budget.json && find certificates -name '*.key' | grep -q . && rm -r /root/old")
	r = m.in(t, "sh", "-c", "VAULT_TOKEN=$(cat /root/.vault-token) strongroom restore --identity /root/drill.key --yes; c=$?; rm /root/drill.key; exit $c")
	if r.code != 0 {
		t.Fatalf("restore of the old snapshot: exit code %d:\n%s", r.code, r)
	}
	active(t, m, a)
	testKeyPutBack(t, m, a)
	ask = admin(t, m, a)
	if status, out := ask("GET", "secret/data/app/production/before", nil); status != 200 {
		t.Errorf("the secret of before: %d %v", status, out)
	}
	if status, _ := ask("GET", "secret/data/app/production/after", nil); status != 404 {
		t.Errorf("the secret of after: %d; is it the old snapshot?", status)
	}
	m.sh(t, "rm /root/.vault-token")
	testIdleMemory(t, m)

}

// onPage gives a block of commands of a page in docs/.
func onPage(t *testing.T, page, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(vaulttest.Root(t), "docs", page))
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)<!-- test: " + name + " -->\n *```sh\n(.*?)\n *```").FindSubmatch(b)
	if block == nil {
		t.Fatalf("docs/%s has no block %q", page, name)
	}
	return strings.TrimSpace(string(block[1]))
}

// active waits from outside until Vault answers as active.
func active(t *testing.T, m *machine, a *authority) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	c := m.client(a.roots)
	for {
		res, err := c.Get("https://" + domain + "/v1/sys/health")
		if err == nil {
			res.Body.Close()
			if res.StatusCode == 200 {
				return
			}
			err = errors.New(res.Status)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("Vault is not active: %v\n%s", err, m.sh(t, "journalctl --no-pager -n 40 -u vault -u strongroom-kms"))
		}
	}
}

// testKeyPutBack loses the credential and brings it back from the escrow, as
// the page says. What runs on the other side of its pipe is the test itself.
func testKeyPutBack(t *testing.T, m *machine, a *authority) {
	t.Helper()
	_, remote, ok := strings.Cut(onPage(t, "unseal.md", "put-back"), "ssh root@vault.example.org '")
	if !ok {
		t.Fatal("docs/unseal.md: no command by ssh")
	}
	m.sh(t, "rm /etc/strongroom/credentials/master-key; systemctl stop vault strongroom-kms.socket strongroom-kms")
	m.in(t, "timeout", "5", "systemctl", "start", "vault")
	out := m.in(t, "sh", "-c", strings.ReplaceAll(onPage(t, "unseal.md", "sealed"), "journalctl", "journalctl --no-pager"))
	if !strings.Contains(out.String(), "strongroom-kms") {
		t.Errorf("what the page has one look at: %s", out)
	}
	m.write(t, "/root/opened", []byte(m.escrow(t, "master-key.age")))
	m.sh(t, "{ "+strings.TrimSuffix(remote, "'")+"; } </root/opened; c=$?; rm /root/opened; exit $c")
	active(t, m, a)
}

// fingerprint is what the machine says of an opened escrow.
func fingerprint(t *testing.T, m *machine, text string) string {
	t.Helper()
	m.write(t, "/root/opened", []byte(text))
	return strings.Fields(m.sh(t, "strongroom kms fingerprint --stdin </root/opened; rm /root/opened"))[0]
}

// testKeyExported gives the master key to somebody new.
func testKeyExported(t *testing.T, m *machine, want string) {
	key := filepath.Join(t.TempDir(), "new")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "new", "-f", key).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v\n%s", err, out)
	}
	pub, err := os.ReadFile(key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	m.write(t, "/root/new-operator.pub", pub)
	if r := m.in(t, "sh", "-c", "cd /root; "+onPage(t, "unseal.md", "export")); r.code != 0 {
		t.Fatalf("export: exit code %d:\n%s", r.code, r)
	}
	private, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	id, err := agessh.ParseIdentity(private)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := escrow.Open(m.read(t, "/root/master-key.age"), id)
	if err != nil {
		t.Fatal(err)
	}
	if got := fingerprint(t, m, string(plain)); got != want {
		t.Errorf("the export holds %s, want %s", got, want)
	}
}

// testIdleMemory looks at the daemons that wait for nearly all of their lives,
// once they have nothing to do.
func testIdleMemory(t *testing.T, m *machine) {
	t.Helper()
	for unit, limit := range map[string]float64{"strongroom-kms": 15, "strongroom-front": 60} {
		// The KMS gives memory back some seconds after its start.
		out := m.sh(t, fmt.Sprintf("p=$(systemctl show -p MainPID --value %s); for i in $(seq 1200); do kb=$(awk '/^VmRSS:/ {print $2}' /proc/$p/status); [ $kb -lt %.0f ] && break; sleep 0.1; done; echo $kb", unit, limit*1024))
		kb, err := strconv.ParseFloat(strings.TrimSpace(out), 64)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %.1f MB resident", unit, kb/1024)
		if kb/1024 > limit {
			t.Errorf("%s: %.1f MB resident, at most %.0f are allowed", unit, kb/1024, limit)
		}
	}
}
