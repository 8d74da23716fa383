package condition

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What needs somebody is told by status and by an alert, and says what to do; what
// needs nobody does none of it.
func TestTable(t *testing.T) {
	seen := map[Name]bool{}
	for _, c := range All() {
		if seen[c.Name] || c.Name == "" || c.Means == "" {
			t.Errorf("%+v: named twice, or says nothing", c)
		}
		seen[c.Name] = true
		if needs := c.Severity > Well; needs != (c.Alert != "") || needs != (c.Remedy != "") {
			t.Errorf("%s is %s, has the alert %q and the remedy %q", c.Name, c.Severity, c.Alert, c.Remedy)
		}
		if got := Of(string(c.Name)); got != c {
			t.Errorf("Of(%q) = %+v", c.Name, got)
		}
	}
	if c := Of("a word of tomorrow"); c.Severity != Bad || c.Alert == "" || c.Remedy == "" || seen[c.Name] {
		t.Errorf("an unknown word: %+v", c)
	}
}

func page(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// docs/rotate-keys.md has the table, row by row, and docs/monitoring.md the words.
func TestPages(t *testing.T) {
	var rows, words strings.Builder
	rows.WriteString("| condition | means | status | alert | what to do |\n|---|---|---|---|---|\n")
	for _, c := range All() {
		rest := "| | |"
		if c.Severity > Well {
			rest = fmt.Sprintf("| `%s` | %s |", c.Alert, c.Remedy)
		}
		fmt.Fprintf(&rows, "| `%s` | %s | %s %s\n", c.Name, c.Means, c.Severity, rest)
		if words.Len() > 0 {
			words.WriteString(", ")
		}
		fmt.Fprintf(&words, "`%s`", c.Name)
	}
	if !strings.Contains(page(t, "rotate-keys.md"), rows.String()) {
		t.Errorf("docs/rotate-keys.md does not have\n%s", rows.String())
	}
	if want := "| `strongroom_keys{provider,condition}` | keys by condition, 0 for none: " + words.String() + " |\n"; !strings.Contains(page(t, "monitoring.md"), want) {
		t.Errorf("docs/monitoring.md does not have\n%s", want)
	}
}

// The engine says no word of its own: each literal of a condition in its source is
// of this table.
func TestEngineSaysTheseWords(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "path_keys.go"))
	if err != nil {
		t.Fatal(err)
	}
	_, body, ok := strings.Cut(string(b), "func (b *backend) conditionOf(")
	body, _, end := strings.Cut(body, "\n}\n")
	if !ok || !end {
		t.Fatal("path_keys.go has no conditionOf")
	}
	said := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\t+return (.*)$`).FindAllStringSubmatch(body, -1) {
		if !strings.HasPrefix(m[1], "condition.") {
			t.Errorf("conditionOf returns %s, which is none of this table's", m[1])
		}
		said[m[1]] = true
	}
	if len(said) != len(All()) {
		t.Errorf("conditionOf says %d words, and the table has %d", len(said), len(All()))
	}
}

// The engine is seen to say each of them, in a test.
func TestEngineIsSeenToSayEach(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("..", "*_test.go"))
	if err != nil || len(files) < 10 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	var tests strings.Builder
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		tests.Write(b)
	}
	for _, c := range All() {
		// A comparison, or a row of what keys/NAME gives.
		if !regexp.MustCompile(`(condition.*|got|during) != "` + string(c.Name) + `"|"condition": "` + string(c.Name) + `"`).MatchString(tests.String()) {
			t.Errorf("no test of plugin/ has a key that is %s", c.Name)
		}
	}
}
