package migrate

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"strongroom.example/appliance/secrets/dotenv"
)

// Reader is a program that reads a .env file, and where the tree shows it.
type Reader struct {
	Dialect string `json:"dialect"`
	File    string `json:"file"`
	Line    int    `json:"line"` // from 1
	// Expands is true where the reader also replaces $NAME, as dotenv-expand does.
	Expands bool `json:"expands,omitempty"`
	// Own is a reader with a grammar of its own, which is not followed here: Dialect says
	// nothing of it.
	Own string `json:"own,omitempty"`
}

// mention is a place that names a .env file as what a reader reads.
type mention struct {
	dialect dotenv.Dialect
	at      string // the file that says so
	line    int
	target  string // the path as it stands there; may be a pattern
	expands bool   // $NAME is replaced, too
	own     string // the reader, if its grammar is not known
	// optional says that the reader goes on without the file.
	optional bool
}

// showsReader says whether a file may name a reader, by its own name.
func showsReader(rel string) bool {
	base := path.Base(rel)
	switch strings.ToLower(base) {
	case "makefile", "gnumakefile", "justfile", "procfile", "package.json", "taskfile.yml", "taskfile.yaml":
		return true
	}
	switch path.Ext(base) {
	case ".service", ".socket", ".timer", ".container", ".sh", ".bash", ".mk":
		return true
	}
	return strings.Contains(base, ".service.") || strings.Contains(rel, ".service.d/")
}

// mentions are all readers that a file shows.
func mentionsIn(src source) []mention {
	m := &mentionsOf{src: src}
	base := path.Base(src.path)
	switch {
	case base == "package.json":
		m.packageJSON()
	case isComposeFile(base) || isServices(src):
		m.compose()
	}
	if !mentions(src.data, "env", "Env", "decouple") {
		return m.found
	}
	switch path.Ext(base) {
	case ".py", ".ipynb":
		m.python()
	case ".js", ".mjs", ".cjs", ".ts", ".mts", ".cts", ".jsx", ".tsx":
		m.javascript()
	}
	m.commands()
	return m.found
}

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

// filledIn is what something else fills in.
var filledIn = regexp.MustCompile(`\$\{[^}]*\}|\$\([^)]*\)|\$\w+|\{\{[^}]*\}\}|%\w|<[^>]*>`)

// literalEnd is the part of a path behind the last component that something
// else fills in: $DIR/.env, %h/app/.env, {{ dir }}/.env, $(dirname "$0")/.env. A
// part of the file's own name is a pattern: .env.$STAGE.
func literalEnd(target string) string {
	parts := strings.Split(target, "/")
	last := &parts[len(parts)-1]
	if name := filledIn.ReplaceAllString(*last, "*"); strings.Trim(name, "*.") != "" {
		*last = name
	}
	for i := len(parts) - 1; i >= 0; i-- {
		if strings.ContainsAny(parts[i], "$%{}()`<>") {
			return strings.Join(parts[i+1:], "/")
		}
	}
	return strings.Join(parts, "/")
}

// files are those of the tree's .env files that a mention means: the one at its
// path from the place of the mention or from the root; else those that share
// the most of the path's end.
func (m mention) files(all []string) []string {
	target := literalEnd(m.target)
	fixed := target == m.target && !path.IsAbs(target)
	target = strings.TrimPrefix(path.Clean("/"+target), "/")
	best := 1
	if base := path.Base(target); strings.Contains(base, "*") && strings.Trim(strings.TrimSuffix(base, "env"), "*.") == "" {
		best = 2 // %i.env may be any: the folder must be the same, too
	}
	if fixed {
		dirs := []string{path.Dir(m.at), "."}
		own := path.Base(m.at) == "package.json"
		if own {
			dirs = dirs[:1]
		}
		for _, dir := range dirs {
			var out []string
			for _, f := range all {
				if ok, err := path.Match(path.Join(dir, m.target), f); f == path.Join(dir, m.target) || ok && err == nil {
					out = append(out, f)
				}
			}
			if len(out) > 0 {
				return out
			}
		}
		// load_dotenv looks in the folders above.
		if m.dialect == dotenv.Python && !strings.Contains(m.target, "/") {
			for dir := path.Dir(m.at); dir != "."; dir = path.Dir(dir) {
				if f := path.Join(path.Dir(dir), m.target); slices.Contains(all, f) {
					return []string{f}
				}
			}
		}
		if own {
			return nil
		}
	}
	var out []string
	for _, f := range all {
		switch n := commonEnd(target, f); {
		case n < best:
		case n > best:
			best, out = n, []string{f}
		default:
			out = append(out, f)
		}
	}
	return out
}

// commonEnd counts the components at the end of a path that a file shares, the
// last of which may be a pattern.
func commonEnd(target, file string) int {
	a, b := strings.Split(target, "/"), strings.Split(file, "/")
	n := 0
	for n < len(a) && n < len(b) {
		x, y := a[len(a)-1-n], b[len(b)-1-n]
		if ok, err := path.Match(x, y); x != y && (!ok || err != nil) {
			break
		}
		n++
	}
	return n
}

// readersOf gives the readers of each .env file, in the order of dialects, one
// of each.
func readersOf(found []mention, files []string) map[string][]Reader {
	out := map[string][]Reader{}
	slices.SortStableFunc(found, func(a, b mention) int {
		if a.dialect != b.dialect {
			return int(a.dialect) - int(b.dialect)
		}
		if a.own != b.own {
			return strings.Compare(a.own, b.own)
		}
		if a.at != b.at {
			return strings.Compare(a.at, b.at)
		}
		return a.line - b.line
	})
	for _, m := range found {
		for _, f := range m.files(files) {
			n := len(out[f])
			r := Reader{m.dialect.String(), m.at, m.line, m.expands, m.own}
			if n == 0 || out[f][n-1].Dialect != r.Dialect || out[f][n-1].Own != r.Own {
				out[f] = append(out[f], r)
			} else if m.expands && !out[f][n-1].Expands {
				out[f][n-1] = r
			}
		}
	}
	return out
}

// following is whose reading of a file is followed, and why others count.
type following struct {
	dialect dotenv.Dialect
	// chosen by the person who migrates: what others read is a note.
	chosen  bool
	readers []Reader
}

// followingOf decides for one file: what was asked for; else the first of its
// readers that understands the file; else python-dotenv.
func (o *ScanOptions) followingOf(src source, readers []Reader) following {
	f := following{dialect: o.Dialect, chosen: o.Dialect != 0, readers: readers}
	if d, ok := o.Dialects[src.path]; ok {
		f.dialect, f.chosen = d, true
	}
	if f.dialect != 0 {
		return f
	}
	for _, r := range readers {
		d, err := dotenv.ParseDialect(r.Dialect)
		if err != nil || r.Own != "" {
			continue
		}
		if f.dialect == 0 {
			f.dialect = d
		}
		if _, faults := readEnv(src, d); len(faults) == 0 {
			f.dialect = d
			break
		}
	}
	if f.dialect == 0 {
		f.dialect = dotenv.Python
	}
	return f
}

// differences of the followed reading from those of the file's other readers.
// Where nothing shows a reader, python-dotenv's and docker-compose's are
// compared, for the reader of the report.
func (f following) differences(src source) []FileDifference {
	others := []dotenv.Dialect{f.dialect}
	where := map[dotenv.Dialect]Reader{}
	for _, r := range f.readers {
		if d, err := dotenv.ParseDialect(r.Dialect); err == nil && d != f.dialect && r.Own == "" {
			others = append(others, d)
			where[d] = r
		}
	}
	if len(f.readers) == 0 && !f.chosen {
		others = []dotenv.Dialect{dotenv.Python, dotenv.Compose}
	}
	other := src.path == OtherStore
	switch {
	case other && isJSONExport(src.data):
		return nil
	case other:
		others = []dotenv.Dialect{f.dialect, dotenv.Compose, dotenv.Node}
	}
	var out []FileDifference
	for _, d := range dotenv.Differences(src.data, others...) {
		fd := FileDifference{File: src.path, Line: d.Line, Name: d.Name, Why: d.Why}
		if r, ok := where[d.Dialects[1]]; ok {
			fd.Why += " (" + r.place() + ")"
			fd.Stops = !f.chosen
		}
		if other {
			fd.Stops = !f.chosen
			fd.Why += "; as JSON it can be read in one way only"
		}
		out = append(out, fd)
	}
	for _, r := range f.readers {
		if r.Own != "" {
			out = append(out, f.ownGrammar(src, r)...)
		}
		if !r.Expands {
			continue
		}
		vars, _ := readEnv(src, f.dialect)
		for _, v := range vars {
			if strings.Contains(v.Value, "$") {
				out = append(out, FileDifference{File: src.path, Line: v.Line, Name: v.Name, Stops: !f.chosen,
					Why: fmt.Sprintf("has a dollar, and what %s:%d names replaces references in values: whether this is one is not known here", r.File, r.Line)})
			}
		}
	}
	return out
}

// sameForAll is a value that every reader of .env files takes for the same: bare, or in
// quotes of either kind.
var sameForAll = regexp.MustCompile(`^[A-Za-z_]\w*=(?:[^\s"'\x60$\\#]*|'[^'"\\$\n#]*'|"[^"'\\$\n\x60#]*")$`)

// ownGrammar are the variables that a reader with a grammar of its own may read otherwise.
func (f following) ownGrammar(src source, r Reader) (out []FileDifference) {
	vars, faults := readEnv(src, f.dialect)
	if len(faults) > 0 {
		return nil
	}
	lines := bytes.Split(src.data, []byte("\n"))
	for _, v := range vars {
		if v.Line < 1 || v.Line > len(lines) || sameForAll.Match(lines[v.Line-1]) {
			continue
		}
		out = append(out, FileDifference{File: src.path, Line: v.Line, Name: v.Name, Stops: !f.chosen,
			Why: fmt.Sprintf("has a quote, a blank, a dollar, a backslash or a sharp, which %s (%s:%d) reads in a way of its own that is not followed here: see what the program gets", r.Own, r.File, r.Line)})
	}
	return out
}

// place is the reader in a message.
func (r Reader) place() string {
	d, err := dotenv.ParseDialect(r.Dialect)
	if err != nil {
		return r.Dialect
	}
	return fmt.Sprintf("%s reads it by %s:%d", d.Reader(), r.File, r.Line)
}

// because says whose reading a fault is, where that is shown.
func (f following) because() string {
	for _, r := range f.readers {
		if r.Dialect == f.dialect.String() && r.Own == "" {
			return " (" + r.place() + "; --dialect FILE=NAME follows another)"
		}
	}
	return ""
}
