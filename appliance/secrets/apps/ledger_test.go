package apps

import "testing"

// What a ledger says of an object is read as it was written.
func TestLedgerEntries(t *testing.T) {
	for name, tt := range map[string]struct {
		e    entry
		want string
	}{
		"of an app":                      {entry{owner: "m", app: "a", path: "auth/approle/role/a-e"}, "m a - auth/approle/role/a-e"},
		"of the manifest":                {entry{owner: "m", path: "auth/ldap/config"}, "m - - auth/ldap/config"},
		"a group with a blank":           {entry{owner: "m", path: "auth/ldap/groups/data platform"}, "m - - auth/ldap/groups/data platform"},
		"a group that ends like an app":  {entry{owner: "m", path: "auth/ldap/groups/team of a"}, "m - - auth/ldap/groups/team of a"},
		"one that is rotated":            {entry{owner: "m", path: "database/config/d", rotated: true}, "m - rotated database/config/d"},
		"one of before":                  {entry{owner: "m", path: "database/config/d", rotated: true, partly: true}, "m - rotated,partly database/config/d"},
		"a schema's groups, of no owner": {entry{owner: nobody, path: "sr_a_b_c"}, "_ - - sr_a_b_c"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := formatEntry(tt.e); got != tt.want {
				t.Errorf("written as %q, want %q", got, tt.want)
			}
			if got, err := parseEntry(tt.want); err != nil || got != tt.e {
				t.Errorf("read as %+v, %v", got, err)
			}
		})
	}
	for _, bad := range []string{"", "m", "m a -", "m a - ", " a - p", "m a new p"} {
		if e, err := parseEntry(bad); err == nil {
			t.Errorf("%q is read as %+v", bad, e)
		}
	}
}

// 0.1's entries are read as it wrote them.
func TestOldLedgerEntries(t *testing.T) {
	for _, tt := range []struct{ entry, path, app string }{
		{"auth/approle/role/a-e a", "auth/approle/role/a-e", "a"}, {"auth/ldap/config", "auth/ldap/config", ""},
		{"auth/ldap/groups/data platform ", "auth/ldap/groups/data platform", ""}, {"secret/metadata/a/b c a", "secret/metadata/a/b c", "a"},
	} {
		if path, app := parseOldEntry(tt.entry); path != tt.path || app != tt.app {
			t.Errorf("%q is read as %q of %q", tt.entry, path, app)
		}
	}
}
