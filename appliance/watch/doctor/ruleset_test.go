package doctor

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
)

// What nft prints of the file that the installer writes is that file, whatever the
// machine's nft knows names for.
func TestLoadedAsWritten(t *testing.T) {
	written := firewallFile(t)
	for name, c := range map[string]struct{ file, old, text string }{
		"by name":                 {},
		"without /etc/protocols":  {"", `["tcp","udp"]`, `[17,6]`},
		"after traffic":           {"", `{"packets":0,"bytes":0}`, `{"packets":77,"bytes":4096}`},
		"a set in another order":  {"", `[443,3306,5432]`, `[5432,443,3306]`},
		"flags in another order":  {"", `["established","related"]`, `["related","established"]`},
		"beside another table":    {"", `{"table":{"family":"inet"`, `{"table":{"family":"ip","name":"docker"}},{"chain":{"family":"ip","table":"docker","name":"input"}},{"table":{"family":"inet"`},
		"the family spelt out":    {"", `{"set":{"op":"update"`, `{"match":{"op":"==","left":{"meta":{"key":"nfproto"}},"right":"ipv4"}},{"set":{"op":"update"`},
		"one of a set, in braces": {strings.Replace(written, "udp dport 443 accept", "udp dport { 443 } accept", 1), "", ""},
		"one host, with its mask": {strings.Replace(written, "ip saddr 10.0.0.2 ", "ip saddr 10.0.0.2/32 ", 1), "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			table, file := loadedTable(t), written
			if c.old != "" {
				if !strings.Contains(table, c.old) {
					t.Fatalf("the table has no %s", c.old)
				}
				table = strings.ReplaceAll(table, c.old, c.text)
			}
			if c.file != "" {
				file = c.file
			}
			got, err := loadedRules([]byte(table))
			if err != nil {
				t.Fatal(err)
			}
			if d := got.differences(writtenRules(file)); len(d) > 0 {
				t.Errorf("%q", d)
			}
		})
	}
}

// The nft of each Debian that the appliance runs on, 12's and 13's, prints the file
// that the installer writes, and not one rule of what it prints can be missing.
func TestEachNft(t *testing.T) {
	want := writtenRules(firewallFile(t))
	for _, version := range []string{"1.0.6", "1.1.3"} {
		var printed struct {
			NFTables []map[string]json.RawMessage `json:"nftables"`
		}
		if err := json.Unmarshal([]byte(loadedBy(t, version)), &printed); err != nil {
			t.Fatal(err)
		}
		if told := string(printed.NFTables[0]["metainfo"]); !strings.Contains(told, `"version":"`+version+`"`) {
			t.Errorf("what nft %s has printed says %s", version, told)
		}
		differences := func() []string {
			b, err := json.Marshal(printed)
			if err != nil {
				t.Fatal(err)
			}
			got, err := loadedRules(b)
			if err != nil {
				t.Fatal(err)
			}
			return got.differences(want)
		}
		if d := differences(); len(d) > 0 {
			t.Errorf("nft %s: %q", version, d)
		}
		all, rules := printed.NFTables, 0
		for n, o := range all {
			if o["rule"] != nil {
				rules++
			} else if o["set"] == nil && o["counter"] == nil {
				continue
			}
			printed.NFTables = slices.Delete(slices.Clone(all), n, n+1)
			if len(differences()) == 0 {
				t.Errorf("nft %s: without %s there is no difference", version, o)
			}
		}
		if rules != want.rules() {
			t.Errorf("nft %s: %d rules, %d were written", version, rules, want.rules())
		}
	}
}

// Each line less, more or other, in each chain, is a difference.
func TestEachLineCounts(t *testing.T) {
	got, err := loadedRules([]byte(loadedTable(t)))
	if err != nil {
		t.Fatal(err)
	}
	want := writtenRules(firewallFile(t))
	if want.rules() < 25 {
		t.Fatalf("only %d rules", want.rules())
	}
	for chain, lines := range want {
		for n, line := range lines {
			for what, other := range map[string][]string{
				"gone":  slices.Delete(slices.Clone(lines), n, n+1),
				"twice": slices.Insert(slices.Clone(lines), n, line),
				"other": slices.Replace(slices.Clone(lines), n, n+1, line+" accept"),
			} {
				changed := maps.Clone(want)
				changed[chain] = other
				if len(got.differences(changed)) == 0 {
					t.Errorf("chain %s, %q %s: no difference", chain, line, what)
				}
			}
		}
	}
}
