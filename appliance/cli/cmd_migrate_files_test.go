package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Whatever a file turns out to be that somebody names, a step ends and says which
// one it was.
func TestStepsReadNoFileForEver(t *testing.T) {
	dir := t.TempDir()
	pipe, large, key := filepath.Join(dir, "pipe"), filepath.Join(dir, "large"), filepath.Join(dir, "key")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(large, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(large, 100<<20); err != nil { // all of it a hole
		t.Fatal(err)
	}
	if err := os.WriteFile(key, []byte("AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{
		"plan":                {"migrate", "apply", "--root", dir, "--plan-file", "FILE"},
		"plan again":          {"migrate", "plan", "--root", dir, "--app", "a", "--plan-file", "FILE"},
		"plan of a check":     {"migrate", "check", dir, "--plan-file", "FILE"},
		"plan of a rollback":  {"migrate", "rollback", "--root", dir, "--from-vault", "--plan-file", "FILE"},
		"baseline":            {"migrate", "scan", dir, "--baseline", "FILE"},
		"other store":         {"migrate", "plan", "--root", dir, "--app", "a", "--plan-file", filepath.Join(dir, "p.toml"), "--from", "FILE"},
		"identity":            {"migrate", "rollback", "--root", dir, "--identity", "FILE"},
		"recipient":           {"migrate", "cutover", "--root", dir, "--recipient", "FILE"},
		"mapping":             {"env", "print", "--mapping", "FILE"},
		"mapping of exec":     {"env", "exec", "--mapping", "FILE", "--", "true"},
		"role id":             {"env", "print", "--app", "a", "--env", "e", "--role-id-file", "FILE", "--secret-id-file", "FILE"},
		"token":               {"env", "print", "--app", "a", "--env", "e", "--token-file", "FILE"},
		"export":              {"kv", "import", "FILE", "--identity", key},
		"identity of import":  {"kv", "import", key, "--identity", "FILE"},
		"recipient of export": {"kv", "export", "a", "--recipient", "FILE", "--output", filepath.Join(dir, "x.age")},
	} {
		for what, file := range map[string]string{"no end": "/dev/zero", "nobody writes": pipe, "large": large, "a folder": dir} {
			t.Run(name+", "+what, func(t *testing.T) {
				for _, v := range []string{"VAULT_TOKEN", "VAULT_ADDR", "VAULT_CACERT", "CREDENTIALS_DIRECTORY"} {
					t.Setenv(v, "")
				}
				t.Setenv("HOME", t.TempDir())
				t.Setenv("VAULT_TOKEN", "PLANTED-token")
				var out, errOut bytes.Buffer
				c := New("1.2.3")
				c.SetOut(&out)
				c.SetErr(&out)
				with := make([]string, len(args))
				for i, a := range args {
					with[i] = strings.ReplaceAll(a, "FILE", file)
				}
				c.SetArgs(with)
				if got := Report(&errOut, c.ExecuteContext(t.Context())); got == ExitOK {
					t.Errorf("exit code 0; it said %q", out.String())
				}
				if said := errOut.String(); !strings.Contains(said, file) || len(said) > 600 || strings.Contains(said, "\x00") {
					t.Errorf("it said %d bytes: %.600q", len(said), said)
				}
			})
		}
	}
}
