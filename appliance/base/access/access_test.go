package access

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"strongroom.example/appliance/base/fault"
	"strongroom.example/config/machine"
)

const canary = "PLANTED-canary"

// world is a machine with a home, a folder of systemd's credentials and a Vault
// that takes any login.
type world struct {
	home, creds string
	url         string
	logins      []string // role ids
	revoked     int
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{home: t.TempDir(), creds: t.TempDir()}
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "application/json")
		switch r.URL.Path {
		case "/v1/auth/approle/login":
			var body struct {
				RoleID string `json:"role_id"`
			}
			if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
				t.Error(err)
			}
			w.logins = append(w.logins, body.RoleID)
			_, _ = rw.Write([]byte(`{"auth":{"client_token":"made","lease_duration":60}}`))
		case "/v1/auth/token/revoke-self":
			w.revoked++
			rw.WriteHeader(http.StatusNoContent)
		default:
			t.Errorf("asked for %s", r.URL.Path)
		}
	}))
	t.Cleanup(srv.Close)
	w.url = srv.URL
	for name, value := range map[string]string{"HOME": w.home, "VAULT_TOKEN": "", "VAULT_ADDR": w.url, "VAULT_CACERT": "", "CREDENTIALS_DIRECTORY": ""} {
		t.Setenv(name, value)
	}
	return w
}

func put(t *testing.T, dir, name, text string) string {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// One order for every command: flags, this machine's own login, the variable,
// what vault login has left.
func TestOrder(t *testing.T) {
	job := Role{ID: "job-role-id", Secret: "job-secret-id"}
	own := func(t *testing.T, w *world) {
		put(t, w.creds, job.ID, "own\n")
		put(t, w.creds, job.Secret, canary+"\n")
		t.Setenv("CREDENTIALS_DIRECTORY", w.creds)
	}
	variable := func(t *testing.T, _ *world) { t.Setenv("VAULT_TOKEN", "of-variable") }
	left := func(t *testing.T, w *world) { put(t, w.home, ".vault-token", "left\n") }
	all := func(t *testing.T, w *world) { own(t, w); variable(t, w); left(t, w) }
	tests := []struct {
		name  string
		given func(*testing.T, *world)
		flags func(*testing.T, *world, *Options)
		token string // what the client uses
		role  string // who has logged in
		says  string
	}{
		{name: "a token's file first", given: all, token: "of-file",
			flags: func(t *testing.T, w *world, o *Options) { o.TokenFile = put(t, w.home, "t", "of-file\n") }},
		{name: "an AppRole's files first", given: all, token: "made", role: "given",
			flags: func(t *testing.T, w *world, o *Options) {
				o.RoleIDFile, o.SecretIDFile = put(t, w.home, "r", "given"), put(t, w.home, "s", canary)
			}},
		{name: "this machine's own", given: all, token: "made", role: "own"},
		{name: "none of its own for this command", given: all, token: "of-variable",
			flags: func(_ *testing.T, _ *world, o *Options) { o.Machine = Role{} }},
		{name: "the variable", given: func(t *testing.T, w *world) { variable(t, w); left(t, w) }, token: "of-variable"},
		{name: "what vault login has left", given: left, token: "left"},
		{name: "another unit's credentials", token: "left", given: func(t *testing.T, w *world) {
			left(t, w)
			t.Setenv("CREDENTIALS_DIRECTORY", t.TempDir())
		}},
		{name: "nothing", given: func(*testing.T, *world) {}, says: "not logged in"},
		{name: "empty credentials", says: "job-role-id and job-secret-id are empty", given: func(t *testing.T, w *world) {
			put(t, w.creds, job.ID, "\n")
			put(t, w.creds, job.Secret, "\n")
			t.Setenv("CREDENTIALS_DIRECTORY", w.creds)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			o := Options{Machine: job, Sealed: t.TempDir()}
			tt.given(t, w)
			if tt.flags != nil {
				tt.flags(t, w, &o)
			}
			c, err := o.Client()
			if err != nil {
				t.Fatal(err)
			}
			s, err := o.Login(t.Context(), c)
			if tt.says != "" {
				if !errors.Is(err, ErrNoLogin) || !strings.Contains(err.Error(), tt.says) {
					t.Errorf("%v, want %q", err, tt.says)
				}
				return
			}
			if err != nil || c.Token() != tt.token {
				t.Errorf("token %q, %v; want %q", c.Token(), err, tt.token)
			}
			if got := strings.Join(w.logins, " "); got != tt.role {
				t.Errorf("logged in as %q, want %q", got, tt.role)
			}
			// Only what was made here is ended, once, also of a cancelled run.
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			want := 0
			if tt.role != "" {
				want = 1
			}
			own := s.Own()
			if err := errors.Join(s.End(ctx), s.End(ctx)); err != nil || own != (want == 1) || w.revoked != want {
				t.Errorf("own %t, ended %d times, want %d: %v", own, w.revoked, want, err)
			}
		})
	}
}

// What is sealed on this disk goes to this machine's Vault and to no other.
func TestThisMachine(t *testing.T) {
	for address, want := range map[string]bool{
		"": true, machine.VaultAddress: true, "https://127.0.0.1:8200": true, "https://[::1]:8200": true, "https://localhost": true,
		"https://vault.example.com": false, "https://192.0.2.1:8200": false, "https://127.0.0.1.example.com": false,
	} {
		t.Setenv("VAULT_ADDR", address)
		if got := new(Options).thisMachine(); got != want {
			t.Errorf("%q: %t", address, got)
		}
	}
}

// Each refusal says whose fault it is and what to do, and quotes no secret.
func TestRefusals(t *testing.T) {
	w := newWorld(t)
	file := func(text string) string { return put(t, w.home, "f", text) }
	for name, c := range map[string]struct {
		o     Options
		token string // VAULT_TOKEN
		usage bool
	}{
		"an empty file":          {o: Options{TokenFile: file("\n")}},
		"a file that is gone":    {o: Options{TokenFile: filepath.Join(w.home, "none")}, usage: true},
		"two in the variable":    {token: canary + " b", usage: true},
		"half an AppRole":        {o: Options{RoleIDFile: "x"}, usage: true},
		"a token and an AppRole": {o: Options{TokenFile: "x", RoleIDFile: "x", SecretIDFile: "x"}, usage: true},
		"a role that is gone":    {o: Options{RoleIDFile: "none", SecretIDFile: "none"}},
		"another scheme":         {o: Options{Address: "gopher://x"}, usage: true},
		"no host":                {o: Options{Address: "https://"}, usage: true},
		"a path":                 {o: Options{Address: "/run/vault/vault.sock"}, usage: true},
		"a password":             {o: Options{Address: "https://a:" + canary + "@h"}, usage: true},
		"a broken URL":           {o: Options{Address: "https://a:" + canary + "@h:%zz"}, usage: true},
		"no authority":           {o: Options{CACert: filepath.Join(w.home, "none.pem")}, usage: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("VAULT_TOKEN", c.token)
			cl, err := c.o.Client()
			if err == nil {
				_, err = c.o.Login(t.Context(), cl)
			}
			var f *fault.Error
			if !errors.As(err, &f) || (f.Code == fault.Usage) != c.usage || f.Code != fault.Usage && f.Code != fault.Operator || f.Hint == "" {
				t.Fatalf("%v: %+v", err, f)
			}
			if strings.Contains(f.Error()+f.Hint, canary) {
				t.Errorf("it quotes a secret: %v", f)
			}
		})
	}
}
