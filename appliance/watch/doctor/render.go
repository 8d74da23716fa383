package doctor

import (
	"fmt"
	"io"
	"strings"

	"strongroom.example/appliance/watch/evidence"
)

// Style is how a report is printed.
type Style struct {
	Colour bool
	// Evidence shows it for the items that passed, too.
	Evidence bool
}

// ANSI colours, ECMA-48.
const (
	reset  = "\x1b[0m"
	bold   = "\x1b[1m"
	dim    = "\x1b[2m"
	red    = "\x1b[31m"
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
)

func (s Style) paint(colour, text string) string {
	if !s.Colour {
		return text
	}
	return colour + text + reset
}

// Render prints the report for people.
func (r Report) Render(w io.Writer, s Style) error {
	marks := map[string]struct{ sign, colour string }{
		evidence.Pass: {"✓", green}, evidence.Warn: {"!", yellow}, evidence.Fail: {"✗", red}, evidence.Skip: {"–", dim},
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %s\n\n", s.paint(bold, "Strongroom doctor on "+oneLine(r.Host)), s.paint(dim, r.At.Format("Mon 2 Jan 2006 15:04 MST")))
	for _, i := range r.Items {
		m := marks[i.Verdict]
		fmt.Fprintf(&b, "%s %2d  %-15s %s\n", s.paint(m.colour, m.sign), i.Number, i.ID, i.Title)
		if s.Evidence || i.Verdict != evidence.Pass {
			for _, ev := range i.Evidence {
				fmt.Fprintf(&b, "        %s\n", s.paint(dim, ev.Looked+": "+ev.Saw))
			}
		}
		for _, reason := range i.Reasons {
			rm := marks[reason.Verdict]
			fmt.Fprintf(&b, "      %s %s\n", s.paint(rm.colour, rm.sign), reason.Text)
			switch {
			case reason.Fix != "":
				fmt.Fprintf(&b, "        → strongroom doctor --fix does: %s\n", reason.Fix)
			case reason.Remedy != "":
				fmt.Fprintf(&b, "        → %s\n", reason.Remedy)
			}
		}
	}
	fmt.Fprintf(&b, "\n%d passed, %s, %d failed, %d could not be looked at\n",
		r.Count(evidence.Pass), plural(r.Count(evidence.Warn), "warning"), r.Count(evidence.Fail), r.Count(evidence.Skip))
	_, err := io.WriteString(w, b.String())
	return err
}
