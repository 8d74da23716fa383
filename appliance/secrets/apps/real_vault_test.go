package apps

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/config"
	"strongroom.example/test/vaulttest"
)

// issuer is an identity provider, as far as Vault asks when it is configured.
func issuer(t *testing.T) *httptest.Server {
	t.Helper()
	var srv *httptest.Server
	srv = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Path != "/.well-known/openid-configuration" {
			_, _ = w.Write([]byte(`{"keys":[]}`))
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{
			"issuer": srv.URL, "authorization_endpoint": srv.URL + "/auth", "token_endpoint": srv.URL + "/token", "jwks_uri": srv.URL + "/keys",
			"id_token_signing_alg_values_supported": []string{"RS256"}, "response_types_supported": []string{"code"}, "subject_types_supported": []string{"public"},
		})
	}))
	t.Cleanup(srv.Close)
	return srv
}

// every has each kind of object, but for a connection, which needs a server.
const every = `manifest = "m"
[[database]]
name = "d"
engine = "postgresql"
external = true
[[app]]
name = "a"
secrets = ["x"]
[app.login]
cidrs = ["2001:db8:1:0:0::/80", "2001:DB8::/32", "::ffff:10.0.0.0/104", "10.1.2.3/32", "127.0.0.0/8"]
[[app.database]]
database = "d"
access = "read-only"
ttl = "48h"
max_ttl = "7d"
[[app.key]]
name = "k"
provider = "p"
[[auth]]
type = "userpass"
[[auth.map]]
user = "alice"
roles = ["owner:a"]
[[auth]]
type = "ldap"
url = "ldaps://ldap.example.com,ldaps://other.example.com"
user_dn = "ou=people,dc=example,dc=com"
[[auth.map]]
group = "Data Platform"
roles = ["reader"]
[[auth.map]]
user = "Bob"
roles = ["reader"]
[[auth]]
type = "kubernetes"
host = "https://k.example.com"
audience = "vault"
[[auth.map]]
namespace = "n"
service_accounts = ["s"]
roles = ["app:a"]
[[auth]]
type = "oidc"
discovery_url = "ISSUER"
client_id = "c"
client_secret_file = "/secret"
redirect_uris = ["http://localhost:8250/oidc/callback"]
[[auth.map]]
group = "/data/platform"
roles = ["reader"]
`

// realVault has what every needs, and gives it with an administrator's options.
func realVault(t *testing.T) (*vaulttest.Server, Options) {
	t.Helper()
	s := vaulttest.New(t)
	ctx := t.Context()
	if err := s.Root.EnableKV2(ctx, "secret"); err != nil {
		t.Fatal(err)
	}
	s.MountAPIKeys(t)
	write := func(path string, data map[string]any) {
		t.Helper()
		if _, err := s.Root.Write(ctx, path, data); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range config.Policies() {
		write("sys/policies/acl/"+name, map[string]any{"policy": text})
	}
	write("apikeys/providers/p", map[string]any{"type": "generated"})
	write("sys/mounts/database", map[string]any{"type": "database"})
	write("database/config/d", map[string]any{
		"plugin_name": "postgresql-database-plugin", "connection_url": "postgresql://{{username}}:{{password}}@127.0.0.1:1/d",
		"username": "x", "password": "x", "verify_connection": false, "allowed_roles": "*",
	})
	conf := parse(t, strings.Replace(every, "ISSUER", "https://issuer", 1))
	conf.Auth[3].DiscoveryURL = issuer(t).URL
	o := options(conf, New(s.Client(t, tokenOf(t, s, config.PolicyAdmin))))
	return s, o
}

func tokenOf(t *testing.T, s *vaulttest.Server, policy string) string {
	t.Helper()
	token, err := s.Root.ChildToken(t.Context(), policy, time.Hour, policy)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// What the file doesn't say is Vault's default, whoever has set it otherwise: each
// field of each kind that Vault shows has its place in the table, and each that is
// ours is put right.
func TestFieldTable(t *testing.T) {
	t.Parallel()
	s, o := realVault(t)
	var warnings []string
	o.Vault = NewWarned(s.Client(t, tokenOf(t, s, config.PolicyAdmin)), func(path, w string) { warnings = append(warnings, path+": "+w) })
	apply(t, o)
	if len(warnings) > 0 {
		t.Errorf("Vault warns: %q", warnings)
	}
	if p := plan(t, o); p.Changed() {
		t.Fatalf("the second plan: %s", summary(p))
	}
	w, err := look(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]bool{}
	for _, obj := range w.desired() {
		row, known := fieldTable[obj.fields]
		if !known {
			continue
		}
		rows[obj.fields] = true
		got, err := s.Root.Read(t.Context(), obj.path)
		if err != nil {
			t.Fatal(err)
		}
		seen := shown(obj.kind, got)
		for field := range seen {
			if _, ours := row.ours[field]; !ours && !slices.Contains(row.others, field) && !slices.Contains(row.told, field) {
				t.Errorf("%s: %q has no place in the table", obj.fields, field)
			}
		}
		for field := range row.ours {
			if _, there := seen[field]; !there && field != "max_age" {
				t.Errorf("%s: Vault shows no %q", obj.fields, field)
			}
		}
		data, disturbed := obj.sent(), 0
		if obj.secrets != nil && obj.kind == kindAuth {
			secret, err := obj.secrets()
			if err != nil {
				t.Fatal(err)
			}
			maps.Copy(data, secret)
		}
		for field, usual := range obj.absent() {
			if odd, ok := oddValue(field, usual); ok {
				data[field] = odd
				disturbed++
			}
		}
		if disturbed == 0 {
			continue
		}
		if _, err := s.Root.Write(t.Context(), obj.path, data); err != nil {
			t.Errorf("%s: %v", obj.fields, err)
			continue
		}
		p := plan(t, o)
		for _, c := range p.Changes {
			if c.object.id() == obj.id() && len(c.Fields) != disturbed {
				t.Errorf("%s: of %d fields the plan has %+v", obj.fields, disturbed, c.Fields)
			}
		}
		apply(t, o)
		if p := plan(t, o); p.Changed() {
			t.Errorf("%s is not put right: %s", obj.fields, summary(p))
		}
		t.Logf("%s: %d fields disturbed", obj.fields, disturbed)
	}
	for row := range fieldTable {
		if !rows[row] && row != kindConnection && row != kindStaticRole {
			t.Errorf("%s: no object of it", row)
		}
	}
}

// oddValue is another value than the usual one; not ok: none that Vault takes.
func oddValue(field string, usual any) (any, bool) {
	odd := map[string]any{
		"token_type": "service", "tls_max_version": "tls13", "tls_min_version": nil, "disable_local_ca_jwt": nil, "dereference_aliases": "always", "token_bound_cidrs": []string{"10.0.0.0/8"},
		"groupfilter": "(member={{.UserDN}})", "userfilter": "(uid={{.Username}})", "bound_claims_type": "glob", "oidc_response_mode": "query", "oidc_response_types": []string{"code"},
		"claim_mappings": map[string]any{"a": "b"}, "policy": nil, "alias_name_source": "serviceaccount_name", "jwt_supported_algs": []string{"ES256"},
		// One of several ways to check a token, of which the file has chosen one.
		"jwks_url": nil, "jwks_pairs": nil, "jwks_ca_pem": nil, "jwt_validation_pubkeys": nil, "pem_keys": nil, "provider_config": nil, "credential_type": nil,
		"certificate": nil, "role_type": nil, "bind_secret_id": nil, "token_period": 60, "token_explicit_max_ttl": 7200, "token_max_ttl": 7200,
		// The rights of everybody, or of one person, beside those of the file.
		"token_policies": []string{"strongroom-admin"}, "groups": "ops", "secret_id_bound_cidrs": nil, "max_age": nil, "user_claim_json_pointer": true, "bound_audiences": []string{"x"},
		"tls_ca": nil, "kubernetes_ca_cert": nil, "user_claim": nil, "bound_service_account_namespace_selector": `{"matchLabels":{"a":"b"}}`,
	}
	if v, known := odd[field]; known {
		return v, v != nil
	}
	switch v := usual.(type) {
	case bool:
		return !v, true
	case int:
		return v + 61, true
	case string:
		return v + "x", true
	case []string:
		return []string{"x"}, true
	}
	return nil, false
}

// Vault shortens what a mount's limit is too short for, without a word: the limit is
// raised to what the file promises, and what is given lives that long.
func TestPromisesAgainstLimits(t *testing.T) {
	t.Parallel()
	s, o := realVault(t)
	ctx := t.Context()
	if _, err := s.Root.Write(ctx, "sys/auth/approle", map[string]any{"type": "approle"}); err != nil {
		t.Fatal(err)
	}
	p := plan(t, o)
	for _, mount := range []string{"auth/approle", "database"} {
		if !slices.ContainsFunc(p.Changes, func(c Change) bool { return c.Kind == kindLimit && c.Name == mount && c.Action == Update }) {
			t.Errorf("no limit of %s in %s", mount, summary(p))
		}
	}
	apply(t, o)
	secret, err := s.Root.Write(ctx, "auth/approle/role/a/secret-id", nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.Root.Write(ctx, "auth/approle/role/a/secret-id-accessor/lookup", map[string]any{"secret_id_accessor": secret["secret_id_accessor"]})
	if err != nil {
		t.Fatal(err)
	}
	ends, err := time.Parse(time.RFC3339Nano, text(got, "expiration_time"))
	if left := time.Until(ends); err != nil || left < 89*24*time.Hour {
		t.Errorf("a secret id of 90 days ends after %v, %v", left, err)
	}
	if tuned, err := s.Root.Read(ctx, "sys/mounts/database/tune"); err != nil || asInt(tuned["max_lease_ttl"]) != 7*24*3600 {
		t.Errorf("users of 7 days: %v, %v", tuned["max_lease_ttl"], err)
	}
	// A limit is never lowered, and one that somebody has lowered is seen.
	for limit, want := range map[string]int{"400d": 0, "1h": 1} {
		hours := map[string]string{"400d": "9600h", "1h": "3600s"}[limit]
		if _, err := s.Root.Write(ctx, "sys/mounts/auth/approle/tune", map[string]any{"max_lease_ttl": hours}); err != nil {
			t.Fatal(err)
		}
		if p := plan(t, o); p.Count(Update) != want {
			t.Errorf("with a limit of %s: %s", limit, summary(p))
		}
	}
	apply(t, o)
}

// Logins work from the ranges of the file and from nowhere else, however they are
// written there.
func TestRangesAreKept(t *testing.T) {
	t.Parallel()
	s, o := realVault(t)
	apply(t, o)
	if p := plan(t, o); p.Changed() {
		t.Fatalf("the second plan: %s", summary(p))
	}
	got, err := s.Root.Read(t.Context(), "auth/approle/role/a")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"10.0.0.0/8", "10.1.2.3", "127.0.0.0/8", "2001:db8:1::/80", "2001:db8::/32"}
	for _, field := range []string{"token_bound_cidrs", "secret_id_bound_cidrs"} {
		if list := canonical(field, got[field]); list != strings.Join(want, "\n") {
			t.Errorf("%s is %q", field, list)
		}
	}
	// An address in place of a range is a difference.
	if _, err := s.Root.Write(t.Context(), "auth/approle/role/a", map[string]any{"token_bound_cidrs": []string{"10.0.0.0/8", "10.1.2.3/32", "127.0.0.0/8", "2001:db8:1::/80", "2001:db8::/128"}}); err != nil {
		t.Fatal(err)
	}
	if p := plan(t, o); p.Count(Update) != 1 {
		t.Errorf("with another range: %s", summary(p))
	}
}

// A reviewer's plan, as pull requests run it, sees every kind of object.
func TestPlanOfAReader(t *testing.T) {
	t.Parallel()
	s, o := realVault(t)
	reader := o
	reader.Vault = New(s.Client(t, tokenOf(t, s, config.PolicyReader)))
	if p := plan(t, reader); p.Count(Create) == 0 || p.Count(Conflict, Blocked) != 0 {
		t.Errorf("of an empty Vault: %s", summary(p))
	}
	apply(t, o)
	for _, policy := range []string{config.PolicyReader, config.PolicyOperator, config.PolicyAdmin} {
		reader.Vault = New(s.Client(t, tokenOf(t, s, policy)))
		p := plan(t, reader)
		if p.Changed() || slices.ContainsFunc(p.Notes, func(n string) bool { return strings.Contains(n, "can't be seen") }) {
			t.Errorf("%s: %s %q", policy, summary(p), p.Notes)
		}
		kinds := map[string]bool{}
		for _, c := range p.Changes {
			kinds[c.Kind] = true
		}
		for _, kind := range kindOrder {
			if !kinds[kind] && !slices.Contains([]string{kindMount, kindLimit, kindConnection, kindStaticRole}, kind) {
				t.Errorf("no %s in the plan", kind)
			}
		}
	}
	// What is no longer named is shown, too.
	reader.Vault = New(s.Client(t, tokenOf(t, s, config.PolicyReader)))
	reader.Config = parse(t, noApp("m"))
	if p := plan(t, reader); !p.Changed() || p.Count(Unnamed) < 10 {
		t.Errorf("with nothing in the file: %s", summary(p))
	}
	if _, err := Apply(t.Context(), reader, quiet); err != nil {
		t.Logf("a reader's apply: %v", err)
	}
	reader.Config = o.Config
	reader.Config.Apps[0].Secrets = append(reader.Config.Apps[0].Secrets, "y")
	if _, err := Apply(t.Context(), reader, quiet); !vaultapi.IsDenied(err) {
		t.Errorf("a reader applies: %v", err)
	}
}

// Who is taken out of the file can't log in, and what he holds ends at once.
func TestWhoGoesIsOut(t *testing.T) {
	t.Parallel()
	s, o := realVault(t)
	apply(t, o)
	ctx := t.Context()
	if _, err := s.Root.Write(ctx, "auth/userpass/users/alice/password", map[string]any{"password": "a-password"}); err != nil {
		t.Fatal(err)
	}
	alice := s.Client(t, "")
	if err := alice.LoginUserpass(ctx, "alice", "a-password"); err != nil {
		t.Fatal(err)
	}
	app := s.Client(t, "")
	role, err := s.Root.Read(ctx, "auth/approle/role/a/role-id")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Root.Write(ctx, "auth/approle/role/a", map[string]any{"token_bound_cidrs": []string{}, "secret_id_bound_cidrs": []string{}}); err != nil {
		t.Fatal(err)
	}
	id, err := s.Root.Write(ctx, "auth/approle/role/a/secret-id", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := app.LoginAppRole(ctx, text(role, "role_id"), text(id, "secret_id")); err != nil {
		t.Fatal(err)
	}
	others := s.Client(t, tokenOf(t, s, config.PolicyReader))
	o.Config = parse(t, "manifest = \"m\"\n[[auth]]\ntype = \"userpass\"\n")
	p := plan(t, o)
	if !p.Changed() || !strings.Contains(summary(p), "unnamed login userpass/alice") || !strings.Contains(summary(p), "unnamed approle a ") {
		t.Errorf("the plan is %s", summary(p))
	}
	apply(t, o)
	if _, err := alice.LookupSelf(ctx); err != nil {
		t.Errorf("an apply removes nothing, and: %v", err)
	}
	var out strings.Builder
	o.Out = &out
	prune(t, o)
	for who, c := range map[string]*vaultapi.Client{"alice": alice, "the app": app} {
		if _, err := c.LookupSelf(ctx); !vaultapi.IsDenied(err) {
			t.Errorf("%s is in: %v", who, err)
		}
	}
	if err := s.Client(t, "").LoginUserpass(ctx, "alice", "a-password"); err == nil {
		t.Error("alice logs in")
	}
	if _, err := others.LookupSelf(ctx); err != nil {
		t.Errorf("another's token: %v", err)
	}
	if !strings.Contains(out.String(), "ended 2 live tokens") {
		t.Errorf("it said:\n%s", out.String())
	}
	if p := plan(t, o); p.Changed() {
		t.Errorf("then: %s", summary(p))
	}
}
