package migrate

import (
	"bytes"
	"errors"
	"io"
	"path"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

var (
	shellUse    = regexp.MustCompile(`\$\{?([A-Z_][A-Z0-9_]+)`)
	shellAssign = regexp.MustCompile(`(?m)^[ \t]*(?:export[ \t]+|readonly[ \t]+|local[ \t]+|declare[ \t]+-\w+[ \t]+)?([A-Z_][A-Z0-9_]*)[ \t]*[:?]?=[ \t]*(?:"([^"$\x60\n]*)"|'([^'\n]*)'|([^\s"'$\x60;&|()]*))`)
)

// shellsOwn are set by the system or by the shell.
var shellsOwn = map[string]bool{
	"PATH": true, "HOME": true, "PWD": true, "OLDPWD": true, "USER": true, "SHELL": true, "IFS": true, "PS1": true, "TERM": true, "LANG": true,
	"BASH_SOURCE": true, "RANDOM": true, "LINENO": true, "HOSTNAME": true, "UID": true, "EUID": true, "OPTARG": true, "OPTIND": true, "TMPDIR": true,
	"FUNCNAME": true, "PIPESTATUS": true, "SECONDS": true, "MAINPID": true,
}

// extractShell takes variables in capitals that the file itself does not set.
func extractShell(s *sink) {
	if !mentions(s.src.data, "$", "=") {
		return
	}
	code := blankHash(s.src.data)
	own := map[string]bool{}
	for _, m := range shellAssign.FindAllSubmatchIndex(code, -1) {
		name := string(code[m[2]:m[3]])
		own[name] = true
		for g := 4; g < len(m); g += 2 {
			if m[g] >= 0 && m[g+1] > m[g] {
				s.define(name, string(code[m[g]:m[g+1]]), "shell", s.line(m[2]))
			}
		}
	}
	s.dollars(code, "shell", own)
}

func (s *sink) dollars(code []byte, kind string, own map[string]bool) {
	for _, m := range shellUse.FindAllSubmatchIndex(code, -1) {
		if name := string(code[m[2]:m[3]]); !own[name] && !shellsOwn[name] {
			s.use(name, kind, m[0])
		}
	}
}

var (
	dockerSet  = regexp.MustCompile(`(?mi)^[ \t]*(ENV|ARG)[ \t]+((?:[^\\\n]|\\\n|\\.)*)`)
	dockerPair = regexp.MustCompile(`([A-Za-z_]\w*)=(?:"((?:[^"\\]|\\.)*)"|'([^']*)'|(\S*))`)
	dockerOld  = regexp.MustCompile(`^([A-Za-z_]\w*)[ \t]+(.*)$`)
	dockerArg  = regexp.MustCompile(`^([A-Za-z_]\w*)[ \t]*$`)
)

func extractDockerfile(s *sink) {
	code := blankHash(s.src.data)
	own := map[string]bool{}
	for _, m := range dockerSet.FindAllSubmatchIndex(code, -1) {
		rest, line := code[m[4]:m[5]], s.line(m[2])
		if a := dockerArg.FindSubmatch(rest); a != nil {
			s.use(string(a[1]), "dockerfile", m[2]) // comes from outside
			continue
		}
		if o := dockerOld.FindSubmatch(rest); o != nil && !bytes.Contains(bytes.Fields(rest)[0], []byte("=")) {
			own[string(o[1])] = true
			s.define(string(o[1]), string(o[2]), "dockerfile", line)
			continue
		}
		for _, p := range dockerPair.FindAllSubmatch(rest, -1) {
			own[string(p[1])] = true
			s.define(string(p[1]), string(p[2])+string(p[3])+string(p[4]), "dockerfile", line)
		}
	}
	s.dollars(code, "dockerfile", own)
}

var systemdPair = regexp.MustCompile(`"([A-Za-z_]\w*)=((?:[^"\\]|\\.)*)"|'([A-Za-z_]\w*)=([^']*)'|(?:^|\s)([A-Za-z_]\w*)=(\S*)`)

func extractSystemd(s *sink) {
	offset := 0
	own := map[string]bool{}
	for raw := range bytes.Lines(s.src.data) {
		line := strings.TrimSpace(string(raw))
		key, value, ok := strings.Cut(line, "=")
		switch key = strings.TrimSpace(key); {
		case !ok || strings.HasPrefix(line, "#") || strings.HasPrefix(line, ";"):
		case key == "EnvironmentFile":
			s.envRef = append(s.envRef, strings.TrimPrefix(strings.TrimSpace(value), "-"))
		case key == "Environment":
			for _, p := range systemdPair.FindAllStringSubmatch(value, -1) {
				name := p[1] + p[3] + p[5]
				own[name] = true
				s.define(name, p[2]+p[4]+p[6], "systemd", s.line(offset))
			}
		case strings.HasPrefix(key, "Exec"):
			for _, m := range shellUse.FindAllStringSubmatch(value, -1) {
				if !own[m[1]] && !shellsOwn[m[1]] {
					s.use(m[1], "systemd", offset)
				}
			}
		}
		offset += len(raw)
	}
}

// dbtVar is dbt's, with its default. Source: https://docs.getdbt.com/reference/dbt-jinja-functions/env_var
var dbtVar = regexp.MustCompile(`\benv_var\(\s*` + quotedName + literal)

// yamlExtractor goes by what kind of YAML the path promises.
func yamlExtractor(rel string) extractor {
	base := strings.ToLower(path.Base(rel))
	switch {
	case strings.Contains("/"+rel, "/.github/workflows/"), base == "action.yml", base == "action.yaml":
		return func(s *sink) { s.yaml("actions", actionsNode); s.actionsExpressions() }
	case strings.HasPrefix(base, "docker-compose"), strings.HasPrefix(base, "compose"):
		return extractCompose
	}
	return func(s *sink) {
		if isServices(s.src) {
			extractCompose(s)
		}
		if mentions(s.src.data, "env_var(") {
			s.matches(s.src.data, dbtVar, "dbt")
		}
		if mentions(s.src.data, "env:") {
			s.yaml("dagster", dagsterNode)
		}
	}
}

// yaml visits every pair of every mapping of every document.
func (s *sink) yaml(kind string, visit func(s *sink, kind, key string, value *yaml.Node)) {
	dec := yaml.NewDecoder(bytes.NewReader(s.src.data))
	for {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			// The parser's message may quote the text.
			s.bad = append(s.bad, Problem{File: s.src.path, Why: "not well-formed YAML: only plain references were looked for"})
			return
		}
		pairs(&doc, func(key string, value *yaml.Node) { visit(s, kind, key, value) })
	}
}

func pairs(n *yaml.Node, visit func(string, *yaml.Node)) {
	if n.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(n.Content); i += 2 {
			visit(n.Content[i].Value, n.Content[i+1])
		}
	}
	for _, c := range n.Content {
		pairs(c, visit) // aliases are not followed: their anchors are visited
	}
}

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// dagsterNode is the form {env: NAME} of dagster.yaml and run configuration.
// Source: https://docs.dagster.io/deployment/dagster-instance
func dagsterNode(s *sink, kind, key string, value *yaml.Node) {
	if key == "env" && value.Kind == yaml.ScalarNode && envName.MatchString(value.Value) {
		s.useLine(value.Value, kind, value.Line)
	}
}

func extractCompose(s *sink) {
	s.yaml("compose", composeNode)
	s.dollars(blankHash(s.src.data), "compose", nil)
}

// composeNode reads environment, env_file and build arguments.
// Source: https://docs.docker.com/reference/compose-file/services/
func composeNode(s *sink, kind, key string, value *yaml.Node) {
	switch key {
	case "environment", "args":
		s.assignments(kind, value)
	case "env_file":
		for _, n := range scalars(value) {
			s.envRef = append(s.envRef, n.Value)
		}
	}
}

// actionsNode reads the env of a workflow, job or step.
func actionsNode(s *sink, kind, key string, value *yaml.Node) {
	if key == "env" {
		s.assignments(kind, value)
	}
}

// assignments takes a mapping, or a sequence of NAME=VALUE. A name without a
// value is one that comes from outside.
func (s *sink) assignments(kind string, n *yaml.Node) {
	add := func(name, value string, has bool, line int) {
		switch {
		case !envName.MatchString(name):
		case !has:
			s.useLine(name, kind, line)
		case !strings.Contains(value, "${"):
			s.define(name, value, kind, line)
		}
	}
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			k, v := n.Content[i], n.Content[i+1]
			if v.Kind == yaml.ScalarNode {
				add(k.Value, v.Value, v.Tag != "!!null", k.Line)
			}
		}
	case yaml.SequenceNode:
		for _, item := range n.Content {
			name, value, has := strings.Cut(item.Value, "=")
			add(name, value, has, item.Line)
		}
	}
}

// scalars of a scalar, of a sequence, or under the key path of its items.
func scalars(n *yaml.Node) []*yaml.Node {
	switch n.Kind {
	case yaml.ScalarNode:
		return []*yaml.Node{n}
	case yaml.SequenceNode:
		var out []*yaml.Node
		for _, c := range n.Content {
			out = append(out, scalars(c)...)
		}
		return out
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == "path" {
				return scalars(n.Content[i+1])
			}
		}
	}
	return nil
}

var actionsUse = regexp.MustCompile(`\$\{\{[^}]*?\b(?:secrets|vars|env)\.([A-Za-z_]\w*)[^}]*\}\}`)

func (s *sink) actionsExpressions() { s.matches(s.src.data, actionsUse, "actions") }
