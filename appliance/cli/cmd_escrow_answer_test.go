package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"strongroom.example/appliance/serve/escrow"
)

// Each part of the escrow may be kept in another place: what is not here does not
// keep the rest from being answered.
func TestEscrowAnswerPassesOver(t *testing.T) {
	mine, others := newIdentity(t), newIdentity(t)
	dir := t.TempDir()
	key := filepath.Join(dir, "key.txt")
	if err := os.WriteFile(key, []byte(mine.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, to := range map[string]*age.X25519Identity{"admin.age": mine, "recovery-keys-2.age": others} {
		sealed, err := escrow.Seal([]byte("PLANTED-content"), to.Recipient())
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), sealed, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	nonce := strings.Repeat("0f", 16)
	answer := escrow.Answer(nonce, []byte("PLANTED-content"))
	for _, c := range []struct {
		name  string
		files []string
		code  int
		says  []string
		not   string
	}{
		{"one elsewhere", []string{"master-key.age", "admin.age"}, ExitOK, []string{answer + "  admin.age\n", "passed over: open", "master-key.age"}, "→"},
		{"one elsewhere, one another's", []string{"recovery-keys-2.age", "master-key.age", "admin.age"}, ExitOK, []string{answer, "passed over: recovery-keys-2.age", "master-key.age"}, "→"},
		{"none here", []string{"master-key.age"}, ExitOperator, []string{"no such file", "--escrow"}, answer},
		{"none of mine here", []string{"master-key.age", "recovery-keys-2.age"}, ExitOperator, []string{"private key of one of the escrow's recipients"}, answer},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := []string{"escrow", "answer", "--escrow", dir, "--identity", key}
			for _, f := range c.files {
				args = append(args, f+":"+nonce)
			}
			code, out := runDrillCLI(t, args...)
			if code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			for _, want := range c.says {
				if !strings.Contains(out, want) {
					t.Errorf("no %q in:\n%s", want, out)
				}
			}
			if strings.Contains(out, c.not) || strings.Contains(out, "PLANTED") {
				t.Errorf("it says too much:\n%s", out)
			}
		})
	}
}

func newIdentity(t *testing.T) *age.X25519Identity {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return id
}
