package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"strongroom.example/config"
)

func TestAncestorSession(t *testing.T) {
	const session = "198.51.100.7 5555 203.0.113.5 22"
	// 40 is sudo, 30 the shell before it, 20 sshd.
	type process struct{ stat, environ string }
	for name, c := range map[string]struct {
		processes map[string]process
		want      string
	}{
		"the shell before sudo": {map[string]process{
			"40": {"40 (sudo) S 30 1 1", "HOME=/root\x00"}, "30": {"30 (bash) S 20 1 1", "A=b\x00SSH_CONNECTION=" + session + "\x00"}}, session},
		"a name with brackets": {map[string]process{
			"40": {"40 (a) S 99 (b) S 30 1", ""}, "30": {"30 (bash) S 20 1 1", "SSH_CONNECTION=" + session + "\x00"}}, session},
		"another variable": {map[string]process{
			"40": {"40 (sudo) S 30 1 1", "OLD_SSH_CONNECTION=" + session + "\x00"}, "30": {"30 (bash) S 1 1 1", ""}}, ""},
		"console":        {map[string]process{"40": {"40 (sudo) S 1 1 1", ""}, "1": {"1 (init) S 0 0 0", "SSH_CONNECTION=" + session}}, ""},
		"gone meanwhile": {map[string]process{"40": {"40 (sudo) S 30 1 1", ""}}, ""},
		"damaged":        {map[string]process{"40": {"40", ""}}, ""},
		"in a circle":    {map[string]process{"40": {"40 (a) S 40 1 1", ""}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			proc := t.TempDir()
			for pid, p := range c.processes {
				if err := os.Mkdir(filepath.Join(proc, pid), 0o755); err != nil {
					t.Fatal(err)
				}
				for file, text := range map[string]string{"stat": p.stat, "environ": p.environ} {
					if err := os.WriteFile(filepath.Join(proc, pid, file), []byte(text), 0o600); err != nil {
						t.Fatal(err)
					}
				}
			}
			if got := ancestorSession(proc, 40); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

// TestSudoWithoutSession is about rules that nobody could prove to let the
// operator in.
func TestSudoWithoutSession(t *testing.T) {
	everyone := config.Default().Firewall
	some := everyone
	some.SSHFrom = []string{"0.0.0.0/0"} // not the IPv6 that the operator may have come by
	if err := letsIn(everyone, "", "ops", listening{22}); err != nil {
		t.Error(err)
	}
	if err := letsIn(some, "", "", listening{22}); err != nil {
		t.Errorf("console: %v", err)
	}
	if err := letsIn(some, "", "ops", listening{22}); err == nil || !strings.Contains(err.Error(), "without --yes") {
		t.Errorf("error = %v", err)
	}
	if err := letsIn(some, "198.51.100.7 5555 203.0.113.5 22", "ops", listening{22}); err != nil {
		t.Errorf("found: %v", err)
	}
}
