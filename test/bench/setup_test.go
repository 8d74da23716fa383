package bench

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/test/vaulttest"
)

func write(b *testing.B, s *vaulttest.Server, path string, data map[string]any) *api.Secret {
	b.Helper()
	sec, err := vaulttest.API(s.Root).Logical().WriteWithContext(b.Context(), path, data)
	if err != nil {
		b.Fatal(err)
	}
	return sec
}

func setUpKey(b *testing.B, s *vaulttest.Server) {
	b.Helper()
	write(b, s, "apikeys/providers/internal", map[string]any{"type": "generated"})
	write(b, s, "apikeys/keys/app/production/x", map[string]any{"provider": "internal"})
}

// kvValue makes an answer of about the size of a key's.
var kvValue = map[string]any{"data": map[string]any{
	"key": "sr_0123456789abcdefghijklmnopqrstuvwxyzABCD", "note": strings.Repeat("x", 200),
}}

func setUpKV(b *testing.B, s *vaulttest.Server) {
	b.Helper()
	if err := s.Root.EnableKV2(b.Context(), "secret"); err != nil {
		b.Fatal(err)
	}
	write(b, s, "secret/data/x", kvValue)
}

// setUpPeers registers the two peers as plugins and mounts them.
func setUpPeers(b *testing.B, s *vaulttest.Server) {
	b.Helper()
	constant := filepath.Join(b.TempDir(), "constplugin")
	build := exec.Command("go", "build", "-trimpath", "-o", constant, "./test/bench/constplugin")
	build.Dir = vaulttest.Root(b)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("build the constant plugin: %v: %s", err, out)
	}
	mountPeer(b, s, "const", "constplugin", constant)
	mountPeer(b, s, "kvext", "kvext", vaulttest.Bin(b, "kvv2"))
	// A new KV v2 mount upgrades itself in the background.
	for deadline := time.Now().Add(30 * time.Second); ; {
		_, err := vaulttest.API(s.Root).Logical().WriteWithContext(b.Context(), "kvext/data/x", kvValue)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			b.Fatal(err)
		}
		<-time.After(100 * time.Millisecond)
	}
}

func mountPeer(b *testing.B, s *vaulttest.Server, path, name, from string) {
	b.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		b.Fatal(err)
	}
	to := filepath.Join(s.Layout.Plugins(), name)
	if err := os.WriteFile(to, data, 0o500); err != nil {
		b.Fatal(err)
	}
	sum, err := vaultapi.SHA256File(to)
	if err != nil {
		b.Fatal(err)
	}
	p := vaultapi.Plugin{Name: name, Command: name, SHA256: sum}
	if err := s.Root.RegisterPlugin(b.Context(), p); err != nil {
		b.Fatal(err)
	}
	if err := s.Root.MountPlugin(b.Context(), path, p); err != nil {
		b.Fatal(err)
	}
}
