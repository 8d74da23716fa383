package config

import (
	"errors"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/BurntSushi/toml"
)

// syntaxFault is what the parser has against a file. A password without its
// quotes is a fault of syntax, and the parser would quote it.
func syntaxFault(file string, err error) Fault {
	var pe toml.ParseError
	if !errors.As(err, &pe) {
		return Fault{File: file, Msg: "is no TOML"}
	}
	return Fault{File: file, Line: pe.Position.Line, Msg: withoutValues(pe.Message)}
}

var (
	quoted = regexp.MustCompile(`"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'`)
	ranged = regexp.MustCompile(`^\S+ (is out of)`)
)

// withoutValues leaves of what a message quotes only keys, signs and ends of
// lines.
func withoutValues(message string) string {
	if strings.HasPrefix(message, "Key '") {
		return message
	}
	message = ranged.ReplaceAllString(message, "a number $1")
	return quoted.ReplaceAllStringFunc(message, func(s string) string {
		inner := s[1 : len(s)-1]
		if text, err := strconv.Unquote(s); err == nil {
			inner = text
		}
		r, size := utf8.DecodeRuneInString(inner)
		if size == len(inner) && !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			return s
		}
		return "something else"
	})
}
