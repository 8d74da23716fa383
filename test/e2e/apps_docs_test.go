package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"strongroom.example/appliance/cli"
	"strongroom.example/config"
	"strongroom.example/test/vaulttest"
)

// The commands of docs/apps.md, in its order.
func TestAppsPageCommands(t *testing.T) {
	t.Parallel()
	s := newAppSite(t, noDatabaseServer(t))
	s.fakeDatabase(t)
	dir := t.TempDir()
	want := map[string][]int{"apply": {cli.ExitDrift, cli.ExitOK, cli.ExitOK}, "prune": {cli.ExitOK, cli.ExitOK}, "bundle": {cli.ExitOK}, "open": {cli.ExitOK}}
	for _, block := range []string{"apply", "prune", "bundle", "open"} {
		lines := strings.Split(docBlock(t, "apps.md", block), "\n")
		if len(lines) != len(want[block]) {
			t.Fatalf("block %q has %d commands", block, len(lines))
		}
		for i, line := range lines {
			line = strings.ReplaceAll(line, "production.bundle", filepath.Join(dir, "production.bundle"))
			args := strings.Fields(strings.ReplaceAll(line, "vault-login", filepath.Join(dir, "vault-login")))
			if block == "open" {
				mustRun(t, want[block][i], args[1:]...)
				continue
			}
			s.app(t, want[block][i], args[2:]...)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "vault-login", "secret-id")); err != nil {
		t.Error(err)
	}
	access := strings.Split(docBlock(t, "apps.md", "access"), "\n")
	for i, want := range [][]string{
		{"app approle/bike-data-flow-production: read\n    bike-data-flow-production: secret/data/bike-data-flow/production/* (read)", "app approle/dagster: read", "person userpass/alice: create, delete, patch, read, update"},
		{"app approle/dagster\n", "dagster-secrets: secret/data/dagster/* (read)"},
	} {
		out := s.app(t, cli.ExitOK, strings.Fields(access[i])[2:]...)
		for _, part := range want {
			if !strings.Contains(out, part) {
				t.Errorf("%s: no %q in:\n%s", access[i], part, out)
			}
		}
		if strings.Contains(out, "staging:") {
			t.Errorf("%s said:\n%s", access[i], out)
		}
	}
	line := strings.ReplaceAll(docBlock(t, "apps.md", "log-in"), "@vault-login", "@"+filepath.Join(dir, "vault-login"))
	s.startFront(t) // the login is bound to addresses, which a socket has none of
	env := []string{"VAULT_ADDR=" + s.front, "VAULT_CACERT=" + s.Layout.FrontRoot(), "HOME=" + dir}
	if out := vault(t, env, "", strings.Fields(line)[1:]...); !strings.Contains(out, "token_policies") {
		t.Error("the login of the bundle gives no token with policies")
	}
	s.changesPassword(t, env)
	s.renewsLogin(t, dir)
}

// renewsLogin runs what the page has for a login that renews itself, by hand and as
// its unit does.
func (s *appSite) renewsLogin(t *testing.T, dir string) {
	t.Helper()
	login := filepath.Join(dir, "vault-login")
	conf, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	args := strings.Fields(strings.ReplaceAll(docBlock(t, "apps.md", "renew"), "vault-login", login))[1:]
	args = append(args, "--address", s.front, "--ca-cert", s.Layout.FrontRoot())
	if out := mustRun(t, cli.ExitOperator, args...); !strings.Contains(out, "renew = true") {
		t.Errorf("a login that may not renew itself:\n%s", out)
	}
	s.write(t, replaceAll(t, string(conf), map[string]string{"[app.login]\n": "[app.login]\nrenew = true\n"}))
	s.applied(t)
	if out := mustRun(t, cli.ExitOK, args...); !strings.Contains(out, "bike-data-flow-production: not due yet, works until 20") {
		t.Errorf("it said:\n%s", out)
	}
	before := readTrimmed(t, filepath.Join(login, "secret-id"))
	_, start, ok := strings.Cut(docBlock(t, "apps.md", "renew-unit"), "ExecStart=/usr/local/bin/strongroom ")
	if !ok {
		t.Fatal("the unit starts something else")
	}
	unit := append(strings.Fields(strings.ReplaceAll(start, "/etc/bike-data-flow/vault", login)), "--address", s.front, "--ca-cert", s.Layout.FrontRoot(), "--force")
	if out := mustRun(t, cli.ExitOK, unit...); !strings.Contains(out, "bike-data-flow-production: renewed, works until 20") {
		t.Errorf("it said:\n%s", out)
	}
	if readTrimmed(t, filepath.Join(login, "secret-id")) == before {
		t.Error("the folder holds the old login")
	}
	if out := s.app(t, cli.ExitOK, "show", "--app", "bike-data-flow", "--env", "production"); !strings.Contains(out, "secret ids: 1, until 20") {
		t.Errorf("show said:\n%s", out)
	}
}

// changesPassword has somebody type another password, as the page says, and log
// in with it.
func (s *appSite) changesPassword(t *testing.T, env []string) {
	t.Helper()
	const typed = "canary-typed-password"
	token := strings.TrimSpace(vault(t, append(env, "VAULT_TOKEN="+s.RootToken), "", "token", "create", "-field=token", "-policy="+config.PolicyAdmin))
	env = append(env, "VAULT_TOKEN="+token)
	vault(t, env, "first", "write", "auth/userpass/users/anna", "password=-")
	cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", strings.ReplaceAll(docBlock(t, "apps.md", "password"), "NAME", "anna"))
	cmd.Env = append(env, "PATH="+filepath.Dir(vaulttest.Bin(t, "vault"))+":"+os.Getenv("PATH"))
	cmd.Stdin = strings.NewReader(typed + "\n")
	if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), typed) {
		t.Fatalf("the password is not changed, or shown: %v\n%s", err, strings.ReplaceAll(string(out), typed, "***"))
	}
	if out := vault(t, env, typed, "write", "auth/userpass/login/anna", "password=-"); !strings.Contains(out, "token_policies") {
		t.Error("nobody gets in with the password that was typed")
	}
}

// 200 apps that are as they should be: the goal is to look at them in less than
// five seconds, on a machine with nothing else to do.
func TestTwoHundredAppsUnchanged(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("manifest = \"many\"\n")
	apps, environments := 200, []string{"production", "staging"}
	if os.Getenv("STRONGROOM_SOAK") == "1" {
		apps, environments = 3000, environments[:1]
	}
	for i := range apps {
		fmt.Fprintf(&b, "[[app]]\nname = \"app-%03d\"\n", i)
		for _, env := range environments {
			fmt.Fprintf(&b, "[[app.environment]]\nname = %q\nsecrets = [\"database-url\", \"api-keys/provider-a\", \"api-keys/provider-b\"]\n", env)
		}
	}
	s := newAppSite(t, b.String())
	start := time.Now()
	s.app(t, cli.ExitOK, "apply")
	t.Logf("%d apps made: %v", apps, time.Since(start).Round(time.Millisecond))
	start = time.Now()
	out := s.app(t, cli.ExitOK, "apply")
	took := time.Since(start)
	t.Logf("%d apps, %d environments unchanged: %v", apps, apps*len(environments), took.Round(time.Millisecond))
	if took > 5*time.Minute {
		t.Errorf("%d apps unchanged took %v", apps, took)
	}
	if !strings.Contains(out, "0 to create, 0 to change") {
		t.Errorf("it said:\n%.2000s", out)
	}
}
