package migrate

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"strongroom.example/appliance/base/atomicfile"
	"strongroom.example/appliance/secrets/dotenv"
)

// isUnit is a file that systemd or Podman reads, a drop-in, or what systemd takes
// a manager's environment from.
func isUnit(rel string) bool {
	switch path.Ext(rel) {
	case ".service", ".socket", ".timer", ".container", ".mount", ".swap", ".slice", ".scope", ".pod", ".kube", ".nspawn":
		return true
	case ".conf":
		dir := path.Dir("/" + rel)
		for _, end := range []string{".service.d", ".container.d", ".socket.d", ".slice.d", "system.conf.d", "user.conf.d"} {
			if strings.HasSuffix(dir, end) {
				return true
			}
		}
		return path.Base(rel) == "system.conf" || path.Base(rel) == "user.conf"
	}
	return false
}

var podmanSecret = regexp.MustCompile(`\btarget=([^,]+),`)

const ofUnit = "take it out of the unit, and run systemctl daemon-reload"

// unit reads Environment=, EnvironmentFile=, PassEnvironment= and what a command
// line sets with env.
// Source: https://www.freedesktop.org/software/systemd/man/latest/systemd.exec.html
func (c *checker) unit(rel, shown string, data []byte) {
	line, start, whole := 0, 0, ""
	for raw := range bytes.Lines(data) {
		line++
		text := strings.TrimSpace(string(raw))
		if strings.HasPrefix(text, "#") || strings.HasPrefix(text, ";") {
			continue // also between the parts of a line that goes on
		}
		if whole == "" {
			start = line
		}
		if goes, on := strings.CutSuffix(text, `\`); on {
			whole += goes + " "
			continue
		}
		key, value, ok := strings.Cut(whole+text, "=")
		whole = ""
		if !ok {
			continue
		}
		switch key, value = strings.TrimSpace(key), strings.TrimSpace(value); {
		case key == "Environment" || key == "DefaultEnvironment" || key == "ManagerEnvironment":
			for _, word := range unitWords(value) {
				if name, v, ok := strings.Cut(word, "="); ok {
					c.set(shown, name, v, start, key+"=", ofUnit)
				}
			}
		case key == "PassEnvironment":
			for _, name := range strings.Fields(value) {
				c.set(shown, name, "passed on", start, "PassEnvironment=: what the manager has", ofUnit)
			}
		case key == "EnvironmentFile":
			c.named(rel, shown, strings.TrimPrefix(value, "-"), start, "EnvironmentFile=", strings.HasPrefix(value, "-"))
		case key == "Secret": // of Podman. Source: podman-systemd.unit(5)
			if m := podmanSecret.FindStringSubmatch(value + ","); m != nil && strings.Contains(value, "type=env") {
				c.set(shown, m[1], "of a secret", start, key+"=", ofUnit)
			}
		case strings.HasPrefix(key, "Exec") || key == "PodmanArgs" || key == "GlobalArgs":
			for _, m := range inline.FindAllStringSubmatch(value, -1) {
				c.set(shown, m[1], m[2], start, key+"=", ofUnit)
			}
		}
	}
}

// unitWords takes a line of assignments apart: words with quotes of both kinds
// and backslashes.
func unitWords(value string) []string {
	var words []string
	var word strings.Builder
	quote, inside := byte(0), false
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case c == '\\' && i+1 < len(value):
			i++
			word.WriteByte(value[i])
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			quote, inside = c, true
		case quote == 0 && (c == ' ' || c == '\t'):
			if word.Len() > 0 || inside {
				words = append(words, word.String())
			}
			word.Reset()
			inside = false
		default:
			word.WriteByte(c)
		}
	}
	if word.Len() > 0 || inside {
		words = append(words, word.String())
	}
	return words
}

// named looks into a file that a unit or compose names: at its own place, or
// below the folder that is looked through, as it will be deployed.
func (c *checker) named(rel, shown, file string, line int, how string, optional bool) {
	if file == "" {
		return
	}
	from := fmt.Sprintf("%s of %s:%d", how, shown, line)
	if strings.ContainsAny(file, "%$") {
		c.isAway(file, from+": its name is not known before it is used")
		return
	}
	at := file
	if !path.IsAbs(file) {
		at = filepath.Join(c.dir, filepath.FromSlash(path.Join(path.Dir(rel), file)))
	}
	found := false
	for _, pattern := range []string{at, filepath.Join(c.dir, filepath.FromSlash(file))} {
		all, err := filepath.Glob(pattern)
		if err != nil {
			all = []string{pattern}
		}
		for _, p := range all {
			found = c.namedFile(p, from) || found
		}
		if found {
			return
		}
	}
	if !optional {
		c.isAway(file, from+": it is not here")
	}
}

func (c *checker) isAway(file, why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.away = append(c.away, away{file, why})
}

// elsewhere settles what is not where something names it: a .env file of the tree
// that is deployed there was looked at by itself. It goes by the end of the path,
// as a plan does for the readers of a file.
func (c *checker) elsewhere() {
	all := slices.DeleteFunc(slices.Clone(c.files), func(f string) bool { return !isEnvFile(f) || isTemplate(f) || isEnvCopy(f) })
	for _, a := range c.away {
		if end := literalEnd(a.file); strings.ContainsAny(path.Base(a.file), "%$") || end == "" || len((mention{target: "/" + end}).files(all)) == 0 {
			c.notLookedAt(a.file, a.why)
		}
	}
}

// namedFile says whether the file is there.
func (c *checker) namedFile(full, from string) bool {
	st, err := os.Stat(full)
	if errors.Is(err, os.ErrNotExist) {
		return false
	}
	shown := full
	if in, relErr := filepath.Rel(c.dir, full); relErr == nil && filepath.IsLocal(in) {
		shown = filepath.ToSlash(in)
		if isEnvFile(shown) {
			return true // it is looked at by itself
		}
	}
	var data []byte
	switch {
	case err != nil:
	case !st.Mode().IsRegular():
		err = errors.New("not a regular file")
	case st.Size() > dotenv.MaxSize:
		err = &tooLarge{st.Size(), dotenv.MaxSize}
	default:
		data, err = atomicfile.ReadSmall(full, dotenv.MaxSize)
	}
	if err != nil {
		c.notLookedAt(shown, from+": "+reason(err))
		return true
	}
	c.envFile(shown, data, from, "take its line out of that file")
	return true
}

const (
	ofShell      = ": what the shell has"
	passedOn     = "start it under strongroom env exec, or take it out"
	ofCompose    = "take it out, and have the program log in to Vault"
	ofKubernetes = "take it out of the manifest, and apply that"
	ofOthers     = "take it out"
)

// tree reads YAML and JSON: compose, Kubernetes, workflows, task definitions.
// What is no YAML, such as a template of Helm, is read by its lines.
func (c *checker) tree(rel, shown string, data []byte) {
	base := strings.ToLower(path.Base(rel))
	t := treeOf{c: c, rel: rel, shown: shown, how: "configuration", do: ofOthers}
	switch {
	case fileKind(rel) == "compose":
		t.how, t.do = "compose", ofCompose
	case fileKind(rel) == "actions", base == ".gitlab-ci.yml", strings.Contains("/"+rel, "/.circleci/"), strings.HasPrefix(base, "azure-pipelines"):
		t.how, t.do = "a workflow", "take it out, and have the job log in to Vault"
	case bytes.Contains(data, []byte("apiVersion")) && bytes.Contains(data, []byte("kind")):
		t.how, t.do = "Kubernetes", ofKubernetes
	}
	text := data
	if strings.HasPrefix(path.Ext(rel), ".json") {
		text = bytes.ReplaceAll(data, []byte("\t"), []byte(" ")) // which YAML does not take
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			c.lines(shown, data, lineKind{t.how, t.do})
			return
		}
		t.visit(&doc, "")
	}
}

// treeOf visits the nodes of one file.
type treeOf struct {
	c          *checker
	rel, shown string
	how, do    string
}

func (t treeOf) set(name, value string, line int) { t.c.set(t.shown, name, value, line, t.how, t.do) }

// visit has the key that the node stands under.
func (t treeOf) visit(n *yaml.Node, under string) {
	switch n.Kind {
	case yaml.MappingNode:
		t.pair(n)
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := n.Content[i], n.Content[i+1]
			switch {
			case key.Value == "env_file" && t.how == "compose":
				m := &mentionsOf{src: source{path: t.rel}}
				m.envFiles(value)
				for _, f := range m.found {
					t.c.named(t.rel, t.shown, f.target, f.line, "env_file", f.optional)
				}
			case value.Kind == yaml.ScalarNode && value.Tag == "!!null" && under == "environment":
				t.c.set(t.shown, key.Value, "passed on", key.Line, t.how+ofShell, passedOn)
			case value.Kind == yaml.ScalarNode && value.Tag != "!!null":
				t.set(key.Value, value.Value, key.Line)
			case value.Kind == yaml.MappingNode:
				t.set(key.Value, mappingValue(value, "value"), key.Line) // a variable of GitLab
			}
			t.visit(value, key.Value)
		}
	case yaml.SequenceNode:
		for _, item := range n.Content {
			if item.Kind == yaml.ScalarNode && under == "environment" && !strings.Contains(item.Value, "=") {
				t.c.set(t.shown, item.Value, "passed on", item.Line, t.how+ofShell, passedOn)
			}
			t.visit(item, under)
		}
	case yaml.ScalarNode:
		for i, l := range strings.Split(n.Value, "\n") {
			line := n.Line + i
			if n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
				line++
			}
			for _, m := range inline.FindAllStringSubmatch(l, -1) {
				t.set(m[1], m[2], line)
			}
		}
	default:
		for _, child := range n.Content {
			t.visit(child, under)
		}
	}
}

// pair is the form {name: NAME, value: …} of Kubernetes, ECS and others.
func (t treeOf) pair(n *yaml.Node) {
	name, value, line := "", "", 0
	for i := 0; i+1 < len(n.Content); i += 2 {
		switch key, v := n.Content[i].Value, n.Content[i+1]; key {
		case "name", "Name", "key":
			name, line = v.Value, v.Line
		case "value", "Value":
			value = v.Value
		case "valueFrom", "value_from", "ValueFrom":
			value = "from elsewhere"
		}
	}
	t.set(name, value, line)
}

// lineKind is what a file of lines is called, and what to do about it.
type lineKind struct{ how, do string }

func kindOfLines(rel, base string) lineKind {
	switch {
	case strings.HasPrefix(base, "crontab"), strings.HasSuffix(base, ".cron"), strings.HasSuffix(base, ".crontab"),
		strings.Contains("/"+rel, "/cron.d/"), strings.Contains("/"+rel, "/crontabs/"), base == "anacrontab":
		return lineKind{"a crontab", "take it out of the crontab"}
	case base == "environment", strings.Contains("/"+rel, "/environment.d/"):
		return lineKind{"the machine's environment", "take it out, and log in anew"}
	case fileKind(rel) == "code", strings.HasPrefix(base, ".bash"), strings.HasPrefix(base, ".profile"), strings.HasPrefix(base, ".zsh"):
		return lineKind{"a shell's file", ofOthers}
	}
	return lineKind{"configuration", ofOthers}
}

const nameAtAll = `([A-Za-z_][A-Za-z0-9_.-]*)`

var (
	// inline is NAME=value in a command, an option or an entry of a list.
	inline = regexp.MustCompile("(?:^|[\\s;&|(,\"'`])(?:-e|-D|--env=|--setenv=|--from-literal=|Environment=)?" + nameAtAll + `=("[^"]+|'[^']+|[^\s="'])`)
	// ofALine is NAME = value alone on its line, with what shells, systemd's
	// relatives and INI files have in front of it.
	ofALine = regexp.MustCompile(`^\s*(?:export\s+|set\s+|declare\s+-\w+\s+|typeset\s+-\w+\s+|readonly\s+|env\s+|env\[|environment\s*=\s*|env\s*=\s*|setenv\s*=\s*|\$env:)?["']?` + nameAtAll + `["']?\]?\s*(?:[:?+]?=|:\s)\s*(.*)$`)
	// byBlank are the ways to set with a blank between name and value.
	byBlank = regexp.MustCompile(`^\s*(?:SetEnv|setenv|set\s+-\w+|fastcgi_param|uwsgi_param|proxy_set_header|env-set)\s+` + nameAtAll + `\s+(\S.*)$`)
	// byPAM is a line of pam_env.conf(5).
	byPAM = regexp.MustCompile(`^\s*` + nameAtAll + `\s+(?:DEFAULT|OVERRIDE)=(\S+)`)
	// byXML is a property list's or a web.config's.
	byXML = regexp.MustCompile(`<key>` + nameAtAll + `</key>|<(?:environmentVariable|env|add)\s[^>]*(?:name|key)="` + nameAtAll + `"[^>]*value="([^"]*)"`)
	// byName is Kubernetes' form in a template.
	byName = regexp.MustCompile(`^\s*-?\s*name:\s*["']?` + nameAtAll + `["']?\s*$`)
	// inCode and callInCode set a variable of the process that runs.
	inCode = regexp.MustCompile(`(?:environ\s*\[\s*["']|process\.env\.|process\.env\[\s*["']|ENV\[\s*["'])` + nameAtAll + `(?:["']\s*\])?\s*=([^=]\s*\S*)`)
	// atOnce are several: environ.update(A="x"), environ |= {"A": "x"}, putenv("A=x"), pm2's env.
	atOnce     = regexp.MustCompile(`(?:environ\s*(?:\.\s*update\s*\(|\|=)|\bputenv\(\s*["']|\benv(?:_\w+)?["']?\s*:\s*\{)(.*)$`)
	pairAtOnce = regexp.MustCompile(`(?:^|[\s,({"'])` + nameAtAll + `["']?\s*[=:]\s*["']?([^\s"',(){}]+)`)
	callInCode = regexp.MustCompile(`(?:environ\s*\.\s*setdefault\(\s*["']|\bputenv\(\s*["']|\bos\.Setenv\(\s*["\x60])` + nameAtAll + `["'\x60]\s*,\s*(\S*)`)
)

// lines looks for assignments in what has no tree.
func (c *checker) lines(shown string, data []byte, k lineKind) {
	line := 0
	for raw := range bytes.Lines(data) {
		line++
		text := strings.TrimRight(string(raw), "\r\n")
		if t := strings.TrimSpace(text); t == "" || t[0] == '#' || t[0] == ';' || strings.HasPrefix(t, "//") || strings.HasPrefix(t, "<!--") {
			continue
		}
		for _, re := range []*regexp.Regexp{ofALine, byBlank, byPAM} {
			if m := re.FindStringSubmatch(text); m != nil {
				c.set(shown, m[1], m[2], line, k.how, k.do)
			}
		}
		for _, m := range inline.FindAllStringSubmatch(text, -1) {
			c.set(shown, m[1], m[2], line, k.how, k.do)
		}
		for _, m := range byXML.FindAllStringSubmatch(text, -1) {
			c.set(shown, m[1], "of a key", line, k.how, k.do)
			c.set(shown, m[2], m[3], line, k.how, k.do)
		}
		if m := byName.FindStringSubmatch(text); m != nil && k.how == "Kubernetes" {
			c.set(shown, m[1], "of a name", line, k.how, k.do)
		}
	}
}

// code looks for programs that set a variable for themselves and their children.
func (c *checker) code(shown string, data []byte) {
	line := 0
	for raw := range bytes.Lines(data) {
		line++
		if t := strings.TrimSpace(string(raw)); strings.HasPrefix(t, "#") || strings.HasPrefix(t, "//") {
			continue
		}
		for _, m := range atOnce.FindAllStringSubmatch(strings.TrimSpace(string(raw)), -1) {
			for _, p := range pairAtOnce.FindAllStringSubmatch(m[1], -1) {
				c.set(shown, p[1], p[2], line, "code", "let the program read it")
			}
		}
		for _, re := range []*regexp.Regexp{inCode, callInCode} {
			for _, m := range re.FindAllStringSubmatch(string(raw), -1) {
				c.set(shown, m[1], strings.TrimRight(m[2], ");,"), line, "code", "let the program read it")
			}
		}
	}
}
