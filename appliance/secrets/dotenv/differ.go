package dotenv

import (
	"fmt"
	"unicode"
	"unicode/utf8"
)

// Difference is a variable that two readers of a file read otherwise.
type Difference struct {
	Name string // empty where one of them does not read the file at all
	Line int    // from 1
	Why  string // never a value
	// Dialects are the two, in the order of Why.
	Dialects [2]Dialect
}

// Differences compares the readings of a file: the first dialect's with each of
// the others', in the order of the file's lines.
func Differences(data []byte, dialects ...Dialect) []Difference {
	var out []Difference
	for i := 1; i < len(dialects); i++ {
		out = append(out, differences(data, dialects[0], dialects[i])...)
	}
	return out
}

func differences(data []byte, a, b Dialect) []Difference {
	one, errA := readAll(data, a)
	two, errB := readAll(data, b)
	var out []Difference
	add := func(name string, line int, why string) {
		out = append(out, Difference{Name: name, Line: line, Why: why, Dialects: [2]Dialect{a, b}})
	}
	switch {
	case errA != nil && errB != nil:
		return nil
	case errA != nil:
		add("", errorLine(errA), fmt.Sprintf("%s reads the file and %s does not: %s", b.Reader(), a.Reader(), errorReason(errA)))
		return out
	case errB != nil:
		add("", errorLine(errB), fmt.Sprintf("%s reads the file and %s does not: %s", a.Reader(), b.Reader(), errorReason(errB)))
		return out
	}
	other := map[string]Variable{}
	for _, v := range two {
		other[v.Name] = v
	}
	for _, v := range one {
		w, ok := other[v.Name]
		delete(other, v.Name)
		switch {
		case v.Set && (!ok || !w.Set):
			add(v.Name, v.Line, fmt.Sprintf("%s gives it a value and %s gives none", a.Reader(), b.Reader()))
		case !v.Set && ok && w.Set:
			add(v.Name, v.Line, fmt.Sprintf("%s gives it a value and %s gives none", b.Reader(), a.Reader()))
		case v.Set && v.Value != w.Value:
			add(v.Name, v.Line, apart(a, b, v.Value, w.Value))
		}
	}
	for _, v := range two {
		if w, ok := other[v.Name]; ok && w.Set {
			add(v.Name, v.Line, fmt.Sprintf("%s reads this variable and %s does not", b.Reader(), a.Reader()))
		}
	}
	return out
}

// apart shows two readings without their values: how long they are, how far
// they are alike, and what kind of character begins the rest of each.
func apart(a, b Dialect, x, y string) string {
	n := 0
	for n < len(x) && n < len(y) && x[n] == y[n] {
		n++
	}
	for n > 0 && (n < len(x) && !utf8.RuneStart(x[n]) || n < len(y) && !utf8.RuneStart(y[n])) {
		n--
	}
	return fmt.Sprintf("%s reads %d characters and %s %d: alike up to character %d, where the first has %s and the second %s",
		a.Reader(), utf8.RuneCountInString(x), b.Reader(), utf8.RuneCountInString(y), utf8.RuneCountInString(x[:n]), beginsWith(x[n:]), beginsWith(y[n:]))
}

// beginsWith names what the grammars disagree on. A character that is part of
// the secret and of no grammar is not named.
func beginsWith(s string) string {
	r, size := utf8.DecodeRuneInString(s)
	switch {
	case size == 0:
		return "its end"
	case r == '\n':
		return "an end of line"
	case r == '\r':
		return "a carriage return"
	case unicode.IsSpace(r):
		return "a blank"
	case r == '\'' || r == '"' || r == '`':
		return "a quote"
	case r == '\\':
		return "a backslash"
	case r == '$':
		return "a dollar"
	case r == '#':
		return `a "#"`
	}
	return "another character"
}

func readAll(data []byte, d Dialect) ([]Variable, error) {
	f, err := Parse(data, d)
	if err != nil {
		return nil, err
	}
	return f.Resolve(nil)
}

// errorLine is the first line that an error of Parse or Resolve names.
func errorLine(err error) int {
	if e := firstLine(err); e != nil {
		return e.Line
	}
	return 0
}

// errorReason is what it says of that line.
func errorReason(err error) string {
	if e := firstLine(err); e != nil {
		return e.Reason
	}
	return err.Error()
}

func firstLine(err error) *LineError {
	if e, ok := err.(*LineError); ok {
		return e
	}
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range many.Unwrap() {
			if found := firstLine(e); found != nil {
				return found
			}
		}
	}
	return nil
}
