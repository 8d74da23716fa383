package vps_test

import (
	"strconv"
	"strings"
	"testing"
)

// testMemoryLocked: what holds the master key is locked into memory, all of it,
// and is small nevertheless. Vault's own lock is off, as raft wants it.
func testMemoryLocked(t *testing.T, m *machine) {
	const dropIn = "/run/systemd/system/strongroom-kms.service.d/lock.conf"
	locked := func(pid string) int {
		t.Helper()
		kb, err := strconv.Atoi(strings.TrimSpace(m.sh(t, "awk '/^VmLck:/ {print $2}' /proc/"+pid+"/status")))
		if err != nil {
			t.Fatal(err)
		}
		return kb
	}
	limit := strings.TrimSpace(m.sh(t, "awk '/^Max locked memory/ {print $4}' /proc/"+mainPID(t, m, "strongroom-kms")+"/limits"))
	if limit != "unlimited" {
		// Where these tests run nobody may raise limits, not even systemd. The
		// capability that goes round the limit takes its place.
		t.Logf("systemd could only set a limit of %s bytes", limit)
		m.sh(t, "mkdir -p $(dirname "+dropIn+"); printf '[Service]\\nCapabilityBoundingSet=CAP_IPC_LOCK\\nAmbientCapabilities=CAP_IPC_LOCK\\n' >"+dropIn+
			"; systemctl daemon-reload; systemctl restart strongroom-kms")
		defer m.sh(t, "rm -r $(dirname "+dropIn+"); systemctl daemon-reload; systemctl restart strongroom-kms")
	}
	pid := mainPID(t, m, "strongroom-kms")
	kb := locked(pid)
	t.Logf("KMS: %d kB locked, %s", kb, strings.TrimSpace(m.sh(t, "grep VmRSS /proc/"+pid+"/status")))
	if kb == 0 {
		t.Error("nothing of the KMS is locked")
	}
	if out := m.sh(t, "journalctl --no-pager -o cat _PID="+pid); strings.Contains(out, "less protected") || !strings.Contains(out, "kms is ready") {
		t.Errorf("the KMS says:\n%s", out)
	}
	// Every mapping that can hold a key, which is one that can be written to, is
	// locked: "lo" in proc(5). What the kernel may drop ("dp", of its random
	// numbers) never reaches a swap either.
	out := m.sh(t, `awk '/^[0-9a-f]+-[0-9a-f]+ / {rw = $2 ~ /^rw/; name = $1 " " $6} /^Rss:/ {rss = $2} /^VmFlags:/ {if (rw && rss > 0 && name !~ /\[v/ && $0 !~ / (lo|dp)( |$)/) print name, rss " kB", $0}' /proc/`+pid+"/smaps")
	if out != "" {
		t.Errorf("in memory and not locked:\n%s", out)
	}
	testIdleMemory(t, m)
	// It answers: Vault unseals with it.
	m.sh(t, "systemctl restart vault")
	unsealed(t, m)
}
