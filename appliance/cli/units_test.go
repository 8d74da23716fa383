package cli

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestUnitsCommands holds what the units start against the program's own verbs
// and flags: a unit that gives a wrong one fails on every machine.
func TestUnitsCommands(t *testing.T) {
	files, err := filepath.Glob("../../systemd/*.service")
	if err != nil || len(files) == 0 {
		t.Fatalf("no units: %v", err)
	}
	exec := regexp.MustCompile(`(?m)^Exec(?:Start|StartPre|StartPost|Stop|Reload)=[-+@!:]*/usr/local/bin/strongroom (.+)$`)
	found := 0
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range exec.FindAllStringSubmatch(string(b), -1) {
			found++
			// What systemd puts in is a number or a name.
			line := strings.NewReplacer("${VAULT_UID}", "1000", "%i", "x.service", "%%", "%").Replace(m[1])
			c, rest, err := New("0.0.0").Find(strings.Fields(line))
			if err != nil {
				t.Errorf("%s: %q: %v", filepath.Base(file), line, err)
				continue
			}
			if err := c.ParseFlags(rest); err != nil {
				t.Errorf("%s: %q: %v", filepath.Base(file), line, err)
			}
			if c.HasSubCommands() && !c.Runnable() {
				t.Errorf("%s: %q is no verb", filepath.Base(file), line)
			}
		}
	}
	if found < 10 {
		t.Errorf("only %d commands found in the units", found)
	}
}
