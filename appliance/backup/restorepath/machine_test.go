package restorepath

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// On an installed machine the plugin is not beside the program: a single secret
// is brought back with the plugins that the restored catalog names.
func TestPluginDir(t *testing.T) {
	dir := t.TempDir()
	there, gone := filepath.Join(dir, "plugin"), filepath.Join(dir, "gone")
	if err := os.WriteFile(there, nil, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ named, beside, installed, want string }{
		"named":         {there, gone, dir, ""},
		"beside":        {"", there, dir, ""},
		"installed":     {"", gone, dir, dir},
		"none anywhere": {"", gone, gone, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := PluginDir(c.named, c.beside, c.installed); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

// The Vault that is brought up must not write where the live one's devices do. Who
// may not know is asked no further, and anything else is a fault.
func TestAuditFolders(t *testing.T) {
	const call = "GET /v1/sys/audit"
	for _, tt := range []struct {
		name   string
		answer answer
		want   []string
		fails  bool
	}{
		{"files", answer{body: `{"data":{"a/":{"type":"file","options":{"file_path":"/var/log/vault/a.log"}},"b/":{"type":"file","options":{"file_path":"/srv/b.log"}}}}`}, []string{"/srv", "/var/log/vault"}, false},
		{"no folder of their own", answer{body: `{"data":{"a/":{"type":"file","options":{"file_path":"stdout"}},"b/":{"type":"file","options":{"file_path":"/b.log"}},"c/":{"type":"socket","options":{"address":"/run/c"}}}}`}, nil, false},
		{"not to be known", answer{status: 403, body: `{"errors":["permission denied"]}`}, nil, false},
		{"broken", lost, nil, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := newKVVault(t, map[string]answer{call: tt.answer})
			got, err := auditFolders(t.Context(), v.Client)
			slices.Sort(got)
			if (err != nil) != tt.fails || !slices.Equal(got, tt.want) {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}
