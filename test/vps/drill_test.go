package vps_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	drillreport "strongroom.example/appliance/backup/drill/report"
	layout "strongroom.example/config/machine"
	"strongroom.example/test/vaulttest"
)

// drillDocs is the code of docs/drill.md after the comment <!-- test: name -->.
func drillDocs(t *testing.T, name string) string {
	t.Helper()
	page, err := os.ReadFile(filepath.Join(vaulttest.Root(t), "docs", "drill.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(page), "<!-- test: "+name+" -->\n```sh\n")
	code, _, end := strings.Cut(rest, "\n```")
	if !ok || !end {
		t.Fatalf("docs/drill.md has no block %q", name)
	}
	return code
}

// drillReport is the newest one, whose signature is good.
func drillReport(t *testing.T, m *machine) *drillreport.Report {
	t.Helper()
	out := m.sh(t, drillDocs(t, "verify"))
	if !strings.Contains(out, "signed by SHA256:") {
		t.Errorf("verify-report said:\n%s", out)
	}
	s, err := drillreport.Parse(m.read(t, drillreport.LastPath(layout.DrillState)))
	if err != nil {
		t.Fatal(err)
	}
	return &s.Report
}

// testDrill runs the drill as its timer does and as a person does, in turns: what
// one leaves, a killed one included, the other takes over.
func testDrill(t *testing.T, m *machine, _ *store) {
	// The installer has drilled.
	first := drillReport(t, m)
	if !first.Passed {
		t.Errorf("the first drill: %s", first.Text())
	}
	// All commands are as docs/drill.md has them.
	start := func(t *testing.T) {
		t.Helper()
		if r := m.in(t, "sh", "-ec", drillDocs(t, "by-unit")); r.code != 0 {
			t.Fatalf("%s\n%s", r, m.sh(t, "journalctl --no-pager -n 80 -u 'strongroom-drill*'"))
		}
	}
	clean := func(t *testing.T) {
		t.Helper()
		out := m.sh(t, "ls -A "+layout.DrillState+" | sort | tr '\\n' ' '; find "+layout.DrillState+" ! -user strongroom-drill")
		if want := ".drill.lock escrow-key last.json last.txt reports "; strings.TrimSuffix(out, "\n") != want+layout.DrillState+"/escrow-key" {
			t.Errorf("the state folder holds, and root owns: %q", out)
		}
		if out := m.in(t, "pgrep", "-fa", layout.DrillState+"(-by-hand)?/work").stdout; out != "" {
			t.Errorf("still running:\n%s", out)
		}
	}

	t.Run("as the timer does", func(t *testing.T) {
		start(t)
		r := drillReport(t, m)
		t.Log(r.Text())
		if !r.Passed || !r.StartedAt.After(first.StartedAt) || r.RTOSeconds <= 0 {
			t.Errorf("passed=%t, started %s after %s", r.Passed, r.StartedAt, first.StartedAt)
		}
		for _, c := range r.Checks {
			if c.Verdict != drillreport.Pass {
				t.Errorf("%s: %s: %s", c.Name, c.Verdict, c.Detail)
			}
		}
		clean(t)
	})
	// Root's own folder for what is scratch.
	const byHand = layout.DrillState + "-by-hand"
	t.Run("by hand, killed in the middle", func(t *testing.T) {
		// Once more, should it be over before this side gets to the kill.
		m.sh(t, "for try in 1 2 3 4 5; do setsid strongroom drill >/root/drill.log 2>&1 & p=$!; "+
			"while grep -qs '^State:.[^Z]' /proc/$p/status; do test -S "+byHand+"/work/vault/run/vault.sock && kill -9 $p && exit 0; sleep 0.1; done; "+
			"done; cat /root/drill.log; exit 1")
		// The kernel ends what it had started.
		m.sh(t, "for i in $(seq 3000); do pgrep -f "+byHand+"/[w]ork >/dev/null || exit 0; sleep 0.1; done; exit 1")
		if m.sh(t, "ls "+byHand+"/work") == "" {
			t.Error("it was killed too late to leave anything")
		}
		start(t)
		clean(t)
	})
	t.Run("by hand", func(t *testing.T) {
		out := m.sh(t, drillDocs(t, "by-hand"))
		if !strings.Contains(out, ": PASSED\n") || !drillReport(t, m).Passed {
			t.Errorf("it said:\n%s", out)
		}
		clean(t)
		if m.in(t, "test", "-e", byHand).code == 0 {
			t.Errorf("%s is still there", byHand)
		}
		m.sh(t, "cp /etc/strongroom/drill-signing.pub "+drillreport.LastPath(layout.DrillState)+" /root && cd /root && "+drillDocs(t, "verify-elsewhere"))
	})
}
