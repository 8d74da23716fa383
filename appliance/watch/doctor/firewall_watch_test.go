package doctor

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"strongroom.example/appliance/watch/alert"
	"strongroom.example/config/machine"
)

// Whatever becomes of the firewall is told by the look that sees it, once, and no more when
// it is back.
func TestWatchFirewall(t *testing.T) {
	without := func(b *box) { b.commands["nft -j -t list ruleset"] = says(`{"nftables":[{"metainfo":{}}]}`) }
	loaded := func(old, text string) func(*testing.T, *box) {
		return func(t *testing.T, b *box) {
			table := loadedTable(t)
			if !strings.Contains(table, old) {
				t.Fatalf("no %s", old)
			}
			b.commands["nft -j -t list ruleset"] = says(strings.Replace(table, old, text, 1))
		}
	}
	counted := func(name string) func(*testing.T, *box) {
		return func(t *testing.T, b *box) {
			table := loadedTable(t)
			at := strings.Index(table, `{"counter":{"family":"inet","name":"`+name)
			if at < 0 {
				t.Fatalf("no counter %s", name)
			}
			b.commands["nft -j -t list ruleset"] = says(table[:at] + strings.Replace(table[at:], `"packets":0`, `"packets":7`, 1))
		}
	}
	for name, c := range map[string]struct {
		do   func(*testing.T, *box)
		want string // id of the fault; empty: none
	}{
		"all is well":       {func(*testing.T, *box) {}, ""},
		"it failed at boot": {func(_ *testing.T, b *box) { without(b) }, "absent"},
		"another's table": {func(_ *testing.T, b *box) {
			b.commands["nft -j -t list ruleset"] = says(`{"nftables":[{"table":{"family":"inet","name":"filter"}},{"chain":{"family":"inet","table":"filter","name":"input"}}]}`)
		}, "absent"},
		"input accepts":    {loaded(`"policy":"drop"`, `"policy":"accept"`), "other"},
		"the table sleeps": {loaded(`"name":"strongroom","handle":2}`, `"name":"strongroom","handle":2,"flags":"dormant"}`), "other"},
		"a rule more":      {loaded(`{"rule":{"family":"inet","table":"strongroom","chain":"input",`, `{"rule":{"family":"inet","table":"strongroom","chain":"input","expr":[{"accept":null}]}},{"rule":{"family":"inet","table":"strongroom","chain":"input",`), "other"},
		"another of its name": {func(_ *testing.T, b *box) {
			b.commands["nft -j -t list ruleset"] = says(`{"nftables":[{"chain":{"family":"inet","table":"strongroom","name":"input","type":"filter","hook":"input","prio":0,"policy":"accept"}}]}`)
		}, "other"},
		"SSH's set was full":  {counted("ssh_full"), "ssh_full"},
		"a set was full":      {counted("known_full"), "known_full"},
		"very many are there": {counted("crowded"), "crowded"},
		"the file is gone":    {func(_ *testing.T, b *box) { delete(b.files, machine.NftablesConf) }, "file"},
		"new rules wait for a yes": {func(t *testing.T, b *box) {
			b.file(machine.NftablesCandidate, 0o644, 0, 0, firewallFile(t))
			b.file(machine.NftablesConf, 0o644, 0, 0, strings.Replace(firewallFile(t), "dport 22 ", "dport 2222 ", -1))
		}, ""},
		"others than wait": {func(t *testing.T, b *box) {
			b.file(machine.NftablesCandidate, 0o644, 0, 0, strings.Replace(firewallFile(t), "dport 22 ", "dport 22222 ", -1))
			b.file(machine.NftablesConf, 0o644, 0, 0, strings.Replace(firewallFile(t), "dport 22 ", "dport 2222 ", -1))
		}, "other"},
	} {
		t.Run(name, func(t *testing.T) {
			b, _ := healthy(t)
			dir := t.TempDir()
			look := func() (told []string) {
				t.Helper()
				_, err := WatchFirewall(t.Context(), b, dir, time.Hour, func(context.Context, time.Duration) error { return nil }, func(due []alert.Fault) {
					for _, f := range due {
						if f.Hint == "" || f.Text == "" {
							t.Errorf("%+v", f)
						}
						told = append(told, f.ID)
					}
				})
				if err != nil {
					t.Fatal(err)
				}
				b.now = b.now.Add(time.Minute)
				return told
			}
			if told := look(); len(told) > 0 {
				t.Fatalf("at first: %q", told)
			}
			c.do(t, b)
			if told := look(); !slices.Equal(told, strings.Fields(c.want)) {
				t.Errorf("told %q, want %q", told, c.want)
			}
			if told := look(); len(told) > 0 {
				t.Errorf("told again: %q", told)
			}
			fresh, _ := healthy(t)
			fresh.now = b.now
			b = fresh
			if told := look(); len(told) > 0 {
				t.Errorf("mended: %q", told)
			}
		})
	}
}

// What is not seen is no answer: the run fails, and the unit with it.
func TestWatchFirewallCannotSee(t *testing.T) {
	pause := func(context.Context, time.Duration) error { return nil }
	for name, do := range map[string]func(b *box, dir string){
		"nft is not there":                  func(b *box, _ string) { delete(b.commands, "nft -j -t list ruleset") },
		"it prints nothing":                 func(b *box, _ string) { b.commands["nft -j -t list ruleset"] = says("") },
		"the folder is away":                func(_ *box, dir string) { _ = os.Remove(dir) },
		"it prints no JSON":                 func(b *box, _ string) { b.commands["nft -j -t list ruleset"] = says("table inet") },
		"it prints an answer that is empty": func(b *box, _ string) { b.commands["nft -j -t list ruleset"] = says(`{"nftables":[]}`) },
	} {
		t.Run(name, func(t *testing.T) {
			b, _ := healthy(t)
			dir := filepath.Join(t.TempDir(), "run")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			do(b, dir)
			if _, err := WatchFirewall(t.Context(), b, dir, time.Hour, pause, func([]alert.Fault) {}); err == nil {
				t.Error("no error")
			}
		})
	}
}
