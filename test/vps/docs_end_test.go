package vps_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func (p *pages) cloudInitPage(t *testing.T) {
	p.sh(t, "cd /root; install strongroom-installer /usr/local/sbin/; cp s3.toml bucket.toml; cp .vault-token token")
	// Something to change, so that the flags are used.
	p.write(t, "/root/appliance.toml", append(p.config(t, true), "[audit]\nkeep = \"91d\"\n"...))
	if code, out := p.typed(t, onPage(t, "cloud-init.md", "add"), goOn, "yes"); code != 0 {
		t.Errorf("add: exit code %d\n%s", code, out)
	}
	// It shows what there is, and goes on until somebody stops it.
	p.sh(t, "systemd-run --quiet --unit=strongroom-first-boot --wait echo the first try; journalctl --sync")
	c := p.atTerminal(t, "sh", "-ec", onPage(t, "cloud-init.md", "follow"))
	c.expect("the first try")
	p.sh(t, "pkill -x journalctl")
	c.exit()
}

func (p *pages) firewall(t *testing.T) {
	if out := p.sh(t, "export PAGER=cat; "+onPage(t, "firewall.md", "look")); !strings.Contains(out, "counter") || !strings.Contains(out, "strongroom-firewall.service") {
		t.Errorf("what the page looks at: %s", out)
	}
	command := onPage(t, "firewall.md", "ssh-from")
	for from, to := range map[string]string{"203.0.113.0/24": outsideAddr + "/32", "2001:db8::/32": "fd99::1/128"} {
		if !strings.Contains(command, from) {
			t.Fatalf("the page's command lacks %s", from)
		}
		command = strings.ReplaceAll(command, from, to)
	}
	if code, out := p.typed(t, command, goOn, "yes", itWorks, "yes"); code != 0 {
		t.Fatalf("exit code %d\n%s", code, out)
	}
	p.laptop.must(t, "ssh root@"+domain+" true")
	// Another address, one that the rules do not name.
	link := strings.TrimSpace(p.must(t, "outside", p.name, "sh", "-c", "ip -o -4 addr show to 10.99.0.1 | awk '{print $2}'"))
	p.must(t, "outside", p.name, "ip", "addr", "add", "10.99.0.7/24", "dev", link)
	if r := p.laptop.run(t, "ssh -b 10.99.0.7 -o ConnectTimeout=3 root@"+domain+" true"); r.code == 0 {
		t.Error("SSH is open to an address that is not named")
	}
	p.laptop.must(t, "curl -sS --interface 10.99.0.7 --cacert root.crt https://"+domain+"/v1/sys/health")
}

func (p *pages) purge(t *testing.T) {
	// From here on there is no bucket: the recovery is from the directory alone.
	p.write(t, "/root/appliance.toml", p.config(t, false))
	if code, out := p.typed(t, "./strongroom-installer install --config appliance.toml --token-file token", goOn, "yes", itWorks, "yes"); code != 0 {
		t.Fatalf("without the bucket: exit code %d\n%s", code, out)
	}
	p.sh(t, strongroomSnapshot)
	p.laptop.must(t, onPage(t, "escrow.md", "copy"))
	p.byHand(t)
	code, out := p.typed(t, onPage(t, "uninstall.md", "purge"), "Type "+domain+" to go on: ", domain)
	if code != 0 {
		t.Fatalf("exit code %d\n%s", code, out)
	}
	gone(t, p.machine)
	if out := p.sh(t, "ls -d /etc/strongroom /var/lib/vault /var/lib/strongroom* 2>/dev/null || true"); out != "" {
		t.Errorf("left: %s", out)
	}
}

// byHand opens the newest backup without any program of ours.
func (p *pages) byHand(t *testing.T) {
	t.Helper()
	name := strings.TrimSpace(p.sh(t, "cd /mnt/backup; ls -t */*.ok.json | head -n1"))
	for _, kind := range []string{".snap.age", ".files.age", ".json"} {
		b, err := os.ReadFile(filepath.Join(p.disk, "mnt/backup", strings.TrimSuffix(name, ".ok.json")+kind))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(p.laptop.home, "X"+kind), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out := p.laptop.must(t, onPage(t, "disaster-recovery.md", "by-hand"))
	if !strings.Contains(out, "etc/strongroom/appliance.toml") || !strings.Contains(out, "strongroom-front/") {
		t.Error("configuration and certificates are not in the archive")
	}
	// The last command would bring it into the machine that is about to go.
	opened, restore, ok := strings.Cut(onPage(t, "backup.md", "stock"), "\nvault operator raft snapshot restore ")
	if out := p.laptop.must(t, opened); !ok || restore != "vault.snap" || !strings.Contains(out, "Index") {
		t.Errorf("the stock snapshot: %s", out)
	}
	signed := strings.Replace(onPage(t, "backup.md", "elsewhere"), "20261124T151500Z-1a2b3c4d.json", "X.json", 1)
	if out := p.laptop.must(t, "export VAULT_ADDR=https://"+domain+" VAULT_CACERT=$PWD/root.crt; "+signed+"; cmp keyring.json escrow/keyring.json"); !strings.Contains(out, "good: the snapshot manifest is as signed by snapshot of "+domain) {
		t.Errorf("the manifest: %s", out)
	}
}

// withoutKey: the same machine stands for the new one, since nothing is left.
func (p *pages) withoutKey(t *testing.T) {
	p.haveVault(t)
	r := p.laptop.run(t, onPage(t, "disaster-recovery.md", "without-key"))
	if r.code != 0 && r.code != 3 {
		t.Fatalf("exit code %d\n%s", r.code, r)
	}
	unsealed(t, p.machine)
	token := login(t, p.machine)
	data, _ := p.call(t, token, "GET", "secret/data/app/production/db", nil)["data"].(map[string]any)
	if data["url"] != "canary-of-the-pages" {
		t.Errorf("the secret is %v", data)
	}
	// The page's way to be rid of what opened it; not everything is confirmed.
	if r := p.in(t, "strongroom", "escrow", "status"); r.code != 3 {
		t.Errorf("escrow status: exit code %d\n%s", r.code, r)
	}
}
