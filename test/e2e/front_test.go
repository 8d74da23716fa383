package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/test/vaulttest"
)

// frontedVault is a real Vault behind the real front.
func frontedVault(t *testing.T, node ...vaulttest.Node) (*vaulttest.Server, string) {
	t.Helper()
	s := vaulttest.New(t, node...)
	ctx, cancel := context.WithTimeout(t.Context(), vaulttest.Patience)
	defer cancel()
	if _, err := s.StartFront(ctx); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(s.Layout.FrontConfig())
	if err != nil {
		t.Fatal(err)
	}
	return s, "https://" + match(t, string(b), `listen = \["([^"]+)"\]`)
}

// from is a client whose connections come from a loopback address of its own,
// as those of different machines would.
func from(t *testing.T, s *vaulttest.Server, url, source string) *http.Client {
	t.Helper()
	pem, err := os.ReadFile(s.Layout.FrontRoot())
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	d := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}
	tr := &http.Transport{DialContext: d.DialContext, TLSClientConfig: &tls.Config{RootCAs: pool}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: vaulttest.Patience}
}

func ask(t *testing.T, c *http.Client, method, url, token, body string, headers ...string) (int, map[string]any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Vault-Token", token)
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var out map[string]any
	_ = json.NewDecoder(res.Body).Decode(&out) // some answers have no body
	return res.StatusCode, out
}

// Vault sees who asks: its audit log names the client, whatever the client
// says of itself, and a token bound to an address works from there alone.
func TestFrontShowsVaultTheClient(t *testing.T) {
	t.Parallel()
	s, url := frontedVault(t)
	log := s.Layout.Audit("audit-1")
	if err := s.EnableAudit(t.Context(), s.Root); err != nil {
		t.Fatal(err)
	}
	secret, err := vaulttest.API(s.Root).Auth().Token().CreateWithContext(t.Context(), &api.TokenCreateRequest{Policies: []string{"default"}})
	if err != nil {
		t.Fatal(err)
	}
	bound, err := vaulttest.API(s.Root).Logical().WriteWithContext(t.Context(), "auth/token/roles/bound", map[string]any{
		"allowed_policies": "default", "token_bound_cidrs": "127.0.0.5/32"})
	if err != nil {
		t.Fatal(err, bound)
	}
	tied, err := vaulttest.API(s.Root).Auth().Token().CreateWithRoleWithContext(t.Context(), &api.TokenCreateRequest{}, "bound")
	if err != nil {
		t.Fatal(err)
	}
	five, six := from(t, s, url, "127.0.0.5"), from(t, s, url, "127.0.0.6")
	if status, out := ask(t, six, "GET", url+"/v1/auth/token/lookup-self", secret.Auth.ClientToken, "", "X-Forwarded-For", "10.9.8.7"); status != 200 {
		t.Fatalf("lookup: %d %v", status, out)
	}
	if status, out := ask(t, five, "GET", url+"/v1/auth/token/lookup-self", tied.Auth.ClientToken, ""); status != 200 {
		t.Errorf("a bound token from its address: %d %v", status, out)
	}
	if status, out := ask(t, six, "GET", url+"/v1/auth/token/lookup-self", tied.Auth.ClientToken, "", "X-Forwarded-For", "127.0.0.5"); status != 403 {
		t.Errorf("a bound token from another address that claims to be its own: %d %v", status, out)
	}
	f, err := os.Open(log)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	seen := map[string]bool{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var e struct {
			Request struct {
				Path          string `json:"path"`
				RemoteAddress string `json:"remote_address"`
			} `json:"request"`
		}
		if err := json.Unmarshal(lines.Bytes(), &e); err == nil && e.Request.Path == "auth/token/lookup-self" {
			seen[e.Request.RemoteAddress] = true
		}
	}
	if !seen["127.0.0.5"] || !seen["127.0.0.6"] || seen["10.9.8.7"] || seen["127.0.0.1"] {
		t.Errorf("the audit log names %v, want the two clients and nobody else", seen)
	}
}

// Nobody but the front can use Vault's own listener.
func TestVaultTakesNobodyButTheFront(t *testing.T) {
	t.Parallel()
	s, _ := frontedVault(t)
	c := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	res, err := c.Get("https://" + s.TCPAddress + "/v1/sys/health")
	if err == nil {
		res.Body.Close()
		t.Fatalf("Vault answers %s to a client without the front's certificate", res.Status)
	}
}

// What stock clients do works through the front, and what belongs to the
// machine does not, with the root token either.
func TestStockClientsThroughTheFront(t *testing.T) {
	t.Parallel()
	s, url := frontedVault(t)
	if err := s.Root.EnableKV2(t.Context(), "secret"); err != nil {
		t.Fatal(err)
	}
	env := []string{"VAULT_ADDR=" + url, "VAULT_CACERT=" + s.Layout.FrontRoot(), "VAULT_TOKEN=" + s.RootToken, "HOME=" + s.Layout.Run()}
	vault(t, env, "", "kv", "put", "secret/my app/production/db", "password=x")
	if out := vault(t, env, "", "kv", "get", "-field=password", "secret/my app/production/db"); strings.TrimSpace(out) != "x" {
		t.Errorf("kv get: %q", out)
	}
	vault(t, env, "", "kv", "list", "secret/my app")
	vault(t, env, "path \"secret/*\" { capabilities = [\"read\"] }", "policy", "write", "reader", "-")
	vault(t, env, "", "policy", "list")
	vault(t, env, "", "secrets", "list")
	vault(t, env, "", "auth", "list")
	vault(t, env, "", "status")
	vault(t, env, "", "token", "capabilities", "secret/data/x")
	wrapped := vault(t, env, "", "read", "-wrap-ttl=60s", "-field=wrapping_token", "secret/data/my app/production/db")
	if out := vault(t, env, "", "unwrap", strings.TrimSpace(wrapped)); !strings.Contains(out, "password") {
		t.Errorf("unwrap: %q", out)
	}
	for _, args := range [][]string{
		{"operator", "seal"}, {"operator", "step-down"}, {"operator", "init", "-status"}, {"operator", "rekey", "-init"},
		{"operator", "generate-root", "-init"}, {"operator", "raft", "list-peers"}, {"audit", "list"}, {"read", "sys/plugins/catalog"},
		{"secrets", "enable", "kv"}, {"secrets", "disable", "secret"}, {"read", "sys/raw/core/keyring"}, {"operator", "raft", "snapshot", "save", "-"},
	} {
		if out, err := vaultTry(env, "", args...); err == nil {
			t.Errorf("vault %s works from outside: %s", strings.Join(args, " "), out)
		} else if !strings.Contains(err.Error(), "answered on the machine itself only") {
			t.Errorf("vault %s: %v", strings.Join(args, " "), err)
		}
	}
	c, err := vaultapi.New(vaultapi.Options{Address: url, CACert: s.Layout.FrontRoot()})
	if err != nil {
		t.Fatal(err)
	}
	if h, err := c.Health(t.Context()); err != nil || h.Sealed {
		t.Errorf("after all that, health is %+v, %v", h, err)
	}
}
