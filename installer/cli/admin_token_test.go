package cli

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"strongroom.example/appliance/base/vaultapi"
)

// What vault login has left serves the installer too, where it is an
// administrator's; a token that was given on purpose is taken as it is.
func TestAdminToken(t *testing.T) {
	lookup := func(status int, policies string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			fmt.Fprintf(w, `{"data":{"policies":[%s]}}`, policies)
		}
	}
	admin := lookup(http.StatusOK, `"default","strongroom-admin"`)
	for name, tt := range map[string]struct {
		flag, env, left string // "-": no file
		vault           http.HandlerFunc
		want            string
		fails           bool
	}{
		"nothing":                {left: "-", vault: admin},
		"the flag":               {flag: "of-flag", env: "of-env", left: "left", vault: admin, want: "of-flag"},
		"the variable":           {env: "of-env", left: "left", vault: admin, want: "of-env"},
		"a variable, no Vault":   {env: "of-env", left: "-", vault: lookup(http.StatusForbidden, ""), want: "of-env"},
		"left by vault login":    {left: "left", vault: admin, want: "left"},
		"of the root token":      {left: "left", vault: lookup(http.StatusOK, `"root"`), want: "left"},
		"left by somebody else":  {left: "left", vault: lookup(http.StatusOK, `"default","app"`)},
		"left, and over":         {left: "left", vault: lookup(http.StatusForbidden, "")},
		"left, and Vault sealed": {left: "left", vault: lookup(http.StatusServiceUnavailable, "")},
		"left, and garbage":      {left: "a b", vault: admin},
		"an empty file":          {flag: "\n", left: "left", vault: admin, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			home := t.TempDir()
			t.Setenv("HOME", home)
			t.Setenv("VAULT_TOKEN", tt.env)
			var o options
			if tt.flag != "" {
				o.tokenFile = filepath.Join(home, "given")
				if err := os.WriteFile(o.tokenFile, []byte(tt.flag), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if tt.left != "-" {
				if err := os.WriteFile(filepath.Join(home, ".vault-token"), []byte(tt.left), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			srv := httptest.NewServer(tt.vault)
			defer srv.Close()
			got, err := o.adminToken(t.Context(), func(token string) (*vaultapi.Client, error) {
				return vaultapi.New(vaultapi.Options{Address: srv.URL, Token: token})
			})
			if got != tt.want || (err != nil) != tt.fails {
				t.Errorf("%q, %v; want %q", got, err, tt.want)
			}
		})
	}
}
