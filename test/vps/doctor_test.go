package vps_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"strongroom.example/test/vaulttest"
)

// canaryToken looks like one of Vault's.
const canaryToken = "hvs.CAESIdoctorCanaryDoctorCanary0123456789"

// TestDoctor installs, looks, breaks the machine in every way that can be
// broken without breaking the test, has the doctor find each, mend what it may,
// and looks again.
func TestDoctor(t *testing.T) {
	t.Parallel()
	m := boot(t, "doc")
	for _, step := range []struct {
		name string
		do   func(*testing.T, *machine)
	}{
		{"install", installForDoctor},
		{"a new machine", testNewMachine},
		{"the unit sees as much as root", testDoctorUnit},
		{"status", testStatus},
		{"broken, found, mended", testBroken},
		{"in order again", testMended},
	} {
		if !t.Run(step.name, func(t *testing.T) { step.do(t, m) }) {
			return
		}
	}
}

func installForDoctor(t *testing.T, m *machine) {
	m.sh(t, "mkdir -p /srv/backup")
	m.write(t, "/root/appliance.toml", fmt.Appendf(nil, "domain = %q\n[vault]\nallow_old = true\n[tls]\nmode = \"internal\"\n[[backup.to]]\ntype = \"dir\"\npath = \"/srv/backup\"\n", domain))
	if r := m.in(t, "/root/strongroom-installer", "install", "--yes", "--config", "/root/appliance.toml", "--vault-binary", "/root/vault"); r.code != 0 {
		t.Fatalf("install: exit code %d:\n%s", r.code, r)
	}
	// As the operator of a new machine does: SSH by key, and the escrow's proof.
	m.sh(t, `printf 'PasswordAuthentication no\nKbdInteractiveAuthentication no\n' >/etc/ssh/sshd_config.d/00-keys-only.conf && sshd -t && systemctl reload ssh`)
	confirmEscrow(t, m)
}

// confirmEscrow answers the machine's challenge from outside of it.
func confirmEscrow(t *testing.T, m *machine) {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("cp", "-r", m.disk+"/var/lib/strongroom/escrow/.", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	answer := exec.Command(vaulttest.Bin(t, "strongroom"), "escrow", "answer", "--escrow", dir, "--identity", m.key)
	answer.Stdin = strings.NewReader(m.sh(t, "strongroom escrow challenge --json"))
	out, err := answer.Output()
	if err != nil {
		t.Fatalf("answer: %v\n%s", err, out)
	}
	m.write(t, "/root/answers", out)
	m.sh(t, "strongroom escrow confirm </root/answers && rm /root/answers")
}

// report is the doctor's, as --json prints it.
type report struct {
	Items []struct {
		ID      string `json:"id"`
		Verdict string `json:"verdict"`
		Reasons []struct {
			Text   string `json:"text"`
			Remedy string `json:"remedy"`
			Fix    string `json:"fix"`
		} `json:"reasons"`
		Evidence []struct{ Looked, Saw string } `json:"evidence"`
	} `json:"items"`
}

func (r report) verdicts() map[string]string {
	out := map[string]string{}
	for _, i := range r.Items {
		out[i.ID] = i.Verdict
	}
	return out
}

// reasons is all that is said against an item.
func (r report) reasons(id string) string {
	var b strings.Builder
	for _, i := range r.Items {
		if i.ID != id {
			continue
		}
		for _, reason := range i.Reasons {
			b.WriteString(reason.Text + "\n")
		}
	}
	return b.String()
}

// doctor runs it as root, by hand, and wants an exit code.
func doctor(t *testing.T, m *machine, code int) report {
	t.Helper()
	res := m.in(t, "strongroom", "doctor", "--json")
	if res.code != code {
		t.Errorf("doctor: exit code %d, want %d:\n%s", res.code, code, res)
	}
	t.Logf("strongroom doctor: %.1f s", res.took.Seconds())
	var r report
	if err := json.Unmarshal([]byte(res.stdout), &r); err != nil {
		t.Fatalf("doctor: %v\n%s", err, res)
	}
	if strings.Contains(res.String(), canaryToken) {
		t.Error("the report quotes a token")
	}
	return r
}

var documentedItem = regexp.MustCompile("(?m)^\\| \\d+ \\| `[a-z0-9-]+` \\| ")

// inOrder wants every item passed, but for those that this machine can't pass:
// the tests' Vault is an old one.
func inOrder(t *testing.T, r report) {
	t.Helper()
	// docs/status.md has a row for each: the doctor's own tests see to that.
	page, err := os.ReadFile(filepath.Join(vaulttest.Root(t), "docs", "status.md"))
	if err != nil {
		t.Fatal(err)
	}
	if rows := len(documentedItem.FindAll(page, -1)); len(r.Items) != rows || rows == 0 {
		t.Errorf("%d items, and %d in docs/status.md", len(r.Items), rows)
	}
	for _, i := range r.Items {
		want := "pass"
		if i.ID == "vault-version" {
			want = "warn"
		}
		if i.Verdict != want {
			t.Errorf("%s: %s, want %s: %s", i.ID, i.Verdict, want, r.reasons(i.ID))
		}
		if len(i.Evidence) == 0 {
			t.Errorf("%s shows no evidence", i.ID)
		}
	}
}

func testNewMachine(t *testing.T, m *machine) {
	sound := doctor(t, m, 0)
	inOrder(t, sound)
	out := m.sh(t, "strongroom doctor")
	t.Logf("\n%s", out)
	if !strings.Contains(out, fmt.Sprintf("%d passed, 1 warning, 0 failed", len(sound.Items)-1)) {
		t.Error("in words it says something else")
	}
	// Without root's rights it says what it could not see, and passes nothing
	// for that.
	m.sh(t, "useradd --create-home anna")
	defer m.sh(t, "userdel --remove anna")
	res := m.in(t, "setpriv", "--reuid=anna", "--regid=anna", "--clear-groups", "env", "HOME=/home/anna", "strongroom", "doctor", "--json")
	var r report
	if err := json.Unmarshal([]byte(res.stdout), &r); err != nil {
		t.Fatalf("%v\n%s", err, res)
	}
	// Of some items about security she sees nothing at all, and that is not well.
	if res.code != 3 {
		t.Errorf("anna's doctor ends with %d", res.code)
	}
	v := r.verdicts()
	for _, id := range []string{"root-token", "audit-devices", "file-modes", "storage-mode", "leaks", "firewall"} {
		if v[id] != "skip" {
			t.Errorf("anna sees %s: %s", id, v[id])
		}
	}
	if res := m.in(t, "setpriv", "--reuid=anna", "--regid=anna", "--clear-groups", "strongroom", "doctor", "--fix"); res.code != 2 {
		t.Errorf("anna mends: %s", res)
	}
}

func testDoctorUnit(t *testing.T, m *machine) {
	want := doctor(t, m, 0).verdicts()
	m.sh(t, "rm /var/lib/strongroom/doctor/last.json; systemctl start strongroom-doctor")
	var r report
	if err := json.Unmarshal(m.read(t, "/var/lib/strongroom/doctor/last.json"), &r); err != nil {
		t.Fatal(err)
	}
	for id, verdict := range r.verdicts() {
		if verdict != want[id] {
			t.Errorf("%s: %s in the unit, %s by hand: %s", id, verdict, want[id], r.reasons(id))
		}
	}
	// The metrics read it, whoever has written it.
	monitor := "setpriv --reuid=strongroom-monitor --regid=strongroom-monitor --clear-groups "
	m.sh(t, monitor+"grep -q verdict /var/lib/strongroom/doctor/last.json && strongroom doctor >/dev/null && "+monitor+"grep -q verdict /var/lib/strongroom/doctor/last.json")
	for _, unit := range []string{"strongroom-doctor.service", "strongroom-doctor-net.service"} {
		got := exposure.FindStringSubmatch(m.sh(t, "systemd-analyze security --no-pager "+unit))
		if got == nil {
			t.Fatalf("%s: no score", unit)
		}
		t.Logf("%s: exposure %s", unit, got[1])
	}
	t.Log(strings.TrimSpace(m.sh(t, "journalctl -u strongroom-doctor -o cat --no-pager | grep -i consumed || true")))
}

func testStatus(t *testing.T, m *machine) {
	token, c := login(t, m), m.client(roots(t, m))
	for _, w := range []struct {
		path string
		body map[string]any
	}{
		{"apikeys/providers/own", map[string]any{"type": "generated"}},
		{"apikeys/keys/app/production/billing", map[string]any{"provider": "own"}},
		{"apikeys/keys/app/production/mail", map[string]any{"provider": "own", "rotation_period": "30d"}},
		{"apikeys/keys/app/staging/mail", map[string]any{"provider": "own", "rotation_period": "30d"}},
		{"apikeys/keys/bike-data-flow/production/maps", map[string]any{"provider": "own", "rotation_period": "14d"}},
	} {
		if status, out := m.vault(t, c, "POST", w.path, token, w.body); status/100 != 2 {
			t.Fatalf("%s: %d %v", w.path, status, out)
		}
	}
	out := m.sh(t, "strongroom status")
	t.Logf("\n%s", out)
	for _, want := range []string{"✓ Vault", "✓ Certificate", "✓ Backup", "✓ Drill", "✓ Escrow", "! Doctor", "✓ API keys", "app/production/billing", "1 raft node"} {
		if !strings.Contains(out, want) {
			t.Errorf("status lacks %q", want)
		}
	}
	if strings.Contains(out, "Not shown") || strings.Contains(out, "\x1b") {
		t.Error("something is missing, or coloured")
	}
	out = m.sh(t, "setpriv --reuid=nobody --regid=nogroup --clear-groups env HOME=/nonexistent strongroom status")
	for _, want := range []string{"Not shown", "Vault: ", "✓ Certificate"} {
		if !strings.Contains(out, want) {
			t.Errorf("nobody's status lacks %q:\n%s", want, out)
		}
	}
}

// asAdmin makes the administrator's token root's own, as vault login leaves it,
// and defines v to run Vault's command line.
func asAdmin(t *testing.T, m *machine) string {
	t.Helper()
	note := strings.Split(strings.TrimSpace(m.escrow(t, "admin.age")), "\n")
	m.write(t, "/root/pw", []byte(note[len(note)-1]))
	const v = "export HOME=/root VAULT_ADDR=unix:///run/vault/vault.sock; "
	m.sh(t, v+"vault login -no-print -method=userpass username=admin password=@/root/pw; rm /root/pw")
	return v
}

// rootToken makes one with the recovery keys, and gives the script that ends it.
func rootToken(t *testing.T, m *machine, v string) string {
	t.Helper()
	shares := strings.Fields(m.escrow(t, "recovery-keys-1.age"))
	m.write(t, "/root/shares", []byte(strings.Join(shares[:3], "\n")+"\n"))
	return strings.TrimSpace(m.sh(t, v+`
		field() { sed -n "s/.*\"$1\": \"\([^\"]*\)\".*/\1/p"; }
		vault operator generate-root -init -format=json >/run/g.json
		nonce=$(field nonce </run/g.json); otp=$(field otp </run/g.json)
		while read -r share; do printf %s "$share" | vault operator generate-root -nonce="$nonce" -format=json - >/run/g.json; done </root/shares
		token=$(vault operator generate-root -decode="$(field encoded_token </run/g.json)" -otp="$otp")
		rm /root/shares /run/g.json
		VAULT_TOKEN=$token vault token lookup -format=json | field accessor`))
}

// wounds are what is done to the machine at once: who must find it by which
// words, and how it is undone where --fix does not.
var wounds = []struct{ id, do, says, undo string }{
	{"dedicated-user", "usermod -s /bin/bash vault 2>/dev/null || sed -i '/^vault:/s|[^:]*$|/bin/bash|' /etc/passwd", `user "vault" can log in`, "sed -i '/^vault:/s|[^:]*$|/usr/sbin/nologin|' /etc/passwd"},
	{"vault-readonly", "chown vault /usr/local/bin/vault", "/usr/local/bin/vault", ""},
	{"tls", `sed -i 's/^  tls_min_version .*/&\n  tls_disable = true/' /etc/strongroom/vault.hcl`, "tls_disable", ""},
	{"swap", "echo '/dev/sda9 none swap sw 0 0' >>/etc/fstab", "comes back at the next boot", ""},
	{"listeners", "systemd-run --quiet --unit=second systemd-socket-activate -l 8080 /bin/true; for i in $(seq 100); do ss -ltn | grep -q ':8080 ' && break; sleep 0.1; done", "8080 of root", "systemctl stop second"},
	{"firewall", "nft delete table inet strongroom; systemctl disable -q strongroom-firewall", "not loaded", ""},
	{"user-lockout", "$v vault auth tune -user-lockout-disable=true userpass/ >/dev/null", "auth/userpass/", "$v vault auth tune -user-lockout-disable=false userpass/ >/dev/null"},
	{"audit-devices", "$v vault audit disable audit-2 >/dev/null", "1 audit device", "$v vault audit enable -path=audit-2 file file_path=/var/log/vault/audit-2.log mode=0600 >/dev/null"},
	{"shell-history", "echo 'export VAULT_TOKEN=" + canaryToken + "' >>/root/.bash_history", ".bash_history holds a Vault token", "rm /root/.bash_history"},
	{"storage-mode", "chmod 755 /var/lib/vault/raft", "/var/lib/vault/raft", ""},
	{"cleartext", "echo secret >/etc/strongroom/credentials/extra; chmod 600 /etc/strongroom/credentials/extra; echo 'TOKEN=" + canaryToken + "' >>/etc/environment", "extra is not an encrypted", "rm /etc/strongroom/credentials/extra; sed -i /TOKEN=/d /etc/environment"},
	{"plugin-pinned", `cd /usr/local/lib/strongroom/plugins; for p in vault-plugin*; do cp -p "$p" /root/plugin.bak; cp -p "$p" .new; echo >>.new; mv .new "$p"; done`, "Vault will not start it", `cd /usr/local/lib/strongroom/plugins; for p in vault-plugin*; do mv /root/plugin.bak "$p"; done`},
	{"one-config", "mkdir /etc/vault.d", "/etc/vault.d", "rmdir /etc/vault.d"},
	{"file-modes", "chmod 644 /etc/strongroom/tls/server.key; chmod 666 /run/vault/vault.sock", "server.key has the mode 0644", ""},
	{"leaks", "systemd-run --quiet --unit=leak -E VAULT_TOKEN=" + canaryToken + " sleep 3600", "the environment of process", "systemctl stop leak"},
	{"token-ttl", "$v vault write auth/approle/role/careless token_period=720h >/dev/null", "AppRole careless", "$v vault delete auth/approle/role/careless >/dev/null"},
	{"ssh", "sed -i 's/no$/yes/' /etc/ssh/sshd_config.d/00-keys-only.conf", "passwordauthentication", "sed -i 's/yes$/no/' /etc/ssh/sshd_config.d/00-keys-only.conf"},
	{"sandbox", "mkdir -p /etc/systemd/system/strongroom-front.service.d; printf '[Service]\\nProtectSystem=no\\nNoNewPrivileges=no\\nProtectHome=no\\nSystemCallFilter=\\nPrivateDevices=no\\n' >/etc/systemd/system/strongroom-front.service.d/loose.conf; systemctl daemon-reload", "strongroom-front.service has the exposure", "rm /etc/systemd/system/strongroom-front.service.d/loose.conf; systemctl daemon-reload"},
	{"mlock", "sed -i /^disable_mlock/d /etc/strongroom/vault.hcl", "does not say disable_mlock", ""},
	{"audit-mode", "chmod 700 /var/log/vault/audit-1.log", "audit-1.log has the mode 0700", ""},
	{"units", "systemctl disable -q --now strongroom-snapshot.timer; while systemctl show -p ActiveState --value strongroom-snapshot strongroom-verify | grep -q activating; do sleep 0.1; done", "strongroom-snapshot.timer is disabled", ""},
	{"backup-drill", "sed -i 's/2026-/2020-/g; s/20[23][0-9]-/2020-/g' /var/lib/strongroom/verify/verified.json", "the newest verified backup is", "systemctl start strongroom-snapshot; systemctl start strongroom-verify"},
	{"escrow", "mv /var/lib/strongroom/escrow/confirmed.json /root/", "was never opened off this machine", "mv /root/confirmed.json /var/lib/strongroom/escrow/"},
	{"drift", "", "/etc/strongroom/vault.hcl: other content", ""},
	{"swap", "printf 'Filename\\n/dev/fake partition 1 0 -2\\n' >/root/swaps; mount --bind /root/swaps /proc/swaps", "swap is on: /dev/fake", "umount /proc/swaps"},
	{"core-dumps", "echo 2 >/root/dumpable; mount --bind /root/dumpable /proc/sys/fs/suid_dumpable", "fs.suid_dumpable is 2", "umount /proc/sys/fs/suid_dumpable"},
}

// mended are the items that --fix brings back by itself.
var mended = []string{"vault-readonly", "firewall", "storage-mode", "file-modes", "audit-mode", "units"}

func testBroken(t *testing.T, m *machine) {
	v := asAdmin(t, m)
	accessor := rootToken(t, m, v)
	// The keys of before are no reason for a backup in the middle of this, and the
	// wound "units" ends the timer.
	m.sh(t, "systemctl stop strongroom-snapshot.path strongroom-snapshot-soon; systemctl reset-failed strongroom-snapshot-soon || true; rm -f /var/lib/vault/changed/rotated; systemctl start strongroom-snapshot.path")
	m.backupsIdle(t)
	m.sh(t, "cp -p /etc/strongroom/vault.hcl /root/vault.hcl; cp -p /etc/fstab /root/fstab 2>/dev/null || touch /root/fstab /etc/fstab")
	for _, w := range wounds {
		m.sh(t, strings.ReplaceAll(w.do, "$v ", v))
	}
	r := doctor(t, m, 3)
	found := r.verdicts()
	for _, w := range wounds {
		if found[w.id] != "fail" && w.id != "core-dumps" || !strings.Contains(r.reasons(w.id), w.says) {
			t.Errorf("%s: %s, want %q in:\n%s", w.id, found[w.id], w.says, r.reasons(w.id))
		}
	}
	if !strings.Contains(r.reasons("root-token"), "a root token is alive") {
		t.Errorf("root-token: %s", r.reasons("root-token"))
	}
	// In the unit everything is found as well.
	if res := m.in(t, "systemctl", "start", "strongroom-doctor"); res.code == 0 {
		t.Error("the unit finds nothing")
	}
	var unit report
	if err := json.Unmarshal(m.read(t, "/var/lib/strongroom/doctor/last.json"), &unit); err != nil {
		t.Fatal(err)
	}
	for id, verdict := range unit.verdicts() {
		// The mount over a kernel's setting is not in the unit's own /proc.
		if verdict != found[id] && id != "core-dumps" {
			t.Errorf("%s: %s in the unit, %s by hand: %s", id, verdict, found[id], unit.reasons(id))
		}
	}
	// Asked and refused, nothing is changed.
	if res := m.in(t, "sh", "-c", "echo n | strongroom doctor --fix"); res.code != 4 || !strings.Contains(res.stdout, "To put right") {
		t.Errorf("refused: %d\n%s", res.code, res)
	}
	if r := doctor(t, m, 3); r.verdicts()["storage-mode"] != "fail" {
		t.Error("something was changed without a yes")
	}
	res := m.in(t, "strongroom", "doctor", "--fix", "--yes")
	if res.code != 3 {
		t.Errorf("--fix: exit code %d:\n%s", res.code, res)
	}
	t.Logf("\n%s", res.stdout)
	// The look of every minute has told of the wounds that are its, when it came by.
	m.sh(t, "systemctl reset-failed strongroom-audit-watch strongroom-audit 2>/dev/null || true")
	after := doctor(t, m, 3)
	for _, id := range mended {
		if got := after.verdicts()[id]; got != "pass" {
			t.Errorf("%s after --fix: %s: %s", id, got, after.reasons(id))
		}
	}
	if strings.Contains(after.reasons("swap"), "next boot") || m.open(t, inside, 8200, false) {
		t.Error("the swap's line is still there, or the firewall is not")
	}
	for _, w := range slices.Backward(wounds) {
		if w.undo != "" {
			m.sh(t, strings.ReplaceAll(w.undo, "$v ", v))
		}
	}
	m.sh(t, v+"vault token revoke -accessor "+accessor+" >/dev/null; vault token revoke -self >/dev/null; rm -f /root/.vault-token; cp -p /root/vault.hcl /etc/strongroom/vault.hcl; systemctl start strongroom-audit-watch || true; systemctl reset-failed")
}

func testMended(t *testing.T, m *machine) {
	inOrder(t, doctor(t, m, 0))
	if r := m.in(t, "/root/strongroom-installer", "plan"); r.code != 0 {
		t.Errorf("plan: exit code %d:\n%s", r.code, r)
	}
	// What the doctor wrote holds no token, in the journal neither.
	for _, f := range []string{"/var/lib/strongroom/doctor/last.json"} {
		if strings.Contains(string(m.read(t, f)), canaryToken) {
			t.Errorf("%s holds a token", f)
		}
	}
	if out := m.sh(t, "journalctl --no-pager -u strongroom-doctor"); strings.Contains(out, canaryToken) {
		t.Error("the doctor's journal holds a token")
	}
}
