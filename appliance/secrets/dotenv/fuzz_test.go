package dotenv

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

// FuzzParse: whatever the bytes, no crash; offsets are in order and inside the
// file; an error names a line of the file and never quotes it; removing every
// second variable leaves what was there of the others.
func FuzzParse(f *testing.F) {
	for _, g := range grammar(f) {
		f.Add([]byte(g.Text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, d := range Dialects() {
			file, err := Parse(data, d)
			if err != nil {
				var le *LineError
				if errors.As(err, &le) && (le.Line < 1 || le.Line > 1+bytes.Count(data, []byte("\n"))+bytes.Count(data, []byte("\r"))) {
					t.Fatalf("%v: line %d is not in the file", d, le.Line)
				}
				continue
			}
			at := 0
			for _, s := range file.Statements {
				if s.Start < at || s.End <= s.Start || s.End > len(data) || s.Name == "" || s.Line < 1 {
					t.Fatalf("%v: statement %+v after offset %d", d, s, at)
				}
				at = s.End
			}
			// Remove checks its own result; it may only refuse where one line
			// holds several statements, or an end of line more or less tells.
			n := 0
			if _, err := Remove(data, d, func(Statement) bool { n++; return n%2 == 0 }); err != nil && (d == Python || d == Systemd || d == Docker) {
				t.Fatalf("%v: %v", d, err)
			}
			if _, err := file.Resolve(nil); err != nil && d == Python {
				t.Fatalf("python-dotenv knows no faulty reference: %v", err)
			}
		}
		Differences(data, Dialects()...)
	})
}

// FuzzQuote: a quoted value reads back as it was, in the dialect it was
// written for, and in all dialects where one text does for all.
func FuzzQuote(f *testing.F) {
	for _, s := range []string{"", "a", "a b", `it's`, `"`, `\`, `\\'`, "$A ${B} $$", "a\r\nb", "#", " # ", "é\u0085", "'\"`\\", "~", "\t"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		if _, err := checkText([]byte(value)); err != nil {
			return
		}
		for _, d := range Dialects() {
			text, err := Quote(value, d)
			if err != nil {
				if d == Python || d == Compose || d == Bash || d == Systemd && !strings.Contains(value, "\x00") {
					t.Fatalf("%v has no text for %q", d, value)
				}
				continue
			}
			got, err := values(t, "C=x\nA="+text+"\nB=c\n", d)
			if err != nil || got["A"] != value || got["B"] != "c" {
				t.Fatalf("%v: %q written as %q reads %q, %v", d, value, text, got["A"], err)
			}
		}
		if text, err := Quote(value, Dialects()...); err == nil {
			for _, d := range Dialects() {
				if got, err := values(t, "A="+text+"\n", d); err != nil || got["A"] != value {
					t.Fatalf("%v: %q written as %q for all reads %q, %v", d, value, text, got["A"], err)
				}
			}
		}
	})
}
