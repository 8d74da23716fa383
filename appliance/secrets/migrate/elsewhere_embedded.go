package migrate

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// A file within a file: a here-document of a script, write_files of cloud-init, an
// entry of a ConfigMap, a text of several lines in code. It is looked at as the file
// would be that it becomes.

// maxDepth bounds files within files.
const maxDepth = 3

// embedded looks at a text whose first line is the line first of the file. rel is the
// name that it gets, as far as that is known; at is the path of keys above it. It says
// whether that held a secret.
func (l *lookup) embedded(text string, first int, rel, at string) bool {
	return l.take(l.within(text, rel), at, func(line int) int { return first + line - 1 })
}

// within is what a file of that name and text holds.
func (l *lookup) within(text, rel string) *lookup {
	inner := &lookup{c: l.c, src: source{cmp.Or(rel, l.src.path), []byte(text)}, kind: l.kind, sure: l.sure, depth: l.depth + 1, values: map[string]string{}}
	if inner.depth > maxDepth || !hasSign(inner.src.data) {
		return inner
	}
	f := elsewhere(rel)
	switch {
	case rel != "" && isEnvFile(rel):
		inner.environment()
	case f != nil && rel != "":
		inner.kind, inner.sure = f.kind, f.sure
		f.look(inner)
	case inner.sniffed():
	case l.kind == "commands":
		lookCommands(inner)
	case l.sure:
		lookSettings(inner)
	}
	return inner
}

// take takes over what was found in a text of this file.
func (l *lookup) take(inner *lookup, at string, line func(int) int) bool {
	kind := l.kind
	for _, f := range inner.found {
		name := f.Name
		if at != "" {
			name = strings.TrimSuffix(joinKeys(at, name), ".")
		}
		if f.Kind == "kubernetes" {
			l.kind = f.Kind
		}
		l.note(line(f.Line), name, f.Secret, f.Rule)
		if value := inner.values[definitionKey(f.File, f.Line, f.Name)]; value != "" {
			l.search(line(f.Line), name, value)
		}
		l.kind = kind
	}
	return len(inner.found) > 0
}

// environment reads lines of NAME=value, of a file that is for such settings.
func (l *lookup) environment() {
	l.sure = !l.inProgram()
	l.eachLine(func(n int, line string) {
		if m := envLine.FindStringSubmatch(line); m != nil && m[1] == "" {
			l.name(n, m[2], unquote(m[3]))
		}
	})
}

// inProgram says whether a text stands in a program, which may fill in the values or
// have them for an example.
func (l *lookup) inProgram() bool { return l.kind == "code" || l.kind == "terraform" }

var (
	manifest = regexp.MustCompile(`(?m)^[ \t]*apiVersion:`)
	section  = regexp.MustCompile(`(?m)^[ \t]*\[[\w." -]+\][ \t]*$`)
	yamlKeys = regexp.MustCompile(`(?m)^[ \t]*(?:- )?["']?[A-Za-z_][\w.-]*["']?:(?:[ \t]|$)`)
	settings = regexp.MustCompile(`(?m)^[ \t]*(?:export[ \t]+)?[A-Za-z_][\w.-]*[ \t]*=`)
)

// sniffed looks at a text of which only the content says what it is, if it says so.
func (l *lookup) sniffed() bool {
	trimmed := bytes.TrimSpace(l.src.data)
	lines := bytes.Count(trimmed, []byte("\n")) + 1
	switch {
	case len(trimmed) == 0:
		return false
	case bytes.HasPrefix(trimmed, []byte("#!")):
		lookCommands(l)
		l.environment()
	case trimmed[0] == '{' || trimmed[0] == '[' && !section.Match(trimmed):
		lookJSON(l)
	case manifest.Match(trimmed):
		lookYAML(l)
	case section.Match(trimmed) && settings.Match(trimmed):
		l.sure = !l.inProgram()
		lookSettings(l)
	case sqlPassword.Match(trimmed):
		lookSQL(l)
	case len(yamlKeys.FindAll(trimmed, -1))*2 > lines && isMapping(l.src.data):
		lookYAML(l)
	case len(settings.FindAll(trimmed, -1))*2 > lines:
		l.environment()
	default:
		return false
	}
	return true
}

// isMapping says whether a text is YAML, and more than one text.
func isMapping(data []byte) bool {
	var n yaml.Node
	if yaml.Unmarshal(withoutTemplate(data), &n) != nil || len(n.Content) == 0 {
		return false
	}
	return n.Content[0].Kind == yaml.MappingNode || n.Content[0].Kind == yaml.SequenceNode
}

var (
	// hereDoc begins a here-document of a shell, of a Dockerfile, of Terraform or Ruby.
	hereDoc = regexp.MustCompile(`(?:^|[^<])<<([-~]?)[ \t]*(["'\x60\\]?)([A-Za-z_]\w*)["'\x60]?`)
	// becomes is the name that a line gives to what it writes.
	becomes = regexp.MustCompile(`(?:>>?[ \t]*|\btee[ \t]+(?:-a[ \t]+)?)["']?([^\s"'<>|;&]+)|^[ \t]*COPY[ \t].*[ \t]([^\s<]+)[ \t]*$`)
	// tabs begin the lines of a here-document that takes them off.
	tabs = regexp.MustCompile(`(?m)^\t+`)
)

// hereDocs looks at what stands in the here-documents of a text; first is the line at
// which it begins.
func (l *lookup) hereDocs(text string, first int) {
	if !strings.Contains(text, "<<") {
		return
	}
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		m := hereDoc.FindStringSubmatch(lines[i])
		if m == nil || strings.HasPrefix(strings.TrimSpace(lines[i]), "#") {
			continue
		}
		end := slices.IndexFunc(lines[i+1:], func(line string) bool { return strings.TrimSpace(line) == m[3] })
		if end < 0 {
			continue
		}
		rel := ""
		if w := becomes.FindStringSubmatch(strings.Replace(lines[i], m[0], " ", 1)); w != nil {
			rel = strings.Trim(path.Clean("/"+w[1]+w[2]), "/")
		}
		body := strings.Join(lines[i+1:i+1+end], "\n")
		if m[1] == "-" {
			body = tabs.ReplaceAllString(body, "")
		}
		l.embedded(body, first+i+1, rel, "")
		i += end
	}
}

// literalText is a text of several lines in code: Python's, Go's and JavaScript's,
// PowerShell's, and those of languages with three quotes.
var literalText = regexp.MustCompile("(?s)\"\"\"(.*?)\"\"\"|'''(.*?)'''|`([^`]*\n[^`]*)`|@\"\r?\n(.*?)\n\"@|@'\r?\n(.*?)\n'@")

// literalTexts looks at such texts, if they are configuration and no prose.
func (l *lookup) literalTexts() {
	if !bytes.Contains(l.src.data, []byte(`"""`)) && !bytes.Contains(l.src.data, []byte(`'''`)) && !bytes.ContainsAny(l.src.data, "`@") {
		return
	}
	for _, m := range literalText.FindAllSubmatchIndex(l.src.data, -1) {
		for g := 2; g < len(m); g += 2 {
			if m[g] < 0 {
				continue
			}
			text := l.src.data[m[g]:m[g+1]]
			if bytes.Count(text, []byte("\n")) < 1 || !hasSign(text) || !(manifest.Match(text) || section.Match(text) && settings.Match(text) || isConfiguration(text)) {
				continue
			}
			l.embedded(string(text), lineAt(l.src.data, m[g]), "", "")
		}
	}
}

// isConfiguration says of a text in code whether each of its lines is a key of YAML,
// which lines of prose are not.
func isConfiguration(text []byte) bool {
	text = bytes.TrimSpace(text)
	keys := len(yamlKeys.FindAll(text, -1))
	return keys > 1 && keys*10 >= 9*(bytes.Count(text, []byte("\n"))+1) && isMapping(text)
}

// templateEnd ends the names of templates, whose names before it are those of what
// they become.
var templateEnd = set(".j2 .jinja .jinja2 .tpl .tmpl .gotmpl .erb .mustache .hbs .template .in .dist .ctmpl")

// rendered is the name of what a template becomes; the name itself for anything else.
func rendered(rel string) string {
	if ext := path.Ext(rel); templateEnd[strings.ToLower(ext)] {
		return strings.TrimSuffix(rel, ext)
	}
	return rel
}

var (
	// directive is a line that only steers a template.
	directive = regexp.MustCompile(`(?m)^[ \t]*(?:\{\{-?[^{}\n]*\}\}|\{%[^\n]*%\}|\{#[^\n]*#\}|<%[^\n]*%>)[ \t]*\r?$`)
	// filled is what a template fills in.
	filled = regexp.MustCompile(`\{\{[^{}]*\}\}|\{%[^{}]*%\}|<%=?[^%]*%>`)
)

// withoutTemplate is what remains of a template for Helm, Ansible or a shell, on the
// same lines: what is filled in later is a reference.
func withoutTemplate(data []byte) []byte {
	if !bytes.Contains(data, []byte("{{")) && !bytes.Contains(data, []byte("{%")) && !bytes.Contains(data, []byte("<%")) {
		return data
	}
	data = directive.ReplaceAll(data, nil)
	return filled.ReplaceAllFunc(data, func(m []byte) []byte {
		return append([]byte("__REF__"), bytes.Repeat([]byte("\n"), bytes.Count(m, []byte("\n")))...)
	})
}

// writtenFile is an entry of cloud-init's write_files, or of Ignition's and their like.
// Source: https://cloudinit.readthedocs.io/en/latest/reference/modules.html#write-files
func (l *lookup) writtenFile(at string, n *yaml.Node) {
	content, rel := mappingNode(n, "content"), mappingValue(n, "path")
	if content == nil || content.Kind != yaml.ScalarNode || rel == "" {
		return
	}
	text, first := content.Value, content.Line
	switch strings.ToLower(mappingValue(n, "encoding")) {
	case "b64", "base64":
		plain, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
		if err != nil || !utf8.Valid(plain) {
			return
		}
		l.take(l.within(string(plain), strings.Trim(path.Clean("/"+rel), "/")), at, func(int) int { return first })
		return
	}
	if content.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
		first++
	}
	l.embedded(text, first, strings.Trim(path.Clean("/"+rel), "/"), at)
}

// userPasswords is cloud-init's list of user:password.
// Source: https://cloudinit.readthedocs.io/en/latest/reference/modules.html#set-passwords
func (l *lookup) userPasswords(n *yaml.Node) {
	for i, line := range strings.Split(n.Value, "\n") {
		user, password, ok := strings.Cut(strings.TrimSpace(line), ":")
		if !ok || password == "R" || password == "RANDOM" || placeholder(name{words: []string{"PASSWORD"}}, password) != "" {
			continue
		}
		at := n.Line + i
		if n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
			at++
		}
		l.note(at, "password of "+user, []string{"is a password"}, "name")
		l.search(at, "password of "+user, password)
	}
}
