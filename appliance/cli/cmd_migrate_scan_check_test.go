package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A scan as a check: what it ends with, and that it never shows a value.
func TestMigrateCheck(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	dir := t.TempDir()
	put := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("git", "-C", dir, "init", "-q").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	put(".gitignore", ".env\n")
	put(".env", "DB_PASSWORD=Fjord-77\n")
	put("a.py", "x = 1\n")
	baseline := filepath.Join(dir, ".strongroom-baseline.json")
	run := func(want int, says string, args ...string) string {
		t.Helper()
		c := New("1.2.3")
		var out, errOut bytes.Buffer
		c.SetOut(&out)
		c.SetErr(&errOut)
		c.SetArgs(append([]string{"migrate", "scan", dir}, args...))
		var report bytes.Buffer
		if got := Report(&report, c.ExecuteContext(t.Context())); got != want {
			t.Fatalf("%v: exit code %d, want %d: %s%s", args, got, want, out.String(), report.String())
		}
		all := out.String() + errOut.String() + report.String()
		if !strings.Contains(all, says) {
			t.Errorf("%v: %q is not in %q", args, says, all)
		}
		if strings.Contains(all, "Fjord") {
			t.Errorf("%v: a value shows", args)
		}
		return out.String()
	}
	run(0, "0 secrets", "--check") // the .env file is ignored by git
	run(0, "DB_PASSWORD")          // and found by a scan
	put("a.py", "password = 'Fjord-77'\n")
	run(ExitDrift, "a.py:1: password is named like one (PASSWORD)", "--check")
	run(ExitUsage, "no baseline", "--baseline", baseline)
	run(ExitUsage, "--update-baseline without --baseline", "--update-baseline")
	run(ExitUsage, `"xml"`, "--format", "xml")
	run(ExitUsage, "one of them", "--json", "--format", "sarif")
	run(ExitUsage, `"["`, "--exclude", "[")
	run(0, "1 findings are known", "--baseline", baseline, "--update-baseline")
	run(0, "1 secrets, 0 of them new", "--baseline", baseline)
	before, err := os.ReadFile(baseline)
	if err != nil {
		t.Fatal(err)
	}
	// It is written anew for whom it belongs to, and what a kill has left goes.
	if err := os.Chmod(baseline, 0o660); err != nil {
		t.Fatal(err)
	}
	put("."+filepath.Base(baseline)+".tmp-123456", "")
	run(0, "are known", "--baseline", baseline, "--update-baseline")
	if st, err := os.Stat(baseline); err != nil || st.Mode().Perm() != 0o660 {
		t.Errorf("written again it has mode %v, %v", st.Mode(), err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, ".*.tmp-*")); err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
	if after, err := os.ReadFile(baseline); err != nil || !bytes.Equal(before, after) {
		t.Errorf("written again it is %s", after)
	}
	put("b.yaml", "token: Fjord-q8Zr2Lw0Xv6K\n")
	run(ExitDrift, "b.yaml:1: token", "--baseline", baseline)
	run(0, "1 secrets, 0 of them new", "--baseline", baseline, "--exclude", "*.yaml")
	var doc struct {
		Version string
		Runs    []struct {
			Results []struct{ BaselineState string }
		}
	}
	if err := json.Unmarshal([]byte(run(ExitDrift, "", "--baseline", baseline, "--format", "sarif")), &doc); err != nil || doc.Version != "2.1.0" || len(doc.Runs[0].Results) != 2 {
		t.Errorf("SARIF: %+v, %v", doc, err)
	}
	var report struct{ New []struct{ File string } }
	if err := json.Unmarshal([]byte(run(ExitDrift, "", "--baseline", baseline, "--json")), &report); err != nil || len(report.New) != 1 || report.New[0].File != "b.yaml" {
		t.Errorf("JSON: %+v, %v", report, err)
	}
	put("a.py", "x = 1\n")
	run(ExitDrift, "1 of the baseline are no longer there", "--baseline", baseline)
	put(".env.production", "A='x\n")
	run(ExitDrift, ".env.production", "--baseline", baseline, "--exclude", "b.yaml")
	if err := os.WriteFile(baseline, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	run(ExitUsage, "baseline", "--baseline", baseline)
}
