package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"strongroom.example/test/vaulttest"
)

// Every block of shell in docs/rotate-keys.md works as it stands, in the order
// in which it stands there.
func TestRotateKeysPage(t *testing.T) {
	s := vaulttest.New(t)
	s.MountAPIKeys(t)
	page, err := os.ReadFile(filepath.Join(vaulttest.Root(t), "docs", "rotate-keys.md"))
	if err != nil {
		t.Fatal(err)
	}
	home := vaulttest.Dir(t)
	if err := os.Symlink(vaulttest.Bin(t, "vault"), filepath.Join(home, "vault")); err != nil {
		t.Fatal(err)
	}
	blocks := shellBlocks(string(page))
	if len(blocks) < 12 {
		t.Fatalf("only %d blocks were found", len(blocks))
	}
	for i, block := range blocks {
		cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", block)
		cmd.Dir = home
		cmd.Env = []string{
			"PATH=" + home + ":" + os.Getenv("PATH"), "HOME=" + home,
			"VAULT_ADDR=unix://" + s.Layout.VaultSocket(), "VAULT_TOKEN=" + s.RootToken,
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("block %d: %v\n%s\n%s", i+1, err, block, out)
		}
	}
	for name, want := range map[string]string{"app/production/billing": "ok", "app/production/green": "deleting"} {
		sec, err := vaulttest.API(s.Root).Logical().ReadWithContext(t.Context(), "apikeys/keys/"+name)
		if err != nil || sec == nil || fmt.Sprint(sec.Data["condition"]) != want {
			t.Errorf("%s at the end of the page: %v, %v; want %s", name, sec, err, want)
		}
	}
}

func shellBlocks(page string) []string {
	var out []string
	for _, part := range strings.Split(page, "```sh\n")[1:] {
		block, _, _ := strings.Cut(part, "```")
		out = append(out, block)
	}
	return out
}
