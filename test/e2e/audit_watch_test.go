package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"strongroom.example/appliance/watch/audit"
	"strongroom.example/test/vaulttest"
)

// A real server writes both of its logs when it is asked, and each thing that keeps it
// from that is found, and mended as the hint says.
func TestAuditWatch(t *testing.T) {
	t.Parallel()
	a := newAuditSite(t, "")
	state := filepath.Join(vaulttest.Dir(t), "audit-watch") // on a machine that is new
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	args := []string{"audit", "watch", "--json", "--config", a.args[3], "--audit-logs", a.dir, "--state", state,
		"--rotation-state", filepath.Dir(a.args[3]), "--address", a.s.Root.Address()}
	look := func(code int) (l audit.Ledger) {
		t.Helper()
		out := mustRun(t, code, args...)
		if err := json.NewDecoder(strings.NewReader(out[strings.Index(out, "{"):])).Decode(&l); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return l
	}
	if l := look(0); len(l.Written) != 2 || len(l.Files) != 2 {
		t.Fatalf("%+v", l)
	}
	mustRun(t, 0, a.args...) // a rotation
	if l := look(0); len(l.Written) != 2 || len(l.Files) != 4 {
		t.Errorf("after a rotation: %+v", l)
	}
	hangUp := func() {
		t.Helper()
		if err := syscall.Kill(a.s.Process.PID(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	log := filepath.Join(a.dir, "audit-1.log")
	if err := os.Remove(log); err != nil {
		t.Fatal(err)
	}
	if l := look(3); len(l.Losses) != 1 || l.Losses[0].Cause != audit.Gone || len(l.Faults) != 1 || !strings.Contains(l.Faults[0].Text, "is not there") {
		t.Errorf("without a log: %+v", l)
	}
	hangUp()
	if l := look(0); len(l.Losses) != 1 || len(l.Faults) != 0 {
		t.Errorf("opened again: %+v", l)
	}
	// The file that it writes to has lost its name to another.
	if err := os.Rename(log, log+".away"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(log, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if l := look(3); len(l.Faults) != 1 || !strings.Contains(l.Faults[0].Text, "does not write to audit-1.log") {
		t.Errorf("another file in its place: %+v", l)
	}
	hangUp()
	if l := look(0); len(l.Faults) != 0 {
		t.Errorf("opened again: %+v", l)
	}
	a.s.Freeze(t)
	l := look(3)
	a.s.Thaw(t)
	if len(l.Faults) != 1 || !strings.Contains(l.Faults[0].Text, "does not answer") {
		t.Errorf("it hangs: %+v", l)
	}
	if l := look(0); len(l.Faults) != 0 {
		t.Errorf("it goes on: %+v", l)
	}
}
