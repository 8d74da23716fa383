package migrate

import (
	"bytes"
	"regexp"
	"strings"
)

var (
	settingsClass = regexp.MustCompile(`(?m)^([ \t]*)class\s+\w+\s*\([^)]*\bBaseSettings\b[^)]*\)\s*:`)
	envPrefix     = regexp.MustCompile(`\benv_prefix\s*[=:]\s*["']([^"']*)["']`)
	field         = regexp.MustCompile(`^([ \t]+)([A-Za-z_]\w*)\s*:\s*[^=\n]+(=)?`)
	fieldAlias    = regexp.MustCompile(`\b(?:validation_alias|alias|env)\s*=\s*["']([A-Za-z_]\w*)["']`)
	aliasChoices  = regexp.MustCompile(`\bAliasChoices\s*\(([^)]*)\)`)
	anyQuoted     = regexp.MustCompile(quotedName)
	plainDefault  = regexp.MustCompile(`=\s*["']([^"'\\\n]+)["']\s*$`)
)

// extractPydantic finds the fields of settings classes: each is a variable of
// its name in capitals, behind env_prefix, unless an alias says otherwise.
// Source: https://docs.pydantic.dev/latest/concepts/pydantic_settings/
func extractPydantic(s *sink, code []byte) {
	for _, m := range settingsClass.FindAllSubmatchIndex(code, -1) {
		indent := len(code[m[2]:m[3]])
		body := classBody(code[m[1]:], indent)
		prefix := ""
		if p := envPrefix.FindSubmatch(body); p != nil {
			prefix = string(p[1])
		}
		fieldsOf(s, body, m[1], prefix)
	}
}

// classBody is everything that is indented deeper than the class.
func classBody(rest []byte, indent int) []byte {
	end := lineEnd(rest, 0)
	for end < len(rest) {
		next := lineEnd(rest, end+1)
		line := rest[end+1 : next]
		if trimmed := bytes.TrimLeft(line, " \t"); len(bytes.TrimSpace(line)) > 0 && len(line)-len(trimmed) <= indent {
			break
		}
		end = next
	}
	return rest[:end]
}

func fieldsOf(s *sink, body []byte, base int, prefix string) {
	level := ""
	depth := 0
	for at := 0; at < len(body); {
		end := lineEnd(body, at)
		line := body[at:end]
		m := field.FindSubmatch(line)
		inside := depth > 0
		depth += bytes.Count(line, []byte("(")) - bytes.Count(line, []byte(")"))
		depth += bytes.Count(line, []byte("[")) - bytes.Count(line, []byte("]"))
		if m != nil && !inside && (level == "" || level == string(m[1])) && string(m[2]) != "model_config" {
			level = string(m[1])
			statement := logicalLine(body[at:])
			for _, name := range fieldNames(string(m[2]), prefix, statement) {
				s.use(name, "pydantic", base+at)
				if d := plainDefault.FindSubmatch(bytes.TrimSpace(line)); d != nil {
					s.define(name, string(d[1]), "pydantic", s.line(base+at))
				}
			}
		}
		at = end + 1
	}
}

// logicalLine goes on while a bracket is open.
func logicalLine(b []byte) []byte {
	depth := 0
	for i, c := range b {
		switch c {
		case '(', '[', '{':
			depth++
		case ')', ']', '}':
			depth--
		case '\n':
			if depth <= 0 {
				return b[:i]
			}
		}
	}
	return b
}

func fieldNames(name, prefix string, statement []byte) []string {
	var names []string
	for _, c := range aliasChoices.FindAllSubmatch(statement, -1) {
		for _, q := range anyQuoted.FindAllSubmatch(c[1], -1) {
			names = append(names, strings.ToUpper(string(q[1])))
		}
	}
	if a := fieldAlias.FindSubmatch(statement); a != nil {
		names = append(names, strings.ToUpper(string(a[1])))
	}
	if len(names) == 0 {
		names = append(names, strings.ToUpper(prefix+name))
	}
	return names
}
