// Package dotenv reads and rewrites .env files as the programs do that read
// them every day: python-dotenv, docker-compose, systemd, Node, docker and
// bash. They disagree (see the table in docs/migrate.md), so a caller names the
// dialect, and Differences says where a file means one thing to one of them and
// another to the other.
//
// It is not a loader: it sets no variable of this process and reads none.
// Unlike its models it never passes over a line that it does not understand,
// and its errors never quote a line, as that may hold a secret.
package dotenv

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
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
	// Systemd is EnvironmentFile= of a unit, systemd 252 to 257.
	Systemd
	// Node is the package dotenv of npm, 16 and 17.
	Node
	// NodeFile is node --env-file and process.loadEnvFile, Node 20 to 24.
	NodeFile
	// Docker is docker run --env-file, and env_file of docker-compose with
	// "format: raw"; docker's CLI 28.
	Docker
	// Bash is a file that bash sources.
	Bash
)

// dialects has the name of each on the command line, what messages call its
// reader, and how it is read.
var dialects = map[Dialect]struct {
	name, reader string
	parse        func(text string) ([]Statement, []*LineError)
}{
	Python:   {"python", "python-dotenv", parsePython},
	Compose:  {"compose", "docker-compose", parseCompose},
	Systemd:  {"systemd", "systemd", parseSystemd},
	Node:     {"node", "Node's dotenv", parseNode},
	NodeFile: {"node-env-file", "node --env-file", parseNodeFile},
	Docker:   {"docker", "docker", parseDocker},
	Bash:     {"bash", "bash", parseBash},
}

// Dialects are all of them, in a fixed order.
func Dialects() []Dialect { return slices.Sorted(maps.Keys(dialects)) }

// String is the dialect's name on the command line.
func (d Dialect) String() string {
	if known, ok := dialects[d]; ok {
		return known.name
	}
	return fmt.Sprintf("Dialect(%d)", int(d))
}

// Reader is the program whose dialect it is, as messages call it.
func (d Dialect) Reader() string { return dialects[d].reader }

// ParseDialect is the inverse of String.
func ParseDialect(s string) (Dialect, error) {
	var names []string
	for _, d := range Dialects() {
		if s == d.String() {
			return d, nil
		}
		names = append(names, d.String())
	}
	return 0, fmt.Errorf("dialect %q is none of %s", s, strings.Join(names, ", "))
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
	known, ok := dialects[d]
	if !ok {
		return nil, fmt.Errorf("unknown dialect %d", int(d))
	}
	st, faults := known.parse(text)
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
		return "", &LineError{Line: 1, Reason: "the file is UTF-16, which no reader of .env files takes: save it as UTF-8"}
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

// lineCounter gives lines, in a time that is linear over offsets that grow.
type lineCounter struct {
	s        string
	at, ends int
}

// of is the line of an offset, from 1.
func (l *lineCounter) of(at int) int {
	if at < l.at {
		l.at, l.ends = 0, 0
	}
	l.ends += strings.Count(l.s[l.at:at], "\n")
	l.at = at
	return 1 + l.ends
}

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
