package migrate

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode/utf16"
)

const (
	// minSearched is the shortest value that is looked for, in bytes: what is
	// shorter stands everywhere.
	minSearched = 6
	// freeStanding is the shortest value that is found inside of a longer word,
	// in bytes. A shorter one must stand alone.
	freeStanding = 8
	// anchorLen is how many bytes of a needle are looked up at each position.
	anchorLen = 4
)

// NotSearched is a value that was not looked for, since it would be found in
// places that have nothing to do with it.
type NotSearched struct {
	Name string `json:"name"`
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"` // from 1
	Why  string `json:"why"`
}

// String is the variable, where it is set and why it was left out.
func (n NotSearched) String() string {
	at := ""
	switch {
	case n.Line > 0:
		at = fmt.Sprintf(" of %s:%d", n.File, n.Line)
	case n.File != "":
		at = " of " + n.File
	}
	return fmt.Sprintf("%s%s: %s", n.Name, at, n.Why)
}

// needle is one way to write one value.
type needle struct {
	key   string // of the value
	form  string // "" as it is, or "base64", "URL-encoded", …
	value []byte
	off   int // of the anchor
}

// needles finds many values in one pass: at every position four bytes are looked
// up, which stand somewhere in each needle.
type needles struct {
	byAnchor map[uint32][]needle
	filter   [1 << 16]bool // by the first two bytes of an anchor
	seen     map[string]bool
	keys     map[string]bool
}

func newNeedles() *needles {
	return &needles{byAnchor: map[uint32][]needle{}, seen: map[string]bool{}, keys: map[string]bool{}}
}

// count is how many values are looked for.
func (n *needles) count() int { return len(n.keys) }

// add takes a value in all its forms, or says why it is not looked for.
func (n *needles) add(key, value string) (why string) {
	if why := whyNotSearched(value); why != "" {
		return why
	}
	n.forms(key, "", value)
	for _, part := range passwordsIn(value) {
		if whyNotSearched(part) == "" {
			n.forms(key, "the password in it", part)
		}
	}
	return ""
}

func (n *needles) forms(key, what, value string) {
	form := func(how string) string {
		if what == "" || how == "" {
			return what + how
		}
		return what + ", " + how
	}
	n.put(key, form(""), value)
	for _, l := range longLines(value) {
		n.put(key, form("a line of it"), l)
	}
	for _, e := range escaped(value) {
		n.put(key, form("with escapes"), e)
	}
	for _, e := range urlEncoded(value) {
		n.put(key, form("URL-encoded"), e)
	}
	for _, e := range base64Forms(value) {
		n.put(key, form("base64"), e)
	}
	h := hex.EncodeToString([]byte(value))
	n.put(key, form("hex"), h)
	n.put(key, form("hex"), strings.ToUpper(h))
	n.put(key, form("UTF-16"), utf16Text(value, binary.LittleEndian))
	n.put(key, form("UTF-16"), utf16Text(value, binary.BigEndian))
}

// put takes one form. What is too short or there already is left out.
func (n *needles) put(key, form, text string) {
	if len(text) < minSearched || n.seen[key+"\x00"+text] {
		return
	}
	n.seen[key+"\x00"+text] = true
	n.keys[key] = true
	v := []byte(text)
	off := anchorOf(v)
	a := binary.LittleEndian.Uint32(v[off:])
	n.byAnchor[a] = append(n.byAnchor[a], needle{key, form, v, off})
	n.filter[uint16(a)] = true
}

// anchorOf is where the four bytes stand that text has least of: digits and
// capitals rather than small letters, so that "https://" costs nothing.
func anchorOf(v []byte) int {
	weight := func(c byte) int {
		switch {
		case c >= '0' && c <= '9', c >= 'A' && c <= 'Z', c >= 0x80:
			return 2
		case c >= 'a' && c <= 'z', c == ' ', c == '\n', c == 0:
			return 0
		}
		return 1
	}
	best, most := 0, -1
	for i := 0; i+anchorLen <= len(v) && i < 256; i++ {
		sum := 0
		for _, c := range v[i : i+anchorLen] {
			sum += weight(c)
		}
		if sum > most {
			best, most = i, sum
		}
	}
	return best
}

// in visits every place of data at which a needle stands.
func (n *needles) in(data []byte, visit func(m *needle, at int)) {
	for i := 0; i+anchorLen <= len(data); i++ {
		if !n.filter[uint16(data[i])|uint16(data[i+1])<<8] {
			continue
		}
		all := n.byAnchor[binary.LittleEndian.Uint32(data[i:])]
		for j := range all {
			m := &all[j]
			at := i - m.off
			if at >= 0 && bytes.HasPrefix(data[at:], m.value) && (len(m.value) >= freeStanding || standsAlone(data, at, at+len(m.value))) {
				visit(m, at)
			}
		}
	}
}

func standsAlone(data []byte, from, to int) bool {
	return (from == 0 || !isWord(data[from-1])) && (to == len(data) || !isWord(data[to]))
}

func isWord(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c == '_' || c >= 0x80
}

// keysIn are the keys of the values that stand in data, each once.
func (n *needles) keysIn(data []byte) []string {
	var keys []string
	n.in(data, func(m *needle, _ int) {
		if !slices.Contains(keys, m.key) {
			keys = append(keys, m.key)
		}
	})
	return keys
}

var (
	onlyDigits  = regexp.MustCompile(`^[0-9]{1,11}$`)
	oneWord     = regexp.MustCompile(`^(?:[A-Z]?[a-z]+|[A-Z]+)$`)
	consonants5 = regexp.MustCompile(`(?i)[bcdfghjklmnpqrstvwxz]{5}`)
)

// commonValues are passwords that stand in documentation, with digits or signs:
// words need no list.
var commonValues = map[string]bool{
	"password1": true, "password12": true, "password123": true, "passw0rd": true, "p@ssw0rd": true, "p@ssword": true, "admin123": true, "admin1234": true,
	"admin@123": true, "root123": true, "test123": true, "test1234": true, "changeme1": true, "changeme123": true, "change-me": true, "change_me": true,
	"changeit!": true, "letmein1": true, "welcome1": true, "welcome123": true, "qwerty123": true, "abc123": true, "abcd1234": true, "1q2w3e4r": true,
	"secret123": true, "postgres1": true, "user123": true, "guest123": true, "example.com": true, "localhost:5432": true, "127.0.0.1": true, "0.0.0.0": true,
}

// whyNotSearched says why a value is not looked for, or nothing.
func whyNotSearched(value string) string {
	switch {
	case len(value) < minSearched:
		return fmt.Sprintf("shorter than %d bytes", minSearched)
	case onlyDigits.MatchString(value):
		return "a number"
	case len(value) < 16 && oneWord.MatchString(value) && strings.ContainsAny(strings.ToLower(value), "aeiouy") && !consonants5.MatchString(value):
		return "a common word"
	case commonValues[strings.ToLower(value)]:
		return "a common word"
	case strings.Trim(value, value[:1]) == "":
		return "one character again and again"
	}
	return ""
}

var namedPassword = regexp.MustCompile(`(?i)(?:^|[;&?,{\s"'])(?:[\w.-]*(?:password|passwd|pwd|secret|token|api_?key|accountkey|sharedaccesskey|sig))["']?\s*[=:]\s*(?:"([^"]+)"|'([^']+)'|([^\s;&"',}]+))`)

// passwordsIn are the parts of a value that are secrets by themselves: of a URL,
// its password and those of its query; what a connection string calls so.
func passwordsIn(value string) []string {
	var out []string
	add := func(s string) {
		if s != "" && s != value && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	if _, rest, ok := strings.Cut(value, "://"); ok {
		authority := rest
		if i := strings.IndexAny(rest, "/?#"); i >= 0 {
			authority = rest[:i]
		}
		if i := strings.LastIndexByte(authority, '@'); i >= 0 {
			if _, raw, ok := strings.Cut(authority[:i], ":"); ok {
				add(raw)
				if p, err := url.PathUnescape(raw); err == nil {
					add(p)
				}
			}
		}
	}
	for _, m := range namedPassword.FindAllStringSubmatch(value, -1) {
		raw := m[1] + m[2] + m[3]
		add(raw)
		if p, err := url.QueryUnescape(raw); err == nil {
			add(p)
		}
	}
	return out
}

// longLines of a value of several lines: indented, as in YAML, it stands nowhere
// in one piece. The first and last lines of PEM are the same in all files.
func longLines(value string) []string {
	if !strings.Contains(value, "\n") {
		return nil
	}
	var out []string
	for l := range strings.Lines(value) {
		if l = strings.TrimSpace(l); len(l) >= 20 && !strings.HasPrefix(l, "-----") && len(out) < 4 && len(passphraseless(l)) > 0 {
			out = append(out, l)
		}
	}
	return out
}

// passphraseless is a line but for the headers of old PEM files.
func passphraseless(l string) string {
	for _, h := range []string{"Proc-Type:", "DEK-Info:"} {
		if strings.HasPrefix(l, h) {
			return ""
		}
	}
	return l
}

// escaped are the ways in which JSON, YAML, the shell, XML, compose, systemd and
// INI files write a value, where they differ from it.
func escaped(value string) []string {
	out := []string{jsonText(value, false), jsonText(value, true)}
	pairs := [][]string{
		{"'", "''"},
		{"'", `'\''`},
		{"'", `'"'"'`},
		{`\`, `\\`, "'", `\'`},
		{`\`, `\\`, `"`, `\"`, "$", `\$`, "`", "\\`"},
		{`\`, `\\`, `"`, `\"`},
		{"$", "$$"},
		{"%", "%%"},
		{"\n", `\n`},
		{"\r\n", "\n"},
		{"\n", "\r\n"},
	}
	for _, p := range pairs {
		out = append(out, strings.NewReplacer(p...).Replace(value))
	}
	out = append(out, html.EscapeString(value), strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;", "'", "&apos;").Replace(value))
	return out
}

// jsonText is value as JSON has it between its quotes.
func jsonText(value string, escapeHTML bool) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(escapeHTML)
	if err := e.Encode(value); err != nil {
		return value // never: a string always encodes
	}
	s := strings.TrimSuffix(b.String(), "\n")
	return s[1 : len(s)-1]
}

var percent = regexp.MustCompile(`%[0-9A-F]{2}`)

// urlEncoded are the encodings of a query, of a path and of RFC 3986 without
// exceptions, each with capital and small hexadecimal digits.
func urlEncoded(value string) []string {
	q := url.QueryEscape(value)
	out := []string{q, url.PathEscape(value), strings.ReplaceAll(q, "+", "%20"), url.UserPassword("", value).String()[1:]}
	if _, full, ok := strings.Cut(value, "://"); ok && full != "" {
		out = append(out, (&url.URL{Path: value}).EscapedPath())
	}
	for _, s := range slices.Clone(out) {
		out = append(out, percent.ReplaceAllStringFunc(s, strings.ToLower))
	}
	return out
}

const (
	base64Piece  = 32 // of long values; lines are broken at 64 or 76
	base64Pieces = 4
)

// base64Forms are what stands of a value in base64, wherever in the encoded
// text it begins: of a long value, pieces that fit on one line.
func base64Forms(value string) []string {
	var out []string
	for skip := range 3 {
		padded := append(make([]byte, skip), value...)
		all := base64.RawStdEncoding.EncodeToString(padded)
		from := (skip*8 + 5) / 6          // the first character that value alone decides
		to := (skip + len(value)) * 8 / 6 // behind the last one
		all = all[from:to]
		if len(all) < minSearched+1 {
			continue
		}
		pieces := []string{all}
		if len(all) > 2*base64Piece {
			pieces = nil
			// The first lines of PEM are the same in all files.
			for at := base64Piece - from%base64Piece; at+base64Piece <= len(all) && len(pieces) < base64Pieces; at += base64Piece {
				pieces = append(pieces, all[at:at+base64Piece])
			}
			if len(pieces) > 1 {
				pieces = pieces[1:]
			}
		}
		for _, p := range pieces {
			out = append(out, p, strings.NewReplacer("+", "-", "/", "_").Replace(p))
		}
	}
	return out
}

func utf16Text(value string, order binary.AppendByteOrder) string {
	var b []byte
	for _, u := range utf16.Encode([]rune(value)) {
		b = order.AppendUint16(b, u)
	}
	return string(b)
}
