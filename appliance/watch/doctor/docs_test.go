package doctor

import (
	"fmt"
	"os"
	"path/filepath"
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
		if want := fmt.Sprintf("| %d | `%s` | ", c.number, c.id); !strings.HasPrefix(rows[n], want) {
			t.Errorf("row %q, want %q", rows[n], want)
		}
	}
	for _, mark := range []string{"@STATUS@", "@DOCTOR@"} {
		if strings.Contains(string(text), mark) {
			t.Errorf("%s is not filled in", mark)
		}
	}
}
