package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"strongroom.example/appliance/base/statefile"
	"strongroom.example/appliance/watch/audit"
	"strongroom.example/appliance/watch/doctor"
	"strongroom.example/config"
	"strongroom.example/config/machine"
	"strongroom.example/test/vaulttest"
)

// TestDoctorAsksVault looks at a real Vault with the doctor's own policy: it must
// be able to read all that the items about Vault want, find what is wrong, and
// pass them when it has been put right. The machine's items are tested on a
// machine.
func TestDoctorAsksVault(t *testing.T) {
	t.Setenv("VAULT_TOKEN", "")
	s := vaulttest.New(t)
	s.MountAPIKeys(t)
	sys, auth := vaulttest.API(s.Root).Sys(), vaulttest.API(s.Root).Auth().Token()
	for _, method := range []string{"approle", "userpass"} {
		if err := sys.EnableAuthWithOptionsWithContext(t.Context(), method, &api.EnableAuthOptions{Type: method}); err != nil {
			t.Fatal(err)
		}
	}
	if err := sys.PutPolicyWithContext(t.Context(), config.PolicyDoctor, config.Policies()[config.PolicyDoctor]); err != nil {
		t.Fatal(err)
	}
	token := func() string {
		made, err := auth.CreateOrphanWithContext(t.Context(), &api.TokenCreateRequest{Policies: []string{config.PolicyDoctor}, TTL: "10m", NoDefaultPolicy: true})
		if err != nil {
			t.Fatal(err)
		}
		return made.Auth.ClientToken
	}()
	// Each AppRole that has logged in has an entity.
	if _, err := vaulttest.API(s.Root).Logical().WriteWithContext(t.Context(), "identity/entity", map[string]any{"name": "an-approle"}); err != nil {
		t.Fatal(err)
	}
	args := statusArgs(t, s, "doctor", "--json", "--no-save", "--token-file", lookToken(t, token))
	watchLogs(t, args)
	examine := func() doctor.Report {
		t.Helper()
		code, out := strongroom(t.Context(), args...)
		// The report, and behind it what the exit code says in words.
		var r doctor.Report
		if err := json.NewDecoder(strings.NewReader(out)).Decode(&r); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if code != 3 || !r.Failed() { // this is no appliance's machine
			t.Errorf("exit code %d:\n%s", code, out)
		}
		if strings.Contains(out, token) || strings.Contains(out, s.RootToken) {
			t.Error("the report quotes a token")
		}
		return r
	}
	write := func(path string, data map[string]any) {
		t.Helper()
		if _, err := vaulttest.API(s.Root).Logical().WriteWithContext(t.Context(), path, data); err != nil {
			t.Fatal(err)
		}
	}
	want := func(r doctor.Report, id, verdict, says string) {
		t.Helper()
		i, _ := r.Item(id)
		all := ""
		for _, reason := range i.Reasons {
			// What needs root's rights or the installed files isn't about Vault.
			if reason.Verdict == "skip" && !strings.Contains(reason.Text, "vault ") {
				continue
			}
			all += reason.Text + "\n"
		}
		switch {
		case verdict == "fail" && (i.Verdict != "fail" || !strings.Contains(all, says)):
			t.Errorf("%s is %s, want %q in:\n%s", id, i.Verdict, says, all)
		case verdict == "pass" && (all != "" || len(i.Evidence) == 0):
			t.Errorf("%s is %s, %d pieces of evidence:\n%s", id, i.Verdict, len(i.Evidence), all)
		}
	}

	write("auth/approle/role/careless", map[string]any{"token_period": "720h"})
	write("sys/auth/userpass/tune", map[string]any{"user_lockout_config": map[string]any{"lockout_disable": true}})
	r := examine()
	want(r, "root-token", "fail", "a root token is alive")
	want(r, "audit-devices", "fail", "0 audit devices")
	want(r, "token-ttl", "fail", "AppRole careless")
	if i, _ := r.Item("tokens"); i.Verdict != "warn" || !strings.Contains(i.Reasons[0].Text, "never ends: root") {
		t.Errorf("tokens: %+v", i)
	}
	if i, _ := r.Item("vault-version"); i.Verdict != "fail" {
		t.Errorf("vault-version: %+v", i)
	}
	if i, _ := r.Item("user-lockout"); i.Verdict == "pass" {
		t.Errorf("user-lockout: %+v", i)
	}

	if err := s.EnableAudit(t.Context(), s.Root); err != nil {
		t.Fatal(err)
	}
	write("auth/approle/role/careless", map[string]any{"token_period": "0", "token_max_ttl": "4h"})
	// From here on nobody is root.
	if err := auth.RevokeSelfWithContext(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	r = examine()
	for _, id := range []string{"root-token", "audit-devices", "token-ttl", "tokens", "plugin-pinned"} {
		want(r, id, "pass", "")
	}
	if i, _ := r.Item("plugin-pinned"); !slices.ContainsFunc(i.Evidence, func(e doctor.Evidence) bool { return strings.Contains(e.Saw, `pinned version "v`+s.Version+`"`) }) {
		t.Errorf("plugin-pinned: %+v", i.Evidence)
	}
}

// watchLogs leaves what the look of every minute at the audit logs has, in --states.
func watchLogs(t *testing.T, args []string) {
	t.Helper()
	states := args[slices.Index(args, "--states")+1]
	dir := filepath.Join(states, filepath.Base(machine.AuditWatchState))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	if err := statefile.Save(filepath.Join(dir, "ledger.json"), audit.Ledger{Format: 1, Begun: now, At: now}, 0o600); err != nil {
		t.Fatal(err)
	}
}

// A Vault that is down or hangs leaves an examination that says so, in time.
func TestDoctorWithoutVault(t *testing.T) {
	t.Setenv("VAULT_TOKEN", "")
	t.Setenv("HOME", t.TempDir())
	s := vaulttest.New(t)
	args := statusArgs(t, s, "doctor", "--json", "--no-save", "--token-file", lookToken(t, s.RootToken))
	watchLogs(t, args)
	s.Process.Kill()
	if err := s.Set.Close(); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	_, out := strongroom(t.Context(), args...)
	var r doctor.Report
	if err := json.NewDecoder(strings.NewReader(out)).Decode(&r); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, id := range []string{"audit-devices", "plugin-pinned", "token-ttl", "vault-version"} {
		if i, _ := r.Item(id); i.Verdict != "skip" {
			t.Errorf("%s: %+v", id, i)
		}
	}
	took := time.Since(start)
	t.Logf("took %v", took.Round(time.Millisecond))
	if took > 4*time.Minute { // its own limit is five
		t.Errorf("took %v", took)
	}
	for name, bad := range map[string][]string{"--yes alone": {"--yes"}, "--fix as JSON": {"--fix", "--json"}, "surplus": {"now"}} {
		if code, out := strongroom(t.Context(), append([]string{"doctor"}, bad...)...); code != 2 {
			t.Errorf("%s: exit code %d:\n%s", name, code, out)
		}
	}
}
