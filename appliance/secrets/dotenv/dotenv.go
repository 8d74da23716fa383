// Package dotenv reads and rewrites .env files as the programs do that read
// them every day: python-dotenv and docker-compose. They disagree (see the
// table in docs/migrate.md), so a caller names the dialect, and Differences
// says where a file means one thing to one of them and another to the other.
//
// It is not a loader: it sets no variable of this process and reads none.
// Unlike both models it never passes over a line that it does not understand,
// and its errors never quote a line, as that may hold a secret.
package dotenv

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Dialect is whose reading of the file is followed.
type Dialect int

const (
	// Python is python-dotenv 1.2, load_dotenv and dotenv_values.
	Python Dialect = iota + 1
	// Compose is docker-compose's env_file and .env, compose-go v2.
	Compose
)

// String is the dialect's name on the command line.
func (d Dialect) String() string {
	switch d {
	case Python:
		return "python"
	case Compose:
		return "compose"
	}
	return fmt.Sprintf("Dialect(%d)", int(d))
}

// ParseDialect is the inverse of String.
func ParseDialect(s string) (Dialect, error) {
	for _, d := range []Dialect{Python, Compose} {
		if s == d.String() {
			return d, nil
		}
	}
	return 0, fmt.Errorf("dialect %q is neither %q nor %q", s, Python, Compose)
}

// MaxSize bounds a file, in bytes. Environments are bounded by the kernel to a
// part of the stack, so that a larger .env file is no .env file.
const MaxSize = 4 << 20

// Statement is one assignment as it stands in a file.
type Statement struct {
	Name string
	// Value without quotes and escapes, before interpolation.
	Value string
	// HasValue is false for a name alone, without "=".
	HasValue bool
	// Literal values are not interpolated.
	Literal bool
	// Line of the name, from 1.
	Line int
	// Start and End are the bytes of the file that belong to the statement and
	// to nothing else: whole lines, if it shares none with another.
	Start, End int
}

// File is a file that was understood to its end.
type File struct {
	Dialect    Dialect
	Statements []Statement
}

// LineError is one place that was not understood.
type LineError struct {
	Line   int // from 1
	Reason string
}

// Error names the line and never quotes it.
func (e *LineError) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Reason) }

// Parse reads a whole file. Its error joins a *LineError for each fault.
func Parse(data []byte, d Dialect) (*File, error) {
	text, err := checkText(data)
	if err != nil {
		return nil, err
	}
	var st []Statement
	var faults []*LineError
	switch d {
	case Python:
		st, faults = parsePython(text)
	case Compose:
		st, faults = parseCompose(text)
	default:
		return nil, fmt.Errorf("unknown dialect %d", int(d))
	}
	if len(faults) > 0 {
		return nil, joinFaults(faults)
	}
	return &File{Dialect: d, Statements: st}, nil
}

// maxFaults is how many faults of one file are worth reading.
const maxFaults = 20

func joinFaults(faults []*LineError) error {
	errs := make([]error, 0, maxFaults+1)
	for i, f := range faults {
		if i == maxFaults {
			errs = append(errs, fmt.Errorf("and %d more", len(faults)-i))
			break
		}
		errs = append(errs, f)
	}
	return errors.Join(errs...)
}

// checkText refuses what no environment can hold.
func checkText(data []byte) (string, error) {
	if len(data) > MaxSize {
		return "", fmt.Errorf("%d bytes are more than a .env file may have (%d)", len(data), MaxSize)
	}
	if bytes.HasPrefix(data, []byte{0xff, 0xfe}) || bytes.HasPrefix(data, []byte{0xfe, 0xff}) {
		return "", &LineError{Line: 1, Reason: "the file is UTF-16, and neither python-dotenv nor docker-compose reads that: save it as UTF-8"}
	}
	if i := bytes.IndexByte(data, 0); i >= 0 {
		return "", &LineError{Line: lineAt(data, i), Reason: "a NUL byte, which no environment variable can hold"}
	}
	if !utf8.Valid(data) {
		return "", &LineError{Line: lineAt(data, firstInvalid(data)), Reason: "not UTF-8"}
	}
	return string(data), nil
}

func firstInvalid(data []byte) int {
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return len(data)
}

func lineAt(data []byte, offset int) int { return 1 + bytes.Count(data[:offset], []byte{'\n'}) }

const bom = "\ufeff"

// Remove gives data without the statements that drop chooses; every other byte
// stays. It fails rather than give a file in which what is left reads
// otherwise than before.
func Remove(data []byte, d Dialect, drop func(Statement) bool) ([]byte, error) {
	f, err := Parse(data, d)
	if err != nil {
		return nil, err
	}
	var out []byte
	var kept []Statement
	at := 0
	for _, s := range f.Statements {
		if !drop(s) {
			kept = append(kept, s)
			continue
		}
		if s.Start < at {
			return nil, &LineError{Line: s.Line, Reason: "cannot be cut out of its line"}
		}
		out = append(out, data[at:s.Start]...)
		at = s.End
	}
	out = append(out, data[at:]...)
	again, err := Parse(out, d)
	if err != nil {
		return nil, fmt.Errorf("after the removal the file would be malformed: %w", err)
	}
	if len(again.Statements) != len(kept) {
		return nil, fmt.Errorf("after the removal the file would have %d variables, not %d", len(again.Statements), len(kept))
	}
	for i, s := range again.Statements {
		k := kept[i]
		if s.Name != k.Name || s.Value != k.Value || s.HasValue != k.HasValue || s.Literal != k.Literal {
			return nil, &LineError{Line: k.Line, Reason: "would read otherwise after the removal"}
		}
	}
	return out, nil
}

// Quote writes value so that dialect d reads it back, on the right of an "=".
// Where both dialects can read the same text, it is that text.
func Quote(value string, d Dialect) string {
	if value != "" && strings.Trim(value, plain) == "" {
		return value
	}
	// Python interpolates inside single quotes, Compose does not.
	if !strings.ContainsAny(value, "'\\\r") && !strings.Contains(value, "${") {
		return "'" + value + "'"
	}
	quoted := doubleQuoter.Replace(value)
	if d == Compose {
		quoted = strings.ReplaceAll(quoted, "$", `\$`)
	} else {
		// python-dotenv has no escape for a dollar; the default of a variable
		// without a name is one way to say it.
		quoted = strings.ReplaceAll(quoted, "${", "${:-$}{")
	}
	return `"` + quoted + `"`
}

const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:@%+,-"

var doubleQuoter = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\r", `\r`)
