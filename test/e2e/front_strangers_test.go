package e2e

import (
	"crypto/tls"
	"encoding/json"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"

	"strongroom.example/test/vaulttest"
)

// tokenAccessors is how many tokens Vault keeps.
func tokenAccessors(t *testing.T, s *vaulttest.Server) int {
	t.Helper()
	secret, err := vaulttest.API(s.Root).Logical().ListWithContext(t.Context(), "auth/token/accessors")
	if err != nil || secret == nil {
		t.Fatal(err)
	}
	return len(secret.Data["keys"].([]any))
}

// A stranger can have nothing wrapped, by whatever path Vault answers without a token and
// however it is spelled: each wrapping would be a token and a lease for 32 days.
func TestFrontWrapsNothingForStrangers(t *testing.T) {
	t.Parallel()
	s, url := frontedVault(t)
	api := vaulttest.API(s.Root)
	write := func(path string, data map[string]any) {
		t.Helper()
		if _, err := api.Logical().WriteWithContext(t.Context(), path, data); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
	}
	for path, typ := range map[string]string{"mounts/team/pki": "pki", "mounts/pki": "pki", "mounts/ssh": "ssh", "mounts/v1": "kv", "auth/userpass": "userpass", "auth/approle": "approle", "auth/oidc": "oidc"} {
		write("sys/"+path, map[string]any{"type": typ})
	}
	write("pki/root/generate/internal", map[string]any{"common_name": "x"})
	write("team/pki/root/generate/internal", map[string]any{"common_name": "x"})
	write("ssh/config/ca", map[string]any{"generate_signing_key": true})
	write("v1/ca", map[string]any{"password": "x"})
	write("v1/team/cert/x", map[string]any{"password": "x"})
	write("auth/userpass/users/anna", map[string]any{"password": "right"})
	doc, err := api.Logical().ReadRawWithContext(t.Context(), "sys/internal/specs/openapi")
	if err != nil {
		t.Fatal(err)
	}
	defer doc.Body.Close()
	var spec struct {
		Paths map[string]map[string]json.RawMessage
	}
	if err := json.NewDecoder(doc.Body).Decode(&spec); err != nil {
		t.Fatal(err)
	}
	paths := []string{
		"/identity/oidc/.well-known/keys?help=1", "/identity/oidc/.well-known/keys/", "/identity//oidc/.well-known/keys", "/%69dentity/oidc/.well-known/keys",
		"/identity/oidc%2f.well-known/keys", "/identity/oidc/./.well-known/keys", "/IDENTITY/oidc/.well-known/keys", "//identity/oidc/.well-known/keys", "/pki%2fca_chain", "/pki//ca_chain",
		"/pki/cert/ca/", "/pki/%63ert/ca", "/sys/internal/ui/mounts/", "/sys/internal/ui/mounts/secret?help=1", "/sys/?help=1", "/secret/data/x?help=1", "/pki/ca_chain?list=true",
	}
	for p, ops := range spec.Paths {
		if string(ops["x-vault-unauthenticated"]) == "true" {
			paths = append(paths, strings.NewReplacer("{serial}", "ca", "{issuer_ref}", "default", "{username}", "anna", "{path}", "pki", "{", "", "}", "").Replace(p))
		}
	}
	before := tokenAccessors(t, s)
	sources := 0
	var c *http.Client
	for i, p := range paths {
		if i%20 == 0 { // the limit by address is not what is looked at
			sources++
			c = from(t, s, url, "127.0.1."+string(rune('0'+sources)))
			c.CheckRedirect = func(r *http.Request, _ []*http.Request) error {
				r.Header.Set("X-Vault-Wrap-TTL", "768h") // as curl does
				return nil
			}
		}
		for _, method := range []string{"GET", "LIST", "POST"} {
			for _, token := range []string{"", "hvs.bogus"} {
				for _, h := range []string{"X-Vault-Wrap-TTL", "X_Vault_Wrap_TTL"} {
					if status, out := ask(t, c, method, url+"/v1"+p, token, "", h, "768h"); out["wrap_info"] != nil {
						t.Errorf("%s %s with token %q and %s: %d, wrapped", method, p, token, h, status)
					}
				}
			}
		}
	}
	// A server with namespaces may take header and path together.
	c = from(t, s, url, "127.0.2.2")
	for ns, p := range map[string]string{"identity": "/oidc/.well-known/keys", "identity/oidc": "/.well-known/keys", "pki": "/ca_chain", "/identity/": "/oidc/.well-known/keys", "IDENTITY": "/oidc/.well-known/keys", "identity%2foidc": "/.well-known/keys", "team/pki": "/cert/ca"} {
		for _, token := range []string{"", "hvs.bogus"} {
			if status, out := ask(t, c, "GET", url+"/v1"+p, token, "", "X-Vault-Wrap-TTL", "768h", "X-Vault-Namespace", ns); out["wrap_info"] != nil {
				t.Errorf("%s in namespace %s with token %q: %d, wrapped", p, ns, token, status)
			}
		}
	}
	if after := tokenAccessors(t, s); after != before {
		t.Errorf("%d tokens, and %d before", after, before)
	}

	// With a token, or logging in, wrapping works as ever, also where a secret has a name
	// that means something to PKI.
	c = from(t, s, url, "127.0.2.1")
	for _, p := range []string{"/v1/ca", "/v1/team/cert/x", "/auth/token/lookup-self"} {
		if status, out := ask(t, c, "GET", url+"/v1"+p, s.RootToken, "", "X-Vault-Wrap-TTL", "60"); out["wrap_info"] == nil {
			t.Errorf("GET %s with a token: %d %v", p, status, out)
		}
	}
	if status, out := ask(t, c, "POST", url+"/v1/auth/userpass/login/anna", "", `{"password":"right"}`, "X-Vault-Wrap-TTL", "60"); out["wrap_info"] == nil {
		t.Errorf("a log-in: %d %v", status, out)
	}
	if status, out := ask(t, c, "POST", url+"/v1/sys/wrapping/wrap", s.RootToken, `{"a":"b"}`, "X-Vault-Wrap-TTL", "60"); out["wrap_info"] == nil {
		t.Errorf("sys/wrapping/wrap: %d %v", status, out)
	}
	if status, out := ask(t, c, "POST", url+"/v1/auth/userpass/login/anna", "", `{"password":"wrong"}`, "X-Vault-Wrap-TTL", "60"); out["wrap_info"] != nil || status != 400 {
		t.Errorf("a log-in with the wrong password: %d %v", status, out)
	}
}

// auditBytes is the size of Vault's first audit log.
func auditBytes(t *testing.T, s *vaulttest.Server) int64 {
	t.Helper()
	fi, err := os.Stat(s.Layout.Audit("audit-1"))
	if err != nil {
		t.Fatal(err)
	}
	return fi.Size()
}

// What a stranger sends does not fill the audit log: of what needs no token nothing
// with many values gets there, and of what a bogus token sends only so much.
func TestFrontKeepsTheAuditLogSmall(t *testing.T) {
	t.Parallel()
	s, url := frontedVault(t)
	if err := s.EnableAudit(t.Context(), s.Root); err != nil {
		t.Fatal(err)
	}
	if err := s.Root.EnableKV2(t.Context(), "secret"); err != nil {
		t.Fatal(err)
	}
	values := func(n int, value string) string {
		return `{"data":{"a":[` + strings.TrimSuffix(strings.Repeat(value+",", n), ",") + `]}}`
	}
	before := auditBytes(t, s)
	for i, body := range []string{values(29_000, `""`), values(20_000, `""`), values(300, `""`), values(10_000, `"aaaaaa"`), `{"a":` + strings.Repeat(`[`, 30_000)} {
		c := from(t, s, url, "127.0.3."+strconv.Itoa(i+1))
		for range 8 {
			for _, path := range []string{"/v1/secret/data/x", "/v1/auth/userpass/login/x", "/v1/identity/oidc/provider/x/token", "/v1/sys/wrapping/lookup", "/v1/sys/wrapping/unwrap"} {
				if status, out := ask(t, c, "POST", url+path, "", body); status != 400 && status != 413 && status != 429 {
					t.Errorf("%s without a token: %d %v", path, status, out)
				}
			}
		}
	}
	if grown := auditBytes(t, s) - before; grown > 0 {
		t.Errorf("requests without a token have added %d bytes", grown)
	}
	c := from(t, s, url, "127.0.3.100")
	last := 0
	for range 40 {
		last, _ = ask(t, c, "POST", url+"/v1/secret/data/x", "hvs.bogus", values(9_900, `"aaaaaa"`))
	}
	if grown := auditBytes(t, s) - before; last != 429 || grown > 8<<20 {
		t.Errorf("forty requests with a bogus token have added %d bytes, the last was answered with %d", grown, last)
	}

	// Who has a token sends what Vault takes, from the same address too once it has
	// waited, and from another one at once.
	c = from(t, s, url, "127.0.3.101")
	fields := map[string]string{}
	for i := range 3000 {
		fields["field-"+strconv.Itoa(i)] = "value"
	}
	many, err := json.Marshal(map[string]any{"data": fields})
	if err != nil {
		t.Fatal(err)
	}
	for name, body := range map[string]string{"of 3,000 fields": string(many), "just below 1 MiB": `{"data":{"a":"` + strings.Repeat("x", 1<<20-2000) + `"}}`} {
		for range 5 {
			if status, out := ask(t, c, "POST", url+"/v1/secret/data/y", s.RootToken, body); status != 200 {
				t.Fatalf("a secret %s: %d %v", name, status, out)
			}
		}
	}
}

// Vault's own listener has limits, too, for what the front might let through; those of
// the machine's own socket are Vault's defaults.
func TestVaultListenerLimitsJSON(t *testing.T) {
	t.Parallel()
	s := vaulttest.New(t)
	crt, key := s.Layout.LinkClient()
	pair, err := tls.LoadX509KeyPair(crt, key)
	if err != nil {
		t.Fatal(err)
	}
	c := &http.Client{Timeout: vaulttest.Patience, Transport: &http.Transport{TLSClientConfig: &tls.Config{Certificates: []tls.Certificate{pair}, InsecureSkipVerify: true}}}
	for name, body := range map[string]string{
		"deep":  strings.Repeat(`{"a":`, 200) + "1" + strings.Repeat("}", 200),
		"list":  `{"a":[` + strings.Repeat(`1,`, 10_500) + `1]}`,
		"many":  `{"a":[` + strings.TrimSuffix(strings.Repeat(`[`+strings.Repeat(`1,`, 900)+`1],`, 60), ",") + `]}`,
		"large": `{"a":"` + strings.Repeat("x", 1<<20+1) + `"}`,
	} {
		if status, out := ask(t, c, "POST", "https://"+s.TCPAddress+"/v1/cubbyhole/x", s.RootToken, body, "X-Forwarded-For", "192.0.2.1"); status < 400 {
			t.Errorf("%s: %d %v", name, status, out)
		}
	}
}
