package migrate

import (
	"bytes"
	"path"
	"regexp"
	"slices"
	"strings"
)

// Use is a place that reads a variable.
type Use struct {
	File string `json:"file"`
	Line int    `json:"line"` // from 1
	Kind string `json:"kind"` // python, pydantic, dagster, dbt, javascript, go, shell, dockerfile, compose, systemd, actions
}

// sink takes what an extractor finds in one file.
type sink struct {
	src    source
	lines  []int // offsets of line starts, made when first needed
	uses   map[string][]Use
	defs   []foundDefinition
	envRef []string // .env files that this one names, as written
	bad    []Problem
}

type foundDefinition struct {
	name, value, kind string
	line              int
}

func (s *sink) line(offset int) int {
	if s.lines == nil {
		s.lines = append(s.lines, 0)
		for i, c := range s.src.data {
			if c == '\n' {
				s.lines = append(s.lines, i+1)
			}
		}
	}
	lo, hi := 0, len(s.lines)
	for lo < hi {
		mid := (lo + hi) / 2
		if s.lines[mid] <= offset {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

func (s *sink) useLine(name, kind string, line int) {
	for _, u := range s.uses[name] {
		if u.Line == line && u.Kind == kind {
			return
		}
	}
	s.uses[name] = append(s.uses[name], Use{File: s.src.path, Line: line, Kind: kind})
}

func (s *sink) use(name, kind string, offset int) { s.useLine(name, kind, s.line(offset)) }

func (s *sink) define(name, value, kind string, line int) {
	s.defs = append(s.defs, foundDefinition{name, value, kind, line})
}

type extractor func(*sink)

// extractorsOf goes by the name of a file, or by its first line.
func extractorsOf(src source) []extractor {
	if all := extractorsFor(src.path); len(all) > 0 || path.Ext(src.path) != "" || !bytes.HasPrefix(src.data, []byte("#!")) {
		return all
	}
	switch first := src.data[:lineEnd(src.data, 0)]; {
	case bytes.Contains(first, []byte("python")):
		return []extractor{extractPython}
	case bytes.Contains(first, []byte("node")), bytes.Contains(first, []byte("deno")), bytes.Contains(first, []byte("bun")):
		return []extractor{extractJavaScript}
	case shellLine.Match(first):
		return []extractor{extractShell}
	}
	return nil
}

var shellLine = regexp.MustCompile(`[/ ](?:ba|da|z|k)?sh\b`)

// extractorsFor goes by the name of a file.
func extractorsFor(rel string) []extractor {
	base, ext := path.Base(rel), path.Ext(rel)
	switch ext {
	case ".py", ".pyi", ".pyw":
		return []extractor{extractPython}
	case ".js", ".jsx", ".mjs", ".cjs", ".ts", ".tsx", ".mts", ".cts", ".vue", ".svelte":
		return []extractor{extractJavaScript}
	case ".go":
		return []extractor{extractGo}
	case ".sh", ".bash", ".zsh", ".ksh", ".envrc":
		return []extractor{extractShell}
	case ".service", ".socket", ".timer", ".container":
		return []extractor{extractSystemd}
	case ".conf":
		if strings.HasSuffix(path.Dir(rel), ".service.d") {
			return []extractor{extractSystemd}
		}
		return nil
	case ".yml", ".yaml":
		return []extractor{yamlExtractor(rel)}
	}
	lower := strings.ToLower(base)
	switch {
	case lower == "dockerfile", lower == "containerfile", strings.HasPrefix(lower, "dockerfile."), ext == ".dockerfile":
		return []extractor{extractDockerfile}
	case lower == "makefile", lower == "justfile", base == "entrypoint", base == "Procfile":
		return []extractor{extractShell}
	}
	return nil
}

// mentions is the cheap look before any regular expression.
func mentions(data []byte, words ...string) bool {
	for _, w := range words {
		if bytes.Contains(data, []byte(w)) {
			return true
		}
	}
	return false
}

const (
	quotedName = `[rbuRBU]?["']([A-Za-z_][A-Za-z0-9_]*)["']`
	environ    = `\b(?:os\s*\.\s*)?environb?\b`
	literal    = `(?:\s*,\s*(?:default\s*=\s*)?["']([^"'\\\n]*)["'])?`
)

var (
	pythonUses = []*regexp.Regexp{
		regexp.MustCompile(environ + `\s*\[\s*` + quotedName),
		regexp.MustCompile(environ + `\s*\.\s*(?:get|pop|setdefault|__getitem__|__contains__)\s*\(\s*(?:key\s*=\s*)?` + quotedName + literal),
		regexp.MustCompile(`\b(?:os\s*\.\s*)?getenvb?\s*\(\s*(?:key\s*=\s*)?` + quotedName + literal),
	}
	pythonIn   = regexp.MustCompile(quotedName + `\s+(?:not\s+)?in\s+` + environ)
	dagsterVar = regexp.MustCompile(`\bEnvVar\s*(?:\.\s*int\s*)?\(\s*` + quotedName)
	// settingsOf begins a module that reads settings by its own objects, and an object.
	settingsOf = regexp.MustCompile(`(?m)^[ \t]*(?:from|import)[ \t]+(?:decouple|environs?|starlette\.config)\b`)
	settingsAs = regexp.MustCompile(`\b(\w+)\s*(?::\s*\w+\s*)?=\s*(?:\w+\.)?(?:Env|Config|AutoConfig)\s*\(`)
	// importedAs are os.environ and os.getenv by another name.
	importedAs = regexp.MustCompile(`\b(environb?|getenvb?)\s+as\s+(\w+)|getattr\(\s*\w+\s*,\s*["'](environ)["']\s*()\)`)
)

// pythonAliases are the reads by names that a file gives to os.environ, os.getenv and
// to the objects of decouple, environs, django-environ and Starlette.
func pythonAliases(code []byte) (out []*regexp.Regexp) {
	for _, m := range importedAs.FindAllSubmatch(code, -1) {
		switch as := string(m[2]); {
		case len(m[3]) > 0:
			out = append(out, regexp.MustCompile(`getattr\([^()]*\)\s*\[\s*`+quotedName))
		case bytes.HasPrefix(m[1], []byte("getenv")):
			out = append(out, regexp.MustCompile(`\b`+as+`\s*\(\s*(?:key\s*=\s*)?`+quotedName+literal))
		default:
			out = append(out, regexp.MustCompile(`\b`+as+`\s*\[\s*`+quotedName), regexp.MustCompile(`\b`+as+`\s*\.\s*\w+\s*\(\s*(?:key\s*=\s*)?`+quotedName+literal))
		}
	}
	if settingsOf.Match(code) {
		names := map[string]bool{"config": true, "env": true}
		for _, m := range settingsAs.FindAllSubmatch(code, -1) {
			names[string(m[1])] = true
		}
		out = append(out, regexp.MustCompile(`\b(?:`+strings.Join(sortedKeys(names), "|")+`)\s*(?:\.\s*\w+\s*)?\(\s*`+quotedName+literal))
	}
	return out
}

func extractPython(s *sink) {
	if !mentions(s.src.data, "environ", "getenv", "EnvVar", "BaseSettings", "decouple", "starlette") {
		return
	}
	code := blankPython(s.src.data)
	for _, re := range slices.Concat(pythonUses, pythonAliases(code)) {
		s.matches(code, re, "python")
	}
	s.matches(code, pythonIn, "python")
	s.matches(code, dagsterVar, "dagster")
	extractPydantic(s, code)
}

// matches takes the first group as a name and the second as a default that is
// written into the code.
func (s *sink) matches(code []byte, re *regexp.Regexp, kind string) {
	for _, m := range re.FindAllSubmatchIndex(code, -1) {
		name := string(code[m[2]:m[3]])
		s.use(name, kind, m[0])
		if len(m) >= 6 && m[4] >= 0 && m[5] > m[4] {
			s.define(name, string(code[m[4]:m[5]]), kind, s.line(m[0]))
		}
	}
}

var (
	jsMember   = regexp.MustCompile(`\b(?:process|Bun)\s*\.\s*env\s*(?:\?\.|\.)\s*([A-Za-z_$][\w$]*)`)
	jsMeta     = regexp.MustCompile(`\bimport\.meta\.env\.([A-Za-z_][\w]*)`)
	jsIndex    = regexp.MustCompile("\\bprocess\\s*\\.\\s*env\\s*(?:\\?\\.)?\\[\\s*[\"'`]([A-Za-z_]\\w*)[\"'`]")
	jsDeno     = regexp.MustCompile(`\bDeno\.env\.get\(\s*["']([A-Za-z_]\w*)["']`)
	jsDestruct = regexp.MustCompile(`\{([^{}]*)\}\s*=\s*process\s*\.\s*env\b`)
	jsName     = regexp.MustCompile(`(?:^|,)\s*([A-Za-z_]\w*)`)
)

func extractJavaScript(s *sink) {
	if !mentions(s.src.data, "process", "import.meta", "Deno.env", "Bun.env") {
		return
	}
	code := blankC(s.src.data)
	for _, re := range []*regexp.Regexp{jsMember, jsMeta, jsIndex, jsDeno} {
		s.matches(code, re, "javascript")
	}
	for _, m := range jsDestruct.FindAllSubmatchIndex(code, -1) {
		for _, n := range jsName.FindAllSubmatchIndex(code[m[2]:m[3]], -1) {
			s.use(string(code[m[2]+n[2]:m[2]+n[3]]), "javascript", m[2]+n[2])
		}
	}
}

var (
	goCall = regexp.MustCompile("\\bos\\.(?:Getenv|LookupEnv|Unsetenv)\\(\\s*[\"`]([A-Za-z_]\\w*)[\"`]")
	goTag  = regexp.MustCompile("`[^`\n]*\\b(?:env|envconfig):\"([A-Za-z_]\\w*)[^`\n]*`")
	goBind = regexp.MustCompile(`\bBindEnv\(\s*"[^"\n]*"\s*,\s*"([A-Za-z_]\w*)"`)
)

func extractGo(s *sink) {
	if !mentions(s.src.data, "env", "Env") {
		return
	}
	code := blankC(s.src.data)
	for _, re := range []*regexp.Regexp{goCall, goTag, goBind} {
		s.matches(code, re, "go")
	}
}
