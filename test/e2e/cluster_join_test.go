package e2e

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"

	"strongroom.example/appliance/backup/scratch"
	"strongroom.example/appliance/serve/kms"
	"strongroom.example/test/vaulttest"
)

// moveCluster gives a node another address in its configuration, as the
// installer does when node.cluster_listen and node.cluster_addr change.
func moveCluster(t *testing.T, s *vaulttest.Server) (addr string) {
	t.Helper()
	addr, err := scratch.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(s.Layout.VaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []struct{ key, value string }{{"cluster_addr", "https://" + addr}, {"cluster_address", addr}} {
		re := regexp.MustCompile(`(?m)^( *` + line.key + ` *= ).*$`)
		if !re.Match(text) {
			t.Fatalf("the configuration lacks %s", line.key)
		}
		text = re.ReplaceAll(text, []byte(`${1}"`+line.value+`"`))
	}
	if err := os.WriteFile(s.Layout.VaultConfig(), text, 0o600); err != nil {
		t.Fatal(err)
	}
	return addr
}

// raftAddress is where raft's own record says that the node is.
func raftAddress(t *testing.T, s *vaulttest.Server, node string) string {
	t.Helper()
	r, err := s.Root.Raft(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range r.Nodes {
		if n.ID == node {
			return n.Address
		}
	}
	return ""
}

// forward passes connections on to a unix socket, as ssh -L does, until the test
// ends.
func forward(t *testing.T, socket string) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("unix", socket)
			if err != nil {
				_ = in.Close()
				continue
			}
			for _, way := range [][2]net.Conn{{in, out}, {out, in}} {
				go func() {
					_, _ = io.Copy(way[0], way[1])
					_ = way[0].Close()
				}()
			}
		}
	}()
	return l.Addr().String()
}

// A Vault that was installed alone gets a second node, with the steps that
// docs/install.md gives, and loses it again.
func TestNodeIsAdded(t *testing.T) {
	t.Parallel()
	keys, err := kms.NewKeyset()
	if err != nil {
		t.Fatal(err)
	}
	first := vaulttest.New(t, vaulttest.Node{ID: "node-1", Keyset: keys})
	first.MountAPIKeys(t)
	for path, data := range map[string]map[string]any{
		"apikeys/providers/generated": {"type": "generated"},
	} {
		if _, err := vaulttest.API(first.Root).Logical().WriteWithContext(t.Context(), path, data); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := vaulttest.API(first.Root).Logical().WriteWithContext(t.Context(), "apikeys/keys/"+clientKey, map[string]any{"provider": "generated"}); err != nil {
		t.Fatal(err)
	}
	before := readNode(t, first, "creds/"+clientKey)

	// Raft keeps the address under which the node was initialised, whatever the
	// configuration says later; peers.json corrects it.
	was := raftAddress(t, first, "node-1")
	addr := moveCluster(t, first)
	first.KillAndWait(t)
	if got := raftAddress(t, first, "node-1"); got != was {
		t.Errorf("raft followed the configuration from %s to %s: peers.json is not needed any more", was, got)
	}
	peers, err := json.Marshal([]map[string]any{{"id": "node-1", "address": addr, "non_voter": false}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(first.Layout.Raft(), "raft", "peers.json"), peers, 0o600); err != nil {
		t.Fatal(err)
	}
	first.KillAndWait(t)
	if got := raftAddress(t, first, "node-1"); got != addr {
		t.Fatalf("raft's address is %s, want %s", got, addr)
	}
	if after := readNode(t, first, "creds/"+clientKey); after["key"] != before["key"] {
		t.Error("another key after the move")
	}

	epoch, err := os.ReadFile(first.Layout.EpochFile())
	if err != nil {
		t.Fatal(err)
	}
	second := vaulttest.Candidate(t, vaulttest.Node{ID: "node-2", Keyset: keys, Epoch: epoch})
	ctx, cancel := context.WithTimeout(t.Context(), vaulttest.ClusterPatience)
	defer cancel()
	refuseFrontsWay(ctx, t, first, second)
	r, err := vaulttest.API(second.Root).Sys().RaftJoinWithContext(ctx, &api.RaftJoinRequest{LeaderAPIAddr: "http://" + forward(t, first.Layout.VaultSocket())})
	if err != nil || !r.Joined {
		t.Fatalf("it did not join: %+v, %v", r, err)
	}
	c := vaulttest.ClusterOf(t, first)
	c.Add(second)
	c.Settle()
	c.Vote()
	if got := readNode(t, second, "creds/"+clientKey); got["key"] != before["key"] {
		t.Error("the second node gives another key")
	}

	out, err := vaultCLI(t, first, first.RootToken, "operator", "raft", "remove-peer", "node-2")
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got := raftAddress(t, first, "node-2"); got != "" {
		t.Errorf("node-2 is still there, at %s", got)
	}
	if after := readNode(t, first, "creds/"+clientKey); after["key"] != before["key"] {
		t.Error("another key after the removal")
	}
}

// refuseFrontsWay sees that Vault's TCP listener takes no node in, not even with
// the front's certificate: it is the front's, which names the client of each
// request. So retry_join has nowhere to go to.
func refuseFrontsWay(ctx context.Context, t *testing.T, first, second *vaulttest.Server) {
	t.Helper()
	crt, key := first.Layout.LinkClient()
	req := &api.RaftJoinRequest{LeaderAPIAddr: "https://" + first.TCPAddress, Retry: false}
	for file, to := range map[string]*string{first.Layout.LinkCA(): &req.LeaderCACert, crt: &req.LeaderClientCert, key: &req.LeaderClientKey} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		*to = string(text)
	}
	r, err := vaulttest.API(second.Root).Sys().RaftJoinWithContext(ctx, req)
	if err == nil {
		t.Fatalf("joined through the front's listener: %+v", r)
	}
	// The reason is in its log alone.
	text, err := os.ReadFile(second.Layout.Log("vault"))
	if err != nil || !strings.Contains(string(text), "missing x-forwarded-for header") {
		t.Errorf("it was refused for another reason: %v", err)
	}
}
