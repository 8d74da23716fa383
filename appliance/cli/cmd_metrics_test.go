package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"strongroom.example/config"
	"strongroom.example/systemd"
)

// The page on monitoring: its commands are taken, its tables are valid and at
// the defaults, and every unit that it names is there.
func TestMonitoringPage(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("..", "..", "docs", "monitoring.md"))
	if err != nil {
		t.Fatal(err)
	}
	page := string(data)
	commands := commandsIn(page)
	if len(commands) < 5 {
		t.Fatalf("only %d commands found", len(commands))
	}
	for _, line := range commands {
		line, _, _ = strings.Cut(line, " > ")
		verb, rest, err := New("test").Find(strings.Fields(line)[1:])
		if err == nil {
			err = verb.ParseFlags(rest)
		}
		if err == nil {
			err = verb.ValidateArgs(verb.Flags().Args())
		}
		if err != nil {
			t.Errorf("%q: %v", line, err)
		}
	}
	for _, block := range regexp.MustCompile("(?s)```toml\n(.*?)```").FindAllStringSubmatch(page, -1) {
		file := filepath.Join(t.TempDir(), "appliance.toml")
		if err := os.WriteFile(file, []byte(block[1]), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := config.LoadAlert(file); err != nil {
			t.Error(err)
		}
		if a, err := config.LoadAudit(file); err != nil || a != config.DefaultAudit() {
			t.Errorf("%+v, %v", a, err)
		}
	}
	for _, u := range regexp.MustCompile(`\bstrongroom-[a-z-]+@?\.(?:service|timer|path|socket)`).FindAllString(page, -1) {
		if !slices.Contains(systemd.Names(), u) {
			t.Errorf("unit %s is in the page and nowhere else", u)
		}
	}
}

func TestMetricsFiles(t *testing.T) {
	for verb, want := range map[string][]byte{"rules": config.AlertRules(), "dashboard": config.GrafanaDashboard()} {
		if code, out := run(t, "metrics", verb); code != ExitOK || !bytes.Contains([]byte(out), want) {
			t.Errorf("%s: exit code %d", verb, code)
		}
	}
}

func TestMetricsRefusals(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		says string
	}{
		"no socket":       {nil, "no socket"},
		"to the world":    {[]string{"--listen", "0.0.0.0:9468"}, "not an address on loopback"},
		"to one network":  {[]string{"--listen", "192.0.2.1:9468"}, "not an address on loopback"},
		"a name":          {[]string{"--listen", "localhost:9468"}, "not an address on loopback"},
		"no port":         {[]string{"--listen", "127.0.0.1"}, "not an address on loopback"},
		"a bad Vault":     {[]string{"--address", "://"}, "vault"},
		"a word too many": {[]string{"all"}, "all"},
	} {
		t.Run(name, func(t *testing.T) {
			code, out := run(t, append([]string{"metrics"}, tc.args...)...)
			if code != ExitUsage {
				t.Errorf("exit code %d\n%s", code, out)
			}
			says(t, out, tc.says)
		})
	}
}
