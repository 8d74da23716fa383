package migrate

import "bytes"

// blankComments gives src with every comment made of blanks, so that offsets
// stay. It knows strings well enough not to take a "#" or "//" inside of one
// for a comment; docstrings are blanked as well.
func blankPython(src []byte) []byte {
	out := bytes.Clone(src)
	for i := 0; i < len(out); {
		switch c := out[i]; c {
		case '#':
			end := lineEnd(out, i)
			blank(out[i:end])
			i = end
		case '"', '\'':
			triple := bytes.Repeat([]byte{c}, 3)
			if bytes.HasPrefix(out[i:], triple) {
				end := endOfString(out, i+3, triple)
				blank(out[i:end])
				i = end
				continue
			}
			i = endOfLineString(out, i+1, c)
		default:
			i++
		}
	}
	return out
}

// blankC is for the languages with // and /* */.
func blankC(src []byte) []byte {
	out := bytes.Clone(src)
	for i := 0; i < len(out); {
		switch c := out[i]; {
		case c == '/' && bytes.HasPrefix(out[i:], []byte("//")):
			end := lineEnd(out, i)
			blank(out[i:end])
			i = end
		case c == '/' && bytes.HasPrefix(out[i:], []byte("/*")):
			end := len(out)
			if n := bytes.Index(out[i+2:], []byte("*/")); n >= 0 {
				end = i + 2 + n + 2
			}
			blank(out[i:end])
			i = end
		case c == '"' || c == '\'':
			i = endOfLineString(out, i+1, c)
		case c == '`':
			i = endOfString(out, i+1, []byte{'`'})
		default:
			i++
		}
	}
	return out
}

// blankHash is for shell, Dockerfiles and the like: a "#" that begins a word.
func blankHash(src []byte) []byte {
	out := bytes.Clone(src)
	for i := 0; i < len(out); {
		switch c := out[i]; {
		case c == '\\':
			i += 2
		case c == '#' && (i == 0 || bytes.IndexByte([]byte(" \t\n;"), out[i-1]) >= 0):
			end := lineEnd(out, i)
			blank(out[i:end])
			i = end
		case c == '"':
			i = endOfString(out, i+1, []byte{'"'})
		case c == '\'':
			// The shell expands nothing in there.
			end := len(out)
			if n := bytes.IndexByte(out[i+1:], '\''); n >= 0 {
				end = i + 1 + n + 1
			}
			i = end
		default:
			i++
		}
	}
	return out
}

func blank(b []byte) {
	for i := range b {
		if b[i] != '\n' {
			b[i] = ' '
		}
	}
}

func lineEnd(b []byte, i int) int {
	if n := bytes.IndexByte(b[i:], '\n'); n >= 0 {
		return i + n
	}
	return len(b)
}

// endOfString is the index behind the closing quote, or the end.
func endOfString(b []byte, i int, quote []byte) int {
	for i < len(b) {
		if b[i] == '\\' {
			i += 2
			continue
		}
		if bytes.HasPrefix(b[i:], quote) {
			return i + len(quote)
		}
		i++
	}
	return len(b)
}

// endOfLineString ends at the end of the line at the latest, so that a lone
// apostrophe spoils a line and not the rest of the file.
func endOfLineString(b []byte, i int, quote byte) int {
	for i < len(b) && b[i] != '\n' {
		if b[i] == '\\' {
			i += 2
			continue
		}
		if b[i] == quote {
			return i + 1
		}
		i++
	}
	return min(i, len(b))
}
