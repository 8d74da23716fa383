package cli

import (
	"bytes"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// What is wrong with a command line or a tree is said before Vault is asked.
func TestMigrateEnvKVUsage(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"bad.toml": "format = 1\ncolour = 2\n", ".env": "A='s3cret-x\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// A tree that has a plan, and a folder of it in which somebody stands.
	tree := t.TempDir()
	below := filepath.Join(tree, "api")
	for name, text := range map[string]string{
		"strongroom-migrate.toml": "format = 1\napp = \"a\"\ndialect = \"python\"\n", "api/.env": "DB_PASSWORD=s3cret-x\n",
		"dollar/.env": "DB_PASSWORD='x$${s3cret}'\n", "id.pub": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMxFzT9qIVhqIX7Lt8hjVc2DXrFVCjM5qNpjK4zqhQx6 a@b\n",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(tree, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(tree, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name string
		args []string
		want int
		says string
	}{
		{"a step below the plan", []string{"migrate", "apply", "--root", below}, ExitUsage, "a plan is in " + strconv.Quote(tree)},
		{"a plan without app below the plan", []string{"migrate", "plan", "--root", below}, ExitUsage, "a plan is in " + strconv.Quote(tree)},
		{"a second plan below the plan", []string{"migrate", "plan", "--app", "b", "--root", below}, ExitOK, "a plan is in " + strconv.Quote(tree)},
		{"a rollback below the plan", []string{"migrate", "rollback", "--root", filepath.Join(tree, "dollar")}, ExitOK, "a plan is in " + strconv.Quote(tree)},
		{"a rollback elsewhere", []string{"migrate", "rollback", "--root", dir}, ExitOK, "nothing to take back in " + strconv.Quote(dir)},
		{"rollback by the public key", []string{"migrate", "rollback", "--root", dir, "--identity", tree + "/id.pub"}, ExitOperator, "the private key"},
		{"a part from outside", []string{"migrate", "plan", "--app", "c", "--root", filepath.Join(tree, "dollar")}, ExitDrift, "1 variable of the plan cannot be moved"},
		{"a part from outside as JSON", []string{"migrate", "scan", "--json", "--root", filepath.Join(tree, "dollar")}, ExitOK, "•••"},
		{"unknown dialect", []string{"migrate", "scan", "--dialect", "ruby"}, ExitUsage, `"ruby"`},
		{"bad env-file", []string{"migrate", "scan", "--env-file", "x"}, ExitUsage, `"x"`},
		{"a tree named twice", []string{"migrate", "scan", dir, "--root", dir}, ExitUsage, "as the argument"},
		{"no tree", []string{"migrate", "scan", dir + "/none"}, ExitFailed, "none"},
		{"malformed", []string{"migrate", "scan", "--root", dir}, ExitDrift, "1 fault in .env files"},
		{"plan without app", []string{"migrate", "plan", "--root", dir}, ExitUsage, "--app"},
		{"plan of a malformed tree", []string{"migrate", "plan", "--root", dir, "--app", "a"}, ExitDrift, "no plan was written"},
		{"no plan", []string{"migrate", "apply", "--root", dir}, ExitUsage, "strongroom migrate plan"},
		{"bad plan", []string{"migrate", "apply", "--root", dir, "--plan-file", dir + "/bad.toml"}, ExitUsage, "bad.toml:2: colour: unknown key"},
		{"cutover without recipient", []string{"migrate", "cutover", "--root", dir}, ExitUsage, "--recipient"},
		{"cutover to a secret key", []string{"migrate", "cutover", "--root", dir, "--recipient", "AGE-SECRET-KEY-1X"}, ExitUsage, "secret key"},
		{"env of two kinds", []string{"env", "print", "--mapping", "m", "--app", "a"}, ExitUsage, "one or the other"},
		{"env of nothing", []string{"env", "print"}, ExitUsage, "--app and --env"},
		{"format", []string{"env", "print", "--format", "xml"}, ExitUsage, `"xml"`},
		{"exec of nothing", []string{"env", "exec"}, ExitUsage, "at least 1 arg"},
		{"not logged in", []string{"env", "print", "--app", "a", "--env", "e"}, ExitOperator, "not logged in"},
		{"export of nothing", []string{"kv", "export"}, ExitUsage, "--all"},
		{"export outside", []string{"kv", "export", "a/../b"}, ExitUsage, `"a/../b"`},
		{"export to nobody", []string{"kv", "export", "a"}, ExitUsage, "--recipient and --output"},
		{"import without identity", []string{"kv", "import", "f"}, ExitUsage, "--identity"},
		{"rollback to nothing", []string{"kv", "rollback", "a"}, ExitUsage, "--to-version"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, v := range []string{"VAULT_TOKEN", "VAULT_ADDR", "VAULT_CACERT", "CREDENTIALS_DIRECTORY"} {
				t.Setenv(v, "")
			}
			t.Setenv("HOME", t.TempDir())
			c := New("1.2.3")
			var out, errOut bytes.Buffer
			c.SetOut(&out)
			c.SetErr(&out)
			c.SetArgs(tt.args)
			if got := Report(&errOut, c.ExecuteContext(t.Context())); got != tt.want {
				t.Errorf("exit code %d, want %d; it said %q", got, tt.want, errOut.String())
			}
			if said := errOut.String() + out.String(); !strings.Contains(said, tt.says) {
				t.Errorf("said %q, want %q in it", said, tt.says)
			}
			if strings.Contains(out.String()+errOut.String(), "s3cret") {
				t.Error("a value shows")
			}
		})
	}
}

// Another's tree is a person's matter, and a socket of Vault's is not the tree.
func TestMigrateErrorOfPermission(t *testing.T) {
	for want, err := range map[string]error{
		"the user whose tree it is": fmt.Errorf("lock: %w", &fs.PathError{Op: "open", Path: "lock", Err: fs.ErrPermission}),
		"VAULT_ADDR":                fmt.Errorf("read: %w", &net.OpError{Op: "dial", Net: "unix", Err: os.NewSyscallError("connect", syscall.EACCES)}),
	} {
		var said bytes.Buffer
		Report(&said, migrateError(err))
		if !strings.Contains(said.String(), want) {
			t.Errorf("said %q, want %q in it", said.String(), want)
		}
	}
}
