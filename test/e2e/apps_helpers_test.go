package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"

	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/appliance/cli"
	"strongroom.example/appliance/secrets/apps"
	"strongroom.example/config"
	"strongroom.example/test/vaulttest"
)

// appSite is a Vault as the installer leaves it, with apps.toml and an
// administrator who is not root.
type appSite struct {
	*vaulttest.Server
	dir    string
	config string
	admin  string // file with a token
	front  string // its URL, once it is started
}

func newAppSite(t *testing.T, conf string) *appSite {
	t.Helper()
	s := &appSite{Server: vaulttest.New(t), dir: vaulttest.Dir(t)}
	ctx, v := t.Context(), vaulttest.API(s.Root)
	if err := s.Root.EnableKV2(ctx, "secret"); err != nil {
		t.Fatal(err)
	}
	s.MountAPIKeys(t)
	for _, m := range []string{"approle", "userpass"} {
		if err := v.Sys().EnableAuthWithOptionsWithContext(ctx, m, &api.EnableAuthOptions{Type: m}); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range config.Policies() {
		if err := v.Sys().PutPolicyWithContext(ctx, name, text); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := v.Logical().WriteWithContext(ctx, "apikeys/providers/provider-a", map[string]any{"type": "generated"}); err != nil {
		t.Fatal(err)
	}
	s.admin = s.token(t, "admin", config.PolicyAdmin)
	s.config = filepath.Join(s.dir, "apps.toml")
	s.write(t, conf)
	return s
}

func (s *appSite) write(t *testing.T, conf string) {
	t.Helper()
	if err := os.WriteFile(s.config, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
}

// token makes a token with policies and gives the file that holds it.
func (s *appSite) token(t *testing.T, name string, policies ...string) string {
	t.Helper()
	got, err := vaulttest.API(s.Root).Auth().Token().CreateOrphanWithContext(t.Context(), &api.TokenCreateRequest{Policies: policies, TTL: "1h", DisplayName: name})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(s.dir, name+".token")
	if err := os.WriteFile(file, []byte(got.Auth.ClientToken+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// as speaks to Vault with the token in a file.
func (s *appSite) as(t *testing.T, file string) apps.Vault {
	t.Helper()
	token, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return apps.New(s.Client(t, strings.TrimSpace(string(token))))
}

// app runs a verb of strongroom app as the administrator.
func (s *appSite) app(t *testing.T, want int, args ...string) string {
	t.Helper()
	return s.appAs(t, want, s.admin, args...)
}

func (s *appSite) appAs(t *testing.T, want int, tokenFile string, args ...string) string {
	t.Helper()
	return mustRun(t, want, append([]string{"app", "--config", s.config, "--address", vaultAddr(s.Server), "--token-file", tokenFile}, args...)...)
}

// exampleApps is the shipped example, with the servers of a test.
func exampleApps(t *testing.T, db *dbServer) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(vaulttest.Root(t), "config", "examples", "bike-data-flow.toml"))
	if err != nil {
		t.Fatal(err)
	}
	host, port, ca, password := "127.0.0.1", 1, "", ""
	if db != nil {
		port, ca, password = db.port, db.caFile, filepath.Join(db.dir, "password")
		if err := os.WriteFile(password, []byte("a-first-password\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return replaceAll(t, string(data), map[string]string{
		`"db.example.com"`: strconv.Quote(host), `port     = 5432`: "port = " + strconv.Itoa(port),
		`"/etc/strongroom/db-ca.pem"`: strconv.Quote(ca), `"/etc/strongroom/bikes-password"`: strconv.Quote(password),
		`"10.0.0.0/24"`: `"127.0.0.0/8"`,
	})
}

// replaceAll insists that each of the texts is there.
func replaceAll(t *testing.T, s string, texts map[string]string) string {
	t.Helper()
	for old, text := range texts {
		if !strings.Contains(s, old) {
			t.Fatalf("the example has no %s any more", old)
		}
		s = strings.ReplaceAll(s, old, text)
	}
	return s
}

// applied applies, and sees that there is nothing more to do.
func (s *appSite) applied(t *testing.T) string {
	t.Helper()
	out := s.app(t, cli.ExitOK, "apply")
	if again := s.app(t, cli.ExitOK, "plan"); !strings.Contains(again, "0 to create, 0 to change") {
		t.Errorf("after an apply the plan is:\n%s", again)
	}
	return out
}

// frontClient speaks to Vault as apps do: over TCP through the front, so that
// Vault sees an address.
func (s *appSite) frontClient(t *testing.T) *vaultapi.Client {
	t.Helper()
	s.startFront(t)
	c, err := vaultapi.New(vaultapi.Options{Address: s.front, CACert: s.Layout.FrontRoot()})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (s *appSite) startFront(t *testing.T) {
	t.Helper()
	if s.front != "" {
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), vaulttest.Patience)
	defer cancel()
	if _, err := s.StartFront(ctx); err != nil {
		t.Fatal(err)
	}
	leader, err := vaulttest.API(s.Root).Sys().LeaderWithContext(ctx) // whose address is the front's
	if err != nil {
		t.Fatal(err)
	}
	s.front = leader.LeaderAddress
}

// noDatabaseServer is the example with its database marked as somebody else's.
func noDatabaseServer(t *testing.T) string {
	t.Helper()
	conf := exampleApps(t, nil)
	from, to := strings.Index(conf, "ca_file  = "), strings.Index(conf, "# ── apps")
	return conf[:from] + "external = true\n" + conf[to:]
}

// fakeDatabase configures a connection that nobody answers, so that roles can
// be made for it.
func (s *appSite) fakeDatabase(t *testing.T) {
	t.Helper()
	v := vaulttest.API(s.Root)
	if err := v.Sys().MountWithContext(t.Context(), "database", &api.MountInput{Type: "database"}); err != nil {
		t.Fatal(err)
	}
	_, err := v.Logical().WriteWithContext(t.Context(), "database/config/bikes", map[string]any{
		"plugin_name": "postgresql-database-plugin", "connection_url": "postgresql://{{username}}:{{password}}@127.0.0.1:1/bikes",
		"username": "x", "password": "x", "verify_connection": false, "allowed_roles": "*",
	})
	if err != nil {
		t.Fatal(err)
	}
}

func jsonText(v any) string { return fmt.Sprint(v) }
