package vps_test

import (
	"encoding/json"
	"strings"
	"testing"

	"strongroom.example/installer/upgrade"
)

// testUpgradeBackups: an upgrade of a machine that backs itself up takes a
// snapshot to every place first and has it read back. The new version goes on
// with the same backups, and drills from them.
func testUpgradeBackups(t *testing.T, m *machine, _ *store) {
	before := verified(t, m)
	m.must(t, "put", m.name, buildInstaller(t, nextVersion, nil), "/root/new-installer")
	token := login(t, m)
	m.call(t, token, "POST", "apikeys/providers/own", map[string]any{"type": "generated"})
	m.call(t, token, "POST", "apikeys/keys/app/production/api", map[string]any{"provider": "own"})
	m.call(t, token, "POST", "secret/data/app/production/db", map[string]any{"data": map[string]any{"url": "postgres://canary"}})
	stored := m.stored(t, token)

	r := m.upgrade(t)
	m.sh(t, "rm /root/token")
	if r.code != 0 {
		t.Fatalf("exit code %d:\n%s\n%s", r.code, r, m.sh(t, "journalctl --no-pager -n 60 -u 'strongroom-*'"))
	}
	t.Logf("%.1f s\n%s", r.took.Seconds(), r.stdout)
	var last upgrade.Record
	if err := json.Unmarshal(m.read(t, upgrade.LastPath), &last); err != nil {
		t.Fatal(err)
	}
	if last.Rehearsed != "passed" || last.RaftIndex == 0 {
		t.Errorf("the record: rehearsed %q, raft index %d", last.Rehearsed, last.RaftIndex)
	}
	// Of the moment of the upgrade or later, in both places.
	after := verified(t, m)
	for place, good := range after.LastGood {
		if good.ID == before.LastGood[place].ID || good.RaftIndex < last.RaftIndex {
			t.Errorf("%s: the last verified snapshot is %s at index %d, the upgrade was at %d", place, good.ID, good.RaftIndex, last.RaftIndex)
		}
	}
	if len(after.LastGood) != 2 || after.Failure != nil {
		t.Errorf("verified: %+v", after)
	}
	token = login(t, m)
	if got := m.stored(t, token); got != stored {
		t.Error("what was stored is not read as before")
	}
	if got := m.programVersions(t, token); !strings.HasPrefix(got, nextVersion+" plugin v"+nextVersion+" ") {
		t.Errorf("versions: %s", got)
	}
	m.sh(t, "mv /root/new-installer /root/strongroom-installer; systemctl start strongroom-snapshot && systemctl start strongroom-verify")
	if r := m.in(t, "/root/strongroom-installer", "plan"); r.code != 0 {
		t.Errorf("plan: exit code %d:\n%s", r.code, r)
	}
	if r := m.in(t, "sh", "-ec", drillDocs(t, "by-unit")); r.code != 0 {
		t.Fatalf("drill: %s\n%s", r, m.sh(t, "journalctl --no-pager -n 80 -u 'strongroom-drill*'"))
	}
	report := drillReport(t, m)
	if !report.Passed || !report.StartedAt.After(last.Ended) {
		t.Errorf("the drill after the upgrade:\n%s", report.Text())
	}
}
