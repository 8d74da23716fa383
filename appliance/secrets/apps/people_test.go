package apps

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"strongroom.example/config"
)

const crowd = `manifest = "m"
[[app]]
name = "a"
[[app.environment]]
name = "e"
[[auth]]
type = "oidc"
path = "sso"
discovery_url = "https://id.example.com"
client_id = "vault"
client_secret_file = "/oidc-secret"
ca_file = "/ca"
redirect_uris = ["http://localhost:8250/oidc/callback"]
scopes = ["groups"]
token_ttl = "1h"
token_max_ttl = "2h"
[[auth.map]]
group = "Ops"
roles = ["operator", "owner:a"]
[[auth.map]]
name = "auditors"
group = "Audit"
roles = ["reader"]
[[auth]]
type = "ldap"
url = "LDAPS".example
bind_dn = "cn=vault"
bind_password_file = "/bind-password"
user_dn = "ou=people"
user_attr = "sAMAccountName"
group_filter = "(member={{.UserDN}})"
[[auth.map]]
user = "Alice"
roles = ["admin"]
[[auth]]
type = "kubernetes"
host = "https://cluster.example.com"
audience = "vault"
token_reviewer_file = "/reviewer"
[[auth.map]]
namespace = "prod"
service_accounts = ["web", "worker"]
roles = ["app:a/e"]
`

func crowded(t *testing.T) config.Apps {
	t.Helper()
	return parse(t, strings.Replace(crowd, `"LDAPS".example`, `"ldaps://LDAP.Example.com"`, 1))
}

// files gives each file another content.
func files(name string) ([]byte, error) { return []byte("content of " + name + "\n"), nil }

// What each method and each of its people becomes in Vault.
func TestPeople(t *testing.T) {
	m := newMemory()
	o := options(crowded(t), m)
	o.ReadFile = files
	apply(t, o)
	for path, want := range map[string]string{
		"auth/sso/config": `{"default_role":"operator","oidc_client_id":"vault","oidc_client_secret":"content of /oidc-secret",` +
			`"oidc_discovery_ca_pem":"content of /ca\n","oidc_discovery_url":"https://id.example.com"}`,
		"auth/sso/role/operator": `{"allowed_redirect_uris":["http://localhost:8250/oidc/callback"],"bound_claims":{"groups":["Ops"]},"oidc_scopes":["groups"],` +
			`"role_type":"oidc","token_max_ttl":7200,"token_policies":["a-owner","strongroom-operator"],"token_ttl":3600,"user_claim":"sub"}`,
		"auth/sso/role/auditors": `{"allowed_redirect_uris":["http://localhost:8250/oidc/callback"],"bound_claims":{"groups":["Audit"]},"oidc_scopes":["groups"],` +
			`"role_type":"oidc","token_max_ttl":7200,"token_policies":["strongroom-reader"],"token_ttl":3600,"user_claim":"sub"}`,
		// Vault keeps these in lower case.
		"auth/ldap/config": `{"binddn":"cn=vault","bindpass":"content of /bind-password","certificate":"","deny_null_bind":true,"groupattr":"cn","groupdn":"",` +
			`"groupfilter":"(member={{.UserDN}})","insecure_tls":false,"starttls":false,"tls_min_version":"tls12","token_max_ttl":0,"token_ttl":0,` +
			`"url":"ldaps://ldap.example.com","userattr":"samaccountname","userdn":"ou=people"}`,
		"auth/ldap/users/alice": `{"policies":["strongroom-admin"]}`,
		"auth/kubernetes/config": `{"disable_local_ca_jwt":true,"kubernetes_ca_cert":"","kubernetes_host":"https://cluster.example.com",` +
			`"token_reviewer_jwt":"content of /reviewer"}`,
		"auth/kubernetes/role/app-a-e": `{"alias_name_source":"serviceaccount_uid","audience":"vault","bound_service_account_names":["web","worker"],` +
			`"bound_service_account_namespaces":["prod"],"token_policies":["a-e"]}`,
	} {
		got, err := json.Marshal(said(t, m.data[path], want))
		if err != nil || string(got) != want {
			t.Errorf("%s is\n%s\nwant\n%s", path, got, want)
		}
	}
	if p := plan(t, o); p.Changed() {
		t.Errorf("the second plan: %s", summary(p))
	}
	// The secrets cannot be compared: they are sent again when that is asked for.
	o.ResendSecrets = true
	o.ReadFile = func(name string) ([]byte, error) {
		data, err := files(name)
		if name != "/ca" {
			data = append([]byte("new "), data...)
		}
		return data, err
	}
	apply(t, o)
	for path, field := range map[string]string{"auth/sso/config": "oidc_client_secret", "auth/ldap/config": "bindpass", "auth/kubernetes/config": "token_reviewer_jwt"} {
		if got := text(m.data[path], field); !strings.HasPrefix(got, "new content of ") {
			t.Errorf("%s of %s is still %q", field, path, got)
		}
	}
}

// said is what an object has that want has, too, or that is not its default.
func said(t *testing.T, got map[string]any, want string) map[string]any {
	t.Helper()
	var fields map[string]any
	if err := json.Unmarshal([]byte(want), &fields); err != nil {
		t.Fatal(err)
	}
	out := map[string]any{}
	for k, v := range got {
		usual := false
		for _, row := range fieldTable {
			d, ours := row.ours[k]
			usual = usual || ours && canonical(k, d) == canonical(k, v)
		}
		if _, wanted := fields[k]; wanted || !usual {
			out[k] = v
		}
	}
	return out
}

// A pod's own token reviews itself where no other is given, and nothing is sent.
func TestWithoutReviewer(t *testing.T) {
	m := newMemory()
	conf := crowded(t)
	conf.Auth = conf.Auth[2:]
	conf.Auth[0].TokenReviewerFile = ""
	apply(t, options(conf, m))
	if got, there := m.data["auth/kubernetes/config"]["token_reviewer_jwt"]; there {
		t.Errorf("sent %v", got)
	}
}

// A CA that cannot be read stops an apply before anything is written; it is not
// "none", which would be the system's roots.
func TestUnreadableCA(t *testing.T) {
	for name, conf := range map[string]config.Apps{
		"of an auth method": crowded(t),
		"of a database":     parse(t, strings.Replace(everything, `host = "db.example.com"`, "host = \"db.example.com\"\nca_file = \"/ca\"", 1)),
	} {
		t.Run(name, func(t *testing.T) {
			m := newMemory()
			o := options(conf, m)
			o.ReadFile = func(file string) ([]byte, error) {
				if file == "/ca" {
					return nil, fs.ErrPermission
				}
				return files(file)
			}
			p, err := Apply(t.Context(), o, quiet)
			if !errors.Is(err, ErrConflict) || m.writes != 0 || p.Count(Blocked) != 1 || !strings.Contains(summary(p), "is missing: ca_file of") {
				t.Fatalf("%d writes, %v: %s", m.writes, err, summary(p))
			}
			o.ReadFile = files
			apply(t, o)
			var cas []string
			for path, field := range map[string]string{"auth/sso/config": "oidc_discovery_ca_pem", "database/config/d": "tls_ca"} {
				if m.data[path] != nil {
					cas = append(cas, text(m.data[path], field))
				}
			}
			if !slices.Equal(cas, []string{"content of /ca\n"}) {
				t.Errorf("the CA is %q", cas)
			}
		})
	}
}

// A new person whose password nobody would learn is not made.
func TestNobodyToTell(t *testing.T) {
	m := newMemory()
	o := options(parse(t, everything), m)
	o.Reveal = nil
	_, err := Apply(t.Context(), o, quiet)
	var person *NeedsOperator
	if !errors.As(err, &person) || m.data["auth/userpass/users/alice"] != nil {
		t.Errorf("%v, %v", m.data["auth/userpass/users/alice"], err)
	}
	told := map[string]Wrapped{}
	o.Reveal = func(name string, w Wrapped) { told[name] = w }
	apply(t, o)
	if len(told) != 1 || told["userpass/alice"].Token != "wrapped" || told["userpass/alice"].TTL != wrapPasswordFor {
		t.Errorf("told %v", told)
	}
	apply(t, o)
	if len(told) != 1 {
		t.Error("a second password was made")
	}
}

// A file that is a device, a pipe or far too large, an empty authority: each is said at
// once, and nothing is written.
func TestFilesThatAreNone(t *testing.T) {
	dir := t.TempDir()
	pipe, empty, large := filepath.Join(dir, "pipe"), filepath.Join(dir, "empty"), filepath.Join(dir, "large")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for file, size := range map[string]int{empty: 0, large: 100 << 20} {
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(file, int64(size)); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"/dev/zero", pipe, empty, large, dir, filepath.Join(dir, "none")} {
		for what, text := range map[string]string{
			"a password":   strings.Replace(everything, `"/password"`, strconv.Quote(file), 1),
			"an authority": strings.Replace(everything, `host = "db.example.com"`, "host = \"db.example.com\"\nca_file = "+strconv.Quote(file), 1),
		} {
			m := newMemory()
			o := options(parse(t, text), m)
			if what == "a password" {
				o.ReadFile = nil
			} else {
				o.ReadFile = func(f string) ([]byte, error) {
					if f == file {
						return readSmall(f)
					}
					return files(f)
				}
			}
			p, err := Apply(t.Context(), o, quiet)
			if err == nil || m.writes != 0 {
				t.Errorf("%s in %s: %v, %d writes: %s", what, file, err, m.writes, summary(p))
			}
		}
	}
}
