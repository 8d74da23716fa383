package cli

import (
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// What fails leaves a living login as it is, and nothing beside it; what
// succeeds replaces all of it.
func TestOpenBundleSparesALivingLogin(t *testing.T) {
	const path = "auth/approle/role/a-e/secret-id"
	living := map[string]string{"role-id": "old role\n", "secret-id": "old secret\n", "ca.crt": "old authority\n"}
	for name, tc := range map[string]struct {
		answers map[string]string // by path; all else is Vault's word for a token that is used up
		spoil   func(t *testing.T, dir string)
		code    int
		says    string
	}{
		"opened before": {nil, nil, ExitOperator, "somebody else may have the login"},
		"exchanged":     {map[string]string{"sys/wrapping/lookup": `{"data":{"creation_path":"sys/wrapping/wrap"}}`}, nil, ExitOperator, "sys/wrapping/wrap"},
		"holds no secret": {map[string]string{"sys/wrapping/lookup": `{"data":{"creation_path":"` + path + `"}}`, "sys/wrapping/unwrap": `{"data":{"other":"x"}}`},
			nil, ExitOperator, "no secret id"},
		"a folder in its place": {map[string]string{"sys/wrapping/lookup": `{"data":{"creation_path":"` + path + `"}}`}, func(t *testing.T, dir string) {
			t.Helper()
			if err := os.Remove(filepath.Join(dir, "secret-id")); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(filepath.Join(dir, "secret-id"), 0o700); err != nil {
				t.Fatal(err)
			}
		}, ExitFailed, "secret-id"},
		"well": {map[string]string{"sys/wrapping/lookup": `{"data":{"creation_path":"` + path + `"}}`, "sys/wrapping/unwrap": `{"data":{"secret_id":"new secret"}}`},
			nil, ExitOK, "wrote role-id and secret-id"},
	} {
		t.Run(name, func(t *testing.T) {
			unwrapped := false
			srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				unwrapped = unwrapped || r.URL.Path == "/v1/sys/wrapping/unwrap"
				text, known := tc.answers[r.URL.Path[len("/v1/"):]]
				if !known {
					w.WriteHeader(http.StatusBadRequest)
					text = `{"errors":["wrapping token is not valid or does not exist"]}`
				}
				_, _ = w.Write([]byte(text))
			}))
			defer srv.Close()
			ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}))
			bundle := filepath.Join(t.TempDir(), "bundle")
			text, err := json.Marshal(map[string]any{"app": "a", "environment": "e", "vault_addr": srv.URL, "ca_cert": ca, "role_id": "new role", "wrapped_secret_id": "w"})
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(bundle, text, 0o600); err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			for file, text := range living {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if tc.spoil != nil {
				tc.spoil(t, dir)
			}
			code, out := run(t, "app", "open-bundle", bundle, "--output", dir)
			if code != tc.code {
				t.Errorf("exit code %d, want %d\n%s", code, tc.code, out)
			}
			says(t, out, tc.says)
			want := living
			if tc.code == ExitOK {
				want = map[string]string{"role-id": "new role\n", "secret-id": "new secret\n", "ca.crt": ca}
			}
			if tc.spoil != nil && unwrapped {
				t.Error("the token is used up for nothing")
			}
			entries, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, e := range entries {
				names = append(names, e.Name())
				if e.IsDir() {
					continue
				}
				if got, err := os.ReadFile(filepath.Join(dir, e.Name())); err != nil || string(got) != want[e.Name()] {
					t.Errorf("%s is not what it should be (%d bytes, %v)", e.Name(), len(got), err)
				}
			}
			if !slices.Equal(names, []string{"ca.crt", "role-id", "secret-id"}) {
				t.Errorf("the folder holds %q", names)
			}
		})
	}
}
