package recover

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"strongroom.example/appliance/base/fault"
	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/config/machine"
	"strongroom.example/installer/host"
)

// A Vault that is in use is never wiped, even where an old recovery's state lies
// beside it; one that a killed run has begun is.
func TestVaultInUseIsNotWiped(t *testing.T) {
	for _, c := range []struct {
		name string
		used bool
	}{{"begun by a killed run", false}, {"in use", true}} {
		t.Run(c.name, func(t *testing.T) {
			m := memoryMachine(t)
			e, found, o := bench(t, m)
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				_, _ = w.Write([]byte(`{"initialized":true,"sealed":false,"standby":false,"cluster_id":"another"}`))
			}))
			defer srv.Close()
			e.Vault = func(token string) (*vaultapi.Client, error) {
				return vaultapi.New(vaultapi.Options{Address: srv.URL, Token: token})
			}
			if c.used {
				if err := e.Host.Write(machine.CredentialDir+"/doctor-secret-id", strings.NewReader("x"), host.Attr{Mode: 0o600}); err != nil {
					t.Fatal(err)
				}
			}
			r, err := Begin(e, &State{Format: stateFormat, ID: "c/x", Began: m.Clock}, found, o)
			if err != nil {
				t.Fatal(err)
			}
			diff, err := emptyStep{r}.Check(t.Context())
			var failed *fault.Error
			switch {
			case c.used && (len(diff) > 0 || !errors.As(err, &failed) || failed.Code != fault.Operator || failed.Hint == ""):
				t.Errorf("%d changes, %v; want none, and what to do", len(diff), err)
			case !c.used && (err != nil || len(diff) != 2):
				t.Errorf("%d changes, %v; want it removed and made anew", len(diff), err)
			}
		})
	}
}
