package vps_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"strongroom.example/appliance/watch/alert"
	"strongroom.example/test/vaulttest"
)

// pages is one machine that lives through the pages of docs/, command by command
// as they stand there. What is typed on the machine is typed there, and what is
// typed at home on a laptop.
type pages struct {
	*machine
	laptop *laptop
	told   chan alert.Body // what the alerts' webhook was sent
}

// hookAddr is the alerts' webhook.
const hookAddr = outsideAddr + ":8088"

// TestPages has no commands of its own but what makes the tests' surroundings:
// a store, a webhook, Vault's program in place of a download.
func TestPages(t *testing.T) {
	t.Parallel()
	m := boot(t, "docs")
	p := &pages{machine: m, laptop: newLaptop(t, m), told: make(chan alert.Body, 16)}
	p.surround(t)
	for _, step := range []struct {
		name string
		do   func(*testing.T)
	}{
		{"install.md", p.install},
		{"escrow.md", p.escrowPage},
		{"monitoring.md", p.monitoring},
		{"drill.md", p.drills},
		{"unseal.md", p.unseal},
		{"install.md, later", p.later},
		{"cloud-init.md", p.cloudInitPage},
		{"firewall.md", p.firewall},
		{"uninstall.md", p.purge},
		{"disaster-recovery.md", p.withoutKey},
	} {
		if !t.Run(step.name, step.do) {
			return
		}
	}
}

// surround makes what the operator has before the first command.
func (p *pages) surround(t *testing.T) {
	t.Helper()
	p.keysOnly(t)
	startStore(t, p.machine)
	p.sh(t, `printf '#!/bin/sh\nexec "$@"\n' >/usr/local/bin/sudo; chmod 755 /usr/local/bin/sudo; mkdir -p /mnt/backup`)
	p.haveVault(t)
	p.write(t, "/root/s3.toml", fmt.Appendf(nil, "access_key = %q\nsecret_key = %q\n", storeAccess, storeSecret))
	p.write(t, "/root/webhook", []byte("http://"+hookAddr+"/canary-of-a-hook\n"))
	// Somebody else who holds recovery keys, and an identity for the backups alone.
	p.laptop.must(t, "age-keygen -o key.txt; age-keygen -o backup-key.txt")
	hook := http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var body alert.Body
		if err := json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&body); err != nil {
			t.Errorf("the webhook got no JSON: %v", err)
			return
		}
		select {
		case p.told <- body:
		default: // more than anybody asks for
		}
	})}
	l := p.listen(t, hookAddr)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = hook.Serve(l) // it ends by Close
	}()
	t.Cleanup(func() { _ = hook.Close(); <-served })
}

// haveVault puts Vault where a download would: there is no internet here.
func (p *pages) haveVault(t *testing.T) {
	t.Helper()
	p.sh(t, "install -m 755 /root/vault /usr/local/bin/vault")
}

// config is what the operator writes into appliance.toml.
func (p *pages) config(t *testing.T, bucketToo bool) []byte {
	t.Helper()
	recipient := func(file string) string {
		return strings.TrimSpace(p.laptop.must(t, "age-keygen -y "+file))
	}
	ssh := strings.TrimSpace(p.laptop.read(t, ".ssh/id_ed25519.pub"))
	text := fmt.Sprintf(`domain = %q
[vault]
version = "1.21.1"
allow_old = true
[tls]
mode = "internal"
[escrow]
recipients = [%q, %q]
[alert]
webhook_file = "/root/webhook"
[backup]
recipients = [%q, %q]
[[backup.to]]
type = "dir"
path = "/mnt/backup"
`, domain, ssh, recipient("key.txt"), ssh, recipient("backup-key.txt"))
	if bucketToo {
		text += fmt.Sprintf("[[backup.to]]\ntype = \"s3\"\nendpoint = \"https://%s:%s\"\nregion = \"us-east-1\"\nbucket = %q\nca_file = %q\n", outsideAddr, storePort, bucket, storeCA)
	}
	return []byte(text)
}

// typed runs a script at a terminal on the machine, in root's home, and answers
// each question.
func (p *pages) typed(t *testing.T, script string, answers ...string) (int, string) {
	t.Helper()
	return converse(p.atTerminal(t, "sh", "-ec", "cd /root\n"+script), answers)
}

// converse answers: the questions and the answers come in turns.
func converse(c *terminal, answers []string) (int, string) {
	for i := 0; i+1 < len(answers); i += 2 {
		c.expect(answers[i])
		c.answer(answers[i+1])
	}
	code := c.exit()
	return code, c.said.String()
}

const goOn, itWorks = "Type yes to go on: ", "Type yes if it works: "

// loggedIn logs the administrator in with the page's own command, which asks for the
// password, there where c is.
func loggedIn(t *testing.T, p *pages, c *terminal) {
	t.Helper()
	if code, _ := converse(c, []string{"Password (will be hidden): ", p.password(t)}); code != 0 {
		t.Fatalf("vault login: exit code %d", code)
	}
}

// password is the last line of admin.age, as install.md says.
func (p *pages) password(t *testing.T) string {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(p.laptop.must(t, "age -d -i ~/.ssh/id_ed25519 escrow/admin.age")), "\n")
	return lines[len(lines)-1]
}

func (p *pages) install(t *testing.T) {
	// Let's Encrypt and the DNS are out of reach: it goes as far as that.
	code, out := p.typed(t, onPage(t, "install.md", "without-backups"), goOn, "yes")
	if code != 4 || !strings.Contains(out, "DNS: ") {
		t.Errorf("without a file: exit code %d:\n%s", code, out)
	}
	lines := strings.SplitN(onPage(t, "install.md", "install"), "\n", 2)
	p.sh(t, "cd /root && "+lines[0])
	if !strings.Contains(string(p.read(t, "/root/appliance.toml")), "[[backup.to]]") {
		t.Error("config init has written no example of a place for backups")
	}
	p.write(t, "/root/appliance.toml", p.config(t, true))
	if code, out := p.typed(t, onPage(t, "install.md", "plan")); code != 3 || !strings.Contains(out, "Nothing has been changed") {
		t.Errorf("plan: exit code %d:\n%s", code, out)
	}
	code, out = p.typed(t, lines[1], goOn, "yes", itWorks, "yes")
	if code != 0 {
		t.Fatalf("install: exit code %d:\n%s\n%s", code, out, p.sh(t, "journalctl --no-pager -n 40"))
	}
	if opened := p.laptop.must(t, onPage(t, "install.md", "copy")); !strings.Contains(opened, "admin") {
		t.Error("admin.age opens, and names nobody")
	}
	loggedIn(t, p, atTerminal(t, p.laptop.command(t.Context(), t, onPage(t, "install.md", "log-in"))))
	if out := p.laptop.must(t, "curl -sS --cacert root.crt https://"+domain+"/v1/sys/health"); !strings.Contains(out, `"sealed":false`) {
		t.Errorf("health: %s", out)
	}
	p.laptop.must(t, "export VAULT_ADDR=https://"+domain+" VAULT_CACERT=$PWD/root.crt; vault kv put -mount=secret app/production/db url=canary-of-the-pages")
}

func (p *pages) escrowPage(t *testing.T) {
	p.laptop.must(t, onPage(t, "escrow.md", "copy"))
	// The lines that it prints are the page's but for the nonce and the file.
	anyNonce := regexp.MustCompile(`[0-9a-f]{32}`)
	lineFor := func(file, identity string) string {
		line := anyNonce.ReplaceAllString(textBlock(t, "escrow.md", "line"), "NONCE")
		return strings.NewReplacer("master-key.age", file, "~/.ssh/id_ed25519", identity).Replace(line)
	}
	var sums []string
	asked := p.sh(t, onPage(t, "escrow.md", "challenge"))
	for _, file := range []string{"admin.age", "local-admin.age", "master-key.age", "recovery-keys-1.age"} {
		for line := range strings.Lines(asked) {
			if line = strings.TrimSpace(line); anyNonce.ReplaceAllString(line, "NONCE") == lineFor(file, "~/.ssh/id_ed25519") {
				sums = append(sums, strings.Fields(p.laptop.must(t, "cd escrow; "+line))[0])
			}
		}
	}
	if len(sums) != 4 {
		t.Fatalf("%d lines are as the page has them:\n%s", len(sums), asked)
	}
	confirm := strings.SplitN(onPage(t, "escrow.md", "confirm"), "\n", 2)
	command := regexp.MustCompile(`[0-9a-f]{64}`).ReplaceAllString(confirm[0], strings.Join(sums, " "))
	if command == confirm[0] {
		t.Fatalf("the page's command has no sum: %s", command)
	}
	if out := p.sh(t, command); strings.Count(out, "confirmed:") != 4 {
		t.Errorf("confirm said:\n%s", out)
	}
	// Somebody else's is still to be proved.
	if r := p.in(t, "sh", "-c", confirm[1]); r.code != 3 || strings.Count(r.stdout, ", by ") != 4 || !strings.Contains(r.String(), "recovery-keys-2.age") {
		t.Errorf("status: exit code %d\n%s", r.code, r)
	}
	one := strings.SplitN(onPage(t, "escrow.md", "one"), "\n", 2)
	nonce := anyNonce.FindString(p.sh(t, one[0]))
	answer := p.laptop.must(t, "cp key.txt escrow; cd escrow; "+anyNonce.ReplaceAllString(strings.TrimSpace(one[1]), nonce))
	p.sh(t, "strongroom escrow confirm "+strings.Fields(answer)[0])
	p.sh(t, confirm[1])
	if out := p.laptop.must(t, onPage(t, "escrow.md", "pipe")); strings.Count(out, "confirmed:") != 4 {
		t.Errorf("all at once: %s", out)
	}
	p.generateRoot(t)
	p.lockedOut(t)
}

// lockedOut has somebody outside lock the administrator, and somebody with the escrow
// get in, end that, and make a lost way in anew.
func (p *pages) lockedOut(t *testing.T) {
	p.laptop.must(t, "for i in 1 2 3 4 5 6; do curl -s --cacert root.crt -d '{\"password\":\"x\"}' https://"+domain+"/v1/auth/userpass/login/admin; done")
	if r := p.in(t, "strongroom", "status"); !strings.Contains(r.String(), "1 name locked after wrong passwords: admin") {
		t.Errorf("status does not tell who is locked:\n%s", r)
	}
	if out := p.laptop.must(t, onPage(t, "locked-out.md", "login")); !strings.Contains(out, "Logged in as admin of auth/strongroom-local/") {
		t.Fatalf("login said:\n%s", out)
	}
	p.sh(t, onPage(t, "locked-out.md", "unlock"))
	if r := p.in(t, "strongroom", "status"); strings.Contains(r.String(), "locked after wrong passwords") {
		t.Errorf("status tells of a lock that was ended:\n%s", r)
	}
	// A file that is lost is made anew, and only then.
	before := p.sh(t, "sha256sum /var/lib/strongroom/escrow/local-admin.age /var/lib/strongroom/escrow/admin.age")
	p.sh(t, "cd /root && "+strings.ReplaceAll(onPage(t, "locked-out.md", "anew"), " install", " install --yes"))
	after := p.sh(t, "sha256sum /var/lib/strongroom/escrow/local-admin.age /var/lib/strongroom/escrow/admin.age")
	if a, b := strings.Split(before, "\n"), strings.Split(after, "\n"); a[0] == b[0] || a[1] != b[1] {
		t.Errorf("before\n%s\nand after\n%s", before, after)
	}
	p.laptop.must(t, onPage(t, "escrow.md", "copy")+" && "+onPage(t, "locked-out.md", "login")+" && "+onPage(t, "escrow.md", "pipe"))
	p.sh(t, onPage(t, "locked-out.md", "logout"))
}

// generateRoot is the way in when nobody can log in. The tests' Vault asks for no
// token; what a 2.x needs besides is tried with what systemd does for it.
func (p *pages) generateRoot(t *testing.T) {
	p.laptop.must(t, "cd escrow; "+onPage(t, "escrow.md", "generate-root")+" >../token 2>../said")
	if said := p.laptop.must(t, "cat said"); !strings.Contains(said, "revoke") || strings.Contains(said, "hvs.") {
		t.Errorf("it said:\n%s", said)
	}
	if out := p.laptop.must(t, "export VAULT_ADDR=https://"+domain+" VAULT_CACERT=$PWD/root.crt VAULT_TOKEN=$(cat token); rm token; vault token lookup -format=json; vault token revoke -self"); !strings.Contains(out, `"root"`) {
		t.Errorf("the token:\n%s", out)
	}
	before := p.sh(t, "cat /etc/strongroom/vault.hcl")
	p.sh(t, "systemctl reload vault")
	p.sh(t, `echo 'enable_unauthenticated_access = ["generate-root"] # strongroom: for the recovery keys, and taken out again' >>/etc/strongroom/vault.hcl`)
	if r := p.in(t, "strongroom", "doctor"); r.code != 3 || !strings.Contains(r.String(), "without a token at generate-root") {
		t.Errorf("the doctor does not see a way in that was left open: %d\n%s", r.code, r)
	}
	p.sh(t, "systemctl restart vault")
	if after := p.sh(t, "cat /etc/strongroom/vault.hcl; stat -c '%a %U %G' /etc/strongroom/vault.hcl"); after != before+"640 root vault\n" {
		t.Errorf("after a start of Vault the file is\n%s", after)
	}
}

func (p *pages) monitoring(t *testing.T) {
	if out := p.sh(t, onPage(t, "monitoring.md", "alert-test")); !strings.Contains(out, "in 1 ways") {
		t.Errorf("the alert said: %s", out)
	}
	// Real alerts may come between: the doctor's, until the escrow was proved.
	for late := time.After(patience); ; {
		select {
		case got := <-p.told:
			if got.Unit != "strongroom-snapshot.service" || got.Result != "only a test" {
				continue
			}
		case <-late:
			t.Error("the webhook was not sent the test")
		}
		break
	}
	// curl is not in a minimal Debian; the daemon is asked through SSH, as the
	// page has a Prometheus do it.
	for _, line := range strings.Split(onPage(t, "monitoring.md", "metrics"), "\n") {
		out := p.laptop.must(t, "ssh -f -N -o ExitOnForwardFailure=yes -o ControlMaster=yes -S ~/.ssh/tunnel -L 9468:127.0.0.1:9468 root@"+domain+
			"; trap 'ssh -S ~/.ssh/tunnel -O exit root@"+domain+" 2>/dev/null' EXIT; "+line)
		if !strings.Contains(out, "\nvault_") {
			t.Errorf("%s: %.2000s", line, out)
		}
	}
	p.sh(t, "mkdir /root/rules; cd /root/rules; "+onPage(t, "monitoring.md", "rules")+"; test -s strongroom.rules.yml -a -s strongroom.json")
	if out := p.sh(t, "export PAGER=cat; "+onPage(t, "monitoring.md", "timers")); strings.Count(out, ".timer") < 4 || !strings.Contains(out, "snapshot") {
		t.Errorf("the timers: %s", out)
	}
	before := p.sh(t, "ls /var/log/vault")
	p.sh(t, onPage(t, "monitoring.md", "audit-rotate"))
	if after := p.sh(t, "ls /var/log/vault"); before == after {
		t.Errorf("nothing was rotated:\n%s", after)
	}
	p.sh(t, "systemctl stop strongroom-audit-watch.timer; systemctl start strongroom-audit-watch")
	if out := p.sh(t, onPage(t, "monitoring.md", "audit-watch")); !strings.Contains(out, "2 of 2 logs are written") || !strings.Contains(out, "acknowledged: 0 losses") {
		t.Errorf("the audit logs are watched:\n%s", out)
	}
	p.sh(t, "systemctl start strongroom-audit-watch.timer")
}

func (p *pages) drills(t *testing.T) {
	var newest string
	for name := range strings.FieldsSeq(p.sh(t, "cd /mnt/backup; ls -t */*.ok.json")) {
		newest = strings.TrimSuffix(name, ".ok.json")
		break
	}
	for _, line := range strings.Split(onPage(t, "drill.md", "another"), "\n") {
		out := p.sh(t, strings.ReplaceAll(line, "CLUSTER/20261124T151500Z-1a2b3c4d", newest))
		if !strings.Contains(out, ": PASSED\n") && !strings.Contains(out, `"passed": true`) {
			t.Errorf("%s:\n%s", line, out)
		}
	}
	p.must(t, "put", p.name, vaulttest.Bin(t, "vault-plugin-secrets-apikeys"), "/root/vault-plugin-secrets-apikeys")
	p.write(t, "/root/token", []byte(p.laptop.read(t, ".vault-token")))
	p.sh(t, strongroomSnapshot) // one that knows the token
	for _, line := range strings.Split(onPage(t, "drill.md", "rehearse"), "\n") {
		if out := p.sh(t, "cd /root; "+line); !strings.Contains(out, ": PASSED\n") {
			t.Errorf("%s:\n%s", line, out)
		}
	}
}

// strongroomSnapshot has the jobs back up what there is now.
const strongroomSnapshot = "systemctl start strongroom-snapshot.service && systemctl start strongroom-verify.service"

func (p *pages) unseal(t *testing.T) {
	here := strings.Fields(p.sh(t, onPage(t, "unseal.md", "fingerprint")))[0]
	if got := p.laptop.must(t, "cd escrow; "+onPage(t, "unseal.md", "escrow-fingerprint")); strings.Fields(got)[0] != here {
		t.Errorf("the copy's fingerprint is %s, the machine's %s", got, here)
	}
	p.write(t, "/root/.ssh/more", []byte(p.laptop.must(t, "age-keygen -y key.txt")))
	if code, out := p.typed(t, onPage(t, "unseal.md", "rotate")+" --recipient /root/.ssh/more"); code != 4 {
		t.Fatalf("the first step: exit code %d\n%s", code, out)
	}
	p.laptop.must(t, "scp root@"+domain+":/var/lib/strongroom/escrow/master-key.age.next escrow/")
	code := regexp.MustCompile(`(?m)^Confirmation code of this rotation: (\S+)$`).FindStringSubmatch(p.laptop.must(t, "cd escrow; "+onPage(t, "unseal.md", "next")))
	if code == nil {
		t.Fatal("the first lines of the next escrow show no code")
	}
	c := p.atTerminal(t, "sh", "-ec", onPage(t, "unseal.md", "confirm"))
	c.answer(code[1])
	if exit := c.exit(); exit != 0 {
		t.Fatalf("the second step: exit code %d", exit)
	}
	unsealed(t, p.machine)
	p.laptop.must(t, onPage(t, "escrow.md", "copy"))
	p.sh(t, "rm /etc/strongroom/credentials/master-key; systemctl stop vault strongroom-kms.socket strongroom-kms")
	p.laptop.must(t, "cd escrow; "+onPage(t, "unseal.md", "put-back"))
	unsealed(t, p.machine)
}

func (p *pages) later(t *testing.T) {
	lines := strings.SplitN(onPage(t, "install.md", "later"), "\nsudo ", 2)
	if len(lines) != 2 {
		t.Fatal("the page's block has no installation after the login")
	}
	// What an administrator has removed comes back with a token, and not before.
	v := asAdmin(t, p.machine)
	p.sh(t, v+"vault policy delete strongroom-monitor; vault token revoke -self; rm -f ~/.vault-token")
	if code, out := p.typed(t, "./strongroom-installer install", goOn, "yes"); code != 4 {
		t.Errorf("without a token: exit code %d\n%s", code, out)
	}
	loggedIn(t, p, p.atTerminal(t, "sh", "-ec", lines[0]))
	if code, out := p.typed(t, "sudo "+lines[1], goOn, "yes"); code != 0 {
		t.Fatalf("with one: exit code %d\n%s", code, out)
	}
	if r := p.in(t, "/root/strongroom-installer", "plan"); r.code != 0 {
		t.Errorf("plan afterwards: exit code %d\n%s", r.code, r)
	}
}

// textBlock is onPage for a block that is not shell; one without a name goes by
// its first line.
func textBlock(t *testing.T, page, name string) string {
	t.Helper()
	for _, b := range blocksOf(t, page) {
		first, _, _ := strings.Cut(strings.TrimSpace(b.text), "\n")
		if name == b.name || b.name == "" && name == first {
			return strings.TrimSpace(b.text)
		}
	}
	t.Fatalf("docs/%s has no block %q", page, name)
	return ""
}
