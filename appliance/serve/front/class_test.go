package front

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// judged is what the gate makes of a request: the class, and the refusal. asked counts
// what Vault was asked beside it; it wants a token where wants says so.
func judged(t *testing.T, wants bool, method, path string, h http.Header) (class string, v verdict, asked int) {
	t.Helper()
	u, err := url.ParseRequestURI(path)
	if err != nil {
		t.Fatal(err)
	}
	v, to := judge(method, u, h.Get(headerNamespace), false)
	if v == passed {
		v = to.class.check(h)
	}
	if v == passed && wrapped(h) {
		v = new(gate).wrapping(&http.Request{Method: method, URL: u, Header: h}, to, caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
			asked++
			if r.Method != http.MethodGet || len(r.Header) > 1 || r.URL.RawQuery != "" {
				t.Errorf("Vault is asked with %s %s %v", r.Method, r.URL, r.Header)
			}
			if wants {
				w.WriteHeader(http.StatusForbidden)
			}
			return nil
		}))
	}
	return to.class.name, v, asked
}

// headers are pairs of name and value, as a server reads them.
func headers(pairs ...string) http.Header {
	h := http.Header{}
	for i := 0; i+1 < len(pairs); i += 2 {
		h.Add(pairs[i], pairs[i+1])
	}
	return h
}

// Each row of the table: its class, and that nothing but what the class allows passes.
func TestRows(t *testing.T) {
	type example struct {
		method, path string
		class        *class
	}
	var all []example
	for _, r := range allowed {
		all = append(all, example{r.methods[0], "/v1/sys/" + strings.ReplaceAll(r.path, "*", "x"), r.class})
	}
	for _, r := range rows {
		if r.why == "" || r.class == token {
			t.Errorf("%q has no reason, or no class of its own", r.path)
		}
		for _, deep := range []string{"x", "x/y"} {
			all = append(all, example{"POST", "/v1/" + strings.ReplaceAll(strings.ReplaceAll(r.path, "**", deep), "+", "z"), r.class})
		}
	}
	all = append(all, example{"POST", "/v1/secret/data/x", token}, example{"GET", "/v1/auth/token/lookup-self", token}, example{"PUT", "/v1/auth/approle/role/x/secret-id", token})
	for _, e := range all {
		name, v, _ := judged(t, true, e.method, e.path, headers("X-Vault-Token", "t", "X-Vault-Request", "true", "X-Vault-Namespace", "team", "X-Vault-MFA", "a:1",
			"X-Vault-MFA", "b:2", "X-Vault-Index", "i", "X-Vault-Inconsistent", "forward-active-node", "X-Vault-Forward", "active-node", "X-Vault-Policy-Override", "true"))
		if name != e.class.name || v != passed {
			t.Errorf("%s %s: %s %+v, want %s and that all headers of stock clients pass", e.method, e.path, name, v, e.class.name)
		}
		for _, name := range []string{"X-Vault-No-Request-Forwarding", "X-Vault-Internal-No-Request-Forwarding", "X-Vault-Recover-Snapshot-Id", "X-Vault-Inline-Auth-Path", "X_Vault_Wrap_TTL", "X-Vault_Token", "X.Vault.Token", "X-Vault-"} {
			if _, v, _ := judged(t, true, e.method, e.path, headers(name, "x")); v != refusedHeader {
				t.Errorf("%s %s with %s: %+v", e.method, e.path, name, v)
			}
		}
		for _, name := range []string{"X-Vault-Token", "X-Vault-Namespace", "X-Vault-Request"} {
			if _, v, _ := judged(t, true, e.method, e.path, headers(name, "x", name, "x")); v != refusedTwice {
				t.Errorf("%s %s with two of %s: %+v", e.method, e.path, name, v)
			}
		}
		for _, h := range []http.Header{
			headers("X-Vault-Wrap-TTL", "768h"), headers("x-vault-wrap-ttl", "768h", "X-Vault-Token", ""), headers("X-Vault-Wrap-TTL", "5m", "Authorization", "Bearer  "),
			headers("X-Vault-Wrap-Format", "jwt"), headers("X-Vault-Wrap-TTL", "5m", "Authorization", "Basic x"),
		} {
			want := map[*class]bool{open: false, login: e.method == "POST" || e.method == "PUT", token: false}[e.class]
			if _, v, _ := judged(t, true, e.method, e.path, h); (v == passed) != want || v != passed && v.status != 400 {
				t.Errorf("%s %s without a token, %v: %+v", e.method, e.path, h, v)
			}
		}
		for _, h := range []http.Header{headers("X-Vault-Wrap-TTL", "5m", "X-Vault-Token", "t"), headers("X-Vault-Wrap-TTL", "5m", "Authorization", "Bearer t")} {
			want := e.class == token || e.class == login && (e.method == "POST" || e.method == "PUT")
			if _, v, _ := judged(t, true, e.method, e.path, h); (v == passed) != want {
				t.Errorf("%s %s with a token, %v: %+v", e.method, e.path, h, v)
			}
			if _, v, _ := judged(t, true, e.method, e.path+"?help=1", h); v == passed {
				t.Errorf("%s %s?help=1 is wrapped", e.method, e.path)
			}
			if _, v, _ := judged(t, true, e.method, e.path+"?%68elp", h); v == passed {
				t.Errorf("%s %s?%%68elp is wrapped", e.method, e.path)
			}
		}
	}
}

// However a path is spelled, it has the strictest class of its readings.
func TestSpellingsOfOpenPaths(t *testing.T) {
	for _, path := range []string{
		"/v1/identity/oidc/.well-known/keys", "/v1/identity/oidc/.well-known/keys/", "/v1/identity//oidc/.well-known/keys", "/v1/%69dentity/oidc/x",
		"/v1/identity%2foidc/x", "/v1/identity%252foidc/x", "/v1/identity%5Coidc/x", "/v1/IDENTITY/Oidc/x", "/v1/./identity/oidc/x", "//v1//identity/oidc/x", "/V1/identity/oidc",
		"/v1/auth/x/oidc/auth_url", "/v1/auth/x/oidc%2fauth_url", "/v1/auth/x/y/oidc/poll", "/v1/auth/okta/verify/n", "/v1/sys/internal/ui/mounts", "/v1/sys/internal/ui/mounts/secret/x",
	} {
		if class, v, _ := judged(t, true, "GET", path, headers("X-Vault-Wrap-TTL", "5m", "X-Vault-Token", "t")); v == passed {
			t.Errorf("%s (%s) is wrapped", path, class)
		}
	}
}

// A server with namespaces may take the header's and the path for one.
func TestNamespaceIsAReading(t *testing.T) {
	for ns, path := range map[string]string{"identity": "/v1/oidc/.well-known/keys", "identity/oidc/": "/v1/keys", "IDENTITY%2foidc": "/v1/x", "sys": "/v1/internal/ui/mounts"} {
		if _, v, _ := judged(t, true, "GET", path, headers("X-Vault-Wrap-TTL", "5m", "X-Vault-Token", "t", "X-Vault-Namespace", ns)); v == passed {
			t.Errorf("%s in %s is wrapped", path, ns)
		}
	}
	if name, v, _ := judged(t, true, "POST", "/v1/auth/approle/login", headers("X-Vault-Wrap-TTL", "5m", "X-Vault-Namespace", "team/sub")); name != login.name || v != passed {
		t.Errorf("a log-in in a namespace: %s %+v", name, v)
	}
	if name, v, asked := judged(t, false, "GET", "/v1/secret/data/x", headers("X-Vault-Wrap-TTL", "5m", "X-Vault-Token", "t", "X-Vault-Namespace", "team")); name != token.name || v != passed || asked != 0 {
		t.Errorf("a secret in a namespace: %s %+v, asked %d times", name, v, asked)
	}
}

// A path that Vault may answer to anybody is wrapped where Vault itself wants a token.
func TestOpenPathsOfMounts(t *testing.T) {
	for _, path := range []string{
		"/v1/pki/ca", "/v1/team/pki/ca_chain", "/v1/pki/cert/12-34", "/v1/pki/acme/directory", "/v1/pki/issuer/x/json", "/v1/pki/issuer/x/crl/delta/pem",
		"/v1/pki/roles/x/acme/new-order", "/v1/ssh/public_key", "/v1/pki/CRL/", "/v1/pki%2fca", "/v1/team/identity/oidc/.well-known/keys", "/v1/team/sys/internal/ui/mounts", "/v1/team/auth/x/oidc/auth_url",
	} {
		h := headers("X-Vault-Wrap-TTL", "5m", "X-Vault-Token", "t", "X-Vault-Namespace", "n")
		if _, v, asked := judged(t, false, "GET", path, h); v != refusedWrap || asked != 1 {
			t.Errorf("%s, open: %+v, asked %d times", path, v, asked)
		}
		if _, v, asked := judged(t, true, "GET", path, h); v != passed || asked != 1 {
			t.Errorf("%s, with a token: %+v, asked %d times", path, v, asked)
		}
	}
	if _, v, asked := judged(t, false, "GET", "/v1/secret/data/app/production/db", headers("X-Vault-Wrap-TTL", "5m", "X-Vault-Token", "t")); v != passed || asked != 0 {
		t.Errorf("a secret: %+v, asked %d times", v, asked)
	}
}

// A refusal has the shape of Vault's errors, and reaches nobody. Names with "_" or "."
// Caddy drops before anybody sees them, which Vault would not read either.
func TestRefusedHeaderIsAnswered(t *testing.T) {
	v := newBackend(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		for name := range r.Header {
			if strings.Contains(strings.ToLower(name), "wrap") {
				t.Errorf("Vault was asked with %s", name)
			}
		}
	}))
	f := startFront(t, baseConfig(t, v))
	for _, name := range []string{"X-Vault-Wrap-TTL", "x-vault-wrap-ttl", "X-Vault-Wrap-Format"} {
		res, body := f.get("/v1/sys/internal/ui/mounts", name, "768h")
		if res.StatusCode != 400 || res.Header.Get("Content-Type") != "application/json" || !strings.HasPrefix(body, `{"errors":["Vault asks no token`) {
			t.Errorf("%s: %s %q %s", name, res.Status, res.Header.Get("Content-Type"), body)
		}
		if status := f.raw("GET /v1/sys/internal/ui/mounts", name, "768h"); status != 400 {
			t.Errorf("%s by HTTP/1.1: %d", name, status)
		}
	}
	for _, name := range []string{"X_Vault_Wrap_TTL", "X-Vault_Wrap-TTL", "X.Vault.Wrap.TTL"} {
		f.raw("GET /v1/sys/internal/ui/mounts", name, "768h")
	}
	if res, _ := f.get("/v1/secret/data/x", "X-Vault-Token", "t", "X-Vault-Other", "5m"); res.StatusCode != 400 {
		t.Errorf("a header that no client sends: %s", res.Status)
	}
}

func BenchmarkJudge(b *testing.B) {
	r := httptest.NewRequest("GET", "/v1/secret/data/app/production/db", nil)
	r.Header = headers("X-Vault-Token", "t", "X-Vault-Request", "true", "User-Agent", "x", "Accept-Encoding", "gzip")
	b.ReportAllocs()
	for b.Loop() {
		if v, to := judge(r.Method, r.URL, "", false); v != passed || to.class.check(r.Header) != passed {
			b.Fatal("refused")
		}
	}
}

// The rows are walked with slices of segments as split gives them.
func TestMatches(t *testing.T) {
	for pattern, paths := range map[string][2][]string{
		"**/ca":          {{"ca", "x/ca", "x/y/CA"}, {"ca/x", "xca", ""}},
		"auth/**/login":  {{"auth/login", "auth/x/login", "auth/x/y/login"}, {"x/auth/login", "auth", "auth/login/x"}},
		"a/+":            {{"a/b"}, {"a", "a/b/c"}},
		"**/acme/**":     {{"acme", "x/acme", "x/acme/y/z"}, {"x"}},
		"identity/**":    {{"identity", "identity/x"}, {"x/identity"}},
		"**/crl/+/pem":   {{"x/crl/delta/pem"}, {"x/crl/pem"}},
		"**/verify/+":    {{"a/verify/b"}, {"verify"}},
		"auth/**/oidc/+": {{"auth/oidc/x", "auth/oidc/oidc/x"}, {"auth/oidc"}},
	} {
		for i, list := range paths {
			for _, p := range list {
				if got := matches(pattern, split(p)); got != (i == 0) {
					t.Errorf("%q, %q: %v", pattern, p, got)
				}
			}
		}
	}
}
