package vps_test

import (
	"fmt"
	"strings"
	"testing"

	layout "strongroom.example/config/machine"
)

// testRotatedKey: a key that the engine rotates leads to a snapshot that is read
// back, and brought back it holds the new version.
func testRotatedKey(t *testing.T, m *machine) {
	const path, place = "shop/production/own", "dir:/srv/backup"
	// Nobody else takes snapshots now.
	m.sh(t, "systemctl stop "+layout.UnitSnapshotTimer)
	token := login(t, m)
	current := func() string {
		t.Helper()
		data := m.call(t, token, "GET", "apikeys/creds/"+path, nil)
		return fmt.Sprintf("version %v: %v %v", data["version"], data["key"], data["values"])
	}
	index := func() uint64 {
		t.Helper()
		var i uint64
		out := m.sh(t, "VAULT_ADDR=unix:///run/vault/vault.sock vault status | grep '^Raft Applied Index'")
		if _, err := fmt.Sscanf(out, "Raft Applied Index %d", &i); err != nil {
			t.Fatalf("%q: %v", out, err)
		}
		return i
	}
	// backedUp waits for a snapshot of now or later that was read back.
	backedUp := func(what string) {
		t.Helper()
		at := index()
		until(t, what, func() bool { return verified(t, m).LastGood[place].RaftIndex >= at })
	}
	m.call(t, token, "POST", "apikeys/providers/own", map[string]any{"type": "generated"})
	m.call(t, token, "POST", "apikeys/keys/"+path, map[string]any{"provider": "own"})
	first := current()
	backedUp("a verified snapshot after a key was made")
	m.call(t, token, "POST", "apikeys/rotate/"+path, nil)
	second := current()
	if second == first {
		t.Fatal("the key was not rotated")
	}
	backedUp("a verified snapshot after a key was rotated")
	until(t, "an end of the job", func() bool {
		return m.sh(t, "ls /var/lib/vault/changed; systemctl is-active "+layout.UnitSnapshotPath+"; systemctl is-active strongroom-snapshot-soon strongroom-snapshot strongroom-verify | sort -u") == "active\ninactive\n"
	})

	// A rotation that no snapshot has.
	m.sh(t, "systemctl stop "+layout.UnitSnapshotPath)
	m.call(t, token, "POST", "apikeys/rotate/"+path, nil)
	if current() == second {
		t.Fatal("the key was not rotated again")
	}
	m.write(t, "/root/token", []byte(token+"\n"))
	m.sh(t, "umask 077; systemd-creds decrypt --name=drill-key /etc/strongroom/credentials/drill-key /root/drill.key")
	r := m.in(t, "sh", "-c", "strongroom restore --identity /root/drill.key --token-file /root/token --yes; c=$?; rm /root/drill.key /root/token; exit $c")
	if r.code != 0 {
		t.Fatalf("restore: exit code %d:\n%s", r.code, r)
	}
	unsealed(t, m)
	// Neither value is shown.
	switch got := current(); {
	case got != second:
		v, _, _ := strings.Cut(got, ":")
		t.Errorf("the snapshot has %s, want that of the rotation before it", v)
	case !strings.HasPrefix(got, "version 2:"):
		t.Error("it is not version 2")
	}
	m.sh(t, "systemctl start "+layout.UnitSnapshotPath+" "+layout.UnitSnapshotTimer)
}
