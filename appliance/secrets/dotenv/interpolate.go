package dotenv

import (
	"errors"
	"fmt"
	"strings"
)

// python replaces ${NAME} and ${NAME:-DEFAULT}; nothing else, and whatever the
// quotes. A variable that is set to nothing does not take the default.
func (r *resolver) python(s string) string {
	var b strings.Builder
	for {
		i := strings.Index(s, "${")
		if i < 0 {
			b.WriteString(s)
			return b.String()
		}
		name, fallback, rest, ok := pythonReference(s[i+2:])
		if !ok {
			b.WriteString(s[:i+1])
			s = s[i+1:]
			continue
		}
		b.WriteString(s[:i])
		value, known := r.get(name)
		if !known {
			value = fallback
		}
		b.WriteString(value)
		s = rest
	}
}

// pythonReference splits what follows "${".
func pythonReference(s string) (name, fallback, rest string, ok bool) {
	end := strings.IndexAny(s, "}:")
	if end < 0 {
		return "", "", "", false
	}
	name, rest = s[:end], s[end:]
	if rest[0] == '}' {
		return name, "", rest[1:], true
	}
	rest, ok = strings.CutPrefix(rest, ":-")
	if !ok {
		return "", "", "", false
	}
	fallback, rest, ok = strings.Cut(rest, "}")
	return name, fallback, rest, ok
}

var (
	errReference = errors.New(`"${" that begins no reference; write "$$" for a dollar`)
	errNesting   = errors.New("references nested too deeply")
)

// maxNesting bounds ${A:-${B:-…}}.
const maxNesting = 100

// compose replaces $NAME, ${NAME} and ${NAME op WORD} with the operators of
// the shell: - :- + :+ ? :?, where WORD may hold references again. "$$" is a
// dollar.
func (r *resolver) compose(s string, depth int) (string, error) {
	if depth > maxNesting {
		return "", errNesting
	}
	var b strings.Builder
	for {
		i := strings.IndexByte(s, '$')
		if i < 0 || i+1 == len(s) {
			b.WriteString(s)
			return b.String(), nil
		}
		b.WriteString(s[:i])
		s = s[i+1:]
		switch {
		case s[0] == '$':
			b.WriteByte('$')
			s = s[1:]
		case s[0] == '{':
			value, rest, err := r.composeBraced(s, depth)
			if err != nil {
				return "", err
			}
			b.WriteString(value)
			s = rest
		default:
			n := composeName(s)
			if n == 0 {
				b.WriteByte('$')
				continue
			}
			value, _ := r.get(s[:n])
			b.WriteString(value)
			s = s[n:]
		}
	}
}

// composeName is the length of the name at the start of s; 0 if there is none.
func composeName(s string) int {
	n := 0
	for n < len(s) {
		c := s[n]
		letter := c == '_' || (c|0x20 >= 'a' && c|0x20 <= 'z')
		if !letter && (n == 0 || c < '0' || c > '9') {
			break
		}
		n++
	}
	return n
}

// composeBraced reads a reference from its "{" on. One with an operator
// reaches, in compose-go, to the last "}" of the line, is cut at the brace
// that closes it, and what it has taken too much is read again; all of which
// shows only where braces do not pair.
func (r *resolver) composeBraced(s string, depth int) (value, rest string, err error) {
	n := composeName(s[1:])
	if n == 0 {
		return "", "", errReference
	}
	name, after := s[1:1+n], s[1+n:]
	if strings.HasPrefix(after, "}") {
		value, _ = r.get(name)
		return value, after[1:], nil
	}
	op := composeOperator(after)
	if op == "" {
		return "", "", errReference
	}
	line, _, _ := strings.Cut(s, "\n")
	last := strings.LastIndexByte(line, '}')
	if last < 1+n+len(op) {
		return "", "", errReference
	}
	greedy, rest := line[:last+1], s[last+1:]
	if end := closing(greedy); end >= 0 {
		greedy, rest = greedy[:end+1], greedy[end+1:]+rest
	}
	word := greedy[1+n+len(op) : len(greedy)-1]
	value, err = r.composeOperate(name, op, word, depth)
	return value, rest, err
}

func composeOperator(s string) string {
	for _, op := range []string{":-", ":+", ":?", "-", "+", "?"} {
		if strings.HasPrefix(s, op) {
			return op
		}
	}
	return ""
}

// closing is the index of the brace that closes the first one in s, as
// compose-go counts: the character after an opening brace is never looked at.
func closing(s string) int {
	open := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '}':
			if open--; open == 0 {
				return i
			}
		case '{':
			open++
			i++
		}
	}
	return -1
}

func (r *resolver) composeOperate(name, op, word string, depth int) (string, error) {
	value, known := r.get(name)
	if strings.HasPrefix(op, ":") {
		known = known && value != ""
	}
	switch op[len(op)-1] {
	case '-':
		if known {
			return value, nil
		}
		return r.compose(word, depth+1)
	case '+':
		if !known {
			return value, nil
		}
		return r.compose(word, depth+1)
	}
	if known {
		return value, nil
	}
	return "", fmt.Errorf("the required variable %q has no value", name)
}
