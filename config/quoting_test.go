package config

import (
	"strings"
	"testing"
)

// What stands in a field that says where a secret lies may be the secret itself,
// and a URL may hold a password: no fault shows them.
func TestFaultsHideWhatMayBeASecret(t *testing.T) {
	const canary = "S3cr3t/canary+x"
	places := []string{canary, canary + "\n", "a b " + canary, "./" + canary, canary + "==", "/run/../" + canary, "-----BEGIN PRIVATE KEY-----\n" + canary}
	addresses := []string{
		"https://user:" + canary + "@example.com", "https://user:" + canary + "@example.com/?a=b#c", "postgres://vault:" + canary + "@db/x",
		"http://u:" + canary + "@example.com:1/p@q", "host=db password=" + canary, "host=db PASSWORD = " + canary, "//u:" + canary + "@h",
	}
	for name, tc := range map[string]struct {
		check  func(string) error
		values []string
	}{
		"a credential":       {checkCredential, places},
		"a secret's file":    {checkSecretFile, places},
		"a page":             {checkPageURL, addresses},
		"an ACME directory":  {checkDirectory, addresses},
		"an S3 endpoint":     {func(s string) error { return BackupTo{Endpoint: s}.checkEndpoint() }, addresses},
		"an address":         {func(s string) error { return checkURL(s, "https") }, addresses},
		"a database's host":  {func(s string) error { return databaseFaults(t, "host", s) }, addresses},
		"a password's file":  {func(s string) error { return databaseFaults(t, "password_file", s) }, places},
		"a directory server": {func(s string) error { return ldapFaults(t, "url", s) }, addresses},
		"its password":       {func(s string) error { return ldapFaults(t, "bind_password_file", s) }, places},
	} {
		t.Run(name, func(t *testing.T) {
			for _, v := range tc.values {
				err := tc.check(v)
				if err == nil {
					t.Errorf("%q was taken", v)
				} else if strings.Contains(err.Error(), "canary") {
					t.Errorf("%q is shown: %v", v, err)
				}
			}
		})
	}
}

func databaseFaults(t *testing.T, field, value string) error {
	t.Helper()
	fields := map[string]string{"host": "db.example.com", "password_file": "/run/secret"}
	fields[field] = value
	_, err := ParseApps("apps.toml", []byte("manifest = \"m\"\n[[database]]\nname = \"d\"\nengine = \"postgresql\"\ndatabase = \"d\"\nusername = \"vault\"\nhost = "+
		quoteTOML(fields["host"])+"\npassword_file = "+quoteTOML(fields["password_file"])+"\n"))
	return err
}

func ldapFaults(t *testing.T, field, value string) error {
	t.Helper()
	fields := map[string]string{"url": "ldaps://h", "bind_password_file": "/run/secret"}
	fields[field] = value
	_, err := ParseApps("apps.toml", []byte("manifest = \"m\"\n[[auth]]\ntype = \"ldap\"\nbind_dn = \"cn=x\"\nuser_dn = \"ou=x\"\nurl = "+
		quoteTOML(fields["url"])+"\nbind_password_file = "+quoteTOML(fields["bind_password_file"])+"\n"))
	return err
}

func quoteTOML(s string) string {
	return `"` + strings.NewReplacer("\\", `\\`, `"`, `\"`, "\n", `\n`).Replace(s) + `"`
}
