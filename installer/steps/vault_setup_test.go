package steps

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/config/machine"
	"strongroom.example/installer/engine"
	"strongroom.example/installer/host"
)

// TestSettled is about a Vault that refuses because it holds half of what a
// killed run has begun.
func TestSettled(t *testing.T) {
	// All that it asks of Vault is whether it is active.
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"initialized":true,"sealed":false,"standby":false}`))
	}))
	defer srv.Close()
	refusal := &vaultapi.Error{Status: http.StatusBadRequest}
	other := errors.New("no connection")
	for name, c := range map[string]struct {
		answers  []error
		made     bool // by a request that was still under way
		want     error
		restarts int
	}{
		"at once":        {answers: []error{nil}},
		"half made":      {answers: []error{refusal, nil}, restarts: 1},
		"made after all": {answers: []error{refusal}, made: true, restarts: 1},
		"still refused":  {answers: []error{refusal, refusal}, want: refusal, restarts: 1},
		"another fault":  {answers: []error{other}, want: other},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVPS(t)
			v.Units[machine.UnitVault] = &host.Unit{Load: "loaded", Active: "active"}
			restarts := 0
			v.OnStart[machine.UnitVault] = func() error { restarts++; return nil }
			client, err := vaultapi.New(vaultapi.Options{Address: srv.URL})
			if err != nil {
				t.Fatal(err)
			}
			calls := 0
			find := func(context.Context) (engine.Diff, error) {
				if c.made {
					return engine.Diff{{What: "another"}}, nil
				}
				return engine.Diff{{What: "this"}}, nil
			}
			err = look{vaultSetup{v.env()}, client}.settled("this", find, func(context.Context) error {
				calls++
				return c.answers[calls-1]
			})(t.Context())
			if !errors.Is(err, c.want) || restarts != c.restarts || calls != len(c.answers) {
				t.Errorf("error %v, %d restarts, %d calls; want %v, %d, %d", err, restarts, calls, c.want, c.restarts, len(c.answers))
			}
		})
	}
}

// TestAdminIsMadeOnce is about an administrator whose file has been taken off the
// machine: the password stays.
func TestAdminIsMadeOnce(t *testing.T) {
	for name, c := range map[string]struct {
		users []string
		file  bool
		made  bool
	}{
		"fresh":                        {made: true},
		"killed after the escrow":      {file: true, made: true},
		"there":                        {users: []string{"admin"}, file: true},
		"there, file taken away":       {users: []string{"admin"}},
		"another one, file taken away": {users: []string{"ann"}},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch r.URL.Path {
				case "/v1/sys/auth":
					answerJSON(w, http.StatusOK, map[string]any{"data": map[string]any{"userpass/": map[string]any{"type": "userpass"}}})
					return
				case "/v1/auth/userpass/users":
				default:
					t.Errorf("%s %s", r.Method, r.URL.Path)
				}
				if len(c.users) == 0 {
					answerJSON(w, http.StatusNotFound, map[string]any{"errors": []string{}})
					return
				}
				answerJSON(w, http.StatusOK, map[string]any{"data": map[string]any{"keys": c.users}})
			}))
			defer srv.Close()
			v := newVPS(t)
			if c.file {
				v.Files[adminEscrow] = &host.Node{Data: []byte("age")}
			}
			client, err := vaultapi.New(vaultapi.Options{Address: srv.URL, Token: "t"})
			if err != nil {
				t.Fatal(err)
			}
			diff, err := look{vaultSetup{v.env()}, client}.admin(t.Context())
			if err != nil || len(diff) > 0 != c.made {
				t.Errorf("%v, %v; want made %v", diff, err, c.made)
			}
		})
	}
}
