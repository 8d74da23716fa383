package dotenv

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// pythonParser follows python-dotenv 1.2.4, including what it does after a
// fault, so that faults have the lines that it would warn of.
type pythonParser struct {
	s    string // with "\n" for every end of line, as Python's text mode gives it
	pos  int
	line int
	at   func(int) int // offset in s to offset in the file
}

func parsePython(text string) ([]Statement, []*LineError) {
	offset := 0
	if strings.HasPrefix(text, bom) {
		text, offset = text[len(bom):], len(bom)
	}
	s, at := universalNewlines(text)
	p := &pythonParser{s: s, line: 1, at: func(i int) int { return at(i) + offset }}
	var out []Statement
	var faults []*LineError
	for p.pos < len(p.s) {
		st, found, fault := p.binding()
		switch {
		case fault != nil:
			faults = append(faults, fault)
		case found:
			out = append(out, st)
		}
	}
	return out, faults
}

// universalNewlines is what Python's open() does to "\r\n" and "\r".
func universalNewlines(text string) (string, func(int) int) {
	if strings.IndexByte(text, '\r') < 0 {
		return text, func(i int) int { return i }
	}
	var b strings.Builder
	offsets := make([]int32, 0, len(text)+1)
	for i := 0; i < len(text); i++ {
		c := text[i]
		offsets = append(offsets, int32(i))
		if c == '\r' {
			c = '\n'
			if i+1 < len(text) && text[i+1] == '\n' {
				i++
			}
		}
		b.WriteByte(c)
	}
	offsets = append(offsets, int32(len(text)))
	return b.String(), func(i int) int { return int(offsets[i]) }
}

// pythonSpace is \s of Python's re module.
func pythonSpace(r rune) bool { return unicode.IsSpace(r) || (r >= 0x1c && r <= 0x1f) }

func pythonBlank(r rune) bool { return r != '\n' && pythonSpace(r) }

// skip passes over what ok takes and says whether there was any.
func (p *pythonParser) skip(ok func(rune) bool) bool {
	start := p.pos
	for p.pos < len(p.s) {
		r, n := utf8.DecodeRuneInString(p.s[p.pos:])
		if !ok(r) {
			break
		}
		if r == '\n' {
			p.line++
		}
		p.pos += n
	}
	return p.pos > start
}

func (p *pythonParser) peek() byte {
	if p.pos < len(p.s) {
		return p.s[p.pos]
	}
	return 0
}

func (p *pythonParser) restOfLine() {
	p.skip(func(r rune) bool { return r != '\n' })
	if p.peek() == '\n' {
		p.pos++
		p.line++
	}
}

// binding reads to the end of one assignment, comment or faulty line.
func (p *pythonParser) binding() (st Statement, found bool, fault *LineError) {
	p.skip(pythonSpace)
	if p.pos == len(p.s) {
		return st, false, nil
	}
	line := p.line
	start := 1 + strings.LastIndexByte(p.s[:p.pos], '\n')
	st, reason := p.assignment()
	if reason != "" {
		p.restOfLine()
		return st, false, &LineError{Line: line, Reason: reason}
	}
	if !p.endOfLine() {
		p.restOfLine()
		reason := `a name must be followed by "=" or the end of the line`
		if st.HasValue {
			reason = "text after the closing quote"
		}
		return st, false, &LineError{Line: line, Reason: reason}
	}
	st.Line, st.Start, st.End = line, p.at(start), p.at(p.pos)
	return st, st.Name != "", nil
}

// assignment reads [export] NAME [= VALUE], or nothing before a comment.
func (p *pythonParser) assignment() (st Statement, reason string) {
	p.export()
	switch c := p.peek(); {
	case c == '#':
	case c == '\'':
		end := strings.IndexByte(p.s[p.pos+1:], '\'')
		if end <= 0 {
			return st, "a quoted name that is empty or has no closing quote"
		}
		st.Name = p.s[p.pos+1 : p.pos+1+end]
		p.advance(end + 2)
	default:
		from := p.pos
		p.skip(func(r rune) bool { return r != '=' && r != '#' && !pythonSpace(r) })
		if p.pos == from {
			return st, `no name before "="`
		}
		st.Name = p.s[from:p.pos]
	}
	p.skip(pythonBlank)
	if p.peek() != '=' {
		return st, ""
	}
	p.pos++
	st.HasValue = true
	// After a blank a "#" begins a comment, without one it is the value.
	if blank := p.skip(pythonBlank); blank && p.peek() == '#' {
		return st, ""
	}
	return p.value(st)
}

// export passes over the word where blanks follow it on its line.
func (p *pythonParser) export() {
	rest, ok := strings.CutPrefix(p.s[p.pos:], "export")
	if !ok {
		return
	}
	if r, _ := utf8.DecodeRuneInString(rest); rest != "" && pythonBlank(r) {
		p.pos += len("export")
		p.skip(pythonBlank)
	}
}

func (p *pythonParser) advance(n int) {
	p.line += strings.Count(p.s[p.pos:p.pos+n], "\n")
	p.pos += n
}

func (p *pythonParser) value(st Statement) (Statement, string) {
	quote := p.peek()
	if quote != '\'' && quote != '"' {
		from := p.pos
		p.skip(func(r rune) bool { return r != '\n' })
		st.Value = pythonUnquoted(p.s[from:p.pos])
		return st, ""
	}
	for i := p.pos + 1; i < len(p.s); i++ {
		switch p.s[i] {
		case '\\':
			i++
		case quote:
			st.Value = pythonUnescape(p.s[p.pos+1:i], quote)
			p.advance(i + 1 - p.pos)
			return st, ""
		}
	}
	return st, "a quoted value without its closing quote"
}

// pythonUnquoted ends before the first "#" that follows a blank.
func pythonUnquoted(s string) string {
	blank := false
	for i, r := range s {
		if r == '#' && blank {
			s = s[:i]
			break
		}
		blank = pythonSpace(r)
	}
	return strings.TrimRightFunc(s, pythonSpace)
}

var pythonEscapes = map[byte]byte{
	'\\': '\\', '\'': '\'', '"': '"', 'a': '\a', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t', 'v': '\v',
}

func pythonUnescape(s string, quote byte) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			c := s[i+1]
			if v, ok := pythonEscapes[c]; ok && (quote == '"' || c == '\\' || c == '\'') {
				b.WriteByte(v)
				i++
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// endOfLine passes over a comment and one end of line; false if there is
// anything else.
func (p *pythonParser) endOfLine() bool {
	p.skip(pythonBlank)
	if p.peek() == '#' {
		p.skip(func(r rune) bool { return r != '\n' })
	}
	if p.pos == len(p.s) {
		return true
	}
	if p.peek() != '\n' {
		return false
	}
	p.pos++
	p.line++
	return true
}
