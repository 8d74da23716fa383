package vps_test

import (
	"crypto/x509"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// testRecoveredElsewhere: the machine with the operator's own certificate is
// lost. Another one takes its place with what the operator has: an SSH key with
// a passphrase, and of the escrow the master key and the password alone.
func testRecoveredElsewhere(t *testing.T, a *machine, au *authority) {
	const passphrase = "canary of a passphrase"
	ask := admin(t, a, au)
	if status, _ := ask("POST", "secret/data/app/production/last", map[string]any{"data": map[string]any{"v": "canary-of-a-secret"}}); status != 200 {
		t.Fatalf("write: %d", status)
	}
	serial := au.company.issue(t, a, 2*time.Hour)
	a.sh(t, onPage(t, "certificates.md", "renewed"))
	is := func(c *x509.Certificate) bool { return c.SerialNumber.Cmp(serial) == 0 }
	served(t, a, au.roots, is)
	a.sh(t, "systemctl start strongroom-snapshot && systemctl start strongroom-verify")
	keep := t.TempDir()
	out, err := exec.Command("cp", "-r", filepath.Join(a.disk, backupDir), filepath.Join(a.disk, "var/lib/strongroom/escrow"), a.key, keep).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	a.must(t, "down", a.name)

	b := boot(t, "acmb")
	b.keysOnly(t)
	b.key = a.key
	key := filepath.Join(keep, filepath.Base(a.key))
	if out, err := exec.Command("ssh-keygen", "-q", "-p", "-P", "", "-N", passphrase, "-f", key).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v\n%s", err, out)
	}
	b.sh(t, "mkdir -p -m 700 /root/dr/escrow")
	for from, to := range map[string]string{
		key: "root/dr/id_ed25519", filepath.Join(keep, "escrow/master-key.age"): "root/dr/escrow", filepath.Join(keep, "escrow/admin.age"): "root/dr/escrow",
		filepath.Join(keep, filepath.Base(backupDir)): filepath.Dir(backupDir),
	} {
		if out, err := exec.Command("cp", "-r", from, filepath.Join(b.disk, to)).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	// The old machine's disk: its users had other numbers.
	b.sh(t, "chown -R 4321:4321 "+backupDir+" && chmod -R u=rwX,g=rwX,o= "+backupDir)
	pub, err := os.ReadFile(a.key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	b.write(t, "/root/.ssh/authorized_keys", pub)
	restore := "/root/strongroom-installer restore --identity id_ed25519 --escrow escrow --dir " + backupDir + " --yes --vault-binary /root/vault"

	// Nobody there to ask.
	if r := b.in(t, "setsid", "--wait", "sh", "-c", "cd /root/dr && "+restore); r.code == 0 || !strings.Contains(r.String(), "passphrase") {
		t.Errorf("without a terminal: exit code %d:\n%s", r.code, r)
	}
	// On a terminal, which would show what is typed, and with one who types too
	// soon: a wrong passphrase, then the right one.
	type answer struct {
		passphrase string
		ok         bool
	}
	for _, c := range []answer{{"not it", false}, {passphrase, true}} {
		b.write(t, "/root/typed", []byte(c.passphrase+"\n"))
		r := b.in(t, "bash", "-c", "cd /root/dr && rm -f seen typing && touch seen && mkfifo typing && exec 3<>typing; "+
			"(for i in $(seq 2000); do grep -q 'Passphrase of' seen && break; sleep 0.1; done; cat /root/typed >&3) & "+
			"script -qefc 'stty -echo; "+restore+"' seen <typing; c=$?; rm /root/typed; exit $c")
		switch {
		case !c.ok && (r.code != 4 || !strings.Contains(r.String(), "passphrase of the SSH private key is wrong")):
			t.Errorf("with a wrong passphrase: exit code %d:\n%s", r.code, r)
		case c.ok && r.code != 0:
			t.Fatalf("exit code %d:\n%s\n%s", r.code, r, b.sh(t, "journalctl --no-pager -n 60"))
		case c.ok && strings.Count(r.String(), "Passphrase of") != 1:
			t.Errorf("it did not ask once for the passphrase:\n%s", r)
		}
		if strings.Contains(r.String(), c.passphrase) {
			t.Error("the passphrase is shown")
		}
		if c.ok {
			t.Logf("%.1f s\n%s", r.took.Seconds(), r)
		}
	}
	// The operator's certificate and key, which were at no place but on the old
	// machine and in its backup.
	served(t, b, au.roots, is)
	if out := b.sh(t, "stat -c '%a %U' "+ownKey); out != "600 root\n" {
		t.Errorf("the certificate's key: %s", out)
	}
	ask = admin(t, b, au) // by the escrow's password
	if status, out := ask("GET", "secret/data/app/production/last", nil); status != 200 || !strings.Contains(fmt.Sprint(out), "canary-of-a-secret") {
		t.Errorf("the last secret: %d", status)
	}
	b.sh(t, "rm /root/.vault-token")
	if r := b.in(t, "/root/strongroom-installer", "plan"); r.code != 0 {
		t.Errorf("plan: exit code %d:\n%s", r.code, r)
	}
	if out, err := exec.Command("grep", "-rlaF", "--devices=skip", passphrase, filepath.Join(b.disk, "etc"), filepath.Join(b.disk, "var"), filepath.Join(b.disk, "root/dr"), filepath.Join(b.disk, "tmp")).Output(); err == nil {
		t.Errorf("the passphrase is in: %s", out)
	}
}
