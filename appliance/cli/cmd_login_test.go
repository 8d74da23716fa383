package cli

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What the escrow holds, as age prints it, is a log-in that the following commands use.
func TestLogin(t *testing.T) {
	const password = "canary-of-52-letters"
	for name, c := range map[string]struct {
		in   string
		path string // asked for
		code int
		says string
	}{
		"the escrow's file":    {"vault login -method=userpass -path=strongroom-local username=admin\n" + password + "\n", "strongroom-local/login/admin", ExitOK, "Logged in as admin of auth/strongroom-local/"},
		"the password alone":   {password + "\n", "strongroom-local/login/admin", ExitOK, "Logged in"},
		"the file of admin":    {"vault login -method=userpass username=admin\n" + password + "\n", "userpass/login/admin", ExitOK, "auth/userpass/"},
		"another password":     {"canary-no\n", "strongroom-local/login/admin", ExitOperator, "the newest copy of the escrow"},
		"nothing":              {"", "", ExitUsage, "local-admin.age"},
		"what is not a log-in": {"canary one two\ncanary", "", ExitUsage, "neither a password"},
		"too much":             {strings.Repeat("canary", 1000), "", ExitUsage, "neither a password"},
	} {
		t.Run(name, func(t *testing.T) {
			home := t.TempDir()
			t.Setenv("HOME", home)
			t.Setenv("VAULT_TOKEN", "of-somebody")
			asked := ""
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked = strings.TrimPrefix(r.URL.Path, "/v1/auth/")
				var body struct{ Password string }
				_ = json.NewDecoder(r.Body).Decode(&body)
				if r.Header.Get("X-Vault-Token") != "" || body.Password != password {
					w.WriteHeader(http.StatusBadRequest)
					fmt.Fprint(w, `{"errors":["invalid username or password"]}`)
					return
				}
				fmt.Fprint(w, `{"auth":{"client_token":"made"}}`)
			}))
			defer srv.Close()
			code, out, said := runCLI(t, c.in, "login", "--address", srv.URL)
			token, _ := os.ReadFile(filepath.Join(home, ".vault-token")) // none after an error
			if code != c.code || asked != c.path || !strings.Contains(out+said, c.says) || (string(token) == "made") != (c.code == ExitOK) {
				t.Errorf("exit %d, asked %q, token %q\n%s%s", code, asked, token, out, said)
			}
			if strings.Contains(out+said, "canary") {
				t.Errorf("it tells a secret: %s%s", out, said)
			}
		})
	}
}
