package dotenv

import (
	"errors"
	"slices"
	"strings"
)

// ErrUnwritable is a value for which a dialect has no text, or several dialects
// have none in common: docker has no end of line, Node's none with all three
// quotes.
var ErrUnwritable = errors.New("no text gives this value")

// Quote writes value so that each of the dialects reads it back, on the right
// of an "=". Python, Compose and Bash have a text for every value.
func Quote(value string, dialects ...Dialect) (string, error) { return quote("A", value, dialects) }

// Assignment is NAME=VALUE so that each of the dialects reads it back, without
// an end of line.
func Assignment(name, value string, dialects ...Dialect) (string, error) {
	text, err := quote(name, value, dialects)
	return name + "=" + text, err
}

func quote(name, value string, dialects []Dialect) (string, error) {
	for _, text := range spellings(value) {
		if !slices.ContainsFunc(dialects, func(d Dialect) bool { return !readsBack(name, text, value, d) }) {
			return text, nil
		}
	}
	return "", ErrUnwritable
}

// readsBack says whether text means value where a line follows it.
func readsBack(name, text, value string, d Dialect) bool {
	vars, err := readAll([]byte(name+"="+text+"\nB_=c\n"), d)
	return err == nil && len(vars) == 2 && vars[0].Name == name && vars[0].Value == value && vars[1].Value == "c"
}

// spellings are the ways in which one dialect or another writes a value, the
// commonest first.
func spellings(value string) []string {
	var out []string
	if value != "" && strings.Trim(value, plain) == "" {
		return append(out, value)
	}
	double := doubleQuoter.Replace(value)
	return append(out,
		"'"+value+"'",
		`"`+value+`"`,
		`"`+double+`"`,
		// python-dotenv has no escape for a dollar; the default of a variable
		// without a name is one way to say it.
		`"`+strings.ReplaceAll(double, "${", "${:-$}{")+`"`,
		`"`+strings.ReplaceAll(double, "$", `\$`)+`"`,
		// systemd and bash have no escape for an end of line, and need none.
		`"`+shellQuoter.Replace(value)+`"`,
		`'`+strings.ReplaceAll(value, "'", `'\''`)+`'`,
		// Node's have no escape but these, and a third kind of quotes.
		"`"+value+"`",
		`"`+returnQuoter.Replace(value)+`"`,
		value,
	)
}

const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:@%+,-"

var (
	doubleQuoter = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\r", `\r`)
	shellQuoter  = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", `\$`, "`", "\\`")
	returnQuoter = strings.NewReplacer("\n", `\n`, "\r", `\r`)
)
