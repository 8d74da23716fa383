package cli

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"strongroom.example/appliance/base/access"
	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/config/machine"
)

// --fix starts what was stopped, and a Vault that has just been started is sealed
// for a moment: the second examination waits for it.
func TestDoctorWaitsForTheVaultThatItStarted(t *testing.T) {
	for name, c := range map[string]struct {
		first int // answer to the first two logins
		asked int32
		in    bool
	}{
		"still sealed": {http.StatusServiceUnavailable, 3, true},
		"refused":      {http.StatusBadRequest, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int32
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if asked.Add(1) <= 2 {
					w.WriteHeader(c.first)
					return
				}
				fmt.Fprint(w, `{"auth":{"client_token":"t","lease_duration":60}}`)
			}))
			defer srv.Close()
			dir := t.TempDir()
			for _, name := range []string{machine.CredDoctorRoleID, machine.CredDoctorSecretID} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte("id"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			t.Setenv("CREDENTIALS_DIRECTORY", dir)
			t.Setenv("VAULT_TOKEN", "")
			client, err := vaultapi.New(vaultapi.Options{Address: srv.URL})
			if err != nil {
				t.Fatal(err)
			}
			client = client.Once(0)
			o := doctorOptions{asked: client}
			o.vault.Machine = access.Role{ID: machine.CredDoctorRoleID, Secret: machine.CredDoctorSecretID}
			if err := o.loginAgain(t.Context()); (err == nil) != c.in || asked.Load() != c.asked {
				t.Errorf("%v after %d logins, want %d", err, asked.Load(), c.asked)
			}
		})
	}
}
