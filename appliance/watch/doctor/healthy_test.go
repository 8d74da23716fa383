package doctor

import (
	"crypto/ed25519"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"testing"
	"time"

	"strongroom.example/appliance/backup/drill/report"
	"strongroom.example/appliance/base/signing"
	"strongroom.example/appliance/base/statefile"
	"strongroom.example/appliance/serve/escrow"
	"strongroom.example/appliance/watch/audit"
	"strongroom.example/appliance/watch/evidence"
	"strongroom.example/config"
	"strongroom.example/config/machine"
)

// healthy is a machine on which every item passes, and its subject.
func healthy(t *testing.T) (*box, *Subject) {
	t.Helper()
	b := &box{
		now: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC), files: map[string]*node{},
		commands: map[string]func([]string) (string, error){}, units: map[string]map[string]string{},
		answers: map[string]Answer{}, lists: map[string][]string{}, tokens: map[string]map[string]any{}, vault: map[string]map[string]any{},
	}
	b.system()
	b.installed(t)
	b.network(t)
	b.inVault(t)
	a := config.Default()
	a.Domain, a.TLS.Mode = "vault.example.com", config.TLSInternal
	a.Backup.To = []config.BackupTo{{Type: config.BackupDir, Path: "/mnt"}}
	s := &Subject{Machine: b, Front: b, Vault: b, Config: a, Mount: "apikeys", Version: "test"}
	states(t, b.now, s)
	return b, s
}

func (b *box) system() {
	b.file("/etc/passwd", 0o644, 0, 0, fmt.Sprintf(`root:x:0:0:root:/root:/bin/bash
vault:x:%d:%d:HashiCorp Vault:/nonexistent:/usr/sbin/nologin
strongroom-front:x:%d:%d::/nonexistent:/usr/sbin/nologin
anna:x:1000:1000::/home/anna:/bin/bash
`, vaultID, vaultID, frontID, frontID))
	b.file("/etc/group", 0o644, 0, 0, fmt.Sprintf("root:x:0:\nsudo:x:27:anna\nvault:x:%d:\nstrongroom-front:x:%d:\n", vaultID, frontID))
	b.file("/etc/fstab", 0o644, 0, 0, "UUID=1 / ext4 defaults 0 1\n")
	b.file("/etc/environment", 0o644, 0, 0, "")
	b.file("/proc/swaps", 0o444, 0, 0, "Filename\tType\tSize\tUsed\tPriority\n")
	b.file("/proc/sys/fs/suid_dumpable", 0o644, 0, 0, "0\n")
	b.dir("/proc", 0o555, 0, 0)
	for _, p := range []struct {
		pid, parent, uid int
		name             string
	}{{1, 0, 0, "systemd"}, {140, 1, vaultID, "vault"}, {246, 140, vaultID, "vault-plugin-se"}, {118, 1, 61435, "strongroom"}, {206, 1, frontID, "strongroom"}, {4000, 1, 0, "strongroom"}} {
		dir := fmt.Sprintf("/proc/%d", p.pid)
		b.dir(dir, 0o555, p.uid, p.uid)
		b.file(dir+"/status", 0o444, p.uid, p.uid, fmt.Sprintf("Name:\t%s\nPPid:\t%d\nUid:\t%d\t%d\t%d\t%d\n", p.name, p.parent, p.uid, p.uid, p.uid, p.uid))
		b.file(dir+"/cmdline", 0o444, p.uid, p.uid, p.name+"\x00server\x00")
		b.file(dir+"/environ", 0o400, p.uid, p.uid, "HOME=/\x00")
		b.file(dir+"/cgroup", 0o444, p.uid, p.uid, "0::/system.slice/x.service\n")
		b.file(dir+"/limits", 0o444, p.uid, p.uid, "Limit  Soft Limit  Hard Limit  Units\nMax core file size        0                    0                    bytes\n")
	}
	for _, d := range []string{"/usr", "/usr/local", machine.BinDir, "/usr/local/lib", path.Dir(machine.PluginDir), machine.PluginDir, "/etc", machine.Etc, "/etc/systemd", machine.UnitDir, "/etc/profile.d", machine.StateDir} {
		b.dir(d, 0o755, 0, 0)
	}
	b.file(sshdConfig, 0o644, 0, 0, "Include /etc/ssh/sshd_config.d/*.conf\n")
	b.dir(sshdFolder, 0o755, 0, 0)
	b.file("/root/.bash_history", 0o600, 0, 0, "ls\n")
	b.commands["timedatectl show"] = says("NTP=yes\nNTPSynchronized=yes\n")
	b.commands["sshd -T"] = says(sshdSettings)
	b.commands["journalctl"] = says("vault: started\n")
	b.commands["systemd-analyze security"] = func(args []string) (string, error) {
		return fmt.Sprintf("→ Overall exposure level for %s: 1.1 OK :-)\n", args[len(args)-1]), nil
	}
	b.commands["systemctl list-units"] = says("")
}

const pluginContent = "a plugin"

func (b *box) installed(t *testing.T) {
	b.file(machine.VaultProgram, 0o755, 0, 0, "vault")
	b.file(machine.Program, 0o755, 0, 0, "strongroom")
	b.file(machine.PluginDir+"/vault-plugin-secrets-apikeys-0.1.0", 0o755, 0, 0, pluginContent)
	b.file(machine.VaultHCL, 0o640, 0, vaultID, vaultConfig(t))
	b.file(machine.Etc+"/front.toml", 0o640, 0, frontID, "")
	b.file(machine.Etc+"/epoch.json", 0o640, 0, vaultID, "{}")
	b.file(machine.Etc+"/appliance.toml", 0o644, 0, 0, "domain = \"vault.example.com\"\n")
	b.file(machine.HistoryFile, 0o644, 0, 0, "HISTIGNORE=\"vault*:strongroom*\"\n")
	b.dir(machine.TLSDir, 0o700, 0, 0)
	b.file(machine.TLSDir+"/server.key", 0o600, 0, 0, "-----BEGIN PRIVATE KEY-----\n")
	b.dir(machine.CredentialDir, 0o700, 0, 0)
	b.file(machine.CredentialDir+"/master-key", 0o600, 0, 0, sealedBlob(0x5a))
	b.dir(machine.StateDir+"/escrow", 0o700, 0, 0)
	b.file(machine.StateDir+"/escrow/admin.age", 0o600, 0, 0, "age")
	b.dir(machine.VaultData, 0o700, vaultID, vaultID)
	b.dir(machine.RaftDir, 0o700, vaultID, vaultID)
	b.dir(machine.AuditDir, 0o700, vaultID, vaultID)
	b.file(machine.AuditDir+"/audit-1.log", 0o600, vaultID, vaultID, "{}")
	b.file(machine.AuditDir+"/audit-2.log", 0o600, vaultID, vaultID, "{}")
	b.file("/run/vault/vault.sock", 0o660, vaultID, vaultID, "")
	b.file("/run/strongroom-kms/kms.sock", 0o660, 0, vaultID, "")
	b.file("/var/lib/systemd/credential.secret", 0o400, 0, 0, "")
	for _, u := range []struct{ name, pid string }{
		{machine.UnitVault, "140"}, {machine.UnitKMS, "118"}, {machine.UnitFront, "206"}, {machine.UnitFirewall, "0"}, {"strongroom-kms.socket", ""},
		{"strongroom-front-https.socket", ""}, {"strongroom-front-http.socket", ""}, {"strongroom-snapshot.timer", ""}, {"strongroom-drill.timer", ""},
		{"strongroom-alert@.service", ""}, {machine.UnitFrontCertificatePath, ""},
	} {
		b.file(path.Join(machine.UnitDir, u.name), 0o644, 0, 0, "[Unit]\n")
		b.units[u.name] = map[string]string{"LoadState": "loaded", "UnitFileState": "enabled", "ActiveState": "active", "MainPID": u.pid, "LimitCORE": "0", "DropInPaths": "", "Environment": ""}
	}
	b.units[machine.UnitFrontCertificatePath]["UnitFileState"] = "disabled" // the certificate is not a file
	b.units[machine.UnitVault]["ExecStart"] = "{ path=/usr/local/bin/vault ; argv[]=/usr/local/bin/vault server -config=" + machine.VaultHCL + " ; ignore_errors=no }"
	b.file(machine.ManifestFile, 0o644, 0, 0, fmt.Sprintf(`{"format":1,"version":"0.1.0","files":[
		{"path":%q,"sha256":%q,"mode":"0755","uid":0,"gid":0,"version":"0.1.0"},
		{"path":%q,"mode":"0600","uid":0,"gid":0,"version":"0.1.0"}]}`, machine.VaultProgram, sum("vault"), machine.CredentialDir+"/master-key"))
}

// sealedBlob is a credential that begins with a key's id.
func sealedBlob(first byte) string {
	raw := make([]byte, 120)
	for i := range raw {
		raw[i] = byte(i*37 + 11)
	}
	raw[0] = first
	return base64.StdEncoding.EncodeToString(raw)
}

func (b *box) network(t *testing.T) {
	b.file(machine.NftablesConf, 0o644, 0, 0, firewallFile(t))
	b.file(netDir+"tcp", 0o444, 0, 0, socketHead+
		tableLine("0100007F:2008", tcpListen, vaultID)+tableLine("0100007F:2009", tcpListen, vaultID)+
		tableLine("00000000:0016", tcpListen, 0)+tableLine("0200630A:0016", "01", 0))
	b.file(netDir+"tcp6", 0o444, 0, 0, socketHead+any6(443, tcpListen, 0)+any6(80, tcpListen, 0)+any6(22, tcpListen, 0))
	b.file(netDir+"udp", 0o444, 0, 0, socketHead)
	b.file(netDir+"udp6", 0o444, 0, 0, socketHead+any6(546, udpOpen, 0))
	b.commands["nft -j -t list ruleset"] = says(loadedTable(t))
	b.hellos = map[uint16]tls.ConnectionState{tls.VersionTLS13: {Version: tls.VersionTLS13, CipherSuite: tls.TLS_AES_128_GCM_SHA256}}
	// This one is no path of Vault's to the front.
	b.answers["//v1/sys/init"] = Answer{Status: http.StatusNotFound, Body: `{"errors":["` + config.RefusedUnknown + `"]}`}
	b.answers[healthPath] = Answer{Status: 200, Header: http.Header{hstsHeader: {"max-age=63072000; includeSubDomains"}}}
}

func (b *box) inVault(t *testing.T) {
	b.health = evidence.Health{Initialized: true, Version: config.VaultFloor}
	b.keys = evidence.Keys{Clock: "ok"}
	b.lists["auth/token/accessors"] = []string{"acc1", "gone"}
	b.tokens["acc1"] = values[map[string]any](t, `{"policies":["strongroom-doctor"],"expire_time":"2026-11-24T12:10:00Z","display_name":"approle"}`)
	b.lists["auth/approle/role"] = []string{"app"}
	b.vault["auth/approle/role/app"] = values[map[string]any](t, `{"token_ttl":3600,"token_max_ttl":14400,"token_period":0}`)
	b.vault["sys/auth"] = values[map[string]any](t, `{"approle/":{"type":"approle"},"userpass/":{"type":"userpass"},"strongroom-local/":{"type":"userpass"}}`)
	for _, m := range []string{"approle", "userpass"} {
		b.vault["sys/auth/"+m+"/tune"] = values[map[string]any](t, `{"default_lease_ttl":3600,"max_lease_ttl":86400}`)
	}
	b.vault["sys/auth/strongroom-local/tune"] = values[map[string]any](t, `{"default_lease_ttl":3600,"max_lease_ttl":86400,"user_lockout_disable":true}`)
	b.lists["sys/quotas/rate-limit"] = nil
	b.vault["sys/audit"] = values[map[string]any](t, `{"audit-1/":{"type":"file","options":{"file_path":"/var/log/vault/audit-1.log","mode":"0600"}},"audit-2/":{"type":"file","options":{"file_path":"/var/log/vault/audit-2.log","mode":"0600"}}}`)
	b.lists["identity/entity/id"] = []string{"a", "b"}
	b.vault["sys/leases/count"] = values[map[string]any](t, `{"lease_count":0}`)
	b.vault["sys/mounts"] = values[map[string]any](t, fmt.Sprintf(`{"apikeys/":{"type":"vault-plugin-secrets-apikeys","plugin_version":"v0.1.0","running_plugin_version":"v0.1.0","running_sha256":%q},
		"secret/":{"type":"kv","plugin_version":"","running_plugin_version":"v0.25.0+builtin","running_sha256":""}}`, sum(pluginContent)))
	b.vault["sys/plugins/catalog/secret/vault-plugin-secrets-apikeys"] = map[string]any{"sha256": sum(pluginContent), "command": "vault-plugin-secrets-apikeys-0.1.0"}
}

// states writes what the jobs leave behind when all is well.
func states(t *testing.T, now time.Time, s *Subject) {
	t.Helper()
	dir := t.TempDir()
	s.Places = evidence.Below(dir)
	s.Places.Firewall = filepath.Join(dir, "firewall")
	watchedState(t, s)
	for _, d := range []string{s.Places.Snapshot, s.Places.Verify, s.Places.Drill, s.Places.Doctor, s.Places.Escrow} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	verified(t, s, now.Add(-30*time.Minute))
	seed := make([]byte, ed25519.SeedSize)
	seed[0] = 7
	key := ed25519.NewKeyFromSeed(seed)
	s.DrillKey = filepath.Join(dir, "drill-signing.pub")
	write(t, s.DrillKey, signing.EncodePublic(key.Public().(ed25519.PublicKey)))
	drilled(t, s, key, report.Report{Format: 1, Kind: report.KindDrill, FinishedAt: now.AddDate(0, 0, -12), Passed: true, RPOSeconds: 1800, RTOSeconds: 8})
	write(t, filepath.Join(s.Places.Escrow, "admin.age"), []byte("sealed"))
	if err := escrow.Record(s.Places.Escrow, "admin.age", escrow.ByChallenge, "", now.AddDate(0, -1, 0)); err != nil {
		t.Fatal(err)
	}
}

func verified(t *testing.T, s *Subject, at time.Time) {
	t.Helper()
	write(t, filepath.Join(s.Places.Verify, "verified.json"), fmt.Appendf(nil,
		`{"format":1,"last_good":{"dir:/mnt":{"id":"c/20261124T113000Z-aaaaaaaa","taken_at":%q,"verified_at":%q,"size":1000}}}`, at.Format(time.RFC3339), at.Format(time.RFC3339)))
}

// stoodAside leaves the state of a standby node's taking job.
func stoodAside(t *testing.T, s *Subject, at time.Time) {
	t.Helper()
	write(t, filepath.Join(s.Places.Snapshot, "taken.json"), fmt.Appendf(nil, `{"format":1,"standby":%q}`, at.Format(time.RFC3339)))
}

func drilled(t *testing.T, s *Subject, key ed25519.PrivateKey, r report.Report) {
	t.Helper()
	data, err := report.Encode(&r, key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, report.LastPath(s.Places.Drill), data)
}

func write(t *testing.T, p string, data []byte) {
	t.Helper()
	if err := os.WriteFile(p, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// watchedState is what the looks of every minute leave where all is well.
func watchedState(t *testing.T, s *Subject) {
	t.Helper()
	at := s.Machine.Now().Add(-time.Minute)
	for _, dir := range []string{s.Places.Audit, s.Places.Firewall} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	ledger := audit.Ledger{Format: 1, Begun: at, At: at, Logs: []string{"audit-1.log", "audit-2.log"}}
	if err := errors.Join(evidence.SaveFirewall(s.Places, evidence.Firewall{At: at}), statefile.Save(filepath.Join(s.Places.Audit, "ledger.json"), ledger, 0o600)); err != nil {
		t.Fatal(err)
	}
}
