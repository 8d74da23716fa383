package cli

import (
	"bytes"
	"strings"
	"testing"

	"strongroom.example/appliance/secrets/migrate"
)

// Where there is no terminal, a long search is one line and a short one none.
func TestHistoryProgressLine(t *testing.T) {
	for all, want := range map[int]string{10: "", 20000: "searching git's history: 20000 objects, 3 MiB\n"} {
		var out bytes.Buffer
		each, done := historyProgress(&out)
		for i := range all {
			each(migrate.HistoryProgress{Objects: i + 1, AllObjects: all, AllBytes: 3 << 20})
		}
		done()
		if out.String() != want {
			t.Errorf("%d objects: %q, want %q", all, out.String(), want)
		}
	}
}

// What stands in the history is to be rotated, and what was not looked at is
// named.
func TestPrintHistory(t *testing.T) {
	r := &migrate.Report{
		History: "7 objects searched for 1 values", HistoryNotes: []string{"a shallow clone"},
		NotSearched: []migrate.NotSearched{{Name: "PIN", File: ".env", Line: 2, Why: "a number"}},
		Variables: []migrate.Variable{
			{Name: "A", Definitions: []migrate.Definition{{File: ".env", Line: 1, InHistory: []string{"0123456789ab"}}}},
			{Name: "B", Definitions: []migrate.Definition{{File: ".env", Line: 3}}},
		},
	}
	var out bytes.Buffer
	printHistory(&out, r, nil)
	want := `git history: 7 objects searched for 1 values
note: git history: a shallow clone
note: git history: not searched for: PIN of .env:2: a number
rotate A of .env:1: its value stands in git's history since 0123456789ab
`
	if out.String() != want {
		t.Errorf("got\n%s", out.String())
	}
	// What the plan of before says is not told line by line again.
	out.Reset()
	printHistory(&out, r, &migrate.Plan{Variable: []migrate.Entry{{Name: "A", File: ".env", Why: "the name; stands in git's history since 0123456789ab: rotate it"}}})
	if said := out.String(); strings.Contains(said, "rotate A") || !strings.Contains(said, "rotate 1 value more, which the plan names\n") {
		t.Errorf("again:\n%s", said)
	}
	out.Reset()
	if printHistory(&out, &migrate.Report{}, nil); strings.TrimSpace(out.String()) != "" {
		t.Errorf("got %q", out.String())
	}
}
