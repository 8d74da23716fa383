package status

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"strongroom.example/appliance/base/words"
	"strongroom.example/appliance/watch/evidence"
	"strongroom.example/plugin/condition"
)

// Style is how the screen is drawn.
type Style struct {
	Colour bool
	// Width of the terminal in columns; 0: 100.
	Width int
}

var marks = map[State]struct{ sign, colour string }{
	Well:      {"✓", words.Green},
	Attention: {"!", words.Yellow},
	Bad:       {"✗", words.Red},
	Unknown:   {"?", words.Dim},
}

type screen struct {
	strings.Builder
	Style
}

func (s *screen) paint(colour, text string) string {
	return words.Paint(s.Colour, colour, text)
}

// Render draws the report.
func (r Report) Render(w io.Writer, style Style) error {
	style.Width = cmp.Or(style.Width, 100)
	s := &screen{Style: style}
	title := "Strongroom"
	if name := cmp.Or(r.Domain, r.Host); name != "" {
		title += " · " + words.Clean(name)
	}
	at := r.At.Format("Mon 2 Jan 2006 15:04 MST")
	gap := max(1, s.Width-utf8.RuneCountInString(title)-len(at))
	fmt.Fprintf(s, "%s%s%s\n\n", s.paint(words.Bold, title), strings.Repeat(" ", gap), s.paint(words.Dim, at))
	for _, l := range r.Lines {
		m := marks[l.State]
		s.wrapped("  "+s.paint(m.colour, m.sign)+" "+s.paint(words.Bold, fmt.Sprintf("%-12s", l.Name))+" ", 17, words.Clean(l.Text), "")
		if l.Hint != "" {
			s.wrapped(strings.Repeat(" ", 17)+"→ ", 19, l.Hint, words.Dim)
		}
	}
	if r.Keys != nil {
		s.failing(*r.Keys, r.At)
		s.calendar(*r.Keys, r.At)
	}
	if len(r.Missing) > 0 {
		fmt.Fprintf(s, "\n  %s\n", s.paint(words.Bold, "Not shown"))
		for _, m := range r.Missing {
			s.wrapped("    ", 4, m.What+": "+words.Clean(m.Why), "")
		}
	}
	_, err := io.WriteString(w, s.String())
	return err
}

// wrapped writes text behind a head of indent columns, and breaks it between
// words where the line is full.
func (s *screen) wrapped(head string, indent int, text, colour string) {
	room := max(20, s.Width-indent)
	line, used := head, 0
	flush := func() {
		s.WriteString(strings.TrimRight(line, " ") + "\n")
		line, used = strings.Repeat(" ", indent), 0
	}
	for _, word := range broken(text, room) {
		n := utf8.RuneCountInString(word)
		if used > 0 && used+1+n > room {
			flush()
		}
		if used > 0 {
			line += " "
			used++
		}
		line += s.paint(colour, word)
		used += n
	}
	flush()
}

// broken are a text's words, those cut that no line has room for.
func broken(text string, room int) []string {
	var out []string
	for word := range strings.FieldsSeq(text) {
		r := []rune(word)
		for ; len(r) > room; r = r[room:] {
			out = append(out, string(r[:room]))
		}
		out = append(out, string(r))
	}
	return out
}

// maxFailing bounds the list of failing keys.
const maxFailing = 12

func (s *screen) failing(k evidence.Keys, now time.Time) {
	need := k.NeedSomebody()
	if len(need) == 0 {
		return
	}
	fmt.Fprintf(s, "\n  %s\n", s.paint(words.Bold, "Keys that need somebody"))
	for i, key := range need {
		if i == maxFailing {
			fmt.Fprintf(s, "    … and %d more: vault read apikeys/status\n", len(need)-i)
			break
		}
		state, colour := key.State(), words.Yellow
		if state.Severity == condition.Bad {
			colour = words.Red
		}
		text := key.Condition + ": " + state.Means
		if key.Failure != "" {
			text = key.Condition + ": " + words.Line(key.Failure, maxText)
		}
		if key.Retry.After(now) {
			text += " · tried again in " + span(key.Retry.Sub(now))
		}
		s.wrapped("    ", 4, words.Clean(key.Name), colour)
		s.wrapped("      ", 6, text, "")
	}
}
