package cli

import (
	"fmt"
	"io"

	"strongroom.example/appliance/base/words"
	"strongroom.example/appliance/secrets/migrate"
)

const (
	// everyObjects is after how many objects progress is shown again.
	everyObjects = 500
	// worthALine is from how many objects on the search takes a moment.
	worthALine = 5000
)

// historyProgress shows on a terminal how far the search in git's history is, on
// one line; elsewhere it says once what is searched. done ends the line.
func historyProgress(w io.Writer) (each func(migrate.HistoryProgress), done func()) {
	onTerminal, shown := terminal(w).is, false
	each = func(p migrate.HistoryProgress) {
		switch {
		case onTerminal && (p.Objects%everyObjects == 0 || p.Objects == p.AllObjects):
			shown = true
			fmt.Fprintf(w, "\rgit history: %d of %d objects, %d of %d MiB", p.Objects, p.AllObjects, p.Bytes>>20, p.AllBytes>>20)
		case !onTerminal && !shown && p.AllObjects >= worthALine:
			shown = true
			fmt.Fprintf(w, "searching git's history: %d objects, %d MiB\n", p.AllObjects, p.AllBytes>>20)
		}
	}
	return each, func() {
		if onTerminal && shown {
			fmt.Fprint(w, "\r\x1b[K")
		}
	}
}

// printHistory says what git's history holds, and what was not looked at. What
// an earlier plan says already is counted; that may be nil.
func printHistory(w io.Writer, r *migrate.Report, earlier *migrate.Plan) {
	if r.History == "" {
		return
	}
	fmt.Fprintf(w, "git history: %s\n", r.History)
	for _, n := range r.HistoryNotes {
		fmt.Fprintf(w, "note: git history: %s\n", n)
	}
	for _, n := range r.NotSearched {
		fmt.Fprintf(w, "note: git history: not searched for: %s\n", n)
	}
	told := 0
	for _, v := range r.Variables {
		for _, d := range v.Definitions {
			switch {
			case len(d.InHistory) == 0:
			case earlier.SaysRotate(d.File, v.Name, d.InHistory[0]):
				told++
			default:
				fmt.Fprintf(w, "rotate %s of %s:%d: its value stands in git's history since %s\n", v.Name, d.File, d.Line, d.InHistory[0])
			}
		}
	}
	if told > 0 {
		fmt.Fprintf(w, "rotate %s more, which the plan names\n", words.Count(told, "value"))
	}
}
