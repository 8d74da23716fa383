package dotenv

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// bashParser reads the files of assignments among what bash can source: with
// export or without, all quotes, comments, and references to variables. What
// would run something, or depends on the machine (commands, $(…), globs in
// arrays, a tilde), is a fault: nothing is ever run.
// Source: https://www.gnu.org/software/bash/manual/bash.html#Quoting
type bashParser struct {
	s     string
	pos   int
	lines lineCounter
	out   []Statement
}

// parseBash gives values in the form that compose's references have: "$$" for a
// dollar, ${NAME} and ${NAME:-WORD} for the rest.
func parseBash(text string) ([]Statement, []*LineError) {
	p := &bashParser{s: text, lines: lineCounter{s: text}}
	for {
		p.toCommand()
		if p.pos == len(p.s) {
			return p.out, nil
		}
		begin, first := p.pos, len(p.out)
		if reason := p.command(); reason != "" {
			return nil, []*LineError{{Line: p.lines.of(begin), Reason: reason}}
		}
		if len(p.out) == first+1 {
			p.wholeLines(begin, &p.out[first])
		}
	}
}

// toCommand passes over white space, comments and single semicolons.
func (p *bashParser) toCommand() {
	for p.pos < len(p.s) {
		switch {
		case has(" \t\n", p.s[p.pos]):
			p.pos++
		case strings.HasPrefix(p.s[p.pos:], "\\\n"):
			p.pos += 2
		case p.s[p.pos] == '#':
			p.comment()
		default:
			return
		}
	}
}

func (p *bashParser) comment() {
	for p.pos < len(p.s) && p.s[p.pos] != '\n' {
		p.pos++
	}
}

// wholeLines widens the only statement of a command to its lines, if there is
// nothing else in them.
func (p *bashParser) wholeLines(begin int, st *Statement) {
	st.Start, st.End = begin, p.pos
	line := 1 + strings.LastIndexByte(p.s[:begin], '\n')
	if strings.Trim(p.s[line:begin], " \t") != "" || p.pos < len(p.s) && p.s[p.pos] != '\n' {
		return
	}
	st.Start = line
	if p.pos < len(p.s) {
		st.End++
	}
}

// command reads to the end of the line or the semicolon behind it.
func (p *bashParser) command() (reason string) {
	exported := false
	for n := 0; ; n++ {
		p.blanks()
		end := p.pos == len(p.s) || has("\n#;", p.s[p.pos])
		if end && exported && n == 1 {
			return "export alone, which shows all variables"
		}
		if p.pos == len(p.s) || p.s[p.pos] == '\n' {
			return ""
		}
		switch c := p.s[p.pos]; {
		case c == '#':
			p.comment()
			return ""
		case c == ';' && n > 0:
			p.pos++
			if p.pos < len(p.s) && has(";&", p.s[p.pos]) {
				return "a command: bash would run it"
			}
			return ""
		}
		from := p.pos
		length := composeName(p.s[p.pos:])
		name := p.s[p.pos : p.pos+length]
		p.pos += length
		rest := p.s[p.pos:]
		switch {
		case n == 0 && name == "export" && rest != "" && has(" \t", rest[0]):
			exported = true
			continue
		case length == 0, name == "export" && !strings.HasPrefix(rest, "="):
			return "a command: bash would run it"
		case bashOwn(name):
			return name + ", which bash does not let a file set, or gives a meaning of its own"
		}
		st := Statement{Name: name, Line: p.lines.of(from)}
		switch {
		case strings.HasPrefix(rest, "="):
			p.pos++
			st.HasValue = true
			if st.Value, reason = p.word(exported); reason != "" {
				return name + ": " + reason
			}
		case !exported || rest != "" && !has(" \t\n;", rest[0]):
			return "a command: bash would run it"
		}
		st.Start, st.End = from, p.pos
		p.out = append(p.out, st)
	}
}

func (p *bashParser) blanks() {
	for p.pos < len(p.s) {
		switch {
		case has(" \t", p.s[p.pos]):
			p.pos++
		case strings.HasPrefix(p.s[p.pos:], "\\\n"):
			p.pos += 2
		default:
			return
		}
	}
}

// bashOwn are variables that are read-only, or that bash computes.
func bashOwn(name string) bool {
	switch name {
	case "UID", "EUID", "PPID", "SHELLOPTS", "BASHOPTS", "BASHPID", "RANDOM", "SRANDOM", "SECONDS", "LINENO", "FUNCNAME", "GROUPS", "DIRSTACK",
		"HISTCMD", "EPOCHSECONDS", "EPOCHREALTIME", "PIPESTATUS", "COMP_WORDBREAKS", "POSIXLY_CORRECT", "_":
		return true
	}
	return strings.HasPrefix(name, "BASH_") && name != "BASH_ENV"
}

const (
	bashRuns    = "something that bash would run"
	bashUnended = "a quoted value without its closing quote"
)

// word reads the value of an assignment. Neither words are split nor globs
// followed there.
func (p *bashParser) word(exported bool) (value, reason string) {
	var b strings.Builder
	tilde := true // where one would be expanded
	for p.pos < len(p.s) {
		c := p.s[p.pos]
		switch {
		case has(" \t\n;", c):
			return b.String(), ""
		case has("()<>|&`", c):
			return "", bashRuns
		case c == '{' && exported:
			return "", "an open brace without quotes, which bash may expand behind export"
		case c == '~' && tilde:
			return "", "a tilde, which stands for somebody's home"
		case c == '\\':
			if p.pos+1 == len(p.s) {
				return "", "a backslash at the end of the file"
			}
			if p.s[p.pos+1] != '\n' {
				literal(&b, p.s[p.pos+1:p.pos+2])
			}
			p.pos += 2
			tilde = tilde && p.s[p.pos-1] == '\n'
			continue
		case c == '\'':
			end := strings.IndexByte(p.s[p.pos+1:], '\'')
			if end < 0 {
				return "", bashUnended
			}
			literal(&b, p.s[p.pos+1:p.pos+1+end])
			p.pos += end + 2
		case c == '"':
			p.pos++
			if reason := p.double(&b); reason != "" {
				return "", reason
			}
		case c == '$':
			if reason := p.dollar(&b, false); reason != "" {
				return "", reason
			}
		default:
			b.WriteByte(c)
			p.pos++
			tilde = c == ':'
			continue
		}
		tilde = false
	}
	return b.String(), ""
}

func literal(b *strings.Builder, s string) { b.WriteString(strings.ReplaceAll(s, "$", "$$")) }

// double reads on behind the opening quote to the closing one.
func (p *bashParser) double(b *strings.Builder) (reason string) {
	for p.pos < len(p.s) {
		c := p.s[p.pos]
		switch {
		case c == '"':
			p.pos++
			return ""
		case c == '`':
			return bashRuns
		case c == '\\' && p.pos+1 < len(p.s):
			switch next := p.s[p.pos+1]; {
			case has("$`\"\\", next):
				literal(b, string(next))
			case next != '\n':
				b.WriteByte('\\')
				p.pos++
				continue
			}
			p.pos += 2
		case c == '$':
			if reason := p.dollar(b, true); reason != "" {
				return reason
			}
		default:
			b.WriteByte(c)
			p.pos++
		}
	}
	return bashUnended
}

// dollar reads a reference, $'…', or a dollar that is none.
func (p *bashParser) dollar(b *strings.Builder, quoted bool) (reason string) {
	rest := p.s[p.pos+1:]
	n := composeName(rest)
	switch {
	case n > 0:
		if bashOwn(rest[:n]) {
			return "a reference to what bash computes"
		}
		b.WriteString("${" + rest[:n] + "}")
		p.pos += 1 + n
	case strings.HasPrefix(rest, "{"):
		return p.braced(b, rest[1:])
	case rest != "" && has("([", rest[0]):
		return bashRuns
	case rest != "" && has("*@#?-$!0123456789", rest[0]):
		return "a reference to an argument, a process or a state of bash"
	case !quoted && strings.HasPrefix(rest, "'"):
		return p.ansi(b, rest[1:])
	case !quoted && strings.HasPrefix(rest, `"`):
		return `$"…", which bash translates`
	default:
		b.WriteString("$$")
		p.pos++
	}
	return ""
}

// bashWord is what a default may be made of: text that means nothing to bash.
const bashWord = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:@%+,=-"

func (p *bashParser) braced(b *strings.Builder, rest string) (reason string) {
	n := composeName(rest)
	inside, _, closed := strings.Cut(rest[n:], "}")
	op := composeOperator(inside)
	switch {
	case n == 0, !closed, bashOwn(rest[:n]), inside != "" && (op == "" || strings.Trim(inside[len(op):], bashWord) != ""):
		return "a reference of another form than ${NAME} and ${NAME:-TEXT}"
	case strings.HasSuffix(op, "?"):
		return "a reference that ends bash where it is not set"
	}
	b.WriteString("${" + rest[:n] + inside + "}")
	p.pos += 2 + n + len(inside) + 1
	return ""
}

var bashEscapes = map[byte]string{
	'a': "\a", 'b': "\b", 'e': "\x1b", 'E': "\x1b", 'f': "\f", 'n': "\n", 'r': "\r", 't': "\t", 'v': "\v", '\\': `\`, '\'': "'", '"': `"`, '?': "?",
}

// ansi reads $'…' behind its opening quote. rest is what follows that.
func (p *bashParser) ansi(b *strings.Builder, rest string) (reason string) {
	var out []byte
	for i := 0; i < len(rest); i++ {
		c := rest[i]
		switch {
		case c == '\'':
			if !utf8.Valid(out) || strings.IndexByte(string(out), 0) >= 0 {
				return "an escape that is no UTF-8, or NUL"
			}
			literal(b, string(out))
			p.pos += 2 + i + 1
			return ""
		case c != '\\' || i+1 == len(rest):
			out = append(out, c)
			continue
		}
		i++
		if s, ok := bashEscapes[rest[i]]; ok {
			out = append(out, s...)
			continue
		}
		base, from, most := 0, i+1, 0
		switch c := rest[i]; {
		case c >= '0' && c <= '7':
			base, from, most = 8, i, 3
		case c == 'x':
			base, most = 16, 2
		case c == 'u', c == 'U', c == 'c':
			return `an escape \u, \U or \c, which depends on the language of the machine`
		default:
			out = append(out, '\\', c)
			continue
		}
		to := from
		for to < len(rest) && to < from+most {
			if _, err := strconv.ParseUint(rest[to:to+1], base, 8); err != nil {
				break
			}
			to++
		}
		code, err := strconv.ParseUint(rest[from:to], base, 8)
		if err != nil {
			return "an escape that is no character"
		}
		out = append(out, byte(code))
		i = to - 1
	}
	return bashUnended
}
