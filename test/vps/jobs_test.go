package vps_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/watch/audit"
	layout "strongroom.example/config/machine"
)

// TestJobs runs the timer jobs as their units do: each as its own user, in its
// sandbox.
func TestJobs(t *testing.T) {
	t.Parallel()
	m := boot(t, "job")
	m.sh(t, "mkdir -p /srv/backup")
	m.write(t, "/root/appliance.toml", []byte("domain = \""+domain+"\"\n[vault]\nallow_old = true\n[tls]\nmode = \"internal\"\n[[backup.to]]\ntype = \"dir\"\npath = \"/srv/backup\"\n"))
	if r := m.in(t, "/root/strongroom-installer", "install", "--yes", "--config", "/root/appliance.toml", "--vault-binary", "/root/vault"); r.code != 0 {
		t.Fatalf("install: %s", r)
	}
	t.Run("snapshot after rotations", func(t *testing.T) { testRotations(t, m) })
	t.Run("what a place holds is verified while the take goes on", func(t *testing.T) { testVerifyBeside(t, m) })
	t.Run("audit", func(t *testing.T) { testAuditUnit(t, m) })
	t.Run("the looks of every minute", func(t *testing.T) { testWatches(t, m) })
	t.Run("what each sandbox reaches", func(t *testing.T) { testReach(t, m) })
	t.Run("metrics", func(t *testing.T) { testMetricsUnit(t, m) })
	t.Run("alert", func(t *testing.T) { testAlertUnit(t, m) })
	t.Run("a damaged storage of the front", func(t *testing.T) { testFrontStorage(t, m) })
	t.Run("a rotated key is in the next snapshot", func(t *testing.T) { testRotatedKey(t, m) })
}

func (m *machine) takeState(t *testing.T) snapshot.TakeState {
	t.Helper()
	var s snapshot.TakeState
	if err := json.Unmarshal([]byte(m.sh(t, "cat /var/lib/strongroom/snapshot/taken.json")), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// until looks twice a second.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(patience); !ok(); {
		select {
		case <-end:
			t.Fatalf("waited in vain: %s", what)
		case <-tick.C:
		}
	}
}

// The taking job is not over when its place has the snapshot, as with another place that is
// slow: what is there is read back all the same.
func testVerifyBeside(t *testing.T, m *machine) {
	const dropIn = "/etc/systemd/system/strongroom-snapshot.service.d/slow.conf"
	m.write(t, dropIn, []byte("[Service]\nExecStartPost=+/bin/sh -c 'until test -e /run/go-on; do sleep 0.2; done'\n"))
	m.sh(t, "systemctl daemon-reload; systemctl stop "+layout.UnitSnapshotTimer)
	before := m.takeState(t).Last["dir:/srv/backup"].ID
	m.sh(t, "systemctl start --no-block strongroom-snapshot")
	until(t, "the snapshot to be verified", func() bool {
		id := m.takeState(t).Last["dir:/srv/backup"].ID
		return id != before && m.in(t, "test", "-e", "/srv/backup/"+id+".ok.json").code == 0
	})
	if state := strings.TrimSpace(m.in(t, "systemctl", "is-active", "strongroom-snapshot").stdout); state != "activating" {
		t.Errorf("the take is %s", state)
	}
	idle := func() bool {
		return strings.TrimSpace(m.in(t, "systemctl", "is-active", "strongroom-verify").stdout) == "inactive"
	}
	until(t, "the verifying job to end", idle)
	m.sh(t, "rm "+dropIn+"; touch /run/go-on; until test $(systemctl is-active strongroom-snapshot) != activating; do sleep 0.2; done; rm /run/go-on; systemctl daemon-reload; systemctl start "+layout.UnitSnapshotTimer)
	until(t, "what follows the take to end", idle)
}

// Several rotations make one snapshot, which is read back.
func testRotations(t *testing.T, m *machine) {
	if out := m.sh(t, "for p in $(pidof vault vault-plugin-secrets-apikeys); do tr '\\0' '\\n' </proc/$p/environ; done | grep CHANGED_FILE | sort -u"); out != "STRONGROOM_CHANGED_FILE=/var/lib/vault/changed/rotated\n" {
		t.Errorf("Vault's environment: %q", out)
	}
	// The same job with less patience, for the test's sake.
	m.sh(t, `mkdir -p /etc/systemd/system/strongroom-snapshot-soon.service.d
printf '[Service]\nExecStart=\nExecStart=/usr/local/bin/strongroom snapshot soon --changed /var/lib/vault/changed/rotated --quiet 5s --every 1s\n' >/etc/systemd/system/strongroom-snapshot-soon.service.d/test.conf
systemctl daemon-reload`)
	// No snapshot but the one that the rotations cause.
	m.sh(t, "systemctl stop strongroom-snapshot.timer")
	m.backupsIdle(t)
	before := m.takeState(t).Last["dir:/srv/backup"].ID
	m.sh(t, "for i in 1 2 3; do touch /var/lib/vault/changed/rotated; done; chown vault: /var/lib/vault/changed/rotated")
	until(t, "a snapshot", func() bool { return m.takeState(t).Last["dir:/srv/backup"].ID != before })
	taken := m.takeState(t).Last["dir:/srv/backup"].ID
	until(t, "its verification", func() bool {
		return strings.Contains(m.sh(t, "cat /var/lib/strongroom/verify/verified.json"), taken)
	})
	if out := m.sh(t, "journalctl -u strongroom-snapshot-soon -o cat --no-pager | grep -c 'a snapshot is due'; systemctl is-active strongroom-snapshot.path; ls /var/lib/vault/changed"); out != "1\nactive\n" {
		t.Errorf("runs, path unit, what is left: %q", out)
	}
}

// The job rotates the logs as Vault's user, and Vault opens them anew.
func testAuditUnit(t *testing.T, m *machine) {
	m.sh(t, `mkdir -p /etc/systemd/system/strongroom-audit.service.d
printf '[Service]\nExecStart=\nExecStart=-/usr/local/bin/strongroom audit rotate --force\n' >/etc/systemd/system/strongroom-audit.service.d/test.conf
systemctl daemon-reload; systemctl stop strongroom-audit.timer; systemctl start strongroom-audit`)
	var r audit.Report
	if err := json.Unmarshal([]byte(m.sh(t, "cat /var/lib/strongroom/audit/last.json")), &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Rotated) != 2 || len(r.Logs) != 2 || r.Failure != "" {
		t.Errorf("%+v", r)
	}
	modes := strings.Fields(m.sh(t, "stat -c '%U:%a' /var/log/vault/*"))
	slices.Sort(modes)
	if got := slices.Compact(modes); len(modes) != 4 || len(got) != 1 || got[0] != "vault:600" {
		t.Errorf("logs: %q", modes)
	}
	// Vault writes to the new ones: metrics ask it with a token.
	m.sh(t, "systemctl restart strongroom-metrics")
	m.scrape(t)
	if out := m.sh(t, "find /var/log/vault -name '*.log' -size +0 | wc -l"); out != "2\n" {
		t.Errorf("live logs that hold something: %s", out)
	}
}

// scrape asks the metrics daemon from inside.
func (m *machine) scrape(t *testing.T) string {
	t.Helper()
	return m.sh(t, `bash -c 'exec 3<>/dev/tcp/127.0.0.1/9468; printf "GET /metrics HTTP/1.0\r\nConnection: close\r\n\r\n" >&3; cat <&3'`)
}

// Every part of the metrics can be read by the daemon's user.
func testMetricsUnit(t *testing.T, m *machine) {
	for _, part := range []string{"snapshot", "drill", "doctor", "audit", "certificate", "vault", "keys", "front", "engine"} {
		// One that takes too long on a loaded machine is there the next time.
		until(t, "part "+part+" of the metrics", func() bool {
			return strings.Contains(m.scrape(t), "\nstrongroom_collector_success{part=\""+part+"\"} 1\n")
		})
	}
	t.Logf("%s", m.sh(t, "grep VmRSS /proc/$(systemctl show -p MainPID --value strongroom-metrics)/status"))
}

// A job that fails starts the alert, which says so where nobody else is named.
func testAlertUnit(t *testing.T, m *machine) {
	m.sh(t, "mv /srv/backup /srv/away; ! systemctl start strongroom-snapshot; mv /srv/away /srv/backup")
	until(t, "the alert", func() bool {
		return strings.Contains(m.sh(t, "journalctl -u strongroom-alert@strongroom-snapshot.service.service -o cat --no-pager"), "nobody is told")
	})
	m.sh(t, "systemctl start strongroom-snapshot")
	if s := m.takeState(t); s.Failure != nil {
		t.Errorf("a failure stays: %+v", s.Failure)
	}
}
