// Package mask hides what looks like a secret in text that leaves the machine or
// stays on it: alerts, reports, failures. It guesses; who knows a secret names it.
package mask

import (
	"regexp"
	"strings"
	"unicode"
)

// Hidden takes a secret's place.
const Hidden = "***"

// names are those that secrets go by.
const names = `(?:password|passwd|passphrase|pwd|secret|(?:secret|api|access|private|signing|mac|encryption)(?:[_-]?access)?[_-]?(?:key|id)|token|credentials?|authorization)`

// Masks in the order in which they are applied. They rather hide a word too many
// than show one.
var masks = []struct {
	re *regexp.Regexp
	by string
}{
	{regexp.MustCompile(`(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\z)`), Hidden},
	{regexp.MustCompile(`(?i)AGE-SECRET-KEY-[0-9A-Z]+-?[0-9A-Z]*`), Hidden},
	// Vault's tokens, of today and of before 1.10.
	{regexp.MustCompile(`\bhv[sbr]\.[A-Za-z0-9_-]+`), Hidden},
	{regexp.MustCompile(`\b[sbr]\.[A-Za-z0-9]{20,}`), Hidden},
	{regexp.MustCompile(`\beyJ[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*){0,2}`), Hidden},
	// The parts of a URL that hold secrets: user, query, and a long path.
	// A password may hold a / or an @.
	{regexp.MustCompile(`(://)[^/@:\s"']*:[^\s"']*@`), "${1}" + Hidden + "@"},
	{regexp.MustCompile(`(://)[^/@\s]+@`), "${1}" + Hidden + "@"},
	{regexp.MustCompile(`(https?://[^\s?"']*\?)[^\s"']+`), "${1}" + Hidden},
	{regexp.MustCompile(`(?i)\b((?:Bearer|Basic)\s+)[A-Za-z0-9._~+/=-]+`), "${1}" + Hidden},
	// SQL's: PASSWORD 'x', IDENTIFIED BY 'x'.
	{regexp.MustCompile(`(?i)(\b(?:PASSWORD|IDENTIFIED\s+(?:WITH\s+\S+\s+)?(?:BY|AS)(?:\s+PASSWORD)?)\s+(?:E|U&)?')(?:[^'\\]|''|\\.)*`), "${1}" + Hidden},
	{regexp.MustCompile(`(?i)(\b(?:PASSWORD|IDENTIFIED\s+BY)\s+(?:\$\w*\$|"))[^$"]*`), "${1}" + Hidden},
	// A value in quotes may hold spaces: to the quote that ends it, also inside JSON
	// that is itself quoted.
	{regexp.MustCompile(`(?i)(` + names + `\\"\s*[:=]\s*\\")(?:[^\\"]|\\[^"])*`), "${1}" + Hidden},
	{regexp.MustCompile(`(?i)(` + names + `["']?\s*[:=]\s*")(?:[^"\\]|\\.)*`), "${1}" + Hidden},
	{regexp.MustCompile(`(?i)(` + names + `["']?\s*[:=]\s*')(?:[^'\\]|\\.)*`), "${1}" + Hidden},
	{regexp.MustCompile(`(?i)(` + names + `["']?\s*[:=]\s*)[^\s"',;]+`), "${1}" + Hidden},
	// AppRole's ids.
	{regexp.MustCompile(`(?i)\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b`), Hidden},
}

// word is long enough for a key.
var word = regexp.MustCompile(`[A-Za-z0-9+_=-]{20,}|[A-Za-z0-9+/]{40,}={0,2}`)

// snapshotName is none: CLUSTER/20261124T151500Z-1a2b3c4d.
var snapshotName = regexp.MustCompile(`^\d{8}T\d{6}Z-[0-9a-f]{8}$`)

var privateKey = masks[0].re

// PrivateKeys hides the private keys in text, also such as stretch over lines: to
// be called before it is cut into those.
func PrivateKeys(text []byte) []byte { return privateKey.ReplaceAll(text, []byte(Hidden)) }

// Text hides what looks like a secret in s, and each of known wherever it is.
// Control characters, which a terminal would obey, go too.
func Text(s string, known ...string) string {
	for _, k := range known {
		if k = strings.TrimSpace(k); len(k) >= 4 {
			s = strings.ReplaceAll(s, k, Hidden)
		}
	}
	for _, m := range masks {
		s = m.re.ReplaceAllString(s, m.by)
	}
	s = word.ReplaceAllStringFunc(s, func(w string) string {
		if snapshotName.MatchString(w) || !strings.ContainsFunc(w, isDigit) || !strings.ContainsFunc(w, unicode.IsLetter) {
			return w
		}
		if strings.HasPrefix(w, "/") && !strings.ContainsFunc(w, unicode.IsUpper) {
			return w // a path
		}
		return Hidden
	})
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\t' {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

func isDigit(r rune) bool { return '0' <= r && r <= '9' }
