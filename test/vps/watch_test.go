package vps_test

import (
	"strings"
	"testing"
)

// fails starts a job that must find something, and gives its lines.
func (m *machine) fails(t *testing.T, unit string) string {
	t.Helper()
	const mark = "date +%s.%N"
	since := strings.TrimSpace(m.sh(t, mark))
	if r := m.in(t, "systemctl", "start", unit); r.code == 0 {
		t.Errorf("%s finds nothing:\n%s", unit, m.sh(t, "journalctl -o cat --no-pager -n 20 -u "+unit))
	}
	return m.sh(t, "journalctl -o cat --no-pager --since @"+since+" -u "+unit)
}

// alerted waits for the alert about a unit's failure, and forgets it.
func (m *machine) alerted(t *testing.T, unit string) {
	t.Helper()
	alert := "strongroom-alert@" + unit + ".service"
	until(t, "the alert about "+unit, func() bool {
		return strings.Contains(m.sh(t, "journalctl -o cat --no-pager -u "+alert), "nobody is told")
	})
}

// What is wrong with the audit logs or the firewall is told by the look of the next
// minute, is on the screen, and goes by what the screen says is to be done.
func testWatches(t *testing.T, m *machine) {
	const audit, firewall = "strongroom-audit-watch.service", "strongroom-firewall-watch.service"
	m.sh(t, "systemctl is-active strongroom-audit-watch.timer strongroom-firewall-watch.timer")
	// By hand from here on, so that each finding is the test's.
	m.sh(t, "systemctl stop strongroom-audit-watch.timer strongroom-firewall-watch.timer; systemctl start "+audit+" "+firewall)
	status := func() string { return m.sh(t, "strongroom status") }
	if out := status(); !strings.Contains(out, "✓ Audit        2 logs written") || !strings.Contains(out, "✓ Firewall     in force") {
		t.Errorf("status on a sound machine:\n%s", out)
	}
	doctor := func(id string) string {
		return m.sh(t, "strongroom doctor --no-save | grep -A16 ' "+id+" ' || true")
	}

	// A log is deleted.
	m.sh(t, "rm /var/log/vault/audit-1.log")
	if out := m.fails(t, audit); !strings.Contains(out, "audit-1.log is gone, and audit rotate has not deleted it; lost is ") || !strings.Contains(out, "audit-1.log is not there") {
		t.Errorf("a log was deleted:\n%s", out)
	}
	m.alerted(t, audit)
	if out := status(); !strings.Contains(out, "✗ Audit") || !strings.Contains(out, "→ systemctl reload vault") {
		t.Errorf("status without a log:\n%s", out)
	}
	if out := doctor("audit-devices"); !strings.Contains(out, "audit history was lost") {
		t.Errorf("doctor without a log:\n%s", out)
	}
	// The remedy.
	m.sh(t, "systemctl reload vault")
	m.sh(t, "systemctl start "+audit)
	if out := status(); !strings.Contains(out, "HISTORY LOST: audit-1.log") || strings.Contains(out, "is not there") {
		t.Errorf("status after the remedy:\n%s", out)
	}
	if out := m.sh(t, "strongroom audit acknowledge"); !strings.Contains(out, "acknowledged: 1 loss") {
		t.Errorf("acknowledge: %s", out)
	}
	m.sh(t, "systemctl start "+audit)
	if out := status(); !strings.Contains(out, "✓ Audit        2 logs written") {
		t.Errorf("status when it was acknowledged:\n%s", out)
	}

	// Vault writes to a file that has no name any more.
	m.sh(t, "cd /var/log/vault; cp -p audit-2.log new; mv new audit-2.log")
	if out := m.fails(t, audit); !strings.Contains(out, "does not write to audit-2.log") {
		t.Errorf("a log was replaced:\n%s", out)
	}
	m.sh(t, "systemctl reload vault; systemctl start "+audit)

	// Vault hangs.
	m.sh(t, "systemctl kill --kill-whom=main -s STOP vault")
	out := m.fails(t, audit)
	m.sh(t, "systemctl kill --kill-whom=main -s CONT vault")
	if !strings.Contains(out, "Vault does not answer a request that it must log") {
		t.Errorf("Vault hangs:\n%s", out)
	}
	m.sh(t, "systemctl start "+audit)

	// What the rotation does is no loss.
	m.sh(t, "strongroom audit rotate --force; systemctl start "+audit+"; strongroom audit rotate --force; systemctl start "+audit)
	if out := status(); !strings.Contains(out, "✓ Audit        2 logs written") {
		t.Errorf("status after rotations:\n%s", out)
	}

	// The firewall is flushed.
	m.sh(t, "nft flush ruleset")
	if out := m.fails(t, firewall); !strings.Contains(out, "the firewall is not in force") {
		t.Errorf("the firewall was flushed:\n%s", out)
	}
	m.alerted(t, firewall)
	if out := status(); !strings.Contains(out, "✗ Firewall     the firewall is not in force") || !strings.Contains(out, "→ systemctl restart strongroom-firewall.service") {
		t.Errorf("status without a firewall:\n%s", out)
	}
	m.sh(t, "systemctl restart strongroom-firewall; systemctl start "+firewall)
	// It sleeps, and somebody lets all in.
	for _, change := range []string{"add table inet strongroom { flags dormant; }", "insert rule inet strongroom input accept"} {
		m.sh(t, "nft '"+change+"'")
		if out := m.fails(t, firewall); !strings.Contains(out, "the firewall is another than was written") {
			t.Errorf("%s:\n%s", change, out)
		}
		m.sh(t, "systemctl restart strongroom-firewall; systemctl start "+firewall)
	}
	if out := status(); !strings.Contains(out, "✓ Firewall     in force") {
		t.Errorf("status with the firewall back:\n%s", out)
	}
	// It fails to load, as at a boot.
	m.sh(t, "cp -p /etc/strongroom/nftables.conf /root/rules; echo nonsense >>/etc/strongroom/nftables.conf; ! systemctl restart strongroom-firewall; cp -p /root/rules /etc/strongroom/nftables.conf")
	m.alerted(t, "strongroom-firewall.service")
	m.sh(t, "systemctl restart strongroom-firewall; systemctl start "+firewall)
	m.sh(t, "systemctl start strongroom-audit-watch.timer strongroom-firewall-watch.timer")
	// By itself, within the minute.
	m.sh(t, "systemctl reset-failed; nft flush ruleset")
	until(t, "the timer's look", func() bool {
		return strings.Contains(m.sh(t, "systemctl show -p Result --value "+firewall), "exit-code")
	})
	m.sh(t, "systemctl restart strongroom-firewall; systemctl start "+firewall+"; systemctl reset-failed")
}
