package test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// The table in docs/architecture.md has one row for each package, and no other.
func TestPackagesInDocs(t *testing.T) {
	text, err := os.ReadFile("../docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(text), "| package | what it is |\n|---|---|\n")
	if !ok {
		t.Fatal("the table of packages is not there")
	}
	table, _, _ = strings.Cut(table, "\n\n")
	row := regexp.MustCompile("^\\| `([^`]+)` \\| .+ \\|$")
	rows := map[string]bool{}
	for line := range strings.Lines(table) {
		m := row.FindStringSubmatch(strings.TrimRight(line, "\n"))
		switch {
		case m == nil:
			t.Errorf("%.60q… is no row of one package and what it is", line)
		case rows[m[1]]:
			t.Errorf("%s has two rows", m[1])
		default:
			rows[m[1]] = true
		}
	}
	module := modulePath(t) + "/"
	for _, p := range list(t, "./...") {
		name, ours := strings.CutPrefix(p.ImportPath, module)
		if !ours {
			t.Fatalf("%s is not below %s", p.ImportPath, module)
		}
		if !rows[name] {
			t.Errorf("%s has no row", name)
		}
		delete(rows, name)
	}
	for name := range rows {
		t.Errorf("%s has a row, and there is no such package", name)
	}
}
