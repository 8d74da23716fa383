package config

import (
	"fmt"
	"strconv"
	"strings"
)

// Lines is the line, from 1, at which each key and table of a TOML file
// begins, by its path ("node.peer[1].api_addr"). The library knows lines too,
// but not the first of several entries of a list of tables.
type Lines map[string]int

// of is path's line, or that of the nearest thing it would be in; 0: none.
func (l Lines) of(path string) int {
	for path != "" {
		if n, ok := l[path]; ok {
			return n
		}
		path = path[:max(strings.LastIndexByte(path, '.'), strings.LastIndexByte(path, '['), 0)]
	}
	return 0
}

// has tells whether the file has path itself.
func (l Lines) has(path string) bool { return l[path] != 0 }

// indexLines reads a file that a TOML parser has accepted. Keys in an inline
// table or list are at the line of the statement they are in.
func indexLines(src string) Lines {
	s := &scanner{src: src, line: 1}
	out := Lines{}
	entries := map[string]int{} // lists of tables: how many so far
	prefix := ""
	resolve := func(path string, key []string) string {
		for _, k := range key {
			path = join(path, k)
			if n := entries[path]; n > 0 {
				path = fmt.Sprintf("%s[%d]", path, n-1)
			}
		}
		return path
	}
	// begins notes where key begins, and the tables that it is in unless they have
	// begun before it.
	begins := func(prefix string, key []string, at int) {
		for n := range key {
			if path := resolve(prefix, key[:n+1]); out[path] == 0 {
				out[path] = at
			}
		}
	}
	for s.skip(" \t\r\n"); !s.end(); s.skip(" \t\r\n") {
		at := s.line
		switch {
		case s.has("#"):
			s.comment()
		case s.has("[["):
			s.pos += 2
			key := s.key()
			s.pos += 2
			last := len(key) - 1
			begins("", key[:last], at)
			path := join(resolve("", key[:last]), key[last])
			prefix = fmt.Sprintf("%s[%d]", path, entries[path])
			entries[path]++
			out[prefix] = at
			if entries[path] == 1 {
				out[path] = at
			}
		case s.has("["):
			s.pos++
			key := s.key()
			s.pos++
			prefix = resolve("", key)
			begins("", key, at)
			out[prefix] = at
		default:
			begins(prefix, s.key(), at)
			s.pos++ // "="
			s.value()
		}
	}
	return out
}

type scanner struct {
	src  string
	pos  int
	line int
}

func (s *scanner) end() bool { return s.pos >= len(s.src) }
func (s *scanner) has(what string) bool {
	return strings.HasPrefix(s.src[min(s.pos, len(s.src)):], what)
}

// next steps over one byte.
func (s *scanner) next() {
	if !s.end() && s.src[s.pos] == '\n' {
		s.line++
	}
	s.pos++
}

func (s *scanner) skip(set string) {
	for !s.end() && strings.IndexByte(set, s.src[s.pos]) >= 0 {
		s.next()
	}
}

func (s *scanner) comment() {
	for !s.end() && s.src[s.pos] != '\n' {
		s.pos++
	}
}

// key reads a dotted key with the spaces around its parts.
func (s *scanner) key() []string {
	var parts []string
	for {
		s.skip(" \t")
		start := s.pos
		if s.has(`"`) || s.has("'") {
			s.str()
			raw := s.src[start:min(s.pos, len(s.src))]
			if part, err := strconv.Unquote(raw); err == nil && raw[0] == '"' {
				parts = append(parts, part)
			} else {
				parts = append(parts, strings.Trim(raw, raw[:1]))
			}
		} else {
			for !s.end() && strings.IndexByte(".]= \t\r\n", s.src[s.pos]) < 0 {
				s.pos++
			}
			parts = append(parts, s.src[start:s.pos])
		}
		s.skip(" \t")
		if !s.has(".") {
			return parts
		}
		s.pos++
	}
}

// str steps over a string of any of the four kinds.
func (s *scanner) str() {
	quote := s.src[s.pos : s.pos+1]
	escapes := quote == `"`
	if triple := strings.Repeat(quote, 3); s.has(triple) {
		quote = triple
	}
	s.pos += len(quote)
	for !s.end() && !s.has(quote) {
		if escapes && s.src[s.pos] == '\\' {
			s.next()
		}
		s.next()
	}
	s.pos += len(quote)
	// Up to two quotes may stand right before the closing three.
	for n := 0; len(quote) == 3 && n < 2 && s.has(quote[:1]); n++ {
		s.pos++
	}
}

// value steps over a value to the end of its statement.
func (s *scanner) value() {
	depth := 0
	for !s.end() {
		switch c := s.src[s.pos]; c {
		case '"', '\'':
			s.str()
		case '#':
			s.comment()
		case '\n':
			if depth == 0 {
				return
			}
			s.next()
		default:
			switch c {
			case '[', '{':
				depth++
			case ']', '}':
				depth--
			}
			s.pos++
		}
	}
}
