package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// What still sets a moved variable ends with 3, and is known by the plan or by
// mapping files, of the folder or of the root.
func TestMigrateCheckMoved(t *testing.T) {
	tree, units, empty := t.TempDir(), t.TempDir(), t.TempDir()
	for file, text := range map[string]string{
		filepath.Join(tree, "strongroom-env.toml"): "# Which variable is which secret of a in p. Written by strongroom migrate.\nformat = 1\n\n[variables.DB_PASSWORD]\npath = \"a/p/db\"\n",
		filepath.Join(tree, "app.py"):              "import os\nos.environ['DB_PASSWORD']\n",
		filepath.Join(units, "a.service"):          "[Service]\nEnvironment=DB_PASSWORD=s3cret-4711\n",
		filepath.Join(units, "other.toml"):         "format = 1\ncolour = 2\n",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, tt := range map[string]struct {
		in   string
		args []string
		want int
		says string
	}{
		"nothing sets one":         {tree, nil, ExitOK, "2 files searched for 1 moved variable; set at 0 places"},
		"the tree by its name":     {empty, []string{tree}, ExitOK, "set at 0 places"},
		"a folder of units":        {tree, []string{units}, ExitDrift, "a.service:2: sets DB_PASSWORD (Environment=)"},
		"and the tree by its flag": {empty, []string{units, "--root", tree}, ExitDrift, "a.service:2: sets DB_PASSWORD"},
		"as JSON":                  {tree, []string{units, "--json"}, ExitDrift, `"name": "DB_PASSWORD"`},
		"no plan":                  {empty, nil, ExitUsage, strconv.Quote(empty) + "\n"},
		"no plan in two places":    {empty, []string{units}, ExitUsage, strconv.Quote(units) + ", nor in " + strconv.Quote(empty)},
		"a plan that is faulty":    {tree, []string{"--plan-file", filepath.Join(units, "other.toml")}, ExitUsage, "colour: unknown key"},
		"no folder":                {tree, []string{units + "/none"}, ExitUsage, "none"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Chdir(tt.in)
			c := New("1.2.3")
			var out bytes.Buffer
			c.SetOut(&out)
			c.SetErr(&out)
			c.SetArgs(append([]string{"migrate", "check"}, tt.args...))
			if got := Report(&out, c.ExecuteContext(t.Context())); got != tt.want {
				t.Errorf("exit code %d, want %d", got, tt.want)
			}
			if !strings.Contains(out.String(), tt.says) || strings.Contains(out.String(), "4711") {
				t.Errorf("said %q, want %q", out.String(), tt.says)
			}
		})
	}
}
