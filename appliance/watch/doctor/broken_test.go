package doctor

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"strongroom.example/appliance/backup/drill/report"
	"strongroom.example/appliance/base/credential/credtest"
	"strongroom.example/appliance/base/statefile"
	"strongroom.example/appliance/watch/alert"
	"strongroom.example/appliance/watch/audit"
	"strongroom.example/appliance/watch/evidence"
	"strongroom.example/config"
	"strongroom.example/config/machine"
)

// token looks like one of Vault's.
const token = "hvs.CAESIcanaryCanaryCanaryCanary0123456789"

// broken are ways to break a machine: which item must find it, with what
// verdict and words, and whether --fix mends it.
var broken = []struct {
	name, id string
	do       func(*testing.T, *box, *Subject)
	verdict  string
	says     string
	fixed    bool
}{
	{"user with a shell", "dedicated-user", edit("/etc/passwd", "Vault:/nonexistent:/usr/sbin/nologin", "Vault:/nonexistent:/bin/bash"), "fail", `user "vault" can log in`, false},
	{"vault is root", "dedicated-user", edit("/proc/140/status", "996", "0"), "fail", "runs as root", false},
	{"the plugin is root", "dedicated-user", edit("/proc/246/status", "996", "0"), "fail", "process 246", false},
	{"the front is root", "dedicated-user", edit("/proc/206/status", "995", "0"), "fail", "process 206", false},
	{"vault in sudo", "dedicated-user", edit("/etc/group", "sudo:x:27:anna", "sudo:x:27:anna,vault"), "fail", `in the group "sudo"`, false},
	{"no such user", "dedicated-user", edit("/etc/passwd", "strongroom-front", "somebody"), "fail", "there is no user", false},
	{"processes hidden", "dedicated-user", remove("/proc/1/status"), "skip", "process 1 is hidden", false},
	{"vault owns its binary", "vault-readonly", own(machine.VaultProgram, vaultID, 0), "fail", "it is its own", true},
	{"everybody may write a plugin", "vault-readonly", chmod(machine.PluginDir+"/vault-plugin-secrets-apikeys-0.1.0", 0o777), "fail", "everybody may write", true},
	{"vault's group may write the configuration", "vault-readonly", chmod(machine.VaultHCL, 0o660), "fail", "its group may write", true},
	{"everybody may write the folder of units", "vault-readonly", chmod(machine.UnitDir, 0o777), "fail", machine.UnitDir, true},
	{"TLS 1.1", "tls", func(_ *testing.T, b *box, _ *Subject) {
		b.hellos[tls.VersionTLS11] = tls.ConnectionState{Version: tls.VersionTLS11}
	}, "fail", "speaks TLS 1.1", false},
	{"no HSTS", "tls", func(_ *testing.T, b *box, _ *Subject) {
		b.answers[healthPath] = Answer{Status: 200, Header: http.Header{}}
	}, "fail", "Strict-Transport-Security", false},
	{"HSTS for a minute", "tls", func(_ *testing.T, b *box, _ *Subject) {
		b.answers[healthPath] = Answer{Status: 200, Header: http.Header{hstsHeader: {"max-age=60"}}}
	}, "fail", "max-age of", false},
	{"Vault to the network", "tls", edit(machine.VaultHCL, `"127.0.0.1:8200"`, `"0.0.0.0:8200"`), "fail", "not loopback", false},
	{"Vault without TLS", "tls", edit(machine.VaultHCL, `tls_min_version`, "tls_disable = true\n  tls_min_version"), "fail", "tls_disable", false},
	{"vault's socket on the network", "tls", edit(netDir+"tcp", "0100007F:2008", "00000000:2008"), "fail", "user vault listens on tcp 0.0.0.0:8200", false},
	{"swap on", "swap", edit("/proc/swaps", "Priority\n", "Priority\n/dev/sda2 partition 1000 0 -2\n"), "fail", "swap is on: /dev/sda2", true},
	{"swap at boot", "swap", edit("/etc/fstab", "defaults 0 1\n", "defaults 0 1\n/dev/sda2 none swap sw 0 0\n"), "fail", "comes back at the next boot", true},
	{"suid dumps", "core-dumps", edit("/proc/sys/fs/suid_dumpable", "0", "2"), "fail", "fs.suid_dumpable is 2", true},
	{"suid dumps of the host", "core-dumps", func(t *testing.T, b *box, s *Subject) {
		edit("/proc/sys/fs/suid_dumpable", "0", "2")(t, b, s)
		b.file("/run/systemd/container", 0o444, 0, 0, "systemd-nspawn\n")
	}, "warn", "the host decides", false},
	{"a unit with core dumps", "core-dumps", unit(machine.UnitVault, "LimitCORE", "infinity"), "fail", "LimitCORE=infinity", false},
	{"a process with core dumps", "core-dumps", edit("/proc/206/limits", "size        0 ", "size  unlimited "), "fail", "process 206", false},
	{"a swap unit", "swap", wantedBy("/etc/systemd/system/swap.target.wants", "var-swapfile.swap"), "fail", "swap.target.wants/var-swapfile.swap", false},
	{"swap in memory", "swap", added("/usr/lib/systemd/zram-generator.conf", "# ours\n[zram0]\n"), "fail", "zram-generator.conf", false},
	{"another listener", "listeners", edit(netDir+"tcp", socketHead, socketHead+tableLine("00000000:1F90", tcpListen, 1000)), "fail", "tcp 0.0.0.0:8080 of anna", false},
	{"names of the neighbourhood, and no firewall", "listeners", func(t *testing.T, b *box, s *Subject) {
		resolved(t, b)
		s.Config.Firewall.Manage = false
	}, "warn", "udp [::]:5355 of systemd-resolved", false},
	{"a listener for HTTP/3", "listeners", edit(netDir+"udp6", socketHead, socketHead+any6(443, udpOpen, 0)), "fail", "udp [::]:443 of root", false},
	{"another listener, UDP over IPv6", "listeners", edit(netDir+"udp6", socketHead, socketHead+any6(53, udpOpen, 0)), "fail", "udp [::]:53 of root", false},
	{"port 443 of somebody else", "listeners", edit(netDir+"tcp6", any6(443, tcpListen, 0), any6(443, tcpListen, 1000)), "fail", "tcp [::]:443 of anna", false},
	{"another listener, and no configuration", "listeners", noConfig(edit(netDir+"tcp", socketHead, socketHead+tableLine("00000000:1F90", tcpListen, 0))), "skip", "which ports are sshd's", false},
	{"a socket of vault's, and no configuration", "tls", noConfig(edit(netDir+"tcp", "0100007F:2008", "00000000:2008")), "skip", "is the cluster's", false},
	{"sshd elsewhere in the rules, and no configuration", "firewall", noConfig(nft(func(t *testing.T) string { return strings.ReplaceAll(loadedTable(t), `"right":22}`, `"right":2222}`) })), "skip", "which ports it lets in", false},
	{"no firewall, and no configuration", "units", noConfig(unit(machine.UnitFirewall, "UnitFileState", "disabled")), "skip", machine.UnitFirewall, false},
	{"tables of another form", "listeners", edit(netDir+"tcp", "0100007F", "XYZ"), "skip", "not seen", false},
	{"no firewall", "firewall", prints("nft -j -t list ruleset", `{"nftables":[{"metainfo":{}}]}`), "fail", "not loaded", true},
	{"input accepts", "firewall", inTable(`"policy":"drop"`, `"policy":"accept"`), "fail", "priority 0 policy accept", true},
	{"another port let in", "firewall", first("input", `{"match":{"op":"==","left":{"payload":{"protocol":"tcp","field":"dport"}},"right":{"range":[8080,8081]}}},{"accept":null}`), "fail", "8080", true},
	{"all let in", "firewall", first("input", `{"accept":null}`), "fail", `chain input has "accept"`, true},
	{"all let in, and counted", "firewall", first("input", `{"counter":{"packets":7,"bytes":7}},{"accept":null}`), "fail", `"counter accept"`, true},
	{"all addresses let in", "firewall", first("input", `{"match":{"op":"==","left":{"payload":{"protocol":"ip","field":"saddr"}},"right":{"prefix":{"addr":"0.0.0.0","len":0}}}},{"accept":null}`), "fail", "0.0.0.0/0 accept", true},
	{"all ports but SSH's let in", "firewall", first("input", `{"match":{"op":"!=","left":{"payload":{"protocol":"tcp","field":"dport"}},"right":22}},{"accept":null}`), "fail", "dport != 22 accept", true},
	{"a jump elsewhere", "firewall", first("input", `{"jump":{"target":"mine"}}`), "fail", "mine", true},
	{"a map of verdicts", "firewall", first("input", `{"vmap":{"key":{"payload":{"protocol":"tcp","field":"dport"}},"data":{"set":[[9,{"accept":null}]]}}}`), "fail", "vmap", true},
	{"vault may connect anywhere", "firewall", inTable(`{"goto":{"target":"vault_out"}}`, `{"accept":null}`), "fail", "lacks", true},
	{"vault's chain begins with accept", "firewall", first("vault_out", `{"accept":null}`), "fail", `chain vault_out has "accept"`, true},
	{"a port more for vault", "firewall", inTable(`{"set":[443,3306,5432]}`, `{"set":[443,3306,5432,6667]}`), "fail", "6667", true},
	{"the front's chain is open", "firewall", func(t *testing.T, b *box, s *Subject) {
		before, after, _ := strings.Cut(loadedTable(t), `"chain":"front_out","handle":85`)
		prints("nft -j -t list ruleset", before+`"chain":"front_out","handle":85`+strings.Replace(after, `{"reject":{"type":"icmpx","expr":"admin-prohibited"}}`, `{"accept":null}`, 1))(t, b, s)
	}, "fail", "chain front_out lacks", true},
	{"rules in another order", "firewall", first("ssh", `{"accept":null}`), "fail", "another order, or one twice", true},
	{"the table sleeps", "firewall", inTable(`{"table":{"family":"inet","name":"strongroom",`, `{"table":{"family":"inet","name":"strongroom","flags":"dormant",`), "fail", "the table is dormant", true},
	{"a smaller set", "firewall", inTable(`"name":"known4","table":"strongroom","type":"ipv4_addr","handle":16,"size":65535`, `"name":"known4","table":"strongroom","type":"ipv4_addr","handle":16,"size":8`), "fail", "set known4 lacks", true},
	{"more at once", "firewall", inTable(`"ct count":{"val":2048`, `"ct count":{"val":9999999`), "fail", "ct count over 9999999", true},
	{"another mark", "firewall", inTable(`{"|":[{"ct":{"key":"mark"}},268435456]}`, `{"|":[{"ct":{"key":"mark"}},1]}`), "fail", `lacks "ct mark set ct mark | 268435456"`, true},
	{"another chain", "firewall", inTable(`{"chain":{"family":"inet","table":"strongroom","name":"ssh"`, `{"chain":{"family":"inet","table":"strongroom","name":"more","handle":99,"type":"filter","hook":"input","prio":-5,"policy":"accept"}},{"chain":{"family":"inet","table":"strongroom","name":"ssh"`), "fail", "chain more is in force", true},
	{"the file binds another's uid", "firewall", edit(machine.NftablesConf, "meta skuid 996 goto vault_out", "meta skuid 997 goto vault_out"), "fail", "does not bind what user vault may connect to", false},
	{"a set was full", "firewall", watchedFirewall(evidence.Firewall{At: minuteAgo, Faults: []alert.Fault{{Text: full["ssh_full"], Hint: "docs/firewall.md"}}}), "warn", "addresses at SSH is full", false},
	{"nobody looks at it", "firewall", watchedFirewall(evidence.Firewall{At: minuteAgo.Add(-time.Hour)}), "fail", "last looked at", false},
	{"history is lost", "audit-devices", ledger(audit.Ledger{At: minuteAgo, Losses: []audit.Loss{{Name: "audit-1.log.x.gz", Cause: audit.Gone}}}), "fail", "audit history was lost: audit-1.log.x.gz is gone", false},
	{"a log is not written", "audit-devices", ledger(audit.Ledger{At: minuteAgo, Faults: []alert.Fault{{Text: "Vault does not write to audit-1.log", Hint: "systemctl reload vault"}}}), "fail", "does not write", false},
	{"nobody watches the logs", "audit-devices", ledger(audit.Ledger{Begun: minuteAgo.Add(-time.Hour)}), "fail", "last looked at", false},
	{"no ledger", "audit-devices", func(t *testing.T, _ *box, s *Subject) {
		if err := os.Remove(filepath.Join(s.Places.Audit, "ledger.json")); err != nil {
			t.Fatal(err)
		}
	}, "fail", "has no ledger", false},
	{"no ledger, the timer active for too long", "audit-devices", armed("400.2", "3000000"), "fail", "has no ledger", false},
	{"a spoilt ledger", "audit-devices", func(t *testing.T, _ *box, s *Subject) {
		if err := os.WriteFile(filepath.Join(s.Places.Audit, "ledger.json"), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
	}, "skip", "corrupt", false},
	{"not at boot", "firewall", unit(machine.UnitFirewall, "UnitFileState", "disabled"), "fail", "gone after the next boot", true},
	{"nft hidden", "firewall", func(_ *testing.T, b *box, _ *Subject) {
		b.commands["nft -j -t list ruleset"] = func([]string) (string, error) { return "", errors.New("operation not permitted") }
	}, "skip", "operation not permitted", false},
	{"the operator's own firewall", "firewall", func(_ *testing.T, _ *box, s *Subject) { s.Config.Firewall.Manage = false }, "warn", "not the appliance's", false},
	{"root token", "root-token", func(t *testing.T, b *box, _ *Subject) {
		b.tokens["acc1"] = values[map[string]any](t, `{"policies":["root"],"expire_time":null,"display_name":"root"}`)
	}, "fail", "a root token is alive", false},
	{"root token on the disk", "root-token", func(_ *testing.T, b *box, _ *Subject) {
		b.file(machine.CredentialDir+"/root-token", 0o600, 0, 0, sealedBlob(1))
	}, "fail", "unfinished installation", false},
	{"a way in that was left open", "root-token", edit(machine.VaultHCL, "disable_mlock", "enable_unauthenticated_access = [\"generate-root\"] # strongroom\ndisable_mlock"), "fail", "lets callers without a token at generate-root", false},
	{"OpenBao's gate that was left open", "root-token", edit(machine.VaultHCL, "listener \"unix\" {", "listener \"unix\" { # strongroom\n  address = \"/run/x\"\n  disable_unauthed_generate_root_endpoints = false\n}\nlistener \"unix\" {"), "fail", "generate-root, on unix /run/x", false},
	{"no login", "root-token", func(_ *testing.T, _ *box, s *Subject) { s.NoLogin = errNoVault }, "skip", "not logged in", false},
	{"no lockout", "user-lockout", edit(machine.VaultHCL, `user_lockout "all"`, `user_lockout "ldap"`), "fail", "has no user_lockout", false},
	{"lockout disabled", "user-lockout", edit(machine.VaultHCL, `disable_lockout       = "false"`, `disable_lockout = "true"`), "fail", "disable_lockout = true", false},
	{"lockout after 1000", "user-lockout", edit(machine.VaultHCL, `lockout_threshold     = "5"`, `lockout_threshold = "1000"`), "fail", "1000 times", false},
	{"lockout after a million", "user-lockout", edit(machine.VaultHCL, `lockout_threshold     = "5"`, `lockout_threshold = 1000000`), "fail", "at most 10", false},
	{"lockout after nobody knows", "user-lockout", edit(machine.VaultHCL, `lockout_threshold     = "5"`, ``), "fail", "who knows how many", false},
	{"lockout of the way in that is to have none", "user-lockout", func(t *testing.T, b *box, _ *Subject) {
		b.vault["sys/auth/strongroom-local/tune"] = values[map[string]any](t, `{"default_lease_ttl":3600}`)
	}, "fail", "auth/strongroom-local/ has user lockout", false},
	{"no way in that cannot be locked", "user-lockout", func(t *testing.T, b *box, _ *Subject) {
		b.vault["sys/auth"] = values[map[string]any](t, `{"approle/":{"type":"approle"},"userpass/":{"type":"userpass"}}`)
	}, "warn", "lock an administrator out", false},
	{"a rate-limit quota", "user-lockout", func(_ *testing.T, b *box, _ *Subject) {
		b.lists["sys/quotas/rate-limit"] = []string{"global"}
	}, "fail", "\"global\": on its socket Vault answers 500", false},
	{"lockout disabled on a mount", "user-lockout", func(t *testing.T, b *box, _ *Subject) {
		b.vault["sys/auth/userpass/tune"] = values[map[string]any](t, `{"user_lockout_disable":true}`)
	}, "fail", "auth/userpass/ has user lockout disabled", false},
	{"one audit device", "audit-devices", func(_ *testing.T, b *box, _ *Subject) { delete(b.vault["sys/audit"], "audit-2/") }, "fail", "1 audit device:", false},
	{"two devices on one file", "audit-devices", func(_ *testing.T, b *box, _ *Subject) {
		b.vault["sys/audit"]["audit-2/"] = b.vault["sys/audit"]["audit-1/"]
	}, "fail", "1 audit device:", false},
	{"audit file gone", "audit-devices", remove(machine.AuditDir + "/audit-2.log"), "fail", "not there", false},
	{"audit in clear", "audit-devices", func(t *testing.T, b *box, _ *Subject) {
		b.vault["sys/audit"]["audit-1/"] = values[any](t, `{"type":"file","options":{"file_path":"/var/log/vault/audit-1.log","log_raw":"true"}}`)
	}, "fail", "log_raw", false},
	{"history file gone", "shell-history", remove(machine.HistoryFile), "fail", "keep vault's command lines", false},
	{"history file emptied", "shell-history", edit(machine.HistoryFile, "vault*", "x"), "fail", "does not keep", false},
	{"token in a history", "shell-history", edit("/root/.bash_history", "ls", "export VAULT_TOKEN="+token), "fail", ".bash_history holds a Vault token", false},
	{"history hidden", "shell-history", deny("/root/.bash_history"), "skip", "permission denied", false},
	{"old Vault", "vault-version", func(_ *testing.T, b *box, _ *Subject) { b.health.Version = "1.21.1" }, "fail", "known faults", false},
	{"old OpenBao, which would do for Vault", "vault-version", func(_ *testing.T, b *box, s *Subject) {
		b.health.Product, b.health.Version, s.Config.Vault.Product = config.ProductOpenBao, "2.5.0", config.ProductOpenBao
	}, "fail", "OpenBao 2.5.0 has known faults", false},
	{"OpenBao in Vault's place", "vault-version", func(_ *testing.T, b *box, _ *Subject) {
		b.health.Product, b.health.Version = config.ProductOpenBao, "2.7.2"
	}, "fail", "vault.product is \"vault\"", false},
	{"old Vault, insisted on", "vault-version", func(_ *testing.T, b *box, s *Subject) {
		b.health.Version, s.Config.Vault.AllowOld = "1.21.1", true
	}, "warn", "allow_old insists", false},
	{"clock free", "clock", prints("timedatectl show", "NTP=no\nNTPSynchronized=no\n"), "fail", "not synchronised", true},
	{"clock jumped", "clock", func(_ *testing.T, b *box, _ *Subject) { b.keys.Clock = "ahead" }, "fail", "the clock jumped", false},
	{"storage open", "storage-mode", chmod(machine.RaftDir, 0o750), "fail", "mode 0750", true},
	{"storage another's", "storage-mode", own(machine.VaultData, 1000, 1000), "fail", "belongs to anna", true},
	{"token in a unit", "cleartext", edit(machine.UnitDir+"/"+machine.UnitVault, "[Unit]\n", "[Service]\nEnvironment=VAULT_TOKEN="+token+"\n"), "fail", "holds a Vault token", false},
	{"password in the configuration", "cleartext", edit(machine.Etc+"/appliance.toml", "domain", "secret_key = \"abcdef0123456789\"\ndomain"), "fail", "appliance.toml holds secret_key", false},
	{"password in a URL", "cleartext", edit("/etc/environment", "", "DATABASE_URL=postgres://app:hunter22@db/x\n"), "fail", "a password in a URL", false},
	{"credential in clear", "cleartext", edit(machine.CredentialDir+"/master-key", sealedBlob(0x5a), "{\"key\":\"abc\"}"), "fail", "not an encrypted credential", false},
	{"credential with no key", "cleartext", func(_ *testing.T, b *box, _ *Subject) {
		b.file(machine.CredentialDir+"/master-key", 0o600, 0, 0, nullBlob())
	}, "fail", "with no key", false},
	{"credential that a Secure Boot update locks out", "cleartext", sealedBy("host+tpm2", 7), "fail", "sealed by the host's key and the TPM (PCR 7)", false},
	{"credential that systemd 252 never opens", "cleartext", sealedBy("host+tpm2", -1), "fail", "(no PCR)", false},
	{"sealed by a TPM, the host's key wanted", "cleartext", seal(config.SealHost, sealedBy("host+tpm2", 23)), "warn", "[unseal] has seal = \"host\"", false},
	{"sealed by the host's key, a TPM wanted", "cleartext", seal(config.SealTPM, sealedBy("host", -1)), "warn", "[unseal] has seal = \"tpm\"", false},
	{"TLS 1.2 preferred", "tls13", func(_ *testing.T, b *box, _ *Subject) {
		b.hellos[tls.VersionTLS13] = tls.ConnectionState{Version: tls.VersionTLS12}
	}, "fail", "prefers TLS 1.2", false},
	{"front down", "tls13", func(_ *testing.T, b *box, _ *Subject) { b.hellos = nil }, "fail", "does not answer", false},
	{"plugin changed", "plugin-pinned", edit(machine.PluginDir+"/vault-plugin-secrets-apikeys-0.1.0", pluginContent, "another"), "fail", "Vault will not start it", false},
	{"plugin not pinned", "plugin-pinned", func(_ *testing.T, b *box, _ *Subject) {
		b.vault["sys/mounts"]["apikeys/"].(map[string]any)["plugin_version"] = ""
	}, "fail", "not pinned", false},
	{"another plugin runs", "plugin-pinned", func(_ *testing.T, b *box, _ *Subject) {
		b.vault["sys/mounts"]["apikeys/"].(map[string]any)["running_sha256"] = sum("x")
	}, "fail", "and the catalog has", false},
	{"no engine", "plugin-pinned", func(t *testing.T, b *box, _ *Subject) {
		delete(b.vault["sys/mounts"], "apikeys/")
	}, "fail", "no plugin is mounted at apikeys/", false},
	{"another plugin in place of the engine", "plugin-pinned", func(t *testing.T, b *box, _ *Subject) {
		b.vault["sys/mounts"]["other/"] = b.vault["sys/mounts"]["apikeys/"]
		delete(b.vault["sys/mounts"], "apikeys/")
	}, "fail", "no plugin is mounted at apikeys/", false},
	{"not in the catalog", "plugin-pinned", func(_ *testing.T, b *box, _ *Subject) {
		delete(b.vault, "sys/plugins/catalog/secret/vault-plugin-secrets-apikeys")
	}, "fail", "the catalog has no", false},
	{"two configurations", "one-config", unit(machine.UnitVault, "ExecStart", "argv[]=/usr/local/bin/vault server -config="+machine.VaultHCL+" -config=/etc/more"), "fail", "/etc/more", false},
	{"a folder as configuration", "one-config", unit(machine.UnitVault, "ExecStart", "argv[]=/usr/local/bin/vault server -config=/etc/strongroom"), "fail", "alone", false},
	{"vault.d beside it", "one-config", func(_ *testing.T, b *box, _ *Subject) { b.dir("/etc/vault.d", 0o755, 0, 0) }, "fail", "/etc/vault.d as well", false},
	{"key readable", "file-modes", chmod(machine.TLSDir+"/server.key", 0o644), "fail", "must not have more than 0600", true},
	{"socket for everybody", "file-modes", chmod("/run/vault/vault.sock", 0o666), "fail", "vault.sock", true},
	{"escrow readable", "file-modes", chmod(machine.StateDir+"/escrow/admin.age", 0o644), "fail", "admin.age", true},
	{"credential another's", "file-modes", own(machine.CredentialDir+"/master-key", 1000, 1000), "fail", "belongs to anna", true},
	{"a restore that was killed", "drift", func(_ *testing.T, b *box, _ *Subject) {
		b.file(machine.RestoreWaits, 0o640, 0, 0, `{"max_wait":{"apikeys/":60}}`)
	}, "fail", "reads at apikeys/ wait no more, max_wait was 60 s", false},
	{"a damaged note of a restore", "drift", func(_ *testing.T, b *box, _ *Subject) { b.file(machine.RestoreWaits, 0o640, 0, 0, `{`) }, "fail", "note of a restore", false},
	{"token in arguments", "leaks", edit("/proc/140/cmdline", "server", token), "fail", "the arguments of process 140 (vault) hold a Vault token", false},
	{"token in a daemon's environment", "leaks", edit("/proc/206/environ", "HOME=/", "VAULT_TOKEN="+token), "fail", "the environment of process 206", false},
	{"token in a session", "leaks", func(t *testing.T, b *box, s *Subject) {
		edit("/proc/206/environ", "HOME=/", "VAULT_TOKEN="+token)(t, b, s)
		edit("/proc/206/cgroup", "/system.slice/x.service", "/user.slice/user-0.slice/session-1.scope")(t, b, s)
	}, "warn", "somebody's session", false},
	{"token in the journal", "leaks", prints("journalctl", "vault: login with "+token+"\n"), "fail", "the journal holds a Vault token", false},
	{"token far down in a long journal", "leaks", prints("journalctl", strings.Repeat("vault: x\n", 100000)+token+"\n"), "fail", "the journal holds a Vault token", false},
	{"a journal of long lines", "leaks", prints("journalctl", strings.Repeat("x", maxRead)+" "+token), "fail", "the journal holds a Vault token", false},
	{"more in the journal than there is time for", "leaks", func(_ *testing.T, b *box, _ *Subject) {
		b.commands["journalctl"] = func([]string) (string, error) { return "vault: x\nvault: y\n", context.DeadlineExceeded }
	}, "skip", "only the newest 2 could be searched", false},
	{"no journal", "leaks", func(_ *testing.T, b *box, _ *Subject) {
		b.commands["journalctl"] = func([]string) (string, error) { return "", errors.New("no access") }
	}, "skip", "no access", false},
	{"environments hidden", "leaks", deny("/proc/140/environ"), "skip", "permission denied", false},
	{"a token without end", "tokens", func(t *testing.T, b *box, _ *Subject) {
		b.tokens["acc1"] = values[map[string]any](t, `{"policies":["admin"],"expire_time":null,"display_name":"token-ci"}`)
	}, "warn", "never ends: token-ci", false},
	{"leases that can't be revoked", "tokens", func(t *testing.T, b *box, _ *Subject) {
		b.vault["sys/leases/count"] = values[map[string]any](t, `{"lease_count":3}`)
	}, "warn", "3 leases can't be revoked", false},
	{"a role for a month", "token-ttl", func(t *testing.T, b *box, _ *Subject) {
		b.vault["auth/approle/role/app"] = values[map[string]any](t, `{"token_max_ttl":2764800,"token_period":0}`)
		b.vault["sys/auth/approle/tune"] = values[map[string]any](t, `{"max_lease_ttl":35996400}`)
	}, "fail", "AppRole app: tokens live up to 768h", false},
	{"a periodic role", "token-ttl", func(t *testing.T, b *box, _ *Subject) {
		b.vault["auth/approle/role/app"] = values[map[string]any](t, `{"token_max_ttl":0,"token_period":604800}`)
	}, "fail", "renewed without end", false},
	{"a mount for two days", "token-ttl", func(t *testing.T, b *box, _ *Subject) {
		b.vault["sys/auth"] = values[map[string]any](t, `{"userpass/":{"type":"userpass"}}`)
		b.vault["sys/auth/userpass/tune"] = values[map[string]any](t, `{"max_lease_ttl":172800}`)
	}, "warn", "auth/userpass/: tokens live up to 48h", false},
	{"passwords for SSH", "ssh", prints("sshd -T", strings.Replace(sshdSettings, "passwordauthentication no", "passwordauthentication yes", 1)), "fail", "passwordauthentication", false},
	{"passwords for some", "ssh", func(_ *testing.T, b *box, _ *Subject) {
		b.file(sshdConfig, 0o644, 0, 0, "Include /etc/ssh/sshd_config.d/*.conf\nMatch User anna\n  PasswordAuthentication yes\n")
	}, "fail", `"Match User anna" has passwordauthentication`, false},
	{"passwords for some, in a file beside it", "ssh", func(_ *testing.T, b *box, _ *Subject) {
		b.file(sshdFolder+"/50-team.conf", 0o644, 0, 0, "Match all\nPermitRootLogin yes\n")
	}, "fail", "50-team.conf", false},
	{"root by password", "ssh", prints("sshd -T", strings.Replace(sshdSettings, "without-password", "yes", 1)), "fail", "permitrootlogin", false},
	{"a loose sandbox", "sandbox", prints("systemd-analyze security", "→ Overall exposure level for vault.service: 6.0 MEDIUM\n"), "fail", "exposure 6.0", false},
	{"no mlock setting", "mlock", edit(machine.VaultHCL, "disable_mlock = true", ""), "fail", "does not say disable_mlock", false},
	{"swap on without mlock", "mlock", edit("/proc/swaps", "Priority\n", "Priority\n/dev/sda2 partition 1000 0 -2\n"), "fail", "keys may reach the disk", false},
	{"executable audit file", "audit-mode", chmod(machine.AuditDir+"/audit-1.log", 0o700), "fail", "audit-1.log has the mode 0700", true},
	{"executable audit mode", "audit-mode", func(t *testing.T, b *box, _ *Subject) {
		b.vault["sys/audit"]["audit-1/"] = values[any](t, `{"type":"file","options":{"file_path":"/var/log/vault/audit-1.log","mode":"0755"}}`)
	}, "fail", "would not unseal", false},
	{"unseal open, which answers 405", "sys-closed", func(_ *testing.T, b *box, _ *Subject) {
		b.answers["/v1/sys/unseal"] = Answer{Status: 405, Body: `{"errors":[]}`}
	}, "fail", "/v1/sys/unseal (HTTP 405)", false},
	{"unseal open, which answers 400", "sys-closed", func(_ *testing.T, b *box, _ *Subject) {
		b.answers["/v1/sys/unseal"] = Answer{Status: 400, Body: `{"errors":["'key' must be specified in request body as JSON, or 'reset' set to true"]}`}
	}, "fail", "/v1/sys/unseal (HTTP 400)", false},
	{"Vault knows no such path", "sys-closed", func(_ *testing.T, b *box, _ *Subject) {
		b.answers["//v1/sys/init"] = Answer{Status: 404, Body: `{"errors":["no handler for route"]}`}
	}, "fail", "//v1/sys/init (HTTP 404)", false},
	{"Vault redirects a disguise", "sys-closed", func(_ *testing.T, b *box, _ *Subject) {
		b.answers["/v1/sys//init"] = Answer{Status: 301}
	}, "fail", "/v1/sys//init (HTTP 301)", false},
	{"init open", "sys-closed", func(_ *testing.T, b *box, _ *Subject) {
		b.answers["/v1/sys/init"] = Answer{Status: 200, Body: `{"initialized":true}`}
	}, "fail", "/v1/sys/init (HTTP 200)", false},
	{"a disguise passes to Vault", "sys-closed", func(_ *testing.T, b *box, _ *Subject) {
		b.answers["/v1/%73ys/init"] = Answer{Status: 403, Body: `{"errors":["permission denied"]}`}
	}, "fail", "/v1/%73ys/init", false},
	{"old backup", "backup-drill", func(t *testing.T, b *box, s *Subject) { verified(t, s, b.now.Add(-26*time.Hour)) }, "fail", "26h0m0s old", false},
	{"late backup", "backup-drill", func(t *testing.T, b *box, s *Subject) { verified(t, s, b.now.Add(-3*time.Hour)) }, "warn", "3h0m0s old", false},
	{"no backup", "backup-drill", func(t *testing.T, _ *box, s *Subject) { unlink(t, filepath.Join(s.Places.Verify, "verified.json")) }, "fail", "no backup was ever taken", false},
	{"no place for backups", "backup-drill", func(t *testing.T, _ *box, s *Subject) {
		unlink(t, filepath.Join(s.Places.Verify, "verified.json"))
		s.Config.Backup.To = nil
	}, "fail", "no place for backups", false},
	{"failed backup", "backup-drill", func(t *testing.T, _ *box, s *Subject) {
		write(t, filepath.Join(s.Places.Snapshot, "taken.json"), []byte(`{"format":1,"failure":{"at":"2026-11-24T11:00:00Z","error":"bucket is full"}}`))
	}, "fail", "bucket is full", false},
	{"standby whose timer is dead", "backup-drill", func(t *testing.T, b *box, s *Subject) { stoodAside(t, s, b.now.Add(-26*time.Hour)) }, "fail", "last ran 26h0m0s ago", false},
	{"standby whose timer is late", "backup-drill", func(t *testing.T, b *box, s *Subject) { stoodAside(t, s, b.now.Add(-3*time.Hour)) }, "warn", "last ran 3h0m0s ago", false},
	{"damaged state", "backup-drill", func(t *testing.T, _ *box, s *Subject) {
		write(t, filepath.Join(s.Places.Verify, "verified.json"), []byte("{"))
	}, "skip", "not seen", false},
	{"no canary", "backup-drill", func(t *testing.T, _ *box, s *Subject) {
		write(t, filepath.Join(s.Places.Snapshot, "taken.json"), []byte(`{"format":1,"canary_failure":{"at":"2026-11-24T11:00:00Z","error":"permission denied"}}`))
	}, "fail", "no canary, a drill of it will fail: 2026-11-24T11:00:00Z: permission denied", false},
	{"no drill", "backup-drill", func(t *testing.T, _ *box, s *Subject) { unlink(t, report.LastPath(s.Places.Drill)) }, "fail", "no drill was ever done", false},
	{"no snapshot for the drill", "backup-drill", func(t *testing.T, b *box, s *Subject) {
		write(t, filepath.Join(s.Places.Drill, "fetch-failure.json"), []byte(`{"at":"`+b.now.Add(time.Hour).Format(time.RFC3339)+`","error":"no route"}`))
	}, "fail", "the last drill could not begin, at", false},
	{"old drill", "backup-drill", func(_ *testing.T, b *box, _ *Subject) { b.now = b.now.AddDate(0, 4, 0) }, "fail", "one a quarter", false},
	{"drill's report changed", "backup-drill", func(t *testing.T, _ *box, s *Subject) {
		p := report.LastPath(s.Places.Drill)
		data, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		write(t, p, bytes.Replace(data, []byte(`"rto_seconds": 8`), []byte(`"rto_seconds": 1`), 1))
	}, "fail", "has been changed", false},
	{"drill not signed", "backup-drill", func(t *testing.T, b *box, s *Subject) {
		drilled(t, s, nil, report.Report{Format: 1, Kind: report.KindDrill, FinishedAt: b.now, Passed: true})
	}, "fail", "not signed", false},
	{"escrow replaced", "escrow", func(t *testing.T, _ *box, s *Subject) {
		write(t, filepath.Join(s.Places.Escrow, "new.age"), []byte("x"))
	}, "fail", "new.age was never opened", false},
	{"no escrow", "escrow", func(t *testing.T, _ *box, s *Subject) {
		unlink(t, filepath.Join(s.Places.Escrow, "admin.age"))
		unlink(t, filepath.Join(s.Places.Escrow, "confirmed.json"))
	}, "fail", "there is no escrow", false},
	{"installed file changed", "drift", edit(machine.VaultProgram, "vault", "trojan"), "fail", "other content", false},
	{"installed file's mode", "drift", chmod(machine.CredentialDir+"/master-key", 0o640), "fail", "installed with 0600", true},
	{"installed file gone", "drift", remove(machine.VaultProgram), "fail", "is gone", false},
	{"an empty list of files", "drift", func(_ *testing.T, b *box, _ *Subject) { b.file(machine.ManifestFile, 0o644, 0, 0, `{"format":1}`) }, "fail", "found 0 files, and 1 at least must be there", false},
	{"no list of files", "drift", remove(machine.ManifestFile), "skip", "not there", false},
	{"damaged list of files", "drift", edit(machine.ManifestFile, "{", "["), "fail", "damaged", false},
	{"a list of files of another format", "drift", edit(machine.ManifestFile, `"format":1`, `"format":2`), "fail", "format 2, this program reads 1", false},
	{"TPM in lockout", "units", kmsSays("TPM2 device is in dictionary attack lockout mode.\n"), "fail", "strongroom-kms.service does not run: the TPM is in dictionary-attack lockout", false},
	{"TPM refuses", "units", kmsSays("Current policy digest does not match stored policy digest, cancelling TPM2 authentication attempt.\n"), "fail", "refuses for good", false},
	{"KMS stopped", "units", unit(machine.UnitKMS, "ActiveState", "inactive"), "fail", "enabled and inactive", true},
	{"front stopped", "units", unit(machine.UnitFront, "ActiveState", "inactive"), "fail", "enabled and inactive", true},
	{"timer disabled", "units", unit("strongroom-snapshot.timer", "UnitFileState", "disabled"), "fail", "strongroom-snapshot.timer is disabled", true},
	{"masked", "units", unit(machine.UnitVault, "LoadState", "masked"), "fail", "masked", false},
	{"a job has failed", "units", prints("systemctl list-units", "strongroom-verify.service loaded failed failed x\n"), "fail", "strongroom-verify.service has failed", false},
	{"another unit has failed", "units", prints("systemctl list-units", "apt-daily.service loaded failed failed x\n"), "warn", "apt-daily.service has failed", false},
}

// noConfig does one thing more where appliance.toml has been spoilt: of it there
// are the defaults, and SSH's port may be any.
func noConfig(do func(*testing.T, *box, *Subject)) func(*testing.T, *box, *Subject) {
	return func(t *testing.T, b *box, s *Subject) {
		do(t, b, s)
		s.Config, s.NoConfig = config.Default(), errors.New("line 3: expected a value")
	}
}

// resolved is what answers the names of the neighbourhood by default, on Ubuntu.
func resolved(t *testing.T, b *box) {
	t.Helper()
	edit("/etc/passwd", "", "systemd-resolve:x:992:992::/:/usr/sbin/nologin\n")(t, b, nil)
	edit(netDir+"udp6", socketHead, socketHead+any6(5355, udpOpen, 992))(t, b, nil)
	edit(netDir+"tcp6", socketHead, socketHead+any6(5355, tcpListen, 992))(t, b, nil)
}

func added(file, text string) func(*testing.T, *box, *Subject) {
	return func(_ *testing.T, b *box, _ *Subject) { b.file(file, 0o644, 0, 0, text) }
}

// wantedBy has a unit wanted by what a boot reaches.
func wantedBy(dir, name string) func(*testing.T, *box, *Subject) {
	return func(_ *testing.T, b *box, _ *Subject) {
		b.dir(dir, 0o755, 0, 0)
		b.file(dir+"/"+name, 0o644, 0, 0, "")
	}
}

// edit replaces text in a file; with an empty old text it appends.
func edit(p, old, text string) func(*testing.T, *box, *Subject) {
	return func(t *testing.T, b *box, _ *Subject) {
		t.Helper()
		n := b.files[p]
		if n == nil || !strings.Contains(n.data, old) {
			t.Fatalf("%s has no %q", p, old)
		}
		if old == "" {
			n.data += text
			return
		}
		n.data = strings.ReplaceAll(n.data, old, text)
	}
}

func chmod(p string, mode fs.FileMode) func(*testing.T, *box, *Subject) {
	return func(_ *testing.T, b *box, _ *Subject) { b.files[p].Mode = mode }
}

func own(p string, uid, gid int) func(*testing.T, *box, *Subject) {
	return func(_ *testing.T, b *box, _ *Subject) { b.files[p].UID, b.files[p].GID = uid, gid }
}

func remove(p string) func(*testing.T, *box, *Subject) {
	return func(_ *testing.T, b *box, _ *Subject) { delete(b.files, p) }
}

func deny(p string) func(*testing.T, *box, *Subject) {
	return func(_ *testing.T, b *box, _ *Subject) { b.files[p].err = fs.ErrPermission }
}

// armed is a machine that has been up for so many seconds, whose timer for the look at the
// audit logs has been active since so many microseconds after its start, without a ledger.
func armed(up, since string) func(*testing.T, *box, *Subject) {
	return func(t *testing.T, b *box, s *Subject) {
		if err := os.Remove(filepath.Join(s.Places.Audit, "ledger.json")); err != nil {
			t.Fatal(err)
		}
		b.file("/proc/uptime", 0o444, 0, 0, up+" 10.00\n")
		b.units[machine.UnitAuditWatchTimer] = map[string]string{"ActiveState": "active", "ActiveEnterTimestampMonotonic": since}
	}
}

func unit(name, property, value string) func(*testing.T, *box, *Subject) {
	return func(_ *testing.T, b *box, _ *Subject) { b.units[name][property] = value }
}

func prints(command, text string) func(*testing.T, *box, *Subject) {
	return func(_ *testing.T, b *box, _ *Subject) { b.commands[command] = says(text) }
}

func nft(text func(*testing.T) string) func(*testing.T, *box, *Subject) {
	return func(t *testing.T, b *box, s *Subject) { prints("nft -j -t list ruleset", text(t))(t, b, s) }
}

// first loads a rule before all others of a chain, inTable another text.
func first(chain, expr string) func(*testing.T, *box, *Subject) {
	return nft(func(t *testing.T) string { return firstIn(t, chain, expr) })
}

func inTable(old, text string) func(*testing.T, *box, *Subject) {
	return nft(func(t *testing.T) string {
		table := loadedTable(t)
		if !strings.Contains(table, old) {
			t.Fatalf("the table has no %s", old)
		}
		return strings.Replace(table, old, text, 1)
	})
}

func unlink(t *testing.T, p string) {
	t.Helper()
	if err := os.Remove(p); err != nil {
		t.Fatal(err)
	}
}

// sealedBy has the master key sealed by systemd-creds, to a PCR or none.
func sealedBy(key string, pcr int) func(*testing.T, *box, *Subject) {
	return func(t *testing.T, b *box, _ *Subject) {
		t.Helper()
		pcrs := "--tpm2-pcrs="
		if pcr >= 0 {
			pcrs += strconv.Itoa(pcr)
		}
		m := &credtest.Machine{TPM: &credtest.TPM{Firmware: true}}
		out, err := m.Run(t.Context(), []byte("x"), "encrypt", "--with-key="+key, pcrs, "--name=master-key", "-", "-")
		if err != nil {
			t.Fatal(err)
		}
		b.file(machine.CredentialDir+"/master-key", 0o600, 0, 0, string(out))
	}
}

func seal(setting string, also func(*testing.T, *box, *Subject)) func(*testing.T, *box, *Subject) {
	return func(t *testing.T, b *box, s *Subject) {
		t.Helper()
		s.Config.Unseal.Seal = setting
		also(t, b, s)
	}
}

// kmsSays has the KMS wait for its master key, and systemd say why.
func kmsSays(text string) func(*testing.T, *box, *Subject) {
	return func(t *testing.T, b *box, s *Subject) {
		t.Helper()
		unit(machine.UnitKMS, "ActiveState", "activating")(t, b, s)
		b.commands["journalctl"] = says(text)
	}
}

// minuteAgo is a minute before a healthy machine's now.
var minuteAgo = time.Date(2026, 11, 24, 11, 59, 0, 0, time.UTC)

func watchedFirewall(f evidence.Firewall) func(*testing.T, *box, *Subject) {
	return func(t *testing.T, _ *box, s *Subject) {
		if err := evidence.SaveFirewall(s.Places, f); err != nil {
			t.Fatal(err)
		}
	}
}

func ledger(l audit.Ledger) func(*testing.T, *box, *Subject) {
	return func(t *testing.T, _ *box, s *Subject) {
		l.Format, l.Logs = 1, []string{"audit-1.log"}
		if err := statefile.Save(filepath.Join(s.Places.Audit, "ledger.json"), l, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
