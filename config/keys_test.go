package config

import (
	"reflect"
	"slices"
	"strings"
	"testing"
)

// Whoever adds a key says what becomes of a change to it; nothing is ignored in silence.
func TestEachKeyHasAClass(t *testing.T) {
	keys := Keys()
	for _, k := range keys {
		if _, ok := ClassOf(k); !ok {
			t.Errorf("%s: add it to classes: is it applied now, what is restarted, which procedure does it need, or is it immutable?", k)
		}
	}
	for name := range classes {
		if !slices.ContainsFunc(keys, func(k string) bool {
			k = withoutIndices(k)
			return k == name || strings.HasPrefix(k, name+".")
		}) {
			t.Errorf("classes has %q, which is no key", name)
		}
	}
	for _, k := range []string{"domain", "node.peer[0].api_addr", "tls.acme.dns_token", "backup.to[0].path", "backup.keep.hourly", "alert.mail.to", "audit.keep_mb"} {
		if !slices.Contains(keys, k) {
			t.Errorf("the walk misses %s; it has %q", k, keys)
		}
	}
	if _, ok := ClassOf("nothing.of.the.kind"); ok {
		t.Error("a key that there is not has a class")
	}
}

func TestChangesOfKeys(t *testing.T) {
	a, b := Default(), Default()
	if got := Changes(a, b); len(got) > 0 {
		t.Errorf("no difference is %v", got)
	}
	b.Vault.LogLevel = "warn"
	b.Node.ID = "node-2"
	b.Vault.Mirror = "https://user:hunter2@mirror.example.com"
	b.Backup.To = []BackupTo{{Type: BackupDir, Path: "/mnt/backup"}}
	b.Firewall.SSHFrom = []string{"10.0.0.0/8"}
	var got []string
	for _, c := range Changes(a, b) {
		got = append(got, c.String())
	}
	all := strings.Join(got, "\n")
	for _, want := range []string{
		`node.id: "node-1" → "node-2" (can't be changed: raft knows this node by it)`,
		`vault.log_level: "info" → "warn" (restarts vault.service)`,
		`backup.to[0].path: not there → "/mnt/backup"`,
		`firewall.ssh_from: ["0.0.0.0/0", "::/0"] → ["10.0.0.0/8"]`,
		`vault.mirror: "" → "https://***@mirror.example.com"`,
	} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is not in\n%s", want, all)
		}
	}
	if strings.Contains(all, "hunter2") {
		t.Errorf("a password is shown:\n%s", all)
	}
	for _, c := range Changes(b, a) {
		if c.Key == "backup.to[0].path" && c.To != "" {
			t.Errorf("what goes is %+v", c)
		}
	}
	if reflect.DeepEqual(a, b) {
		t.Error("the comparison changed something")
	}
}
