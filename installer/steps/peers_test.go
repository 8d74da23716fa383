package steps

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"strongroom.example/config"
	"strongroom.example/config/machine"
)

// TestSecondNode installs what a second node of a cluster is told, as far as
// files go: it has a name and an address of its own, knows its peers, and lets
// in no one else.
func TestSecondNode(t *testing.T) {
	v := newVPS(t)
	e := v.env()
	e.Network = network{inside: []netip.Addr{netip.MustParseAddr("10.0.0.2")}}
	e.Config.Node = config.Node{
		ID: "node-2", ClusterListen: "10.0.0.2:8201", ClusterAddr: "https://10.0.0.2:8201",
		Peers: []config.Peer{
			{APIAddr: "https://10.0.0.1:8200", CACertFile: "/etc/strongroom/tls/peers.crt", TLSServerName: "node-1.internal"},
			{APIAddr: "https://[fd00::3]:8200", CACertFile: "/etc/strongroom/tls/peers.crt", TLSServerName: "node-3.internal"},
		},
	}
	if err := e.Config.Validate("", nil); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if _, err := v.engine(e, &out).Install(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	hcl := strings.Join(strings.Fields(string(v.Files[machine.VaultHCL].Data)), " ")
	for _, want := range []string{
		`node_id = "node-2"`, `cluster_addr = "https://10.0.0.2:8201"`, `"10.0.0.2:8201"`,
		`leader_api_addr = "https://10.0.0.1:8200"`, `leader_tls_servername = "node-1.internal"`, `leader_api_addr = "https://[fd00::3]:8200"`,
	} {
		if !strings.Contains(hcl, want) {
			t.Errorf("vault.hcl lacks %q:\n%s", want, v.Files[machine.VaultHCL].Data)
		}
	}
	for _, want := range []string{"ip saddr 10.0.0.1 tcp dport 8201 accept", "ip6 saddr fd00::3 tcp dport 8201 accept"} {
		if !strings.Contains(v.nft, want) {
			t.Errorf("the rules lack %q", want)
		}
	}
	if strings.Contains(v.nft, "tcp dport 8200 accept") {
		t.Error("Vault's own listener is open to others")
	}
	// What was told is kept, and so is found again.
	kept, err := config.Parse(machine.ConfigFile, v.Files[machine.ConfigFile].Data)
	if err != nil || kept.Node.ID != "node-2" || len(kept.Node.Peers) != 2 {
		t.Errorf("kept: %+v, %v", kept.Node, err)
	}
	if res, err := v.engine(e, &out).Install(t.Context()); err != nil || res.Changes != 0 {
		t.Errorf("second run: %d changes, %v", res.Changes, err)
	}
	// Its secret ids are its own: see TestJobsCrash on another node's.
}
