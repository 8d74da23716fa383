package dotenv

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// composeParser follows compose-go v2.16's dotenv package. That one stops at
// the first fault, and so does this.
type composeParser struct {
	s    string
	base int // bytes before s in the file
	pos  int
}

func parseCompose(text string) ([]Statement, []*LineError) {
	p := &composeParser{s: text}
	lines := lineCounter{}
	if strings.HasPrefix(text, bom) {
		p.s, p.base = text[len(bom):], len(bom)
	}
	lines.s = p.s
	var out []Statement
	for {
		p.toStatement()
		if p.pos == len(p.s) {
			return out, nil
		}
		begin := p.pos
		st, reason := p.statement()
		line := lines.of(begin)
		if reason != "" {
			return nil, []*LineError{{Line: line, Reason: reason}}
		}
		st.Line = line
		start, end := p.extent(begin)
		st.Start, st.End = start+p.base, end+p.base
		out = append(out, st)
	}
}

// toStatement passes over white space and lines of comment.
func (p *composeParser) toStatement() {
	for {
		p.skip(unicode.IsSpace)
		if p.pos == len(p.s) || p.s[p.pos] != '#' {
			return
		}
		p.skip(func(r rune) bool { return r != '\n' })
	}
}

func (p *composeParser) skip(ok func(rune) bool) {
	for p.pos < len(p.s) {
		r, n := utf8.DecodeRuneInString(p.s[p.pos:])
		if !ok(r) {
			return
		}
		p.pos += n
	}
}

// composeBlank is compose-go's space within a line.
func composeBlank(r rune) bool {
	switch r {
	case '\t', '\v', '\f', '\r', ' ', 0x85, 0xa0:
		return true
	}
	return false
}

// extent is what can be cut out for the statement from begin to pos: its whole
// lines, with a comment behind it; or less, if another statement shares them.
func (p *composeParser) extent(begin int) (start, end int) {
	start, end = begin, p.pos
	first := 1 + strings.LastIndexByte(p.s[:begin], '\n')
	whole := strings.TrimSpace(p.s[first:begin]) == ""
	if whole {
		start = first
	}
	if end > 0 && p.s[end-1] == '\n' {
		if !whole {
			end-- // the line's end is the other statement's as well
		}
		return start, end
	}
	line, _, more := strings.Cut(p.s[end:], "\n")
	if rest := strings.TrimSpace(line); rest == "" || rest[0] == '#' {
		end += len(line)
		if whole && more {
			end++
		}
	}
	return start, end
}

// statement reads NAME, NAME=VALUE or NAME: VALUE, and leaves pos behind it.
func (p *composeParser) statement() (st Statement, reason string) {
	p.export()
	from := p.pos
	var end rune
	p.skip(func(r rune) bool {
		switch {
		case r == '=' || r == ':' || r == '\n':
			end = r
			return false
		case composeBlank(r), strings.ContainsRune("_.-[]", r), unicode.IsLetter(r), unicode.IsNumber(r):
			return true
		}
		end = utf8.RuneError
		return false
	})
	if end == utf8.RuneError {
		return st, "a character that no name may have, before any \"=\""
	}
	st.Name = strings.TrimRightFunc(p.s[from:p.pos], unicode.IsSpace)
	if strings.Contains(st.Name, " ") {
		return st, "a name with a space inside"
	}
	if st.Name == "" {
		return st, `no name before "=" or ":"`
	}
	if end == 0 || end == '\n' {
		if end == '\n' {
			p.pos++
		}
		return st, ""
	}
	p.pos++
	p.skip(composeBlank)
	st.HasValue = true
	return p.value(st)
}

// export passes over the word where white space follows it.
func (p *composeParser) export() {
	rest, ok := strings.CutPrefix(p.s[p.pos:], "export")
	// Only the ASCII white space of RE2's \s counts.
	if ok && rest != "" && strings.ContainsRune("\t\n\f\r ", rune(rest[0])) {
		p.pos += len("export")
		p.skip(composeBlank)
	}
}

func (p *composeParser) value(st Statement) (Statement, string) {
	rest := p.s[p.pos:]
	if rest == "" || (rest[0] != '"' && rest[0] != '\'') {
		value, _, more := strings.Cut(rest, "\n")
		p.pos += len(value)
		if more {
			p.pos++
		}
		value, _, _ = strings.Cut(value, " #")
		st.Value = strings.TrimRightFunc(value, unicode.IsSpace)
		return st, ""
	}
	quote := rest[0]
	var b []byte
	escaped := false
	for i := 1; i < len(rest); i++ {
		c := rest[i]
		switch {
		case c == quote && !escaped:
			p.pos += i + 1
			st.Value = string(b)
			st.Literal = quote == '\''
			if !st.Literal {
				st.Value = composeUnescape(st.Value)
			}
			return st, ""
		case c == '\\' && !escaped:
			escaped = true
			continue
		case c != quote && escaped:
			// The backslash belonged to something else than a quote.
			b = append(b, '\\')
		}
		escaped = false
		b = append(b, c)
	}
	return st, "a quoted value without its closing quote"
}

// composeUnescape gives $$ for \$, so that interpolation sees the escape.
func composeUnescape(s string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		i++
		switch c := s[i]; c {
		case '$':
			b.WriteString("$$")
		case 'a', 'b', 'f', 'n', 'r', 't', 'v', '\\', '"':
			b.WriteByte(pythonEscapes[c])
		case '0':
			digits := i + 1
			for digits < len(s) && digits < i+4 && s[digits] >= '0' && s[digits] <= '9' {
				digits++
			}
			b.WriteString(composeOctal(s[i+1 : digits]))
			i = digits - 1
		default:
			b.WriteByte('\\')
			b.WriteByte(c)
		}
	}
	return b.String()
}

// composeOctal is \0 and digits. Fewer than three digits, or more than a byte,
// stay as they are but for the zero: so compose-go has it.
func composeOctal(digits string) string {
	if len(digits) == 3 {
		if v, err := strconv.ParseUint(digits, 8, 8); err == nil {
			return string(rune(v))
		}
	}
	return `\` + digits
}
