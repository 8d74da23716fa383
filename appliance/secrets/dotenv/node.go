package dotenv

import (
	"regexp"
	"strings"
)

// nodeSpace is \s of JavaScript, without line separators, which are refused.
// Source: https://tc39.es/ecma262/#sec-white-space
const nodeSpace = "\t\n\v\f\r \u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000\ufeff"

// nodeLine is LINE of the package dotenv 17 (16 has the same one): Go's regexp
// prefers what JavaScript's tries first. Groups: name, value.
// Source: https://github.com/motdotla/dotenv/blob/v17.2.3/lib/main.js
var nodeLine = regexp.MustCompile(strings.ReplaceAll(
	`(?m)^\s*(?:export\s+)?([\w.-]+)(?:\s*=\s*?|:\s+?)(\s*'(?:\\'|[^'])*'|\s*"(?:\\"|[^"])*"|\s*`+"`(?:\\\\`|[^`])*`"+`|[^#\r\n]+)?\s*(?:#.*)?$`,
	`\s`, "["+nodeSpace+"]"))

// parseNode follows the package dotenv. What that one passes over, and a quote
// that it leaves in the value, are faults here.
func parseNode(text string) (out []Statement, faults []*LineError) {
	s, at := universalNewlines(text)
	lines := lineCounter{s: s}
	if i := strings.IndexAny(s, "\u2028\u2029"); i >= 0 {
		return nil, []*LineError{{Line: lines.of(i), Reason: "a line separator of Unicode, which ends a line for Node and for nobody else"}}
	}
	// Between matches are whole lines that dotenv passes over.
	gap := func(from, to int) {
		for from < to {
			line, _, _ := strings.Cut(s[from:to], "\n")
			if t := strings.Trim(line, nodeSpace); t != "" && t[0] != '#' {
				faults = append(faults, &LineError{Line: lines.of(from), Reason: "a line that Node's dotenv passes over: no NAME=VALUE"})
			}
			from += len(line) + 1
		}
	}
	done := 0
	for _, m := range nodeLine.FindAllStringSubmatchIndex(s, -1) {
		gap(done, m[0])
		done = m[1]
		st := Statement{Name: s[m[2]:m[3]], HasValue: true, Literal: true, Line: lines.of(m[2])}
		end := m[3]
		if m[4] >= 0 {
			end = m[5]
			value := strings.Trim(s[m[4]:m[5]], nodeSpace)
			v, ok := nodeUnquote(value)
			if !ok {
				faults = append(faults, &LineError{Line: st.Line, Reason: "a quote that does not enclose the value, and stays in it for Node's dotenv"})
				continue
			}
			st.Value = v
		}
		start := 1 + strings.LastIndexByte(s[:m[2]], '\n')
		if start == 0 && strings.HasPrefix(s, bom) {
			start = len(bom)
		}
		if i := strings.IndexByte(s[end:], '\n'); i >= 0 {
			end += i + 1
		} else {
			end = len(s)
		}
		st.Start, st.End = at(start), at(end)
		out = append(out, st)
	}
	gap(done, len(s))
	return out, faults
}

// nodeUnquote takes the quotes away and, of double quotes, the escapes \n and
// \r; there are no others.
func nodeUnquote(value string) (string, bool) {
	if value == "" || !has("'\"`", value[0]) {
		return value, true
	}
	quote := value[0]
	if len(value) < 2 || value[len(value)-1] != quote {
		return "", false
	}
	value = value[1 : len(value)-1]
	if quote == '"' {
		value = strings.ReplaceAll(strings.ReplaceAll(value, `\n`, "\n"), `\r`, "\r")
	}
	return value, true
}

// parseNodeFile follows node --env-file, Node 20 to 24, which has a parser of
// its own. Where these versions, or a slip of theirs, would make a value of
// something else, it is a fault here.
// Source: https://github.com/nodejs/node/blob/v24.x/src/node_dotenv.cc
func parseNodeFile(text string) (out []Statement, faults []*LineError) {
	s, at := withoutReturns(text)
	lines := lineCounter{s: s}
	pos := 0
	for pos < len(s) {
		start, line := pos, lines.of(pos)
		fault := func(reason string) { faults = append(faults, &LineError{Line: line, Reason: reason}) }
		rest, _, _ := strings.Cut(s[pos:], "\n")
		next := pos + len(rest) + 1
		trimmed := strings.Trim(rest, " ")
		name, value, found := strings.Cut(rest, "=")
		name = strings.Trim(name, " ")
		name = strings.TrimPrefix(name, "export ") // of several blanks Node 20 leaves some in the name
		blank := strings.Trim(value, " ")
		switch {
		case trimmed == "" && rest != "":
			fault("a line of blanks, behind which some versions of Node do not find the next variable")
			pos = next
			continue
		case trimmed != "" && trimmed[0] == '#' && found && (rest[0] == ' ' || next > len(s)):
			fault(`a comment with "=" that is indented, or the last line without an end: a variable for some versions of Node`)
			pos = next
			continue
		case trimmed == "" || trimmed[0] == '#':
			pos = next
			continue
		case !found:
			fault(`a line without "=", which Node passes over`)
			pos = next
			continue
		case !nodeName(name):
			fault("a name with something else than letters, digits and _.-")
			pos = next
			continue
		case blank == "" && value != "":
			fault(`blanks and nothing else behind "=": Node takes the next line for the value`)
			pos = next
			continue
		}
		st := Statement{Name: name, HasValue: true, Literal: true, Line: line}
		if blank != "" && has("'\"`", blank[0]) {
			from := pos + len(rest) - len(strings.TrimLeft(value, " ")) + 1
			end := strings.IndexByte(s[from:], blank[0])
			if end < 0 {
				fault("a quoted value without its closing quote")
				pos = next
				continue
			}
			st.Value = s[from : from+end]
			if blank[0] == '"' {
				st.Value = strings.ReplaceAll(st.Value, `\n`, "\n")
			}
			behind, _, _ := strings.Cut(s[from+end+1:], "\n")
			next = from + end + 1 + len(behind) + 1
			if t := strings.Trim(behind, " \t"); t != "" && t[0] != '#' {
				fault("text after the closing quote")
				pos = next
				continue
			}
		} else {
			blank, _, _ = strings.Cut(blank, "#")
			if st.Value = strings.Trim(blank, " "); st.Value != strings.Trim(st.Value, "\t") {
				fault("a tab beside the value, which is a part of it for some versions of Node")
				pos = next
				continue
			}
		}
		pos = min(next, len(s))
		st.Start, st.End = at(start), at(pos)
		out = append(out, st)
	}
	return out, faults
}

func nodeName(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") == ""
}

// withoutReturns is what Node does to "\r", wherever it stands.
func withoutReturns(text string) (string, func(int) int) {
	if strings.IndexByte(text, '\r') < 0 {
		return text, func(i int) int { return i }
	}
	var b strings.Builder
	offsets := make([]int32, 0, len(text)+1)
	for i := 0; i < len(text); i++ {
		if text[i] != '\r' {
			offsets = append(offsets, int32(i))
			b.WriteByte(text[i])
		}
	}
	offsets = append(offsets, int32(len(text)))
	return b.String(), func(i int) int { return int(offsets[i]) }
}
