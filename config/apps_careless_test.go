package config

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// A careless file is answered at the line and the key that a person has written,
// with the value and with what to do.
func TestCarelessManifests(t *testing.T) {
	const pg = "[[database]]\nname = %q\nengine = \"postgresql\"\nhost = %q\ndatabase = \"d\"\nusername = \"vault\"\npassword_file = \"/p\"\n"
	const ldap = "[[auth]]\ntype = \"ldap\"\nuser_dn = \"d\"\nurl = %q\n"
	const k8s = "[[auth]]\ntype = \"kubernetes\"\nhost = \"https://k\"\n"
	const oidc = "[[auth]]\ntype = \"oidc\"\ndiscovery_url = \"https://id\"\nclient_id = \"c\"\nclient_secret_file = \"/s\"\nredirect_uris = [%q]\n"
	withEnvironments := "[[app]]\nname = \"bike\"\n[[app.environment]]\nname = \"production\"\n[[app.environment]]\nname = \"staging\"\n"
	long := strings.Repeat("n", 40)
	for name, tt := range map[string]struct{ in, want string }{
		"a grant of a whole app":        {withEnvironments + "[[app]]\nname = \"b\"\ngrants = [\"bike\"]\n", `10: app[1].grants[0]: "bike" has environments, and a grant of all would reach each of them, production too: name which ("bike/production", "bike/staging")`},
		"a grant of the appliance's":    {"[[app]]\nname = \"b\"\ngrants = [\"strongroom\"]\n", `4: app[0].grants[0]: "strongroom": names that begin with strongroom are the appliance's own`},
		"a grant of its ledgers":        {"[[app]]\nname = \"b\"\ngrants = [\"strongroom/manifests\"]\n", `4: app[0].grants[0]: "strongroom/manifests": names that begin with`},
		"an app like the appliance":     {"[[app]]\nname = \"strongroom\"\n", `3: app[0].name: "strongroom": names that begin with`},
		"a login like the appliance":    {"[[auth]]\ntype = \"userpass\"\npath = \"strongroom\"\n", `4: auth[0].path: "strongroom": names that begin with`},
		"a database like the appliance": {fmt.Sprintf(pg, "strongroom-d", "h"), `3: database[0].name: "strongroom-d": names that begin with`},
		"two directories, one in clear": {fmt.Sprintf(ldap, "ldaps://a,ldap://b"), `5: auth[0].url: "ldap://b" is neither ldaps://… nor ldap://… with starttls = true: passwords would go in clear`},
		"the other way round":           {fmt.Sprintf(ldap, "ldap://a,ldaps://b"), `5: auth[0].url: "ldap://a" is neither`},
		"a directory and nothing":       {fmt.Sprintf(ldap, "ldaps://a,"), `5: auth[0].url: "" is not the URL of an LDAP server`},
		"directories with a blank":      {fmt.Sprintf(ldap, "ldaps://a, ldaps://b"), `5: auth[0].url: " ldaps://b" is not the URL of an LDAP server`},
		"a directory's password":        {fmt.Sprintf(ldap, "ldaps://u:canary@a"), `5: auth[0].url: "ldaps://***@a" is not the URL of an LDAP server`},
		"another scheme":                {fmt.Sprintf(ldap, "ldapi://a"), `5: auth[0].url: "ldapi://a" is neither`},
		"groups that differ by case": {fmt.Sprintf(ldap, "ldaps://a") + "[[auth.map]]\ngroup = \"Data-Team\"\nroles = [\"reader\"]\n[[auth.map]]\ngroup = \"data-team\"\nroles = [\"operator\"]\n",
			`9: auth[0].map[1]: the mapping of ldap is "user , group data-team" already at auth[0].map[0]`},
		"a group with its path":        {fmt.Sprintf(ldap, "ldaps://a") + "[[auth.map]]\ngroup = \"/x\"\nroles = [\"reader\"]\n", `7: auth[0].map[0].group: "/x": a group of LDAP's stands in a path of Vault's, where "/" can't`},
		"a group with a blank":         {fmt.Sprintf(ldap, "ldaps://a") + "[[auth.map]]\ngroup = \"x \"\nroles = [\"reader\"]\n", `7: auth[0].map[0].group: "x " begins or ends with a blank`},
		"a user's star":                {fmt.Sprintf(ldap, "ldaps://a") + "[[auth.map]]\nuser = \"*\"\nroles = [\"reader\"]\n", `7: auth[0].map[0].user: "*": a group of LDAP's`},
		"a map of no method":           {"[[auth.map]]\nuser = \"x\"\nroles = [\"reader\"]\n", `2: auth: a list is wanted, this is a table: [[auth]] begins each entry, and stands before what is in it`},
		"a database of no environment": {"[[app]]\nname = \"a\"\n[[app.environment.database]]\ndatabase = \"d\"\n", `4: app[0].environment: a list is wanted, this is a table: [[app.environment]] begins each entry`},
		"one method as a table":        {"[auth]\ntype = \"userpass\"\n", `2: auth: a list is wanted, this is a table: [[auth]] begins each entry`},
		"one policy for two":           {"[[app]]\nname = \"mail\"\n[[app.environment]]\nname = \"self\"\n[[auth]]\ntype = \"userpass\"\npath = \"mail\"\n", `8: auth[0].path: the policy is "mail-self" already at app[0].environment[0].policy`},
		"a policy of people's":         {"[[app]]\nname = \"a\"\npolicy = \"userpass-self\"\n[[auth]]\ntype = \"userpass\"\n", `6: auth[0].type: the policy is "userpass-self" already at app[0].policy`},
		"an owner's policy":            {"[[app]]\nname = \"a\"\n[[app]]\nname = \"b\"\npolicy = \"a-owner\"\n", `6: app[1].policy: the policy is "a-owner" already at app[0].name`},
		"one account, two databases":   {fmt.Sprintf(pg, "d", "h") + fmt.Sprintf(pg, "e", "H."), `14: database[1].username: account "vault" of this server is at database[0].username already: each password that Vault makes for one kills the other's`},
		"this machine by two names":    {fmt.Sprintf(pg, "d", "localhost") + fmt.Sprintf(pg, "e", "::1"), `14: database[1].username: account "vault" of this server is at`},
		"one account, two roles": {fmt.Sprintf(pg, "d", "h") + "[[app]]\nname = \"a\"\n[[app.database]]\nname = \"one\"\ndatabase = \"d\"\naccess = \"static\"\nusername = \"u\"\n[[app.database]]\nname = \"two\"\ndatabase = \"d\"\naccess = \"static\"\nusername = \"u\"\n",
			`20: app[0].database[1].username: account "u" of this server is at app[0].database[0].username already: Vault would change its password for one, and the other's would be dead`},
		"a role of another connection's account": {fmt.Sprintf(pg, "d", "h") + strings.Replace(fmt.Sprintf(pg, "e", "h"), `"vault"`, `"other"`, 1) + "[[app]]\nname = \"a\"\n[[app.database]]\ndatabase = \"d\"\naccess = \"static\"\nusername = \"other\"\n",
			`21: app[0].database[0].username: account "other" of this server is at database[1].username already`},
		"several hosts":                {fmt.Sprintf(pg, "d", "/run/pg,evil.example.com"), `5: database[0].host: "/run/pg,evil.example.com" is neither`},
		"several names":                {fmt.Sprintf(pg, "d", "a,b"), `5: database[0].host: "a,b" is neither a host name, an address nor a clean absolute path, and only one`},
		"a range too long":             {"[[app]]\nname = \"a\"\n[app.login]\ncidrs = [\"10.0.0.1/8\"]\n", `5: app[0].login.cidrs[0]: "10.0.0.1/8" has an address that is longer than its range: "10.0.0.0/8" is the whole range, "10.0.0.1/32" the one address`},
		"an address":                   {"[[app]]\nname = \"a\"\n[app.login]\ncidrs = [\"10.0.0.1\"]\n", `5: app[0].login.cidrs[0]: "10.0.0.1" is one address, and a range is wanted: "10.0.0.1/32"`},
		"a range twice":                {"[[app]]\nname = \"a\"\n[app.login]\ncidrs = [\"10.0.0.0/8\", \"::ffff:10.0.0.0/104\"]\n", `5: app[0].login.cidrs[1]: "10.0.0.0/8" is at cidrs[0] already`},
		"all of IPv4 and more":         {"[[app]]\nname = \"a\"\n[app.login]\ncidrs = [\"::ffff:0:0/90\"]\n", `5: app[0].login.cidrs[0]: "::ffff:0:0/90"`},
		"half a second":                {"[[app]]\nname = \"a\"\n[app.login]\ntoken_ttl = \"90500ms\"\n", `5: app[0].login.token_ttl: 1m30.5s is no whole number of seconds`},
		"a name too long":              {"[[app]]\nname = \"" + long + "\"\n[[app.environment]]\nname = \"" + long + "\"\n", `5: app[0].environment[0].name: the login is called "` + long + "-" + long + `" then, which is longer than 64 characters: shorten the name`},
		"owners too long":              {"[[app]]\nname = \"" + strings.Repeat("n", 60) + "\"\n", `3: app[0].name: the owners' policy is called "`},
		"a whole file as a name":       {"[[app]]\nname = \"" + strings.Repeat("N", 5000) + "\"\n", `3: app[0].name: "` + strings.Repeat("N", 255) + `…" is not a name`},
		"no audience":                  {k8s, `2: auth[0].audience: is required: without it a token that a pod has for anybody else logs in here`},
		"any audience":                 {k8s + "audience = \"*\"\n", `5: auth[0].audience: "*" is not an audience`},
		"any account":                  {"[[app]]\nname = \"a\"\n" + k8s + "audience = \"vault\"\n[[auth.map]]\nnamespace = \"*\"\nservice_accounts = [\"*\"]\nroles = [\"app:a\"]\n", `9: auth[0].map[0].namespace: "*" is not a name`},
		"an audience of people":        {"[[auth]]\ntype = \"userpass\"\naudience = \"vault\"\n", `4: auth[0].audience: is only for type "kubernetes"; the type is "userpass"`},
		"sent back in clear":           {fmt.Sprintf(oidc, "http://vault.example.com/x"), `7: auth[0].redirect_uris[0]: "http://vault.example.com/x" is neither https://… nor http:// at localhost`},
		"sent back to nobody":          {fmt.Sprintf(oidc, "callback"), `7: auth[0].redirect_uris[0]: "callback" is not a URL`},
		"a role of no app":             {"[[auth]]\ntype = \"userpass\"\n[[auth.map]]\nuser = \"x\"\nroles = [\"owner:shop\"]\n", `6: auth[0].map[0].roles[0]: "owner:shop": the file has no app "shop"`},
		"no name":                      {"[[app]]\nsecrets = [\"x\"]\n", `2: app[0].name: is required`},
		"a secret with a path upwards": {"[[app]]\nname = \"a\"\nsecrets = [\"../b/x\"]\n", `4: app[0].secrets[0]: "../b/x" is not a name`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseApps("f", []byte(minimalApps+tt.in))
			var faults Faults
			if !errors.As(err, &faults) {
				t.Fatalf("error = %v", err)
			}
			for line := range strings.SplitSeq(err.Error(), "\n") {
				if strings.HasPrefix(line, "f:"+tt.want) {
					return
				}
			}
			t.Errorf("no %s in:\n%v", tt.want, err)
		})
		if strings.Contains(fmt.Sprint(tt.want), "canary") {
			t.Error("a password is shown")
		}
	}
}

// What is meant well is taken, in the one form that Vault compares.
func TestAddressRanges(t *testing.T) {
	for in, want := range map[string]string{
		"2001:db8:1:0:0::/80": "2001:db8:1::/80", "2001:DB8::/32": "2001:db8::/32", "::ffff:10.0.0.0/104": "10.0.0.0/8", "::ffff:10.0.0.1/128": "10.0.0.1/32",
		"10.0.0.0/8": "10.0.0.0/8", "0.0.0.0/0": "0.0.0.0/0", "::/0": "::/0", "2001:0db8:0000::/48": "2001:db8::/48",
	} {
		a, err := ParseApps("f", []byte(minimalApps+"[[app]]\nname = \"a\"\n[app.login]\ncidrs = [\""+in+"\"]\n"))
		if err != nil || a.Targets()[0].Login.CIDRs[0] != want {
			t.Errorf("%s: %q, %v", in, a.Targets()[0].Login.CIDRs, err)
		}
		if a.Apps[0].Login.CIDRs[0] != in {
			t.Errorf("the file's own is %q now", a.Apps[0].Login.CIDRs[0])
		}
	}
	for _, in := range []string{"", "x", "10.0.0.0/33", "fe80::1%eth0/64", "10.0.0.0/08", "10.0.0.0/8 ", "2001:db8::/129"} {
		if got, err := addressRange(in); err == nil {
			t.Errorf("%q is taken as %s", in, got)
		}
	}
}

// Keycloak's groups are claims, and stand in no path.
func TestClaims(t *testing.T) {
	_, err := ParseApps("f", []byte(minimalApps+"[[auth]]\ntype = \"oidc\"\ndiscovery_url = \"https://id\"\nclient_id = \"c\"\nclient_secret_file = \"/s\"\nredirect_uris = [\"http://127.0.0.1:8250/oidc/callback\"]\n[[auth.map]]\ngroup = \"/data/platform\"\nroles = [\"reader\"]\n"))
	if err != nil {
		t.Error(err)
	}
}

// No two schemas, and no two kinds of access, have one group, whatever their names
// are; what was unique before is called as it was.
func TestGroupRoles(t *testing.T) {
	var names []string
	var grow func(s string, n int)
	grow = func(s string, n int) {
		if s != "" && checkIdentifier(s, 63) == nil {
			names = append(names, s)
		}
		for _, c := range "a_-" {
			if n > 0 {
				grow(s+string(c), n-1)
			}
		}
	}
	grow("", 5)
	names = append(names, "ro", "rw", "owner", "a_ro", "ro_a", "_", "__", "prod_data", "bikes", "bikes_prod", "data", "shop", "shop_eu", "eu_orders", "orders", "a_owner")
	for _, c := range []string{"a", "a_"} {
		for _, n := range []int{20, 26, 27, 28, 40, 61, 63} {
			names = append(names, strings.Repeat(c, 63)[:n-1]+"x")
		}
	}
	seen := map[string]string{}
	pairs := 0
	for _, d := range names {
		for _, s := range names {
			pairs++
			for _, access := range []string{AccessReadOnly, AccessReadWrite, AccessOwner} {
				group, who := GroupRole(Database{Database: d}, s, access), d+"\x00"+s+"\x00"+access
				if other, taken := seen[group]; taken && other != who {
					t.Fatalf("%q is the group of %q and %q", group, other, who)
				}
				if len(group) > longestRole {
					t.Fatalf("%q is %d bytes long", group, len(group))
				}
				seen[group] = who
				if old := OldGroupRole(Database{Database: d}, s, access); !strings.Contains(d+s, "_") && len(d+s) < 40 && group != old {
					t.Fatalf("%q was %q", group, old)
				}
			}
		}
	}
	t.Logf("%d pairs", pairs)
}
