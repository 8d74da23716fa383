package cli

import (
	"path/filepath"
	"strings"
	"testing"
)

// What a person forgets to give is no failure of the job: status and doctor would
// call the backups broken, and somebody would be told in the night.
func TestByHandRecordsNothing(t *testing.T) {
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	dir, state := t.TempDir(), t.TempDir()
	code, said := run(t, "snapshot", "verify", "--dir", dir, "--state", state, "--take-state", t.TempDir())
	if code != ExitUsage || !strings.Contains(said, "no identity") || !strings.Contains(said, "systemctl start strongroom-snapshot") {
		t.Errorf("exit code %d: %s", code, said)
	}
	left, err := filepath.Glob(filepath.Join(state, "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("it left %v, %v", left, err)
	}
}
