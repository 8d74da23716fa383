package e2e

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/appliance/cli"
	"strongroom.example/test/vaulttest"
)

// certificateOf writes a test server's own certificate to a file.
func certificateOf(t *testing.T, srv *httptest.Server) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func secretFile(t *testing.T, content string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(content+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

const twoApps = `manifest = "team"
[[app]]
name = "a"
secrets = ["x"]
[[app.key]]
name = "k"
provider = "provider-a"
[[app]]
name = "b"
secrets = ["x"]
`

// policiesOf logs in with data and gives the token's policies.
func (s *appSite) policiesOf(t *testing.T, path string, data map[string]any) ([]string, error) {
	t.Helper()
	got, err := vaulttest.API(s.Client(t, "")).Logical().WriteWithContext(t.Context(), path, data)
	if err != nil {
		return nil, err
	}
	p, err := got.TokenPolicies()
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(p)
	return p, nil
}

func wantPolicies(t *testing.T, got []string, err error, want ...string) {
	t.Helper()
	want = append(want, "default")
	slices.Sort(want)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("policies = %q, %v, want %q", got, err, want)
	}
}

// A new person's password is seen by that person alone, who can then change it
// and nobody else's.
func TestPeopleUserpass(t *testing.T) {
	t.Parallel()
	s := newAppSite(t, twoApps+`
[[auth]]
type = "userpass"
token_ttl = "30m"
token_max_ttl = "8h"
[[auth.map]]
user = "alice"
roles = ["operator", "owner:a"]
[[auth.map]]
user = "bob"
roles = ["reader"]
`)
	out := s.applied(t)
	passwords := map[string]string{}
	for _, who := range []string{"alice", "bob"} {
		token := match(t, out, `hand over to userpass/`+who+`, good once until [^:]+:\d\d [^:]*: vault unwrap (\S+)`)
		got, err := vaulttest.API(s.Client(t, "")).Logical().UnwrapWithContext(t.Context(), token)
		if err != nil {
			t.Fatal(err)
		}
		passwords[who] = got.Data["password"].(string)
		if strings.Contains(out, passwords[who]) || len(passwords[who]) < 20 {
			t.Error("the password was printed, or is short")
		}
		if _, err := vaulttest.API(s.Client(t, "")).Logical().UnwrapWithContext(t.Context(), token); err == nil {
			t.Error("it can be fetched twice")
		}
	}
	got, err := s.policiesOf(t, "auth/userpass/login/alice", map[string]any{"password": passwords["alice"]})
	wantPolicies(t, got, err, "a-owner", "strongroom-operator", "userpass-self")
	login, err := vaulttest.API(s.Client(t, "")).Logical().WriteWithContext(t.Context(), "auth/userpass/login/bob", map[string]any{"password": passwords["bob"]})
	if err != nil {
		t.Fatal(err)
	}
	if login.Auth.LeaseDuration != 1800 {
		t.Errorf("bob's token lives %d s", login.Auth.LeaseDuration)
	}
	bob := s.Client(t, login.Auth.ClientToken)
	if _, err := bob.Write(t.Context(), "auth/userpass/users/bob/password", map[string]any{"password": "a longer password of bob's"}); err != nil {
		t.Error(err)
	}
	for _, path := range []string{"auth/userpass/users/alice/password", "auth/userpass/users/bob", "auth/userpass/users/bob/policies"} {
		if _, err := bob.Write(t.Context(), path, map[string]any{"password": "x", "policies": "strongroom-admin", "token_policies": "strongroom-admin"}); !vaultapi.IsDenied(err) {
			t.Errorf("bob writes %s: %v", path, err)
		}
	}
	// A second apply resets nobody's password.
	s.app(t, cli.ExitOK, "apply")
	if _, err := s.policiesOf(t, "auth/userpass/login/bob", map[string]any{"password": "a longer password of bob's"}); err != nil {
		t.Error(err)
	}
	// Who is no longer named can't log in after a prune.
	s.write(t, twoApps)
	s.app(t, cli.ExitOK, "prune", "--yes")
	if _, err := s.policiesOf(t, "auth/userpass/login/alice", map[string]any{"password": passwords["alice"]}); err == nil {
		t.Error("alice can still log in")
	}
}

// Pods: a cluster's API server that knows two service accounts' tokens.
func TestPodsKubernetes(t *testing.T) {
	t.Parallel()
	accounts := map[string]string{jwtFor(t, "dagster"): "dagster", jwtFor(t, "other"): "other"}
	// A token that the pod has for somebody else is none for Vault.
	elsewhere := sign(t, serviceAccount("dagster", "billing"))
	accounts[elsewhere] = "dagster"
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review struct {
			Spec struct {
				Token     string   `json:"token"`
				Audiences []string `json:"audiences"`
			} `json:"spec"`
		}
		if r.URL.Path != "/apis/authentication.k8s.io/v1/tokenreviews" || json.NewDecoder(r.Body).Decode(&review) != nil {
			http.NotFound(w, r)
			return
		}
		name, ok := accounts[review.Spec.Token]
		if !slices.Equal(review.Spec.Audiences, []string{"vault"}) {
			t.Errorf("asked for audiences %q", review.Spec.Audiences)
		}
		writeJSON(w, map[string]any{"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": map[string]any{
			"authenticated": ok, "audiences": []string{"vault"}, "user": map[string]any{"username": "system:serviceaccount:pipelines:" + name, "uid": "uid-" + name, "groups": []string{"system:serviceaccounts"}},
		}})
	}))
	t.Cleanup(srv.Close)
	s := newAppSite(t, twoApps+fmt.Sprintf(`
[[auth]]
type = "kubernetes"
host = %q
audience = "vault"
ca_file = %q
token_reviewer_file = %q
[[auth.map]]
namespace = "pipelines"
service_accounts = ["dagster"]
roles = ["app:a"]
`, srv.URL, certificateOf(t, srv), secretFile(t, jwtFor(t, "reviewer"))))
	s.applied(t)
	for token, name := range accounts {
		got, err := s.policiesOf(t, "auth/kubernetes/login", map[string]any{"role": "app-a", "jwt": token})
		if name == "other" || token == elsewhere {
			if err == nil {
				t.Errorf("another service account's token, or one for others, logs in: %q", got)
			}
			continue
		}
		wantPolicies(t, got, err, "a")
	}
}

var signingKey = func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
}()

// sign makes a JWT: RFC 7519.
func sign(t *testing.T, claims map[string]any) string {
	t.Helper()
	part := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(b)
	}
	text := part(map[string]any{"alg": "RS256", "typ": "JWT", "kid": "k"}) + "." + part(claims)
	sum := sha256.Sum256([]byte(text))
	sig, err := rsa.SignPKCS1v15(nil, signingKey, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(sig)
}

// jwtFor is a service account's token, made for Vault.
func jwtFor(t *testing.T, account string) string { return sign(t, serviceAccount(account, "vault")) }

func serviceAccount(account, audience string) map[string]any {
	return map[string]any{
		"iss": "kubernetes/serviceaccount", "nbf": time.Now().Add(-time.Minute).Unix(), "iat": time.Now().Add(-time.Minute).Unix(), "sub": "system:serviceaccount:pipelines:" + account, "exp": time.Now().Add(time.Hour).Unix(),
		"kubernetes.io/serviceaccount/namespace": "pipelines", "kubernetes.io/serviceaccount/service-account.name": account,
		"kubernetes.io/serviceaccount/service-account.uid": "uid-" + account, "kubernetes.io/serviceaccount/secret.name": account,
		"aud": []string{audience},
	}
}

// People by OIDC: the whole flow with an identity provider that says who is in
// which group.
func TestPeopleOIDC(t *testing.T) {
	t.Parallel()
	var nonce string
	group := "data-platform"
	var srv *httptest.Server
	srv = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/.well-known/openid-configuration":
			writeJSON(w, map[string]any{
				"issuer": srv.URL, "authorization_endpoint": srv.URL + "/auth", "token_endpoint": srv.URL + "/token", "jwks_uri": srv.URL + "/keys",
				"id_token_signing_alg_values_supported": []string{"RS256"}, "response_types_supported": []string{"code"}, "subject_types_supported": []string{"public"},
			})
		case "/keys":
			writeJSON(w, map[string]any{"keys": []any{map[string]any{
				"kty": "RSA", "kid": "k", "alg": "RS256", "use": "sig", "n": base64.RawURLEncoding.EncodeToString(signingKey.N.Bytes()),
				"e": base64.RawURLEncoding.EncodeToString(big.NewInt(int64(signingKey.E)).Bytes()),
			}}})
		case "/token":
			if _, secret, ok := r.BasicAuth(); !ok || secret != "the-client-secret" {
				http.Error(w, "bad client", http.StatusUnauthorized)
				return
			}
			writeJSON(w, map[string]any{"access_token": "x", "token_type": "Bearer", "expires_in": 60, "id_token": sign(t, map[string]any{
				"iss": srv.URL, "sub": "alice@example.com", "aud": "vault", "nonce": nonce, "groups": []string{group},
				"iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
			})})
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(srv.Close)
	s := newAppSite(t, twoApps+fmt.Sprintf(`
[[auth]]
type = "oidc"
discovery_url = %q
ca_file = %q
client_id = "vault"
client_secret_file = %q
redirect_uris = ["http://localhost:8250/oidc/callback"]
[[auth.map]]
group = "data-platform"
roles = ["admin"]
[[auth.map]]
group = "data-team"
roles = ["reader", "owner:b"]
`, srv.URL, certificateOf(t, srv), secretFile(t, "the-client-secret")))
	s.applied(t)
	login := func(role string) ([]string, error) {
		v := vaulttest.API(s.Client(t, ""))
		const callback = "http://localhost:8250/oidc/callback"
		got, err := v.Logical().WriteWithContext(t.Context(), "auth/oidc/oidc/auth_url", map[string]any{"role": role, "redirect_uri": callback})
		if err != nil {
			t.Fatal(err)
		}
		u, err := url.Parse(got.Data["auth_url"].(string))
		if err != nil || u.Query().Get("state") == "" {
			t.Fatalf("auth_url = %q, %v", got.Data["auth_url"], err)
		}
		nonce = u.Query().Get("nonce")
		answer, err := v.Logical().ReadWithDataWithContext(t.Context(), "auth/oidc/oidc/callback", url.Values{
			"state": {u.Query().Get("state")}, "code": {"a-code"}, "nonce": {nonce},
		})
		if err != nil {
			return nil, err
		}
		p, err := answer.TokenPolicies()
		slices.Sort(p)
		return p, err
	}
	got, err := login("admin")
	wantPolicies(t, got, err, "strongroom-admin")
	if got, err := login("reader"); err == nil {
		t.Errorf("somebody of another group gets %q", got)
	}
	group = "data-team"
	got, err = login("reader")
	wantPolicies(t, got, err, "strongroom-reader", "b-owner")
	if got, err := login("admin"); err == nil {
		t.Errorf("somebody of another group gets %q", got)
	}
}

// A bundle is opened once; the second one learns that somebody was first, and
// a token made elsewhere is refused.
func TestLoginBundles(t *testing.T) {
	t.Parallel()
	s := newAppSite(t, replaceAll(t, twoApps, map[string]string{"name = \"b\"\n": "name = \"b\"\n[app.login]\ncidrs = [\"10.9.8.0/24\"]\nsecret_id_uses = 2\n[[app.environment]]\nname = \"e\"\n"}))
	s.applied(t)
	dir := t.TempDir()
	bundle := filepath.Join(dir, "bundle")
	s.app(t, cli.ExitOK, "login-bundle", "--app", "a", "--output", bundle)
	if st, err := os.Stat(bundle); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode = %v, %v", st.Mode(), err)
	}
	s.app(t, cli.ExitUsage, "login-bundle", "--app", "a", "--output", bundle)
	s.app(t, cli.ExitUsage, "login-bundle", "--output", filepath.Join(dir, "x"))
	s.app(t, cli.ExitUsage, "login-bundle", "--app", "a", "--ttl", "100h", "--output", filepath.Join(dir, "x"))
	out := mustRun(t, cli.ExitOK, "app", "open-bundle", bundle, "--output", filepath.Join(dir, "login"))
	secretID := readTrimmed(t, filepath.Join(dir, "login", "secret-id"))
	if strings.Contains(out, secretID) {
		t.Error("the secret id was printed")
	}
	if st, err := os.Stat(filepath.Join(dir, "login", "secret-id")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode = %v, %v", st.Mode(), err)
	}
	if out := mustRun(t, cli.ExitOperator, "app", "open-bundle", bundle, "--output", filepath.Join(dir, "second")); !strings.Contains(out, "somebody else may have the login") {
		t.Errorf("the second was told:\n%s", out)
	}
	t.Run("exchanged token", func(t *testing.T) {
		w, err := s.as(t, s.admin).Wrap(t.Context(), "sys/wrapping/wrap", map[string]any{"secret_id": "evil"}, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		forged := filepath.Join(dir, "forged")
		var b map[string]any
		data, err := os.ReadFile(bundle)
		if err != nil || json.Unmarshal(data, &b) != nil {
			t.Fatal(err)
		}
		b["wrapped_secret_id"] = w.Token
		if data, err = json.Marshal(b); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(forged, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if out := mustRun(t, cli.ExitOperator, "app", "open-bundle", forged, "--output", filepath.Join(dir, "third")); !strings.Contains(out, "sys/wrapping/wrap") {
			t.Errorf("it said:\n%s", out)
		}
	})
	t.Run("no bundle", func(t *testing.T) {
		for _, junk := range []string{"", "{}", "not json", `{"app":"a","token":"x"}`} {
			file := secretFile(t, junk)
			mustRun(t, cli.ExitUsage, "app", "open-bundle", file, "--output", filepath.Join(dir, "never"))
		}
		if _, err := os.Stat(filepath.Join(dir, "never")); err == nil {
			t.Error("a folder was made")
		}
	})
	t.Run("from another address", func(t *testing.T) {
		b := filepath.Join(dir, "b-e")
		s.app(t, cli.ExitOK, "login-bundle", "--app", "b", "--env", "e", "--output", b)
		mustRun(t, cli.ExitOK, "app", "open-bundle", b, "--output", filepath.Join(dir, "be"))
		c := s.frontClient(t)
		err := c.LoginAppRole(t.Context(), readTrimmed(t, filepath.Join(dir, "be", "role-id")), readTrimmed(t, filepath.Join(dir, "be", "secret-id")))
		if err == nil || !strings.Contains(err.Error(), "CIDR") {
			t.Errorf("a login from 127.0.0.1: %v", err)
		}
	})
}
