package e2e

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"strongroom.example/appliance/secrets/dotenv"
	"strongroom.example/appliance/secrets/migrate"
	"strongroom.example/test/vaulttest"
)

// Every block of shell in docs/migrate.md works as it stands, in the order of
// the page; the rollback is done last.
func TestMigrateDocs(t *testing.T) {
	s := vaulttest.New(t)
	if err := s.Root.EnableKV2(t.Context(), "secret"); err != nil {
		t.Fatal(err)
	}
	dir, secrets := bikeRepository(t)
	commitAll(t, dir)
	before := fileTree(t, dir, ".git")
	home := t.TempDir()
	sshKey(t, home)
	run := func(name string) string {
		t.Helper()
		c := exec.Command("sh", "-eu", "-c", docBlock(t, "migrate.md", name))
		c.Dir = dir
		c.Env = append(os.Environ(), "HOME="+home, "VAULT_ADDR=unix://"+s.Layout.VaultSocket(), "VAULT_TOKEN="+s.RootToken,
			"PATH="+filepath.Dir(vaulttest.Bin(t, "strongroom"))+":"+os.Getenv("PATH"))
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("block %q: %v\n%s", name, err, out)
		}
		for variable, value := range secrets {
			if len(value) >= 8 && strings.Contains(string(out), value) {
				t.Errorf("block %q shows the value of %s", name, variable)
			}
		}
		return string(out)
	}
	for _, name := range []string{"scan", "check", "plan", "apply", "cutover", "again", "exec", "kv"} {
		run(name)
		if name != "plan" {
			continue
		}
		plan, err := os.ReadFile(filepath.Join(dir, migrate.PlanFile))
		if entry := docBlock(t, "migrate.md", "entry"); err != nil || !strings.Contains(string(plan), entry) {
			t.Errorf("the page has an entry of a plan that is not in it (%v):\n%s\nbut\n%s", err, entry, plan)
		}
	}
	if _, err := vaulttest.API(s.Root).Logical().WriteWithContext(t.Context(), "secret/data/bike-data-flow/production/database-url", map[string]any{"data": map[string]any{"url": "x"}}); err != nil {
		t.Fatal(err)
	}
	if out := run("versions"); !strings.Contains(out, "removed url") || !strings.Contains(out, "version 3 is written") {
		t.Errorf("versions: %s", out)
	}
	if out := run("rollback"); !strings.Contains(out, "database-url was written since") {
		t.Errorf("rollback: %s", out)
	}
	before[".env.production"] += "PAYMENT_TOKEN=tok-4711-Xy\n"
	if after := fileTree(t, dir, ".git", migrate.StateDir, migrate.PlanFile, "bikes.age", ".strongroom-baseline.json"); !maps.Equal(before, after) {
		t.Error("the rollback does not restore the tree")
	}
}

// The table of the page is the one that the readings are tested against.
func TestMigrateDocsTable(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(vaulttest.Root(t), "docs", "migrate.md"))
	if err != nil {
		t.Fatal(err)
	}
	show := strings.NewReplacer("\ufeff", "<BOM>", "\r", `\r`, "\n", "⏎", "\t", `\t`, "|", `\|`)
	code := func(s string) string {
		switch s {
		case "":
			return "empty"
		case "✗", "–":
			return s
		}
		if strings.Contains(s, "`") {
			return "`` " + show.Replace(s) + " ``" // CommonMark takes one blank off each end
		}
		return "`" + show.Replace(s) + "`"
	}
	for _, r := range grammarTable(t) {
		row := "| " + code(r.Text)
		for i, d := range dotenv.Dialects() {
			cell := code(r.Reads[d.String()])
			if i > 0 && r.Reads[d.String()] == r.Reads[dotenv.Python.String()] {
				cell = "same"
			}
			row += " | " + cell
		}
		if row += " |\n"; !strings.Contains(string(page), row) {
			t.Errorf("docs/migrate.md lacks the row %s", row)
		}
	}
}

// sshKey puts a key pair where ssh-keygen does.
func sshKey(t *testing.T, home string) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	pub, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(home, ".ssh")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"id_ed25519": pem.EncodeToMemory(block), "id_ed25519.pub": ssh.MarshalAuthorizedKey(pub)} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
