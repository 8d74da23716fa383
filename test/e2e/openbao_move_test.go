package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"

	"strongroom.example/test/keyservice"
	"strongroom.example/test/vaulttest"
)

// The manifest that both machines have.
const moved = `manifest = "data-team"

[[app]]
name = "bike-data-flow"

[[app.environment]]
name = "production"
secrets = ["database-url"]

[[app.environment.key]]
name = "provider-a"
provider = "provider-a"

[[app]]
name = "dagster"
secrets = ["token"]
`

// From a machine with Vault to one with OpenBao by docs/openbao.md: secrets arrive with
// their versions, each key has a successor in the new engine before the old one ends it,
// and neither engine touches what the other has made.
func TestMoveToOpenBao(t *testing.T) {
	bao := filepath.Join(vaulttest.Root(t), "bin", "openbao")
	if _, err := os.Stat(bao); err != nil {
		t.Skipf("no OpenBao (scripts/openbao fetches it): %v", err)
	}
	vault := vaulttest.Bin(t, "vault")
	service := keyservice.New(t)
	home := vaulttest.Dir(t)
	if err := os.Symlink(vault, filepath.Join(home, "vault")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(vaulttest.Bin(t, "strongroom"), filepath.Join(home, "strongroom")); err != nil {
		t.Fatal(err)
	}
	recipient, identity := newKey(t)
	settings, err := json.Marshal(map[string]any{"type": "http", "settings": service.Settings(), "credential": map[string]any{"token": keyservice.Credential}})
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"provider-a.json": settings, "apps.toml": []byte(moved)} {
		if err := os.WriteFile(filepath.Join(home, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}

	machine := func() *vaulttest.Server {
		s := vaulttest.New(t)
		s.MountAPIKeys(t)
		if err := s.Root.EnableKV2(t.Context(), "secret"); err != nil {
			t.Fatal(err)
		}
		sys := vaulttest.API(s.Root).Sys()
		if err := sys.MountWithContext(t.Context(), "database", &api.MountInput{Type: "database"}); err != nil {
			t.Fatal(err)
		}
		if err := sys.EnableAuthWithOptionsWithContext(t.Context(), "approle", &api.EnableAuthOptions{Type: "approle"}); err != nil {
			t.Fatal(err)
		}
		return s
	}
	old := machine()
	t.Setenv("VAULT_BIN", bao)
	fresh := machine()
	if health, err := fresh.Root.Health(t.Context()); err != nil || !strings.Contains(health.Version, "2.") {
		t.Fatalf("the second machine has no OpenBao: %+v, %v", health, err)
	}

	on := func(s *vaulttest.Server, block string) string {
		t.Helper()
		block = strings.NewReplacer("~/.ssh/id_ed25519.pub", recipient, "~/.ssh/id_ed25519", identity).Replace(block)
		cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", block)
		cmd.Dir = home
		cmd.Env = []string{
			"PATH=" + home + ":" + os.Getenv("PATH"), "HOME=" + home,
			"VAULT_ADDR=unix://" + s.Layout.VaultSocket(), "VAULT_TOKEN=" + s.RootToken,
		}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s\n%s", err, block, out)
		}
		return string(out)
	}
	read := func(s *vaulttest.Server, path string) map[string]any {
		t.Helper()
		sec, err := vaulttest.API(s.Root).Logical().ReadWithContext(t.Context(), path)
		if err != nil || sec == nil {
			t.Fatalf("%s: %v, %v", path, sec, err)
		}
		return sec.Data
	}
	move := func(name string) string { return docBlock(t, "openbao.md", name) }

	on(old, `vault write apikeys/providers/provider-a @provider-a.json
		strongroom app apply apps.toml
		printf first | vault kv put secret/bike-data-flow/production/database-url value=-
		printf second | vault kv put secret/bike-data-flow/production/database-url value=-
		printf third | vault kv put secret/dagster/token value=-`)
	was := read(old, "apikeys/creds/bike-data-flow/production/provider-a")["key"].(string)

	on(old, move("move-out"))
	if out := on(fresh, move("move-in")); !strings.Contains(out, "0 to create, 0 to change, 0 to remove, 0 in the way") {
		t.Errorf("the plan after apply: %s", out)
	}
	is := read(fresh, "apikeys/creds/bike-data-flow/production/provider-a")["key"].(string)
	for path, want := range map[string]string{
		"secret/data/bike-data-flow/production/database-url": "second", "secret/data/dagster/token": "third",
	} {
		if got := read(fresh, path)["data"].(map[string]any)["value"]; got != want {
			t.Errorf("%s: %v", path, got)
		}
	}
	// Each engine looks at all that the service lists.
	on(fresh, "vault write apikeys/reconcile max_seconds=30")
	on(old, "vault write apikeys/reconcile max_seconds=30")
	if alive := service.Alive(); len(alive) != 2 || alive[was].ID == "" || alive[is].ID == "" {
		t.Fatalf("before the end %d keys are alive", len(alive))
	}
	on(old, move("move-end"))
	on(fresh, "vault write apikeys/reconcile max_seconds=30")
	if alive := service.Alive(); len(alive) != 1 || alive[is].ID == "" {
		t.Errorf("at the end %d keys are alive, the new machine's: %t", len(alive), alive[is].ID != "")
	}
	if n := fmt.Sprint(read(fresh, "apikeys/status")["key_count"]); n != "1" {
		t.Errorf("the new machine has %s keys", n)
	}
}
