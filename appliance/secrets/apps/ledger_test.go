package apps

import "testing"

// What a ledger says of an object is read as it was written.
func TestLedgerEntries(t *testing.T) {
	tests := []struct{ name, path, app, entry string }{
		{"of an app", "auth/approle/role/a-e", "a", "auth/approle/role/a-e a"},
		{"of the manifest", "auth/ldap/config", "", "auth/ldap/config"},
		{"a group with a space", "auth/ldap/groups/data platform", "", "auth/ldap/groups/data platform "},
		{"a group that ends like an app", "auth/ldap/groups/team of a", "", "auth/ldap/groups/team of a "},
		{"a path with a space, of an app", "secret/metadata/a/b c", "a", "secret/metadata/a/b c a"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			entry := formatEntry(tt.path, tt.app)
			if entry != tt.entry {
				t.Errorf("written as %q, want %q", entry, tt.entry)
			}
			if path, app := parseEntry(entry); path != tt.path || app != tt.app {
				t.Errorf("read as %q of %q, want %q of %q", path, app, tt.path, tt.app)
			}
		})
	}
}
