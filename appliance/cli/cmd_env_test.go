package cli

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// appVault is a Vault with one AppRole and one secret.
type appVault struct {
	*httptest.Server
	said []string // who did what
}

func newAppVault(t *testing.T) *appVault {
	t.Helper()
	v := &appVault{}
	v.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		refuse := func(code int, why string) {
			w.WriteHeader(code)
			_, _ = w.Write([]byte(`{"errors":["` + why + `"]}`))
		}
		token := r.Header.Get("X-Vault-Token")
		switch r.URL.Path {
		case "/v1/auth/approle/login":
			var body map[string]string
			if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
				t.Error(err)
			}
			if body["role_id"] != "the-role" || body["secret_id"] != "PLANTED-secret-id" {
				refuse(http.StatusBadRequest, "invalid role or secret ID")
				return
			}
			_, _ = w.Write([]byte(`{"auth":{"client_token":"PLANTED-made","lease_duration":60}}`))
		case "/v1/secret/data/a/p/db-password":
			v.said = append(v.said, "read by "+token)
			_, _ = w.Write([]byte(`{"data":{"data":{"value":"inv-value-77"},"metadata":{"version":1}}}`))
		case "/v1/auth/token/revoke-self":
			v.said = append(v.said, "ended "+token)
			w.WriteHeader(http.StatusNoContent)
		default:
			refuse(http.StatusNotFound, "")
		}
	}))
	t.Cleanup(v.Close)
	return v
}

// envFolder is a folder with a login, a wrong one, and mapping files.
func envFolder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"login/role-id": "the-role\n", "login/secret-id": "PLANTED-secret-id\n", "ended/role-id": "the-role\n", "ended/secret-id": "PLANTED-old\n",
		"empty/role-id": "\n", "empty/secret-id": "\n",
		"strongroom-env.production.toml": "format = 1\n[variables.DB_PASSWORD]\npath = 'a/p/db-password'\n",
		"strongroom-env.staging.toml":    "format = 1\n[variables.DB_PASSWORD]\npath = 'a/s/db-password'\n",
		"odd.toml":                       "format = 1\ncolour = 2\n",
	} {
		full := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(full), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// Who env asks as, and what it says about a login or a mapping that is not good.
func TestEnvLogin(t *testing.T) {
	dir := envFolder(t)
	mapping := []string{"--mapping", filepath.Join(dir, "strongroom-env.production.toml")}
	files := func(in string) []string {
		return []string{"--role-id-file", filepath.Join(dir, in, "role-id"), "--secret-id-file", filepath.Join(dir, in, "secret-id")}
	}
	for name, tt := range map[string]struct {
		args  []string
		creds string // the unit's credentials
		token string
		want  int
		says  []string
		did   string
	}{
		"an AppRole's files":    {args: files("login"), token: "person", did: "read by PLANTED-made, ended PLANTED-made"},
		"a unit's credentials":  {creds: "login", token: "person", did: "read by PLANTED-made, ended PLANTED-made"},
		"another unit's":        {creds: "none", token: "person", did: "read by person"},
		"a person":              {token: "person", did: "read by person"},
		"nobody":                {want: ExitOperator, says: []string{"not logged in"}},
		"a login that ended":    {args: files("ended"), want: ExitOperator, says: []string{"invalid role or secret ID", "strongroom app login-bundle"}},
		"files that are empty":  {args: files("empty"), want: ExitOperator, says: []string{"is empty", "name files that hold a role id"}},
		"files that are not":    {args: files("none"), want: ExitOperator, says: []string{"no such file", "name files that hold a role id"}},
		"half a login":          {args: files("login")[:2], want: ExitUsage, says: []string{"both or neither"}},
		"two logins":            {args: append(files("login"), "--token-file", "x"), want: ExitUsage, says: []string{"one or the other"}},
		"empty credentials":     {creds: "empty", want: ExitOperator, says: []string{"are empty", "strongroom app open-bundle"}},
		"no such mapping":       {args: []string{"--mapping", filepath.Join(dir, "strongroom-env.toml")}, token: "person", want: ExitUsage, says: []string{"no such file", "there is", "strongroom-env.production.toml", "strongroom-env.staging.toml"}},
		"no mapping at all":     {args: []string{"--mapping", filepath.Join(dir, "login", "x.toml")}, token: "person", want: ExitUsage, says: []string{"no such file", "strongroom migrate apply writes it"}},
		"a faulty mapping":      {args: []string{"--mapping", filepath.Join(dir, "odd.toml")}, token: "person", want: ExitUsage, says: []string{"odd.toml:2: colour: unknown key", "docs/migrate.md"}},
		"another environment's": {args: []string{"--mapping", filepath.Join(dir, "strongroom-env.staging.toml")}, token: "person", want: ExitFailed, says: []string{"DB_PASSWORD: nothing is at secret/a/s/db-password", "strongroom-env.staging.toml the mapping file of this environment?"}},
	} {
		t.Run(name, func(t *testing.T) {
			v := newAppVault(t)
			creds := ""
			if tt.creds != "" {
				creds = filepath.Join(dir, tt.creds)
			}
			for name, value := range map[string]string{"HOME": t.TempDir(), "VAULT_TOKEN": tt.token, "VAULT_ADDR": v.URL, "CREDENTIALS_DIRECTORY": creds} {
				t.Setenv(name, value)
			}
			args := []string{"env", "print", "--reveal"}
			if len(tt.args) == 0 || tt.args[0] != "--mapping" {
				args = append(args, mapping...)
			}
			code, out := run(t, append(args, tt.args...)...)
			if code != tt.want || code == ExitOK && !strings.Contains(out, "inv-value-77") {
				t.Errorf("exit code %d, want %d: %s", code, tt.want, out)
			}
			for _, s := range tt.says {
				if !strings.Contains(out, s) {
					t.Errorf("said %q, want %q in it", out, s)
				}
			}
			if did := strings.Join(v.said, ", "); did != tt.did {
				t.Errorf("it did %q, want %q", did, tt.did)
			}
			if strings.Contains(out, "PLANTED") {
				t.Errorf("a login shows: %s", out)
			}
		})
	}
}

// What a print that was killed has left of the secrets goes with the next one.
func TestEnvPrintLeavesNothing(t *testing.T) {
	v, dir := newAppVault(t), envFolder(t)
	t.Setenv("VAULT_ADDR", v.URL)
	t.Setenv("VAULT_TOKEN", "person")
	left := filepath.Join(dir, ".secrets.env.tmp-123456")
	if err := os.WriteFile(left, []byte("DB_PASSWORD=inv-value-76"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out := run(t, "env", "print", "--mapping", filepath.Join(dir, "strongroom-env.production.toml"), "--output", filepath.Join(dir, "secrets.env"))
	if _, err := os.Lstat(left); code != ExitOK || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("exit code %d, %v: %s", code, err, out)
	}
}

// The program is given the variables and nothing of the login.
func TestEnvExecHandsNoLoginOn(t *testing.T) {
	if os.Getenv("STRONGROOM_TEST_EXEC") == "1" {
		os.Unsetenv("STRONGROOM_TEST_EXEC")
		code, out := run(t, "env", "exec", "--mapping", "strongroom-env.production.toml", "--", "sh", "-c", "env; tr '\\0' ' ' </proc/$$/cmdline")
		t.Fatalf("no program began: exit code %d: %s", code, out)
	}
	v, dir := newAppVault(t), envFolder(t)
	c := exec.Command(os.Args[0], "-test.run=^TestEnvExecHandsNoLoginOn$")
	c.Dir = dir
	c.Env = append(os.Environ(), "STRONGROOM_TEST_EXEC=1", "VAULT_ADDR="+v.URL, "VAULT_TOKEN=PLANTED-person", "CREDENTIALS_DIRECTORY="+filepath.Join(dir, "login"))
	out, err := c.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "DB_PASSWORD=inv-value-77\n") {
		t.Fatalf("%v: %s", err, out)
	}
	if strings.Contains(string(out), "PLANTED") {
		t.Errorf("a login is handed on: %s", out)
	}
	if did := strings.Join(v.said, ", "); did != "read by PLANTED-made, ended PLANTED-made" {
		t.Errorf("it did %q", did)
	}
}
