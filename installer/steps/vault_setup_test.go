package steps

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
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
// machine: the password stays. That of the way in that nobody outside can lock is made
// by itself, also on a machine that was installed before there was one.
func TestAdminIsMadeOnce(t *testing.T) {
	for name, c := range map[string]struct {
		users, local []string // nil: the method is not there
		file         bool
		denied       bool // by the doctor's policy of before
		made         string
	}{
		"fresh":                        {users: []string{}, local: []string{}, made: "admin.age local-admin.age"},
		"killed after the escrow":      {users: []string{}, local: []string{}, file: true, made: "admin.age local-admin.age"},
		"there":                        {users: []string{"admin"}, local: []string{"admin"}, file: true},
		"there, files taken away":      {users: []string{"admin"}, local: []string{"admin"}},
		"another one, file taken away": {users: []string{"ann"}, local: []string{"ann"}},
		"of before":                    {users: []string{"admin"}, made: "local-admin.age"},
		"killed after the method":      {users: []string{"admin"}, local: []string{}, made: "local-admin.age"},
		"a look by who may not":        {users: []string{"admin"}, local: []string{"admin"}, denied: true, made: "local-admin.age"},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				there := map[string][]string{machine.AuthUserpass: c.users, machine.AuthLocal: c.local}
				if r.URL.Path == "/v1/sys/auth" {
					methods := map[string]any{}
					for at, users := range there {
						if users != nil {
							methods[at+"/"] = map[string]any{"type": "userpass"}
						}
					}
					answerJSON(w, http.StatusOK, map[string]any{"data": methods})
					return
				}
				mount := strings.TrimSuffix(strings.TrimPrefix(r.URL.Path, "/v1/auth/"), "/users")
				users := there[mount]
				switch {
				case users == nil:
					t.Errorf("%s %s", r.Method, r.URL.Path)
				case c.denied && mount == machine.AuthLocal:
					answerJSON(w, http.StatusForbidden, map[string]any{"errors": []string{"permission denied"}})
				case len(users) == 0:
					answerJSON(w, http.StatusNotFound, map[string]any{"errors": []string{}})
				default:
					answerJSON(w, http.StatusOK, map[string]any{"data": map[string]any{"keys": users}})
				}
			}))
			defer srv.Close()
			v := newVPS(t)
			if c.file {
				v.Files[machine.AdminEscrow] = &host.Node{Data: []byte("age")}
				v.Files[machine.LocalEscrow] = &host.Node{Data: []byte("age")}
			}
			client, err := vaultapi.New(vaultapi.Options{Address: srv.URL, Token: "t"})
			if err != nil {
				t.Fatal(err)
			}
			diff, err := look{vaultSetup{v.env()}, client}.admin(t.Context(), !c.denied)
			var made []string
			for _, d := range diff {
				made = append(made, path.Base(d.To))
			}
			if got := strings.Join(made, " "); err != nil || got != c.made {
				t.Errorf("%v, %v; want %q", diff, err, c.made)
			}
		})
	}
}

// The two passwords: what userpass can tell apart, and bits enough for a log-in
// that has neither lockout nor delay.
func TestPasswordBits(t *testing.T) {
	e := newVPS(t).env()
	for bits, want := range map[int]int{130: 26, 256: 52} { // of 5 bits
		p, err := e.password(bits)
		if err != nil || len(strings.ReplaceAll(p, "-", "")) != want || len(p) > 72 {
			t.Errorf("%d bits: %d characters, %v", bits, len(p), err)
		}
	}
}
