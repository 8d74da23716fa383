package test

import (
	"os"
	"path/filepath"
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

// rowsOf gives the first cells of a page's table, without their quotes.
func rowsOf(t *testing.T, page, head string) map[string]bool {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(text), head)
	if !ok {
		t.Fatalf("%s has no table %q", page, head)
	}
	table, _, _ = strings.Cut(table, "\n\n")
	rows := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)`").FindAllStringSubmatch(table, -1) {
		rows[m[1]] = true
	}
	return rows
}

// docs/monitoring.md has each timer and each path unit.
func TestTimersInDocs(t *testing.T) {
	rows := rowsOf(t, "../docs/monitoring.md", "| timer | when | does |\n|---|---|---|\n")
	units, err := os.ReadDir("../systemd")
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range units {
		name := u.Name()
		if ext := filepath.Ext(name); ext != ".timer" && ext != ".path" {
			continue
		}
		if !rows[name] {
			t.Errorf("%s has no row", name)
		}
		delete(rows, name)
	}
	for name := range rows {
		t.Errorf("%s has a row, and there is no such unit", name)
	}
}
