package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/config"
	"strongroom.example/test/vaulttest"
)

// Each call that the programs make without a token, on a real server: it answers. But
// for those of the recovery keys, which OpenBao's usual listeners do not have, and
// Vault 2.x refuses: TestEscrowLetsIn, TestEscrowLetsInWhereVaultWantsAToken.
func TestCallsWithoutAToken(t *testing.T) {
	t.Parallel()
	s := vaulttest.New(t)
	if _, err := s.Root.Write(t.Context(), "sys/auth/userpass", map[string]any{"type": "userpass"}); err != nil {
		t.Fatal(err)
	}
	wrapped, err := s.Root.Wrap(t.Context(), "sys/wrapping/wrap", map[string]any{"a": "b"}, vaulttest.Patience)
	if err != nil {
		t.Fatal(err)
	}
	socket := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", s.Layout.VaultSocket())
	}}}
	defer socket.CloseIdleConnections()
	ask := func(method, path, body string) (status int, says string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, "http://vault/v1/"+path, bytes.NewReader([]byte(body)))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Vault-Request", "true")
		resp, err := socket.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(text)
	}
	// What is asked for, where that is not the row's path, and what the server says then.
	like := map[string]struct{ path, body, says string }{
		"GET sys/health":                     {says: `"sealed":false`},
		"GET sys/seal-status":                {says: `"sealed":false`},
		"GET sys/leader":                     {says: `"is_self":true`},
		"GET sys/init":                       {says: `"initialized":true`},
		"PUT sys/init":                       {body: `{"recovery_shares":1,"recovery_threshold":1}`, says: "already initialized"},
		"PUT sys/wrapping/lookup":            {body: fmt.Sprintf(`{"token":%q}`, wrapped.Token), says: `"creation_path":"sys/wrapping/wrap"`},
		"PUT auth/.+/login(/[^/]+)?":         {path: "auth/userpass/login/nobody", body: `{"password":"x"}`, says: "invalid username or password"},
		"GET auth/token/lookup-self":         {},
		"GET sys/generate-root/attempt":      {says: `"started":false`},
		"PUT sys/generate-root/attempt":      {body: `{}`, says: `"started":true`},
		"PUT sys/generate-root/update":       {body: `{"key":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","nonce":"x"}`, says: "incorrect nonce"},
		"DELETE sys/generate-root/attempt":   {},
		"GET sys/mounts":                     {},
		"GET secret/data/a":                  {},
		"PUT auth/token/create":              {body: `{}`},
		"GET sys/storage/raft/configuration": {},
	}
	rows := map[string]bool{}
	for _, row := range vaultapi.WithoutToken() {
		name := row.Method + " " + row.Path
		rows[name] = true
		c, known := like[name]
		if !known {
			t.Errorf("%s is not tried on a server", name)
			continue
		}
		if c.path == "" {
			c.path = row.Path
		}
		status, says := ask(row.Method, c.path, c.body)
		if row.Recovery && s.Server.Product == config.ProductOpenBao {
			if status != http.StatusMethodNotAllowed {
				t.Errorf("%s: %d %s", name, status, says)
			}
			continue
		}
		refused := status == http.StatusForbidden || strings.Contains(says, "missing client token")
		if !strings.Contains(says, c.says) || refused != row.Refused {
			t.Errorf("%s: %d %s, want %q", name, status, says, c.says)
		}
	}
	for name, c := range like {
		if rows[name] {
			continue
		}
		method, path, _ := strings.Cut(name, " ")
		if status, says := ask(method, path, c.body); status < 400 {
			t.Errorf("%s is answered: %d %s", name, status, says)
		}
	}
}
