package config

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func firewallParams() FirewallParams {
	return FirewallParams{
		SSHPort: 22, SSHFrom: []string{"0.0.0.0/0", "::/0"},
		VaultPort: 8200, ClusterPort: 8201,
		VaultUID: 998, FrontUID: 997,
		VaultOut: []int{443, 5432, 3306}, FrontOut: []int{443, 80, 443},
	}
}

func TestRenderFirewallGolden(t *testing.T) {
	narrow := firewallParams()
	narrow.SSHPort, narrow.SSHFrom = 2222, []string{"203.0.113.7/24", "2001:db8::/32"}
	narrow.Peers = []string{"10.0.0.2", "fd00::2"}
	for name, p := range map[string]FirewallParams{"open": firewallParams(), "narrow": narrow} {
		t.Run(name, func(t *testing.T) {
			got, err := RenderFirewall(p)
			if err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("testdata", "nftables_"+name+".conf")
			if *update {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("differs from %s; if meant, run with -update\n%s", golden, got)
			}
			checkWithNft(t, got)
		})
	}
}

// checkWithNft has nft itself check the rules, in a network namespace of its
// own, twice: on an empty machine and where the table is there.
func checkWithNft(t *testing.T, rules []byte) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Log("not root: nft -c left out")
		return
	}
	for _, prog := range []string{"nft", "unshare"} {
		if _, err := exec.LookPath(prog); err != nil {
			t.Logf("no %s here: nft -c left out", prog)
			return
		}
	}
	file := filepath.Join(t.TempDir(), "rules")
	if err := os.WriteFile(file, rules, 0o600); err != nil {
		t.Fatal(err)
	}
	const script = `set -e
nft -c -f "$1"; test -z "$(nft list ruleset)"
nft add table inet other; nft -f "$1"; nft -c -f "$1"; nft -f "$1"
nft list tables | sort`
	out, err := exec.Command("unshare", "--net", "sh", "-c", script, "sh", file).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if got, want := string(out), "table inet other\ntable inet strongroom\n"; got != want {
		t.Errorf("tables:\n%swant:\n%s", got, want)
	}
}

func TestRenderFirewallRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*FirewallParams)
		want   string
	}{
		"no ssh":        {func(p *FirewallParams) { p.SSHFrom = nil }, "SSHFrom: is empty"},
		"bad range":     {func(p *FirewallParams) { p.SSHFrom = []string{"everyone"} }, `SSHFrom: "everyone" is not`},
		"injection":     {func(p *FirewallParams) { p.SSHFrom = []string{"::/0 accept\n"} }, "SSHFrom"},
		"ssh port":      {func(p *FirewallParams) { p.SSHPort = 70000 }, "SSHPort: 70000"},
		"cluster port":  {func(p *FirewallParams) { p.ClusterPort = -1 }, "ClusterPort: -1"},
		"root as vault": {func(p *FirewallParams) { p.VaultUID = 0 }, "VaultUID: 0"},
		"peer by name":  {func(p *FirewallParams) { p.Peers = []string{"node-2"} }, `Peers: "node-2"`},
		"no way out":    {func(p *FirewallParams) { p.FrontOut = nil }, "FrontOut: is empty"},
		"bad way out":   {func(p *FirewallParams) { p.VaultOut = []int{0} }, "VaultOut: 0"},
	} {
		t.Run(name, func(t *testing.T) {
			p := firewallParams()
			c.change(&p)
			b, err := RenderFirewall(p)
			if err == nil || !strings.Contains(err.Error(), c.want) || b != nil {
				t.Errorf("error = %v, want %q; %d bytes", err, c.want, len(b))
			}
		})
	}
}
