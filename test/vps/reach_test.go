package vps_test

import (
	"path"
	"slices"
	"strings"
	"testing"

	layout "strongroom.example/config/machine"
	"strongroom.example/systemd"
)

// reachProbe prints what whoever runs it can read and which sockets it may ask.
const reachProbe = `#!/bin/sh
for f in /var/lib/systemd/credential.secret /etc/strongroom/credentials/master-key /etc/shadow /etc/ssh/ssh_host_*_key \
	/var/lib/vault/raft/vault.db /var/log/vault/audit-*.log /var/lib/strongroom-front/*/* /var/lib/strongroom/escrow/* \
	/etc/strongroom/authority/root.key; do
	# (What is hidden is an empty file, which root may open.)
	[ -n "$(head -c 1 "$f" 2>/dev/null | tr '\0' x)" ] && echo "reads $f" | sed 's,\(escrow\|front\|log/vault\|ssh\)/.*,\1,'
done
for d in /run/credentials/*; do
	[ "$d" = "$CREDENTIALS_DIRECTORY" ] || for f in "$d"/*; do
		[ -n "$(head -c 1 "$f" 2>/dev/null)" ] && echo "reads others' credentials"
	done
done
for s in /run/strongroom-kms/kms.sock /run/vault/vault.sock /run/strongroom-snapshot-files.sock /run/strongroom-front-authority.sock; do
	[ -w "$s" ] && echo "asks $s"
done
true
`

// reaches is what each unit's sandbox leaves, of what is worth most on the machine.
var reaches = map[string][]string{
	layout.UnitVault: {"asks /run/strongroom-kms/kms.sock", "asks /run/vault/vault.sock", "reads /var/lib/vault/raft/vault.db", "reads /var/log/vault"},
	layout.UnitAudit: {"reads /var/log/vault"},
	// Without a network, and root only so that its ledger is not Vault's.
	layout.UnitAuditWatch: {"asks /run/vault/vault.sock", "reads /var/log/vault"},
	layout.UnitFront:      {"asks /run/strongroom-front-authority.sock", "reads /var/lib/strongroom-front"},
	// Without a network.
	layout.UnitAuthority:        {"reads /etc/strongroom/authority/root.key"},
	layout.UnitFrontCertificate: {"reads /var/lib/strongroom-front"},
	layout.UnitMetrics:          {"asks /run/vault/vault.sock"},
	layout.UnitSnapshot:         {"asks /run/strongroom-snapshot-files.sock", "asks /run/vault/vault.sock"},
	// Without a network: what a backup holds, the credentials sealed as they are.
	layout.UnitFiles: {"reads /etc/strongroom/authority/root.key", "reads /etc/strongroom/credentials/master-key", "reads /var/lib/strongroom-front"},
	// Without a network: it looks at all of the machine, and the KMS answers Vault's uid alone.
	layout.UnitDoctor: {
		"asks /run/strongroom-kms/kms.sock", "asks /run/vault/vault.sock",
		"reads /etc/shadow", "reads /etc/ssh", "reads /etc/strongroom/authority/root.key", "reads /etc/strongroom/credentials/master-key", "reads /var/lib/strongroom-front",
		"reads /var/lib/strongroom/escrow", "reads /var/lib/systemd/credential.secret", "reads /var/lib/vault/raft/vault.db", "reads /var/log/vault",
	},
}

// Each unit's sandbox is asked from inside, with a probe in the place of its program:
// can it open the master key, ask the KMS, read Vault's storage, another's credential?
func testReach(t *testing.T, m *machine) {
	m.write(t, "/usr/local/share/reach", []byte(reachProbe))
	m.sh(t, "chmod 0755 /usr/local/share/reach; mkdir -p /run/reach; chmod 0777 /run/reach")
	for _, name := range systemd.Names() {
		if path.Ext(name) != ".service" {
			continue
		}
		probe := "reach-" + strings.ReplaceAll(name, "@", "")
		m.sh(t, `set -e
sed -E '/^(Exec|Type|NoExecPaths|SystemCallFilter|MemoryDenyWriteExecute|On|Restart|WatchdogSec|Sockets|Standard|RuntimeMaxSec|RuntimeDirectory|Requires|BindsTo|PartOf|Wants|After|Before|DefaultDependencies|Conflicts)/d' /etc/systemd/system/`+name+` >/run/systemd/system/`+probe+`
printf '[Service]\nType=oneshot\nExecStart=/bin/sh /usr/local/share/reach\nStandardOutput=truncate:/run/reach/`+probe+`\n' >>/run/systemd/system/`+probe+`
systemctl daemon-reload
systemctl start `+probe)
		out := m.sh(t, "sort -u /run/reach/"+probe)
		got := strings.FieldsFunc(out, func(r rune) bool { return r == '\n' })
		if !slices.Equal(got, reaches[name]) {
			t.Errorf("%s: %q, want %q", name, got, reaches[name])
		}
	}
	m.sh(t, "rm -rf /run/reach /run/systemd/system/reach-*; systemctl daemon-reload; systemctl reset-failed")
}
