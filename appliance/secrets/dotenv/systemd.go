package dotenv

import "strings"

// systemdParser follows parse_env_file_internal of systemd 252 to 257, which
// reads EnvironmentFile=. What that one passes over without a word (lines
// without "=", names that it refuses, a quote that is never closed) is a fault
// here.
// Source: https://www.freedesktop.org/software/systemd/man/latest/systemd.exec.html#EnvironmentFile=
type systemdParser struct {
	s      string
	pos    int
	lines  lineCounter
	out    []Statement
	faults []*LineError
}

const (
	systemdBlank = " \t\n\r"
	systemdEnd   = "\n\r"
)

func parseSystemd(text string) ([]Statement, []*LineError) {
	p := &systemdParser{s: text, lines: lineCounter{s: text}}
	for {
		for p.pos < len(p.s) && has(systemdBlank, p.s[p.pos]) {
			p.pos++
		}
		switch {
		case p.pos == len(p.s):
			return p.out, p.faults
		case has("#;", p.s[p.pos]):
			p.comment()
		default:
			p.statement()
		}
	}
}

func has(set string, c byte) bool { return strings.IndexByte(set, c) >= 0 }

func (p *systemdParser) fault(at int, reason string) {
	p.faults = append(p.faults, &LineError{Line: p.lines.of(at), Reason: reason})
}

func (p *systemdParser) comment() {
	from := p.pos
	for p.pos < len(p.s) && !has(systemdEnd, p.s[p.pos]) {
		p.pos++
	}
	if p.pos < len(p.s) && p.s[p.pos-1] == '\\' {
		p.fault(from, "a comment that ends with a backslash: systemd before 254 takes the next line for a part of it, later ones do not")
	}
}

// statement reads NAME=VALUE with its end of line.
func (p *systemdParser) statement() {
	start := p.pos
	for p.pos < len(p.s) && p.s[p.pos] != '=' && !has(systemdEnd, p.s[p.pos]) {
		p.pos++
	}
	name := strings.TrimRight(p.s[start:p.pos], systemdBlank)
	if p.pos == len(p.s) || p.s[p.pos] != '=' {
		p.fault(start, `a line without "=", which systemd passes over`)
		return
	}
	p.pos++
	value, closed := p.value()
	switch {
	case !closed:
		p.fault(start, "a quoted value without its closing quote")
		return
	case !shellName(name):
		p.fault(start, "a name that systemd passes over: it takes letters, digits and _ (and no export)")
		return
	}
	first := 1 + strings.LastIndexAny(p.s[:start], systemdEnd)
	p.out = append(p.out, Statement{
		Name: name, Value: value, HasValue: true, Literal: true, Line: p.lines.of(start), Start: first, End: p.pos,
	})
}

// value reads on to the end of the line, with that.
func (p *systemdParser) value() (value string, closed bool) {
	var b []byte
	bare := false // in the part that is not quoted, where a quote is a character like others
	blanks := -1  // where the blanks begin that end the value, for all that is known
	for p.pos < len(p.s) {
		c := p.s[p.pos]
		p.pos++
		switch {
		case has(systemdEnd, c):
			if c == '\r' && p.pos < len(p.s) && p.s[p.pos] == '\n' {
				p.pos++
			}
			if bare && blanks >= 0 {
				b = b[:blanks]
			}
			return string(b), true
		case c == '\\':
			bare = true
			if p.pos < len(p.s) {
				if c := p.s[p.pos]; !has(systemdEnd, c) {
					b = append(b, c)
				}
				p.pos++
			}
			blanks = -1
		case !bare && (c == '\'' || c == '"'):
			if b, closed = p.quoted(b, c); !closed {
				return "", false
			}
		case !bare && has(systemdBlank, c):
		case has(systemdBlank, c):
			if blanks < 0 {
				blanks = len(b)
			}
			b = append(b, c)
		default:
			bare, blanks = true, -1
			b = append(b, c)
		}
	}
	if bare && blanks >= 0 {
		b = b[:blanks]
	}
	return string(b), true
}

func (p *systemdParser) quoted(b []byte, quote byte) ([]byte, bool) {
	for p.pos < len(p.s) {
		c := p.s[p.pos]
		p.pos++
		switch {
		case c == quote:
			return b, true
		case c == '\\' && quote == '"' && p.pos < len(p.s):
			c := p.s[p.pos]
			p.pos++
			switch {
			case has("\"\\`$", c):
				b = append(b, c)
			case c != '\n':
				b = append(b, '\\', c)
			}
		default:
			b = append(b, c)
		}
	}
	return b, false
}

// shellName is what systemd and shells take for a name.
func shellName(s string) bool { return s != "" && composeName(s) == len(s) }
