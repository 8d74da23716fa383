package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// anyDisk keeps the state of the tests' own disk out of it.
const anyDisk = "[audit]\nwarn_percent = 98\nfull_percent = 99\n"

// auditCommandLine is a folder with one log of a Vault that isn't running, and
// the arguments to rotate it.
func auditCommandLine(t *testing.T, conf string) (dir string, args []string) {
	t.Helper()
	dir = t.TempDir()
	logs := filepath.Join(dir, "logs")
	state := filepath.Join(dir, "state")
	for _, d := range []string{logs, state} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{"appliance.toml": conf, "logs/audit-1.log": "{\"time\":\"2026-11-24T15:00:00Z\"}\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return logs, []string{"audit", "rotate", "--config", filepath.Join(dir, "appliance.toml"), "--audit-logs", logs, "--state", state,
		"--pid-file", filepath.Join(dir, "none")}
}

func TestAuditRotate(t *testing.T) {
	t.Run("forced", func(t *testing.T) {
		logs, args := auditCommandLine(t, anyDisk)
		code, out := run(t, append(args, "--force")...)
		if code != ExitOK {
			t.Fatalf("exit code %d\n%s", code, out)
		}
		says(t, out, "rotated audit-1.log.")
		if left, _ := filepath.Glob(filepath.Join(logs, "audit-1.log.*")); len(left) != 1 {
			t.Errorf("folder: %q", left)
		}
	})
	t.Run("disk above the mark", func(t *testing.T) {
		_, args := auditCommandLine(t, "[audit]\nwarn_percent = 1\n")
		t.Setenv("JOURNAL_STREAM", "8:1")
		code, out := run(t, args...)
		if code != ExitDrift {
			t.Fatalf("exit code %d\n%s", code, out)
		}
		says(t, out, "<4>the disk of ", "the warning is at 1%")
	})
	t.Run("executable", func(t *testing.T) {
		logs, args := auditCommandLine(t, anyDisk)
		if err := os.Chmod(filepath.Join(logs, "audit-1.log"), 0o700); err != nil {
			t.Fatal(err)
		}
		code, out := run(t, args...)
		if code != ExitDrift {
			t.Fatalf("exit code %d\n%s", code, out)
		}
		says(t, out, "mode 0700", "mode=0600")
	})
	t.Run("bad configuration", func(t *testing.T) {
		_, args := auditCommandLine(t, "[audit]\nkeep = 1\n")
		code, out := run(t, args...)
		if code != ExitUsage {
			t.Fatalf("exit code %d\n%s", code, out)
		}
		says(t, out, "audit.keep")
	})
	t.Run("Vault is deaf", func(t *testing.T) {
		// A process that lives and opens nothing. SIGHUP would end most.
		deaf := exec.Command("sh", "-c", `trap "" HUP; echo ready; exec sleep 60`)
		out, err := deaf.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := deaf.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = deaf.Process.Kill()
			_ = deaf.Wait()
		})
		if _, err := out.Read(make([]byte, 16)); err != nil {
			t.Fatal(err)
		}
		logs, args := auditCommandLine(t, anyDisk)
		if err := os.WriteFile(args[len(args)-1], []byte(strconv.Itoa(deaf.Process.Pid)), 0o600); err != nil {
			t.Fatal(err)
		}
		code, text := run(t, append(args, "--force", "--wait", "100ms")...)
		if code != ExitFailed {
			t.Fatalf("exit code %d\n%s", code, text)
		}
		says(t, text, "did not open its log again within 100ms", "old name again")
		entries, err := os.ReadDir(logs)
		if err != nil || len(entries) != 1 || !strings.HasSuffix(entries[0].Name(), ".log") {
			t.Errorf("folder: %v, %v", entries, err)
		}
	})
}
