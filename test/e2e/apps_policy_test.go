package e2e

import (
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/appliance/cli"
	"strongroom.example/config"
	"strongroom.example/test/vaulttest"
)

// identities of the example, in the columns' order of matrix.
var identities = []string{"production", "staging", "dagster", "bikes' owner", "dagster's owner", "operator", "reader"}

// rights are written in short: r(ead), l(ist), c(reate), u(pdate), p(atch),
// d(elete), s(udo); "-" is none.
var matrix = []struct {
	path   string
	rights []string
}{
	// Secrets of an environment are its login's, those it was granted to, and the owner's.
	{"secret/data/bike-data-flow/production/database-url", []string{"r", "-", "r", "crupd", "-", "-", "-"}},
	{"secret/data/bike-data-flow/production/api-keys/provider-a", []string{"r", "-", "r", "crupd", "-", "-", "-"}},
	{"secret/data/bike-data-flow/staging/database-url", []string{"-", "r", "r", "crupd", "-", "-", "-"}},
	{"secret/data/dagster/anything", []string{"-", "-", "r", "-", "crupd", "-", "-"}},
	// Neighbours by name.
	{"secret/data/bike-data-flow/production2/x", []string{"-", "-", "-", "crupd", "-", "-", "-"}},
	{"secret/data/bike-data-flow/production", []string{"-", "-", "-", "crupd", "-", "-", "-"}},
	{"secret/data/bike-data-flow2/production/x", []string{"-", "-", "-", "-", "-", "-", "-"}},
	{"secret/data/dagster2/x", []string{"-", "-", "-", "-", "-", "-", "-"}},
	{"secret/data/other/production/x", []string{"-", "-", "-", "-", "-", "-", "-"}},
	{"secret/data/strongroom/canary", []string{"-", "-", "-", "-", "-", "-", "-"}},
	{"secret/data/strongroom/manifests/data-team", []string{"-", "-", "-", "r", "r", "r", "r"}},
	{"secret/metadata/bike-data-flow/production/database-url", []string{"rl", "-", "rl", "crupdl", "-", "rl", "rl"}},
	{"secret/metadata/bike-data-flow/staging/database-url", []string{"-", "rl", "rl", "crupdl", "-", "rl", "rl"}},
	{"secret/metadata/dagster/x", []string{"-", "-", "rl", "-", "crupdl", "rl", "rl"}},
	{"secret/metadata/other/x", []string{"-", "-", "-", "-", "-", "rl", "rl"}},
	{"secret/destroy/bike-data-flow/production/x", []string{"-", "-", "-", "u", "-", "-", "-"}},
	{"secret/destroy/dagster/x", []string{"-", "-", "-", "-", "u", "-", "-"}},
	// API keys.
	{"apikeys/creds/bike-data-flow/production/provider-a", []string{"r", "-", "r", "r", "-", "-", "-"}},
	{"apikeys/creds/bike-data-flow/staging/x", []string{"-", "r", "r", "r", "-", "-", "-"}},
	{"apikeys/keys/bike-data-flow/production/provider-a", []string{"-", "-", "-", "rl", "-", "rl", "rl"}},
	{"apikeys/rotate/bike-data-flow/production/provider-a", []string{"-", "-", "-", "cu", "-", "cu", "-"}},
	{"apikeys/check/bike-data-flow/production/provider-a", []string{"-", "-", "-", "ru", "-", "ru", "-"}},
	{"apikeys/import/bike-data-flow/production/provider-a", []string{"-", "-", "-", "cu", "-", "-", "-"}},
	{"apikeys/providers/provider-a", []string{"-", "-", "-", "-", "-", "rl", "-"}},
	{"apikeys/status", []string{"-", "-", "-", "-", "-", "r", "r"}},
	// Databases.
	{"database/creds/bike-data-flow-production-rw", []string{"r", "-", "-", "r", "-", "-", "-"}},
	{"database/creds/bike-data-flow-production-ro", []string{"r", "-", "-", "r", "-", "-", "-"}},
	{"database/creds/bike-data-flow-staging-owner", []string{"-", "r", "-", "r", "-", "-", "-"}},
	{"database/creds/other", []string{"-", "-", "-", "-", "-", "-", "-"}},
	{"database/roles/bike-data-flow-production-rw", []string{"-", "-", "-", "r", "-", "rl", "rl"}},
	{"database/config/bikes", []string{"-", "-", "-", "r", "-", "rl", "rl"}},
	{"database/rotate-root/bikes", []string{"-", "-", "-", "-", "-", "u", "-"}},
	{"sys/leases/revoke/database/creds/bike-data-flow-production-rw/x", []string{"u", "-", "-", "u", "-", "-", "-"}},
	{"sys/leases/revoke-prefix/database/creds/bike-data-flow-production-rw", []string{"-", "-", "-", "-", "-", "-", "-"}},
	// What decides over rights is nobody's but the admin's.
	{"sys/policies/acl/bike-data-flow-production", []string{"-", "-", "-", "r", "-", "r", "r"}},
	{"sys/policies/acl/dagster-secrets", []string{"-", "-", "-", "-", "r", "r", "r"}},
	{"sys/policies/acl/strongroom-admin", []string{"-", "-", "-", "-", "-", "r", "r"}},
	{"auth/approle/role/bike-data-flow-production", []string{"-", "-", "-", "r", "-", "r", "r"}},
	{"auth/approle/role/bike-data-flow-production/role-id", []string{"-", "-", "-", "r", "-", "-", "-"}},
	{"auth/approle/role/bike-data-flow-production/secret-id", []string{"-", "-", "-", "u", "-", "-", "-"}},
	{"auth/approle/role/dagster/secret-id", []string{"-", "-", "-", "-", "u", "-", "-"}},
	{"auth/approle/role/dagster/custom-secret-id", []string{"-", "-", "-", "-", "-", "-", "-"}},
	{"auth/approle/role/strongroom-snapshot/secret-id", []string{"-", "-", "-", "-", "-", "-", "-"}},
	{"auth/userpass/users/alice", []string{"-", "-", "-", "-", "-", "r", "r"}},
	{"auth/ldap/config", []string{"-", "-", "-", "-", "-", "r", "r"}},
	{"sys/mounts/auth/approle/tune", []string{"-", "-", "-", "r", "r", "r", "r"}},
	{"auth/userpass/users/alice/password", []string{"-", "-", "-", "-", "-", "-", "-"}},
	{"auth/token/create", []string{"-", "-", "-", "-", "-", "-", "-"}},
	{"auth/token/create-orphan", []string{"-", "-", "-", "-", "-", "-", "-"}},
	{"sys/mounts", []string{"-", "-", "-", "r", "r", "r", "r"}},
	{"sys/mounts/x", []string{"-", "-", "-", "-", "-", "-", "-"}},
	{"sys/auth/x", []string{"-", "-", "-", "-", "-", "-", "-"}},
	{"sys/audit", []string{"-", "-", "-", "-", "-", "rs", "rs"}},
	{"sys/audit/x", []string{"-", "-", "-", "-", "-", "-", "-"}},
	{"sys/storage/raft/snapshot", []string{"-", "-", "-", "-", "-", "-", "-"}},
	{"sys/seal", []string{"-", "-", "-", "-", "-", "-", "-"}},
	{"sys/generate-root/attempt", []string{"-", "-", "-", "-", "-", "-", "-"}},
	{"sys/raw/core/keyring", []string{"-", "-", "-", "-", "-", "-", "-"}},
	{"identity/entity", []string{"-", "-", "-", "-", "-", "-", "-"}},
}

var rightNames = map[rune]string{'r': "read", 'l': "list", 'c': "create", 'u': "update", 'p': "patch", 'd': "delete", 's': "sudo"}

// login logs in by an AppRole whose login bundle is opened, and gives a token.
func (s *appSite) login(t *testing.T, app, env string) string {
	t.Helper()
	file, dir := t.TempDir()+"/bundle", t.TempDir()
	s.app(t, cli.ExitOK, "login-bundle", "--app", app, "--env", env, "--output", file)
	mustRun(t, cli.ExitOK, "app", "open-bundle", file, "--output", dir)
	roleID, secretID := readTrimmed(t, dir+"/role-id"), readTrimmed(t, dir+"/secret-id")
	c := s.frontClient(t)
	if err := c.LoginAppRole(t.Context(), roleID, secretID); err != nil {
		t.Fatal(err)
	}
	return c.Token()
}

func readTrimmed(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

// Each identity × each path × each capability, as Vault itself sees it; and
// then as requests.
func TestAppPolicies(t *testing.T) {
	t.Parallel()
	s := newAppSite(t, noDatabaseServer(t))
	s.fakeDatabase(t)
	s.applied(t)
	tokens := map[string]string{
		"production": s.login(t, "bike-data-flow", "production"), "staging": s.login(t, "bike-data-flow", "staging"), "dagster": s.login(t, "dagster", ""),
	}
	for who, policy := range map[string]string{
		"bikes' owner": config.OwnerPolicy("bike-data-flow"), "dagster's owner": config.OwnerPolicy("dagster"),
		"operator": config.PolicyOperator, "reader": config.PolicyReader,
	} {
		tokens[who] = readTrimmed(t, s.token(t, strings.ReplaceAll(who, " ", "-"), policy))
	}
	for i, who := range identities {
		t.Run(who, func(t *testing.T) {
			for _, m := range matrix {
				want := capabilities(m.rights[i])
				got, err := vaulttest.API(s.Root).Sys().CapabilitiesWithContext(t.Context(), tokens[who], m.path)
				if err != nil {
					t.Fatal(err)
				}
				slices.Sort(got)
				if !slices.Equal(got, want) {
					t.Errorf("%s: may %q, want %q", m.path, got, want)
				}
				s.asks(t, tokens[who], m.path, want)
			}
		})
	}
	t.Run("the default policy gives nothing beside", func(t *testing.T) {
		got, err := vaulttest.API(s.Root).Sys().CapabilitiesWithContext(t.Context(), tokens["dagster"], "auth/token/renew-self")
		if err != nil || !slices.Equal(got, []string{"update"}) {
			t.Errorf("renew-self: %q, %v", got, err)
		}
	})
	t.Run("requests beyond capabilities", func(t *testing.T) { beyondCapabilities(t, s, tokens) })
	t.Run("token and secret id as the example says", func(t *testing.T) { loginLimits(t, s, tokens["dagster"]) })
	t.Run("an administrator is not root", func(t *testing.T) { adminIsNotRoot(t, s) })
}

func capabilities(rights string) []string {
	var out []string
	for _, r := range rights {
		if name, ok := rightNames[r]; ok {
			out = append(out, name)
		}
	}
	if out == nil {
		out = []string{"deny"}
	}
	slices.Sort(out)
	return out
}

// asks reads and lists, and sees that Vault refuses what it said it would.
func (s *appSite) asks(t *testing.T, token, path string, want []string) {
	t.Helper()
	v := s.frontClient(t)
	v.SetToken(token)
	if slices.Contains(want, "sudo") || strings.HasPrefix(path, "database/creds/") {
		return
	}
	_, err := v.Read(t.Context(), path)
	if got := vaultapi.IsDenied(err); got == slices.Contains(want, "read") {
		t.Errorf("read %s: refused=%t, capabilities %q: %v", path, got, want, err)
	}
	_, err = v.List(t.Context(), path)
	if got := vaultapi.IsDenied(err); got == slices.Contains(want, "list") && !strings.HasSuffix(path, "/secret-id") {
		t.Errorf("list %s: refused=%t, capabilities %q: %v", path, got, want, err)
	}
}

// beyondCapabilities is what parameters and wrapping decide.
func beyondCapabilities(t *testing.T, s *appSite, tokens map[string]string) {
	v := s.frontClient(t)
	update := func(who, path string, data map[string]any) error {
		v.SetToken(tokens[who])
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			_, err := v.Write(t.Context(), path, data)
			if vaultapi.Status(err) != http.StatusTooManyRequests { // the front's limit on logins
				return err
			}
			<-tick.C
		}
	}
	// Leases: one's own roles', by name, and nobody else's.
	for lease, allowed := range map[string]bool{
		"database/creds/bike-data-flow-production-rw/x": true,
		"database/creds/bike-data-flow-staging-owner/x": false,
		"database/creds/bike-data-flow-production-rwx":  false,
		"auth/userpass/login/alice/x":                   false,
	} {
		if err := update("production", "sys/leases/revoke", map[string]any{"lease_id": lease}); vaultapi.IsDenied(err) == allowed {
			t.Errorf("revoke %s: %v, allowed=%t", lease, err, allowed)
		}
	}
	if err := update("production", "sys/leases/revoke", map[string]any{"lease_id": "database/creds/bike-data-flow-production-rw/x", "prefix": "true"}); !vaultapi.IsDenied(err) {
		t.Errorf("revoke with another parameter: %v", err)
	}
	// Secret ids: only wrapped.
	if err := update("dagster's owner", "auth/approle/role/dagster/secret-id", nil); !vaultapi.IsDenied(err) {
		t.Errorf("a secret id that is not wrapped: %v", err)
	}
	owner := s.token(t, "dagster-owner", config.OwnerPolicy("dagster"))
	s.appAs(t, cli.ExitOK, owner, "login-bundle", "--app", "dagster", "--output", t.TempDir()+"/b")
	if out := s.appAs(t, cli.ExitOperator, owner, "login-bundle", "--app", "bike-data-flow", "--env", "staging", "--output", t.TempDir()+"/b"); !strings.Contains(out, "permission denied") {
		t.Errorf("it said:\n%s", out)
	}
	bikes := s.token(t, "bikes-owner", config.OwnerPolicy("bike-data-flow"))
	out := s.appAs(t, cli.ExitOK, bikes, "show", "--app", "bike-data-flow")
	if !strings.Contains(out, "secret    api-keys/provider-a (no value yet)") || !strings.Contains(out, "key       provider-a (version 1, ok") {
		t.Errorf("show said:\n%s", out)
	}
}

func loginLimits(t *testing.T, s *appSite, token string) {
	v := s.frontClient(t)
	v.SetToken(token)
	got, err := v.LookupSelf(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ttl, err := got.Number("ttl")
	if err != nil || ttl > 3600 || ttl < 3000 {
		t.Errorf("the token lives %d s, %v", ttl, err)
	}
	policies, err := got.Strings("policies")
	if err != nil || !slices.Equal(policies, []string{"dagster-secrets", "default"}) {
		t.Errorf("policies = %q, %v", policies, err)
	}
	role, err := vaulttest.API(s.Root).Logical().ReadWithContext(t.Context(), "auth/approle/role/dagster")
	if err != nil {
		t.Fatal(err)
	}
	if got := role.Data["token_max_ttl"]; jsonText(got) != "14400" {
		t.Errorf("token_max_ttl = %v, want 4h", got)
	}
	if got := role.Data["secret_id_ttl"]; jsonText(got) != "2592000" {
		t.Errorf("secret_id_ttl = %v, want 30d", got)
	}
	// The research's own policy is contained in ours, word for word.
	text, err := vaulttest.API(s.Root).Sys().GetPolicyWithContext(t.Context(), "dagster-secrets")
	if err != nil {
		t.Fatal(err)
	}
	for _, env := range []string{"production", "staging"} {
		if want := "path \"secret/data/bike-data-flow/" + env + "/*\" {\n  capabilities = [\"read\"]\n}"; !strings.Contains(text, want) {
			t.Errorf("dagster-secrets lacks:\n%s", want)
		}
	}
}

func adminIsNotRoot(t *testing.T, s *appSite) {
	admin := s.Client(t, readTrimmed(t, s.admin))
	self, err := vaulttest.API(admin).Auth().Token().LookupSelfWithContext(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if p, err := self.TokenPolicies(); err != nil || slices.Contains(p, "root") {
		t.Errorf("policies = %q, %v", p, err)
	}
	for _, path := range []string{"sys/raw/core/keyring", "sys/seal", "sys/step-down"} {
		got, err := vaulttest.API(admin).Sys().CapabilitiesSelfWithContext(t.Context(), path)
		if err != nil || !slices.Equal(got, []string{"deny"}) {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
	if _, err := vaulttest.API(admin).Auth().Token().CreateWithContext(t.Context(), &api.TokenCreateRequest{Policies: []string{"root"}}); err == nil {
		t.Error("an administrator makes a root token")
	}
}
