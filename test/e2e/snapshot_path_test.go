package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"

	"strongroom.example/appliance/cli"
	"strongroom.example/test/vaulttest"
)

// restorePath runs the built program: what it starts cut off is itself.
func (b backupSite) restorePath(t *testing.T, s *vaulttest.Server, token string, want int, args ...string) string {
	t.Helper()
	p := vaulttest.Programs(t)
	cmd := exec.Command(p.Strongroom, append([]string{"restore", "--config", b.config, "--address", vaultAddr(s),
		"--token-file", tokenFile(t, b, token), "--identity", b.identity, "--work-dir", b.dir,
		"--vault", p.Vault, "--key-file", "-", "--yes"}, args...)...)
	key, err := s.Keyset.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdin = bytes.NewReader(key)
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + t.TempDir()}
	out, err := cmd.CombinedOutput()
	if code := cmd.ProcessState.ExitCode(); code != want {
		t.Fatalf("restore %q: exit code %d, want %d (%v):\n%s", args, code, want, err, out)
	}
	if strings.Contains(string(out), "top-secret") {
		t.Errorf("it shows a secret:\n%s", out)
	}
	return string(out)
}

// Single secrets come back as new versions; all else stays, and the Vault that
// the snapshot is brought up in reaches neither a network nor the audit log.
func TestSnapshotRestorePath(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("cutting a Vault off from the network needs root")
	}
	s := vaulttest.New(t)
	ctx := t.Context()
	if err := s.Root.EnableKV2(ctx, "secret"); err != nil {
		t.Fatal(err)
	}
	audit := s.Layout.Audit("audit-1")
	auditDir := filepath.Dir(audit)
	if err := s.EnableAudit(ctx, s.Root); err != nil {
		t.Fatal(err)
	}
	user(t, s)
	b := newSite(t, s, "")
	putSecret(t, s.Root, "app/prod/one", "top-secret-1")
	putSecret(t, s.Root, "app/prod/two", "top-secret-2")
	putSecret(t, s.Root, "app/other", "top-secret-3")
	b.take(t, s, cli.ExitOK)
	b.verify(t, cli.ExitOK)

	putSecret(t, s.Root, "app/prod/one", "broken")
	putSecret(t, s.Root, "app/other", "newer")
	kv := vaulttest.API(s.Root).KVv2("secret")
	if err := kv.DeleteMetadata(ctx, "app/prod/two"); err != nil {
		t.Fatal(err)
	}

	out := b.restorePath(t, s, s.RootToken, cli.ExitOK, "--path", "secret/app/prod/one", "--dry-run")
	if !strings.Contains(out, "reaches no network") || secret(t, s.Root, "app/prod/one") != "broken" {
		t.Errorf("a plan:\n%s", out)
	}
	out = b.restorePath(t, s, s.RootToken, cli.ExitOK, "--path", "secret/app/prod/one")
	if !strings.Contains(out, "secret/app/prod/one: version 1 of the snapshot is now version 3") {
		t.Errorf("it said:\n%s", out)
	}
	want := func(path, value string) {
		t.Helper()
		if got := secret(t, s.Root, path); got != value {
			t.Errorf("%s is %q, want %q", path, got, value)
		}
	}
	want("app/prod/one", "top-secret-1")
	want("app/prod/two", "")
	want("app/other", "newer")
	// The version before is still there.
	if v, err := kv.GetVersion(ctx, "app/prod/one", 2); err != nil || v.Data["value"] != "broken" {
		t.Errorf("version 2: %v, %v", v, err)
	}

	// A folder, with what is gone; as a user of then, with a token of now.
	young, err := vaulttest.API(s.Root).Auth().Token().CreateWithContext(ctx, &api.TokenCreateRequest{Policies: []string{"app"}})
	if err != nil {
		t.Fatal(err)
	}
	out = b.restorePath(t, s, young.Auth.ClientToken, cli.ExitOperator, "--path", "secret/app/prod/")
	if !strings.Contains(out, "--username") {
		t.Errorf("it said:\n%s", out)
	}
	password := filepath.Join(b.dir, "password")
	if err := os.WriteFile(password, []byte("correct horse\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out = b.restorePath(t, s, young.Auth.ClientToken, cli.ExitOK, "--path", "secret/app/prod/", "--username", "anna", "--password-file", password, "--hide", auditDir)
	if !strings.Contains(out, "secret/app/prod/one: the same already") {
		t.Errorf("it said:\n%s", out)
	}
	want("app/prod/two", "top-secret-2")
	want("app/other", "newer")

	out = b.restorePath(t, s, s.RootToken, cli.ExitDrift, "--path", "secret/app/never")
	if !strings.Contains(out, "no such secret") {
		t.Errorf("it said:\n%s", out)
	}
	noForeignAudit(t, audit)
	if left, err := filepath.Glob(filepath.Join(b.dir, "strongroom-restore-*")); err != nil || len(left) > 0 {
		t.Errorf("left %q, %v", left, err)
	}
}

// user makes a user who may read and write secret/app.
func user(t *testing.T, s *vaulttest.Server) {
	t.Helper()
	ctx, v := t.Context(), vaulttest.API(s.Root)
	policy := `path "secret/*" { capabilities = ["read", "list", "create", "update"] }`
	if err := v.Sys().PutPolicyWithContext(ctx, "app", policy); err != nil {
		t.Fatal(err)
	}
	if err := v.Sys().EnableAuthWithOptionsWithContext(ctx, "userpass", &api.EnableAuthOptions{Type: "userpass"}); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Logical().WriteWithContext(ctx, "auth/userpass/users/anna", map[string]any{"password": "correct horse", "token_policies": "app"}); err != nil {
		t.Fatal(err)
	}
}

// noForeignAudit sees that only the live Vault wrote to its log: in the other
// one the user has logged in.
func noForeignAudit(t *testing.T, audit string) {
	t.Helper()
	log, err := os.ReadFile(audit)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(log, []byte(`"path":"secret/data/app/prod/one"`)) {
		t.Error("the live Vault wrote no audit log")
	}
	if bytes.Contains(log, []byte(`"path":"auth/userpass/login/anna"`)) {
		t.Error("the Vault of the snapshot wrote to the live audit log")
	}
}
