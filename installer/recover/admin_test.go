package recover

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"strongroom.example/appliance/base/vaultapi"
)

// The administrator's token is of another time where Vault says so; whatever
// else keeps Vault from knowing it is an error.
func TestAdministratorsToken(t *testing.T) {
	for _, c := range []struct {
		name, body string
		status     int
		there, ok  bool
	}{
		{"known", `{"data":{"id":"hidden"}}`, 200, true, true},
		{"of another time", `{"errors":["permission denied"]}`, 403, false, true},
		{"wrapped", `{"data":null,"wrap_info":{"token":"w","ttl":60}}`, 200, false, false},
		{"no data", ``, 204, false, false},
		{"nobody there", `{"errors":["no handler for route"]}`, 404, false, false},
		{"failing", `{"errors":["internal error"]}`, 500, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(c.status)
				if c.body != "" {
					_, _ = w.Write([]byte(c.body))
				}
			}))
			defer srv.Close()
			e, _, _ := bench(t, memoryMachine(t))
			e.AdminToken = "admin"
			e.Vault = func(token string) (*vaultapi.Client, error) {
				v, err := vaultapi.New(vaultapi.Options{Address: srv.URL, Token: token})
				if err != nil {
					return nil, err
				}
				return v.Once(0), nil
			}
			got, err := (&Recovery{Env: e}).admin(t.Context())
			if (got != nil) != c.there || (err == nil) != c.ok {
				t.Errorf("client %t, %v", got != nil, err)
			}
		})
	}
}
