package doctor

import (
	"fmt"
	"io"
	"strings"

	"strongroom.example/appliance/base/words"
	"strongroom.example/appliance/watch/evidence"
)

// Style is how a report is printed.
type Style struct {
	Colour bool
	// Evidence shows it for the items that passed, too.
	Evidence bool
}

func (s Style) paint(colour, text string) string {
	return words.Paint(s.Colour, colour, text)
}

// Render prints the report for people.
func (r Report) Render(w io.Writer, s Style) error {
	marks := map[string]struct{ sign, colour string }{
		evidence.Pass: {"✓", words.Green}, evidence.Warn: {"!", words.Yellow}, evidence.Fail: {"✗", words.Red}, evidence.Skip: {"–", words.Dim},
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %s\n\n", s.paint(words.Bold, "Strongroom doctor on "+words.Line(r.Host, maxText)), s.paint(words.Dim, r.At.Format("Mon 2 Jan 2006 15:04 MST")))
	for _, i := range r.Items {
		m := marks[i.Verdict]
		fmt.Fprintf(&b, "%s %2d  %-15s %s\n", s.paint(m.colour, m.sign), i.Number, i.ID, i.Title)
		if s.Evidence || i.Verdict != evidence.Pass {
			for _, ev := range i.Evidence {
				fmt.Fprintf(&b, "        %s\n", s.paint(words.Dim, ev.Looked+": "+ev.Saw))
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
		r.Count(evidence.Pass), words.Count(r.Count(evidence.Warn), "warning"), r.Count(evidence.Fail), r.Count(evidence.Skip))
	_, err := io.WriteString(w, b.String())
	return err
}
