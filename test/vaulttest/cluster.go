package vaulttest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"strongroom.example/appliance/backup/scratch"
	"strongroom.example/appliance/base/proc"
	"strongroom.example/appliance/serve/kms"
	"strongroom.example/config/machine"
)

// ClusterPatience is how long a cluster may take to settle on a loaded machine.
const ClusterPatience = 3 * time.Minute

// Cluster is raft nodes of one Vault, each with a KMS, a plugin process and a
// folder of its own, as on machines of their own: the same master key and the
// same epoch, and nothing else in common.
type Cluster struct {
	Nodes []*Server
	t     testing.TB
}

// NewCluster starts n nodes the way docs/install.md says: the first is
// initialised, the others join it over its unix socket.
func NewCluster(t testing.TB, n int) *Cluster {
	t.Helper()
	keys, err := kms.NewKeyset()
	if err != nil {
		t.Fatal(err)
	}
	first := New(t, Node{ID: "node-1", Keyset: keys, Wrap: held()})
	c := ClusterOf(t, first)
	epoch, err := os.ReadFile(first.Layout.EpochFile())
	if err != nil {
		t.Fatal(err)
	}
	for i := 2; i <= n; i++ {
		c.Join(Node{ID: fmt.Sprintf("node-%d", i), Keyset: keys, Epoch: epoch, Wrap: held()})
	}
	c.Settle()
	c.Vote()
	return c
}

// Vote waits until each node has a vote, without which it cannot follow a
// leader that is lost. Vault gives it to a node that has kept up for a while.
func (c *Cluster) Vote() {
	c.t.Helper()
	c.until("every node has a vote", func(ctx context.Context) error {
		r, err := c.Nodes[0].Root.Raft(ctx)
		if err != nil {
			return err
		}
		for _, n := range r.Nodes {
			if !n.Voter {
				return fmt.Errorf("%s has none", n.ID)
			}
		}
		if len(r.Nodes) != len(c.Nodes) {
			return fmt.Errorf("%d nodes", len(r.Nodes))
		}
		return nil
	})
}

// Join starts one more node and has it join the first.
func (c *Cluster) Join(node Node) *Server {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), ClusterPatience)
	defer cancel()
	s := Candidate(c.t, node)
	first := c.Nodes[0]
	r, err := API(s.Root).Sys().RaftJoinWithContext(ctx, &api.RaftJoinRequest{LeaderAPIAddr: "unix://" + first.Layout.VaultSocket()})
	if err != nil || !r.Joined {
		c.t.Fatalf("%s did not join: %+v, %v", node.ID, r, err)
	}
	c.Add(s)
	return s
}

// Add counts a node that has joined.
func (c *Cluster) Add(s *Server) {
	first := c.Nodes[0]
	s.RootToken, s.Version = first.RootToken, first.Version
	s.Root.SetToken(s.RootToken)
	c.Nodes = append(c.Nodes, s)
}

// ClusterOf is a cluster of one, to which others may be added. They soon get
// their vote: ten seconds later by default, see
// https://developer.hashicorp.com/vault/api-docs/system/storage/raftautopilot
func ClusterOf(t testing.TB, first *Server) *Cluster {
	t.Helper()
	soon := map[string]any{"server_stabilization_time": "1s"}
	if _, err := API(first.Root).Logical().WriteWithContext(t.Context(), "sys/storage/raft/autopilot/configuration", soon); err != nil {
		t.Fatal(err)
	}
	return &Cluster{t: t, Nodes: []*Server{first}}
}

// held is what goes before Vault's command line: as long as the file `hold` is
// in the node's folder, a node that was killed does not come back.
func held() []string {
	const script = `while [ -e "${TMPDIR%/run}/hold" ]; do sleep 0.05; done; exec "$0" "$@"`
	return []string{"/bin/sh", "-c", script, "VAULT"}
}

// Down kills a node with SIGKILL, plugin and all, and keeps it from coming
// back until Up.
func (s *Server) Down(t testing.TB) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.Layout.Dir, "hold"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s.Process.Kill()
}

// Up lets a node come back after Down.
func (s *Server) Up(t testing.TB) {
	t.Helper()
	if err := os.Remove(filepath.Join(s.Layout.Dir, "hold")); err != nil {
		t.Fatal(err)
	}
}

// Freeze stops a node with everything in it, as a machine that hangs; Thaw
// lets it go on where it was.
func (s *Server) Freeze(t testing.TB) { s.signal(t, syscall.SIGSTOP) }

// Thaw undoes Freeze.
func (s *Server) Thaw(t testing.TB) { s.signal(t, syscall.SIGCONT) }

func (s *Server) signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(-s.Process.PID(), sig); err != nil {
		t.Fatal(err)
	}
}

// Engines are the pids of this node's running plugin processes.
func (s *Server) Engines(t testing.TB) []string {
	t.Helper()
	exes, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		t.Fatal(err)
	}
	var pids []string
	for _, exe := range exes {
		// Processes come and go; what cannot be read is none of ours.
		if to, err := os.Readlink(exe); err == nil && to == filepath.Join(s.Layout.Plugins(), machine.PluginName) {
			pids = append(pids, filepath.Base(filepath.Dir(exe)))
		}
	}
	return pids
}

// Leader waits until a node other than those given says that it is the active
// one, and gives it.
func (c *Cluster) Leader(but ...*Server) *Server {
	c.t.Helper()
	var leader *Server
	c.until("there is a leader", func(ctx context.Context) error {
		var seen []string
		for _, s := range c.others(but...) {
			h, err := s.Root.Health(ctx)
			if err == nil && h.Initialized && !h.Sealed && !h.Standby {
				leader = s
				return nil
			}
			seen = append(seen, fmt.Sprintf("%+v %v", h, err))
		}
		return fmt.Errorf("none is active: %s", strings.Join(seen, "; "))
	})
	return leader
}

// Settle waits until each node, but those given, is unsealed, one is the leader
// and all answer: a standby only does once it knows the leader.
func (c *Cluster) Settle(but ...*Server) (leader *Server, standbys []*Server) {
	c.t.Helper()
	c.until("every node answers", func(ctx context.Context) error {
		leader, standbys = nil, nil
		for _, s := range c.others(but...) {
			h, err := s.Root.Health(ctx)
			switch {
			case err != nil:
				return err
			case h.Sealed:
				return fmt.Errorf("sealed: %+v", h)
			case h.Standby:
				standbys = append(standbys, s)
			case leader != nil:
				return fmt.Errorf("two are active")
			default:
				leader = s
			}
			if _, err := API(s.Root).Auth().Token().LookupSelfWithContext(ctx); err != nil {
				return err
			}
		}
		if leader == nil {
			return fmt.Errorf("none is active")
		}
		return nil
	})
	return leader, standbys
}

func (c *Cluster) others(but ...*Server) []*Server {
	var out []*Server
next:
	for _, s := range c.Nodes {
		for _, b := range but {
			if s == b {
				continue next
			}
		}
		out = append(out, s)
	}
	return out
}

// until asks again and again; each try may take a few seconds.
func (c *Cluster) until(what string, try func(context.Context) error) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), ClusterPatience)
	defer cancel()
	for {
		one, end := context.WithTimeout(ctx, 10*time.Second)
		err := try(one)
		end()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			c.t.Fatalf("wait until %s: %v", what, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Node is what differs between one Vault of a test and another. The zero value
// is one that is alone, with keys of its own.
type Node struct {
	ID     string
	Keyset *kms.Keyset
	Epoch  []byte
	Wrap   []string
	UI     bool // the web interface, where the program has one
}

// Candidate brings up a node with its KMS: uninitialised, answering.
func Candidate(t testing.TB, node Node) *Server {
	t.Helper()
	s := &Server{Set: proc.NewSet(), Keyset: node.Keyset}
	dir := Dir(t)
	t.Cleanup(func() {
		if err := s.Set.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			s.showLogs(t)
		}
	})
	front, err := scratch.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	s.Vault, err = scratch.Start(ctx, s.Set, scratch.Options{
		Dir: dir, Programs: Programs(t), Keyset: node.Keyset, FrontAddress: front,
		NodeID: node.ID, Epoch: node.Epoch, Wrap: node.Wrap, UI: node.UI,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Root = s.Client(t, "")
	return s
}
