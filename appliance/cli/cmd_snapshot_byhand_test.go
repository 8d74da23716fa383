package cli

import (
	"os"
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

// On an installed machine the plugin is not beside the program: a single secret
// is brought back with the plugins that the restored catalog names.
func TestPluginsForARestoredVault(t *testing.T) {
	dir := t.TempDir()
	there, gone := filepath.Join(dir, "plugin"), filepath.Join(dir, "gone")
	if err := os.WriteFile(there, nil, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ named, beside, installed, want string }{
		"named":         {there, gone, dir, ""},
		"beside":        {"", there, dir, ""},
		"installed":     {"", gone, dir, dir},
		"none anywhere": {"", gone, gone, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := pluginsFor(c.named, c.beside, c.installed); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}
