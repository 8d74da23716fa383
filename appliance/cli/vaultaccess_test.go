package cli

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"strongroom.example/appliance/base/vaultapi"
)

// What vault login has left serves snapshot take as it serves status and app.
func TestSnapshotTakeAfterVaultLogin(t *testing.T) {
	const token = "left-by-vault-login"
	b := newBackups(t)
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	asked := ""
	vault := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch r.URL.Path {
		case "/v1/sys/health":
			_, _ = w.Write([]byte(`{"initialized":true,"sealed":false,"standby":false,"version":"1.21.1","cluster_id":"c"}`))
		case "/v1/sys/storage/raft/snapshot":
			asked = r.Header.Get("X-Vault-Token")
			w.WriteHeader(http.StatusTeapot) // the login is what is looked at
		default:
			t.Errorf("asked for %s", r.URL.Path)
		}
	}))
	defer vault.Close()
	home := t.TempDir()
	if err := os.WriteFile(filepath.Join(home, ".vault-token"), []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{"HOME": home, "VAULT_TOKEN": "", "VAULT_ADDR": vault.URL, "CREDENTIALS_DIRECTORY": ""} {
		t.Setenv(name, value)
	}
	code, out := run(t, "snapshot", "take", "--dir", b.dir, "--recipient", id.Recipient().String(), "--state", b.takeState)
	if asked != token {
		t.Errorf("the snapshot was asked for with token %q; exit code %d:\n%s", asked, code, out)
	}
}

// Both programs' codes: a wrong flag is usage, a login that is missing is for a
// person.
func TestVaultAccessCodes(t *testing.T) {
	for name, value := range map[string]string{"HOME": t.TempDir(), "VAULT_TOKEN": "", "VAULT_ADDR": "", "CREDENTIALS_DIRECTORY": ""} {
		t.Setenv(name, value)
	}
	for _, tt := range []struct {
		args []string
		want int
		says string
	}{
		{[]string{"kv", "rollback", "a", "--to-version", "1", "--address", "gopher://x"}, ExitUsage, "--address https://HOST:PORT"},
		{[]string{"kv", "rollback", "a", "--to-version", "1"}, ExitOperator, "vault login"},
		{[]string{"metrics", "--listen", "127.0.0.1:0", "--ca-cert", "/none.pem"}, ExitUsage, "none.pem"},
	} {
		code, out := run(t, tt.args...)
		if code != tt.want || !strings.Contains(out, tt.says) {
			t.Errorf("%q: exit code %d:\n%s", tt.args, code, out)
		}
	}
}

func TestVaultError(t *testing.T) {
	refused := &net.OpError{Op: "dial", Err: errors.New("refused")}
	tests := []struct {
		name string
		err  error
		want int
	}{
		{"forbidden", fmt.Errorf("read: %w", &vaultapi.Error{Status: 403}), ExitOperator},
		{"sealed", &vaultapi.Error{Status: 503}, ExitOperator},
		{"bad request", &vaultapi.Error{Status: 400}, 0},
		{"refused", &url.Error{Op: "Get", URL: "x", Err: refused}, ExitFailed},
		{"known", &Error{Code: ExitDrift, Err: errors.New("x")}, ExitDrift},
		{"other", errors.New("x"), 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := 0
			var e *Error
			if errors.As(vaultError(tt.err), &e) {
				got = e.Code
			}
			if got != tt.want {
				t.Errorf("code %d, want %d", got, tt.want)
			}
		})
	}
	front := &vaultapi.Error{Status: 403, Errors: []string{"this sys/ path is answered on the machine itself only"}}
	var e *Error
	if !errors.As(vaultError(fmt.Errorf("mount: %w", front)), &e) || e.Code != ExitOperator || !strings.Contains(e.Hint, "on the Vault machine") {
		t.Errorf("what the front keeps from the outside: %v", e)
	}
	if vaultError(nil) != nil {
		t.Error("nil must stay nil")
	}
}
