package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/hcl"
)

const minimalApps = "manifest = \"m\"\n"

func TestAppsExample(t *testing.T) {
	a, err := LoadApps(filepath.Join("examples", "bike-data-flow.toml"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, x := range a.Targets() {
		got = append(got, x.Prefix+" "+x.Role+" "+x.Policy)
	}
	want := []string{
		"bike-data-flow/production bike-data-flow-production bike-data-flow-production",
		"bike-data-flow/staging bike-data-flow-staging bike-data-flow-staging",
		"dagster dagster dagster-secrets",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("targets = %q, want %q", got, want)
	}
	p := a.Targets()[0]
	if p.Login.TokenTTL != time.Hour || p.Login.TokenMaxTTL != 4*time.Hour || p.Login.SecretIDTTL != 90*24*time.Hour || len(p.Login.CIDRs) != 1 {
		t.Errorf("login = %+v", p.Login)
	}
	if p.Databases[0].Name != "bike-data-flow-production-rw" || p.Databases[1].Name != "bike-data-flow-production-ro" {
		t.Errorf("database roles = %+v", p.Databases)
	}
	if got := a.RolesOf("bikes"); strings.Join(got, ",") != "bike-data-flow-production-ro,bike-data-flow-production-rw,bike-data-flow-staging-owner" {
		t.Errorf("roles of bikes = %q", got)
	}
}

// Each line of bad must be refused at that line, with that text; all of them at
// once.
func TestAppsFaults(t *testing.T) {
	tests := []struct {
		name, in string
		want     []string // "line: field: part of the message"
	}{
		{"nothing", "", []string{"0: manifest: is required"}},
		{"unknown key", minimalApps + "[[app]]\nname = \"a\"\nsecret = []\n", []string{"4: app[0].secret: unknown key"}},
		{"not TOML", "manifest = \n", []string{"1: : "}},
		{"names", "manifest = \"Data Team\"\n[[app]]\nname = \"a*\"\n[[app]]\nname = \"../x\"\n", []string{
			`1: manifest: "Data Team" is not a name`, `3: app[0].name: "a*" is not a name`, `5: app[1].name: "../x" is not a name`,
		}},
		{"the appliance's own", minimalApps + "[[app]]\nname = \"strongroom-x\"\n", []string{"3: app[0].name: "}},
		{"secrets", minimalApps + "[[app]]\nname = \"a\"\nsecrets = [\"a//b\", \"/x\", \"a/+\", \"../x\", \"ok/x\", \"ok/x\"]\n", []string{
			`4: app[0].secrets[0]: "a//b" is not`, `4: app[0].secrets[1]: "/x" is not`, `4: app[0].secrets[2]: "a/+" is not`,
			`4: app[0].secrets[3]: "../x" is not`, `4: app[0].secrets[5]: the secret is "a/ok/x" already`,
		}},
		{"the same login by two ways", minimalApps + "[[app]]\nname = \"a-b\"\n[[app.environment]]\nname = \"c\"\n[[app]]\nname = \"a\"\n[[app.environment]]\nname = \"b-c\"\n", []string{
			`9: app[1].environment[0].name: the login is "a-b-c" already`, `8: app[1].environment[0].policy: the policy is "a-b-c" already`,
		}},
		{"the whole app beside environments", minimalApps + "[[app]]\nname = \"a\"\nsecrets = [\"x\"]\n[[app.environment]]\nname = \"e\"\n", []string{"4: app[0].secrets: belongs to one"}},
		{"policies that are not an app's", minimalApps + "[[app]]\nname = \"a\"\npolicy = \"root\"\n[[app]]\nname = \"b\"\npolicy = \"strongroom-admin\"\n", []string{
			`4: app[0].policy: "root" is not`, `7: app[1].policy: "strongroom-admin" is not`,
		}},
		{"grants", minimalApps + "[[app]]\nname = \"a\"\ngrants = [\"*\", \"a\", \"x/+\", \"b/c\", \"b/c\"]\n", []string{
			`4: app[0].grants[0]: "*"`, `4: app[0].grants[1]: "a" is its own`, `4: app[0].grants[2]: "x/+"`, "4: app[0].grants[4]: the grant",
		}},
		{"logins", minimalApps + "[[app]]\nname = \"a\"\n[app.login]\ntoken_ttl = \"5h\"\ntoken_max_ttl = \"4h\"\nsecret_id_uses = -1\ncidrs = [\"10.0.0.1/8\"]\nsecret_id_ttl = \"9000d\"\n", []string{
			"5: app[0].login.token_ttl: 5h0m0s", "7: app[0].login.secret_id_uses: -1", `8: app[0].login.cidrs[0]: "10.0.0.1/8"`, "9: app[0].login.secret_id_ttl: ",
		}},
		{"endless keys", minimalApps + "[[app]]\nname = \"a\"\n[[app.key]]\nname = \"k\"\nprovider = \"p\"\nrotation_period = \"36500d\"\ngrace_period = \"36500d\"\n", []string{
			"7: app[0].key[0].rotation_period: 876000h0m0s is not between", "8: app[0].key[0].grace_period: 876000h0m0s is not between",
		}},
		{"keys", minimalApps + "[[app]]\nname = \"a\"\n[[app.key]]\nname = \"k\"\nrotation_period = \"1h\"\nrotation_schedule = \"@daily\"\ntime_zone = \"Mars/One\"\n", []string{
			"4: app[0].key[0].provider: is required", "7: app[0].key[0].rotation_schedule: and rotation_period", `8: app[0].key[0].time_zone: "Mars/One"`,
		}},
		{"databases", minimalApps + "[[database]]\nname = \"d\"\nengine = \"oracle\"\nhost = \"db.example.com\"\ndatabase = \"x'; --\"\ntls = \"off\"\nusername = \"vault\"\npassword_file = \"p\"\n", []string{
			`4: database[0].engine: "oracle" is none of`, `6: database[0].database: "x'; --"`, `7: database[0].tls: "off" is only for`, `9: database[0].password_file: is not an absolute, clean path`,
		}},
		{"hosts of accounts", minimalApps + `[[database]]
name = "d"
engine = "mariadb"
host = "localhost"
database = "d"
username = "vault"
account_host = "10.0.0.5'; --"
password_file = "/p"
[[database]]
name = "p"
engine = "postgresql"
host = "localhost"
database = "d"
username = "vault"
account_host = "%"
password_file = "/p"
[[app]]
name = "a"
[[app.database]]
database = "d"
access = "read-only"
account_host = "%"
[[app.database]]
database = "d"
access = "static"
username = "u"
account_host = "10.0.0.%"
[[app.database]]
database = "p"
access = "static"
username = "u"
account_host = "%"
`, []string{
			`8: database[0].account_host: "10.0.0.5'; --" is not the host`, "16: database[1].account_host: is not for postgresql",
			`20: app[0].database[0].username: account_host and rotation_period are only`, `29: app[0].database[2].name: the database role is "a-static" already`, "33: app[0].database[2].account_host: is not for postgresql",
		}},
		{"database roles", minimalApps + `[[database]]
name = "d"
engine = "mariadb"
host = "localhost"
database = "d"
username = "vault"
password_file = "/p"
[[app]]
name = "a"
[[app.database]]
database = "e"
access = "read-only"
[[app.database]]
database = "d"
access = "read-write"
schema = "s"
ttl = "2d"
max_ttl = "1d"
[[app.database]]
database = "d"
access = "static"
username = "vault"
[[app.database]]
database = "d"
access = "owner"
username = "x"
`, []string{
			`12: app[0].database[0].database: "e" is none of the file's databases`,
			"17: app[0].database[1].schema: is only for postgresql", "18: app[0].database[1].ttl: 48h0m0s is not",
			`23: app[0].database[2].username: "vault" is Vault's own account`, "27: app[0].database[3].username: ",
		}},
		{"auth", minimalApps + `[[auth]]
type = "magic"
[[auth]]
type = "ldap"
url = "ldap://ldap.example.com"
client_id = "x"
[[auth.map]]
group = "ops"
roles = ["root", "owner:nobody"]
[[auth]]
type = "userpass"
path = "approle"
`, []string{
			`3: auth[0].type: "magic" is none of`, `6: auth[1].url: "ldap://ldap.example.com" is neither`, "7: auth[1].client_id: is only for type",
			"4: auth[1].user_dn: is required", `10: auth[1].map[0].roles[0]: "root" is none of`, `10: auth[1].map[0].roles[1]: "owner:nobody": the file has no app`,
			`13: auth[2].path: "approle" is taken`,
		}},
		{"pods are no people", minimalApps + "[[app]]\nname = \"a\"\n[[auth]]\ntype = \"kubernetes\"\nhost = \"https://k\"\n[[auth.map]]\nnamespace = \"n\"\nservice_accounts = [\"s\"]\nroles = [\"admin\"]\n[[auth]]\ntype = \"userpass\"\n[[auth.map]]\nuser = \"u\"\nroles = [\"app:a\"]\n", []string{
			`10: auth[0].map[0].roles[0]: "admin": people get`, `15: auth[1].map[0].roles[0]: "app:a": people get`,
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseApps("apps.toml", []byte(tt.in))
			var faults Faults
			if !errors.As(err, &faults) {
				t.Fatalf("error = %v, want faults", err)
			}
		next:
			for _, want := range tt.want {
				line, rest, _ := strings.Cut(want, ": ")
				field, msg, _ := strings.Cut(rest, ": ")
				for _, f := range faults {
					if f.Field == field && strings.HasPrefix(f.Msg, msg) && strings.TrimSpace(line) == strconv.Itoa(f.Line) {
						continue next
					}
				}
				t.Errorf("no fault %q in:\n%v", want, err)
			}
			if len(faults) < len(tt.want) {
				t.Errorf("%d faults, want at least %d", len(faults), len(tt.want))
			}
		})
	}
}

// No name that is let through can mean anything to a policy.
func TestGeneratedPolicies(t *testing.T) {
	a, err := LoadApps(filepath.Join("examples", "bike-data-flow.toml"))
	if err != nil {
		t.Fatal(err)
	}
	texts := []string{a.OwnerPolicyText("bike-data-flow"), a.OwnerPolicyText("dagster")}
	for _, x := range a.Targets() {
		texts = append(texts, a.ReadPolicy(x))
	}
	for _, text := range texts {
		var policy struct {
			Path map[string]any `hcl:"path"`
		}
		if err := hcl.Decode(&policy, text); err != nil || len(policy.Path) == 0 {
			t.Errorf("%v:\n%s", err, text)
		}
		if m, app, ok := ParsePolicyMark(text); !ok || m != "data-team" || app == "" {
			t.Errorf("mark = %q, %q, %t", m, app, ok)
		}
		for path := range policy.Path {
			if strings.Contains(path, "+") || strings.HasPrefix(path, "*") || strings.Contains(path, "//") {
				t.Errorf("path %q", path)
			}
		}
	}
	if _, _, ok := ParsePolicyMark("path \"x\" {}"); ok {
		t.Error("a policy without mark has one")
	}
}

func FuzzParseApps(f *testing.F) {
	example, err := os.ReadFile(filepath.Join("examples", "bike-data-flow.toml"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(example))
	f.Add(minimalApps + "[[app]]\nname = \"a\"\n[[app.key]]\nparameters = {x = 1}\n")
	f.Fuzz(func(t *testing.T, in string) {
		a, err := ParseApps("apps.toml", []byte(in))
		if err != nil {
			return
		}
		for _, x := range a.Targets() {
			var policy map[string]any
			if err := hcl.Decode(&policy, a.ReadPolicy(x)); err != nil {
				t.Fatalf("%v:\n%s", err, a.ReadPolicy(x))
			}
		}
	})
}
