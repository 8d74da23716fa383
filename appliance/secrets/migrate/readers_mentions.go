package migrate

import (
	"bytes"
	"encoding/json"
	"path"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"strongroom.example/appliance/secrets/dotenv"
)

type mentionsOf struct {
	src   source
	found []mention
}

func (m *mentionsOf) add(d dotenv.Dialect, offset int, target string) {
	target = strings.Trim(target, `"'`+"`")
	if target != "" {
		m.found = append(m.found, mention{dialect: d, at: m.src.path, line: lineAt(m.src.data, offset), target: target})
	}
}

func lineAt(data []byte, offset int) int { return 1 + bytes.Count(data[:offset], []byte("\n")) }

func isComposeFile(base string) bool {
	base = strings.ToLower(base)
	return (strings.HasPrefix(base, "docker-compose") || strings.HasPrefix(base, "compose") || strings.HasPrefix(base, "docker-stack")) &&
		(strings.HasSuffix(base, ".yml") || strings.HasSuffix(base, ".yaml"))
}

var services = regexp.MustCompile(`(?m)^(?:services|"services"):`)

// isServices is a compose file by what is in it: include, extends and -f name such
// a file whatever it is called.
func isServices(src source) bool {
	ext := strings.ToLower(path.Ext(src.path))
	return (ext == ".yml" || ext == ".yaml") && mentions(src.data, "env_file", "${") && services.Match(src.data)
}

// compose: env_file of services, with its format, and the .env beside the file
// where something of it is replaced.
// Source: https://docs.docker.com/reference/compose-file/services/#env_file
func (m *mentionsOf) compose() {
	dec := yaml.NewDecoder(bytes.NewReader(m.src.data))
	for {
		var doc yaml.Node
		if dec.Decode(&doc) != nil {
			break
		}
		pairs(&doc, func(key string, value *yaml.Node) {
			if key == "env_file" {
				m.envFiles(value)
			}
		})
	}
	if i := bytes.Index(m.src.data, []byte("${")); i >= 0 {
		m.add(dotenv.Compose, i, ".env")
	}
}

func (m *mentionsOf) envFiles(n *yaml.Node) {
	switch n.Kind {
	case yaml.ScalarNode:
		m.found = append(m.found, mention{dialect: dotenv.Compose, at: m.src.path, line: n.Line, target: n.Value})
	case yaml.SequenceNode:
		for _, item := range n.Content {
			m.envFiles(item)
		}
	case yaml.MappingNode:
		found := mention{dialect: dotenv.Compose, at: m.src.path, line: n.Line}
		for i := 0; i+1 < len(n.Content); i += 2 {
			switch v := n.Content[i+1]; n.Content[i].Value {
			case "path":
				found.target, found.line = v.Value, v.Line
			case "format":
				if v.Value == "raw" {
					found.dialect = dotenv.Docker
				}
			case "required":
				found.optional = v.Value == "false"
			}
		}
		if found.target != "" {
			m.found = append(m.found, found)
		}
	case yaml.AliasNode:
		m.envFiles(n.Alias)
	}
}

// nodeReaders are packages that read the .env files beside package.json with
// dotenv, or are it.
var nodeReaders = []string{"dotenv", "dotenv-cli", "dotenv-expand", "dotenv-flow", "dotenv-safe", "dotenv-webpack", "@nestjs/config", "next", "@next/env", "nuxt", "vite", "react-scripts", "@vue/cli-service", "gatsby"}

func (m *mentionsOf) packageJSON() {
	var p struct {
		Dependencies, DevDependencies map[string]any
		Scripts                       map[string]string
	}
	if json.Unmarshal(m.src.data, &p) != nil {
		return
	}
	for _, name := range nodeReaders {
		_, one := p.Dependencies[name]
		_, other := p.DevDependencies[name]
		if one || other {
			at := max(bytes.Index(m.src.data, []byte(`"`+name+`"`)), 0)
			m.add(dotenv.Node, at, ".env")
			m.add(dotenv.Node, at, ".env.*")
			for i := len(m.found) - 2; i < len(m.found); i++ {
				m.found[i].expands = slices.Contains(nodeExpanders, name)
			}
		}
	}
}

// nodeExpanders are those of nodeReaders that expand $NAME in values, each in a
// way of its own.
var nodeExpanders = []string{"dotenv-expand", "dotenv-cli", "next", "@next/env", "nuxt", "vite", "react-scripts", "@vue/cli-service"}

// quotedText is a literal of Python or JavaScript.
var quotedText = regexp.MustCompile(`"([^"\\\n]*)"|'([^'\\\n]*)'|` + "`([^`\\\\\n]*)`")

func (m *mentionsOf) literals(d dotenv.Dialect, from, to int) (any bool) {
	for _, q := range quotedText.FindAllSubmatchIndex(m.src.data[from:to], -1) {
		for g := 2; g < 8; g += 2 {
			if q[g] < 0 {
				continue
			}
			if text := string(m.src.data[from+q[g] : from+q[g+1]]); isEnvFile(path.Base(text)) {
				m.add(d, from+q[g], text)
				any = true
			}
		}
	}
	return any
}

// python: python-dotenv by itself, by pydantic's settings and by what else calls
// it. load_dotenv without a path takes the nearest .env above the file.
func (m *mentionsOf) python() {
	code := blankHash(m.src.data)
	m.pythonOwn(code)
	if !mentions(code, "dotenv", "env_file", "SettingsConfigDict", "BaseSettings") {
		return
	}
	for _, i := range pythonReads.FindAllIndex(code, -1) {
		end := i[1] + statementEnd(code[i[1]:], code[i[1]-1] == '(')
		if !m.literals(dotenv.Python, i[0], end) && bytes.HasPrefix(code[i[0]:], []byte("load_dotenv")) {
			m.add(dotenv.Python, i[0], ".env")
		}
	}
}

var pythonReads = regexp.MustCompile(`load_dotenv\s*\(|dotenv_values\s*\(|_?env_file\s*=`)

// Readers of Python with a grammar of their own. Sources: github.com/HBNetwork/python-decouple,
// django-environ.readthedocs.io, starlette.io/config (each reads .env beside it or above without being told).
var (
	pythonImports = regexp.MustCompile(`(?m)^[ \t]*(?:from|import)[ \t]+(decouple|environ|starlette\.config)\b`)
	ownReads      = regexp.MustCompile(`RepositoryEnv\s*\(|read_env\s*\(|\bConfig\s*\(`)
	pythonNames   = map[string]string{"decouple": "python-decouple", "environ": "django-environ", "starlette.config": "starlette"}
)

func (m *mentionsOf) pythonOwn(code []byte) {
	i := pythonImports.FindSubmatchIndex(code)
	if i == nil {
		return
	}
	from, library := len(m.found), string(code[i[2]:i[3]])
	reads := ownReads.FindAllIndex(code, -1)
	for _, r := range reads {
		m.literals(dotenv.Python, r[0], r[1]+statementEnd(code[r[1]:], true))
	}
	if len(m.found) == from && (library == "decouple" || len(reads) > 0 && library == "environ") {
		m.add(dotenv.Python, i[0], ".env")
	}
	for j := from; j < len(m.found); j++ {
		m.found[j].own = pythonNames[library]
	}
}

// statementEnd is the end of a call behind its opening bracket, or else of an
// assignment or an argument.
func statementEnd(code []byte, call bool) int {
	depth := 0
	for i, c := range code {
		switch c {
		case '(', '[', '{':
			depth++
		case ')', ']', '}':
			if depth--; depth < 0 {
				return i
			}
		case '\n', ',':
			if depth == 0 && !call {
				return i
			}
		}
	}
	return len(code)
}

var nodeFileReads = regexp.MustCompile(`loadEnvFile\s*\(([^)]*)\)`)

func (m *mentionsOf) javascript() {
	for _, i := range nodeFileReads.FindAllSubmatchIndex(m.src.data, -1) {
		if !m.literals(dotenv.NodeFile, i[2], i[3]) && len(bytes.TrimSpace(m.src.data[i[2]:i[3]])) == 0 {
			m.add(dotenv.NodeFile, i[0], ".env")
		}
	}
	if i := bytes.Index(m.src.data, []byte("dotenv")); i >= 0 && !m.literals(dotenv.Node, 0, len(m.src.data)) {
		m.add(dotenv.Node, i, ".env")
	}
}

// pathText is a path in a command or a unit, in quotes or without, with what
// the shell or a template fills in.
const pathText = `(?:"((?:\$\([^)\n]*\)|[^"\n])*)"|'([^'\n]*)'|((?:\$\([^)\n]*\)|\{\{[^}\n]*\}\}|[^\s"',;&|)])+))`

var (
	unitFile = regexp.MustCompile(`EnvironmentFile\s*=\s*-?` + pathText)
	envFlag  = regexp.MustCompile(`--env-file(?:-if-exists)?(?:[=\s]+|["'],\s*)` + pathText)
	sourced  = regexp.MustCompile("(?m)(?:^|[;&|({\"'`]|\\b(?:then|do|else)\\s|\\bset -[aeux]+\\s)[ \\t]*@?(?:source|\\.)[ \\t]+" + pathText)
)

// pathIn is the path that a match of these has found.
func pathIn(data []byte, match []int) string {
	for g := 2; g < len(match); g += 2 {
		if match[g] >= 0 {
			return string(data[match[g]:match[g+1]])
		}
	}
	return ""
}

// flagReaders are the programs that take --env-file, by the last of them before
// the flag in its command.
var flagReaders = []struct {
	program *regexp.Regexp
	dialect dotenv.Dialect
}{
	{regexp.MustCompile(`\b(?:docker|podman|nerdctl)[ -]compose\b`), dotenv.Compose},
	{regexp.MustCompile(`\b(?:docker|podman|nerdctl)\b`), dotenv.Docker},
	{regexp.MustCompile(`\b(?:node|nodemon|tsx|ts-node)\b`), dotenv.NodeFile},
	{regexp.MustCompile(`\b(?:uvicorn|flask|hypercorn|pipenv|dagster)\b`), dotenv.Python},
}

// commands: what is written as a unit or a command line, in whatever file.
func (m *mentionsOf) commands() {
	data := joinLines(m.src.data)
	for _, i := range unitFile.FindAllSubmatchIndex(data, -1) {
		if line := lineOfOffset(data, i[0]); !commented(line, "#;") {
			m.add(dotenv.Systemd, i[0], pathIn(data, i))
		}
	}
	for _, i := range envFlag.FindAllSubmatchIndex(data, -1) {
		line := lineOfOffset(data, i[0])
		if commented(line, "#") {
			continue
		}
		// Only its own command: what stands behind the last separator.
		command := line[1+strings.LastIndexAny(line, ";&|"):]
		for _, r := range flagReaders {
			if r.program.MatchString(command) {
				m.add(r.dialect, i[0], pathIn(data, i))
				break
			}
		}
	}
	switch path.Ext(m.src.path) {
	case ".py", ".ipynb", ".js", ".ts", ".tsx", ".jsx", ".go", ".md", ".rst", ".txt":
		return // "." begins other things there
	}
	m.shellWords(data)
	for _, i := range sourced.FindAllSubmatchIndex(data, -1) {
		if !commented(lineOfOffset(data, i[1]), "#") {
			m.add(dotenv.Bash, i[1], pathIn(data, i))
		}
	}
}

var (
	// wordsOf are lines of NAME=value that the shell takes as words: export $(cat .env | xargs).
	wordsOf = regexp.MustCompile(`\b(?:export|env|eval|declare -x)[ \t]+"?(?:\$\(|\x60)([^)\x60\n]*)`)
	// direnvReads is direnv's own. Source: https://direnv.net/man/direnv-stdlib.1.html
	direnvReads = regexp.MustCompile(`(?m)^[ \t]*dotenv(?:_if_exists)?(?:[ \t]+` + pathText + `)?[ \t]*$`)
)

// shellWords: what a shell splits into words by itself, and direnv.
func (m *mentionsOf) shellWords(data []byte) {
	from := len(m.found)
	for _, i := range wordsOf.FindAllSubmatchIndex(data, -1) {
		if commented(lineOfOffset(data, i[0]), "#") {
			continue
		}
		for _, word := range strings.FieldsFunc(string(data[i[2]:i[3]]), func(r rune) bool { return strings.ContainsRune(" \t|<;&", r) }) {
			if isEnvFile(path.Base(strings.Trim(word, `"'`))) {
				m.add(dotenv.Python, i[0], word)
			}
		}
	}
	for j := from; j < len(m.found); j++ {
		m.found[j].own = "the shell, word by word,"
	}
	if path.Base(m.src.path) != ".envrc" {
		return
	}
	from = len(m.found)
	for _, i := range direnvReads.FindAllSubmatchIndex(data, -1) {
		target := pathIn(data, i)
		if target == "" {
			target = ".env"
		}
		m.add(dotenv.Python, i[0], target)
	}
	for j := from; j < len(m.found); j++ {
		m.found[j].own = "direnv"
	}
}

// joinLines makes one line of those that a backslash continues, at the same
// offsets.
func joinLines(data []byte) []byte { return bytes.ReplaceAll(data, []byte("\\\n"), []byte("  ")) }

// lineOfOffset is the line up to an offset.
func lineOfOffset(data []byte, offset int) string {
	return string(data[1+bytes.LastIndexByte(data[:offset], '\n') : offset])
}

func commented(line, with string) bool {
	line = strings.TrimLeft(line, " \t")
	return line != "" && strings.IndexByte(with, line[0]) >= 0
}
