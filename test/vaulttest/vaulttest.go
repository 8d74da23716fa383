// Package vaulttest gives a test a real Vault of its own: raft, unsealed by a
// real KMS, the apikeys plugin registered, on a unix socket in a temporary
// folder. Everything is gone when the test ends.
package vaulttest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"strongroom.example/appliance/backup/scratch"
	"strongroom.example/appliance/base/proc"
	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/appliance/serve/kms"
	"strongroom.example/config/machine"
)

// Patience is how long a start or restart may take on a loaded machine.
const Patience = 4 * time.Minute

// Root is the repository's top folder.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "VERSION")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Fatal("the repository's top folder (with VERSION) is not above this test")
		}
		dir = parent
	}
}

// Bin is the path of a program that make builds. Where it is missing the test
// is skipped, or fails if STRONGROOM_REAL=1, as under make test.
func Bin(t testing.TB, name string) string {
	t.Helper()
	path := filepath.Join(Root(t), "bin", name)
	if os.Getenv("STRONGROOM_RACE") == "1" && (name == machine.ProgramName || name == machine.PluginName) {
		path = filepath.Join(Root(t), "bin", "race", name) // as scripts/race builds it
	}
	if dir := os.Getenv("STRONGROOM_BIN"); dir != "" && (name == machine.ProgramName || name == machine.PluginName) {
		path = filepath.Join(dir, name) // another architecture's
	}
	if name == "vault" && os.Getenv("VAULT_BIN") != "" {
		path = os.Getenv("VAULT_BIN")
	}
	if _, err := os.Stat(path); err != nil {
		if os.Getenv("STRONGROOM_REAL") == "1" {
			t.Fatalf("%s is missing: run make build vault tools", path)
		}
		t.Skipf("%s is missing: run make build vault tools", path)
	}
	return path
}

// Programs are the real ones from bin/.
func Programs(t testing.TB) scratch.Programs {
	t.Helper()
	return scratch.Programs{
		Strongroom: Bin(t, "strongroom"),
		Vault:      Bin(t, "vault"),
		Plugin:     Bin(t, machine.PluginName),
	}
}

// Dir is a temporary folder whose path is short enough for unix sockets.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "srt-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// Server is a running Vault.
type Server struct {
	*scratch.Vault
	Set       *proc.Set
	Root      *vaultapi.Client // holds the root token
	RootToken string
	Recovery  []string
	Keyset    *kms.Keyset
	Version   string // the plugin's, as in VERSION
}

// New starts an initialised, unsealed Vault with the plugin in its catalog. A
// node says what is not as usual.
func New(t testing.TB, node ...Node) *Server {
	t.Helper()
	var o Node
	if len(node) > 0 {
		o = node[0]
	}
	if o.Keyset == nil {
		keys, err := kms.NewKeyset()
		if err != nil {
			t.Fatal(err)
		}
		o.Keyset = keys
	}
	s := Candidate(t, o)
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	init, err := s.Root.Init(ctx, vaultapi.InitRequest{RecoveryShares: 1, RecoveryThreshold: 1})
	if err != nil {
		t.Fatal(err)
	}
	s.RootToken, s.Recovery = init.RootToken, init.RecoveryKeys
	s.Root.SetToken(init.RootToken)
	if err := s.WaitActive(ctx); err != nil {
		t.Fatal(err)
	}
	version, err := os.ReadFile(filepath.Join(Root(t), "VERSION"))
	if err != nil {
		t.Fatal(err)
	}
	s.Version = strings.TrimSpace(string(version))
	if err := s.Root.RegisterPlugin(ctx, s.Plugin(t)); err != nil {
		t.Fatal(err)
	}
	return s
}

// Plugin is the apikeys plugin as it is registered.
func (s *Server) Plugin(t testing.TB) vaultapi.Plugin {
	t.Helper()
	sum, err := vaultapi.SHA256File(filepath.Join(s.Layout.Plugins(), machine.PluginName))
	if err != nil {
		t.Fatal(err)
	}
	return vaultapi.Plugin{Name: machine.PluginName, Command: machine.PluginName, Version: "v" + s.Version, SHA256: sum}
}

// MountAPIKeys mounts the engine at apikeys/, tuned for conditional reads.
func (s *Server) MountAPIKeys(t testing.TB) {
	t.Helper()
	if err := s.Root.MountPlugin(t.Context(), "apikeys", s.Plugin(t)); err != nil {
		t.Fatal(err)
	}
}

// Client is a new client over the unix socket.
func (s *Server) Client(t testing.TB, token string) *vaultapi.Client {
	t.Helper()
	c, err := s.Local()
	if err != nil {
		t.Fatal(err)
	}
	c.SetToken(token)
	return c
}

// KillAndWait kills Vault with SIGKILL and returns when its successor is
// unsealed and active.
func (s *Server) KillAndWait(t testing.TB) {
	t.Helper()
	s.Process.Kill()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	if err := s.WaitActive(ctx); err != nil {
		t.Fatal(err)
	}
}

// showLogs prints the last lines of each process's log.
func (s *Server) showLogs(t testing.TB) {
	if s.Vault == nil {
		return
	}
	for _, name := range []string{"kms", "vault", "front"} {
		data, err := os.ReadFile(s.Layout.Log(name))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		lines := strings.Split(strings.TrimSpace(string(data)), "\n")
		if len(lines) > 15 {
			lines = lines[len(lines)-15:]
		}
		t.Logf("end of %s's log:\n%s", name, strings.Join(lines, "\n"))
	}
}
