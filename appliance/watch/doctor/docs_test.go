package doctor

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The page lists every item, and no other.
func TestItemsInDocs(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "status.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(text), "| # | id | passes when |\n|---|---|---|\n")
	if !ok {
		t.Fatal("the table of items is not there")
	}
	rows := strings.Split(strings.TrimSpace(table), "\n")
	all := checks()
	if len(rows) != len(all) {
		t.Fatalf("%d rows for %d items", len(rows), len(all))
	}
	for n, c := range all {
		if want := fmt.Sprintf("| %d | `%s` | ", n+1, c.id); !strings.HasPrefix(rows[n], want) {
			t.Errorf("row %q, want %q", rows[n], want)
		}
	}
	// The example of a whole run has them all, in their order and words.
	_, run, _ := strings.Cut(string(text), "\nStrongroom doctor on ")
	run, _, _ = strings.Cut(run, "\n```\n")
	at := 0
	for n, c := range all {
		line := fmt.Sprintf(" %2d  %-15s %s\n", n+1, c.id, c.title)
		next := strings.Index(run[at:], line)
		if next < 0 {
			t.Errorf("the example lacks %q, or has it elsewhere", line)
			continue
		}
		at += next
	}
	if want := fmt.Sprintf("\n%d passed, 1 warning, 0 failed, 0 could not be looked at", len(all)-1); !strings.Contains(run, want) {
		t.Errorf("the example does not end with %q", want)
	}
	for _, mark := range []string{"@STATUS@", "@DOCTOR@"} {
		if strings.Contains(string(text), mark) {
			t.Errorf("%s is not filled in", mark)
		}
	}
}

// Nobody types how many items there are: the number of a page that is not looked
// after is soon another than the program's.
func TestNobodyCountsTheItems(t *testing.T) {
	root := filepath.Join("..", "..", "..")
	pages, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob(filepath.Join(root, "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	pages = append(append(pages, more...), filepath.Join(root, "appliance", "cli", "cmd_doctor.go"))
	if len(pages) < 20 {
		t.Fatalf("only %d pages: the test looks in the wrong place", len(pages))
	}
	count, numbered := regexp.MustCompile(`(?i)\b(?:\d+|twenty-eight|thirty-one) items\b`), regexp.MustCompile(`(?i)\bitems? \d+`)
	verdicts := regexp.MustCompile(`(\d+) passed, (\d+) warnings?, (\d+) failed(?:, (\d+) could not)?`)
	for _, p := range pages {
		text, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range append(count.FindAllString(string(text), -1), numbered.FindAllString(string(text), -1)...) {
			t.Errorf("%s counts or numbers items: %q", p, m)
		}
		// Examples are of this checklist.
		for _, m := range verdicts.FindAllStringSubmatch(string(text), -1) {
			sum := 0
			for _, n := range m[1:] {
				if n != "" {
					sum += number(n)
				}
			}
			if sum != len(checks()) {
				t.Errorf("%s: %q are the verdicts of %d items, and there are %d", p, m[0], sum, len(checks()))
			}
		}
	}
}
