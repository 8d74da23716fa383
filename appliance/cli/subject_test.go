package cli

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

// refusing is the address of a Vault that refuses everything at once. One that is
// not there would be waited for.
func refusing(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, `{"errors":["no"]}`, http.StatusBadRequest)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// What a command is about can be given as its argument, and does what the flag does.
func TestSubjects(t *testing.T) {
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	t.Setenv("VAULT_TOKEN", "given")
	vault := refusing(t)
	t.Setenv("VAULT_ADDR", vault)
	b := newBackups(t)
	b.take(t, "one", time.Now().UTC().Truncate(time.Second))
	other, state, file := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "any.toml")
	if err := os.WriteFile(file, []byte("unheard_of = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		verb  []string
		flag  string
		about string
		more  []string
	}{
		{[]string{"snapshot", "list"}, "dir", b.dir, nil},
		{[]string{"snapshot", "list"}, "dir", filepath.Join(other, "none"), nil},
		{[]string{"snapshot", "prune"}, "dir", b.dir, []string{"--dry-run", "--take-state", state}},
		{[]string{"snapshot", "verify"}, "dir", other, []string{"--identity", b.identity, "--state", b.state, "--take-state", state}},
		{[]string{"snapshot", "take"}, "dir", other, nil},
		{[]string{"snapshot", "soon"}, "changed", filepath.Join(other, "none"), nil},
		{[]string{"drill", "fetch"}, "dir", other, []string{"--state", state, "--take-state", state}},
		{[]string{"restore"}, "dir", other, []string{"--identity", b.identity, "--no-keep", "--address", vault}},
		{[]string{"restore"}, "file", file, []string{"--no-keep", "--address", vault}},
		{[]string{"app", "plan"}, "config", file, nil},
		{[]string{"app", "apply"}, "config", file, nil},
		{[]string{"app", "prune"}, "config", file, nil},
		{[]string{"app", "show"}, "config", file, nil},
		{[]string{"app", "check-db"}, "config", file, nil},
		{[]string{"front", "certificate"}, "config", file, nil},
		{[]string{"escrow", "status"}, "escrow", file, nil},
		{[]string{"kms", "fingerprint"}, "key-file", file, nil},
		{[]string{"audit", "rotate"}, "audit-logs", filepath.Join(other, "none"), []string{"--config", file, "--state", state}},
	} {
		t.Run(strings.Join(tt.verb, " ")+" --"+tt.flag, func(t *testing.T) {
			call := func(args ...string) (int, string) {
				return run(t, append(append([]string{}, tt.verb...), append(args, tt.more...)...)...)
			}
			byFlag, said := call("--"+tt.flag, tt.about)
			byArgument, says := call(tt.about)
			if byFlag != byArgument || said != says {
				t.Errorf("by the flag %d:\n%s\nby the argument %d:\n%s", byFlag, said, byArgument, says)
			}
			if bare, text := call(); bare == byFlag && text == said {
				t.Errorf("what it is about changes nothing:\n%s", text)
			}
			if code, says := call("--"+tt.flag, tt.about, tt.about); code != ExitUsage || !strings.Contains(says, "as the argument") {
				t.Errorf("both: %d\n%s", code, says)
			}
			if code, says := call(""); code != ExitUsage || !strings.Contains(says, "names nothing") {
				t.Errorf("empty: %d\n%s", code, says)
			}
		})
	}
}

// Every verb with a flag for the one thing that it is about takes that as its
// argument, too, or it is said here why not.
func TestSubjectsAreArguments(t *testing.T) {
	about := []string{"dir", "file", "root", "folder", "changed", "audit-logs"}
	why := map[string]string{
		"strongroom snapshot retire": "the snapshots are its arguments",
		"strongroom drill":           "a word behind it is one of its verbs",
		"strongroom metrics":         "the audit logs are one of many things that it tells of",
	}
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			walk(sub)
		}
		if !c.Runnable() || c.Hidden { // what is for units names no subject
			return
		}
		for _, flag := range about {
			f := c.Flags().Lookup(flag)
			if f == nil {
				f = c.InheritedFlags().Lookup(flag)
			}
			if f == nil || f.Hidden || f.Name != flag || c.HasSubCommands() && c.PersistentFlags().Lookup(flag) != nil {
				continue
			}
			if takes := strings.Contains(c.Use, "["); takes == (why[c.CommandPath()] != "") {
				t.Errorf("%s has --%s, and an argument: %t", c.CommandPath(), flag, takes)
			}
		}
	}
	walk(New("test"))
}
