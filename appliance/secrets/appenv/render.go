package appenv

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"strongroom.example/appliance/secrets/dotenv"
)

// formats are what Render writes, and who reads it.
var formats = []struct {
	name    string
	readers []dotenv.Dialect
}{
	{"dotenv", []dotenv.Dialect{dotenv.Python, dotenv.Compose, dotenv.Node}},
	{"python", []dotenv.Dialect{dotenv.Python}},
	{"compose", []dotenv.Dialect{dotenv.Compose}},
	{"node", []dotenv.Dialect{dotenv.Node, dotenv.NodeFile}},
	{"systemd", []dotenv.Dialect{dotenv.Systemd}},
	{"docker", []dotenv.Dialect{dotenv.Docker}},
	{"shell", []dotenv.Dialect{dotenv.Bash}},
	{"json", nil},
}

// Formats are the names of all formats.
func Formats() []string {
	var out []string
	for _, f := range formats {
		out = append(out, f.name)
	}
	return out
}

// CannotHoldError is a format whose reader has no way to get some variables as
// they are. It names them, and never quotes a value.
type CannotHoldError struct {
	Format string
	Names  []string // with the reason of each
}

// Error lists all of them.
func (e *CannotHoldError) Error() string {
	return fmt.Sprintf("the format %q cannot hold %s", e.Format, strings.Join(e.Names, ", "))
}

// Render writes pairs as a file of the format: one of Formats. Its readers read
// every value back as it is, or there is a *CannotHoldError and no file.
func Render(pairs []Pair, format string) ([]byte, error) {
	i := slices.Index(Formats(), format)
	if i < 0 {
		return nil, fmt.Errorf("format %q is none of %s", format, strings.Join(Formats(), ", "))
	}
	if format == "json" {
		m := map[string]string{}
		for _, p := range pairs {
			m[p.Name] = p.Value
		}
		data, err := json.MarshalIndent(m, "", "  ")
		return append(data, '\n'), err
	}
	var b strings.Builder
	cannot := &CannotHoldError{Format: format}
	if slices.ContainsFunc(formats[i].readers, startsPrograms) {
		for _, p := range TooLarge(pairs) {
			cannot.Names = append(cannot.Names, fmt.Sprintf("%s (%d bytes, and one variable of an environment holds at most %d)", p.Name, len(p.Value), MaxVariable))
		}
		if len(cannot.Names) > 0 {
			return nil, cannot
		}
	}
	for _, p := range pairs {
		line, err := dotenv.Assignment(p.Name, p.Value, formats[i].readers...)
		if err != nil {
			cannot.Names = append(cannot.Names, p.Name+" ("+whyNot(p, formats[i].readers)+")")
			continue
		}
		b.WriteString(line + "\n")
	}
	if len(cannot.Names) > 0 {
		return nil, cannot
	}
	return []byte(b.String()), nil
}

// startsPrograms says whether a reader is there to start a program, with what it
// reads as the environment.
func startsPrograms(d dotenv.Dialect) bool {
	return d == dotenv.Systemd || d == dotenv.Compose || d == dotenv.Docker
}

// whyNot finds the reason: the name's, or the value's.
func whyNot(p Pair, readers []dotenv.Dialect) string {
	if _, err := dotenv.Assignment(p.Name, "x", readers...); err != nil {
		return "its name"
	}
	short := p.Value[:min(len(p.Value), 1<<10)]
	if _, err := dotenv.Assignment(p.Name, short, readers...); err == nil && len(short) < len(p.Value) && !strings.ContainsAny(p.Value, "\r\n") {
		return fmt.Sprintf("%d bytes in one line", len(p.Value))
	}
	if strings.ContainsAny(p.Value, "\r\n") {
		return "an end of line in it"
	}
	return "its quotes, backslashes or dollars"
}
