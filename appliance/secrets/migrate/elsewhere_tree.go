package migrate

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// lookYAML reads every scalar of every document, under the path of its keys.
func lookYAML(l *lookup) {
	if bytes.HasPrefix(l.src.data, []byte("$ANSIBLE_VAULT;")) {
		return // encrypted
	}
	kind, sure := l.kind, l.sure
	dec := yaml.NewDecoder(bytes.NewReader(withoutTemplate(l.src.data)))
	for {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			// A template that is no YAML yet: line by line.
			lookSettings(l)
			return
		}
		if doc.Kind != yaml.DocumentNode || len(doc.Content) == 0 {
			continue
		}
		root := doc.Content[0]
		l.kind, l.sure = kind, sure
		l.node("", root, 0)
	}
}

func mappingValue(n *yaml.Node, key string) string {
	if v := mappingNode(n, key); v != nil && v.Kind == yaml.ScalarNode {
		return v.Value
	}
	return ""
}

func mappingNode(n *yaml.Node, key string) *yaml.Node {
	if n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

// kubernetesSecret lists each entry: what is in a Secret is one.
// Source: https://kubernetes.io/docs/concepts/configuration/secret/
func (l *lookup) kubernetesSecret(root *yaml.Node) {
	for _, field := range []string{"data", "stringData"} {
		n := mappingNode(root, field)
		if n == nil || n.Kind != yaml.MappingNode {
			continue
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := n.Content[i].Value, n.Content[i+1]
			if value.Kind != yaml.ScalarNode {
				continue
			}
			text := value.Value
			if field == "data" {
				if plain, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text)); err == nil && utf8.Valid(plain) {
					text = string(plain)
				}
			}
			if placeholder(parseName(key), text) == "" {
				l.note(value.Line, key, []string{"stands in a Secret of Kubernetes"}, "kubernetes")
				l.search(value.Line, key, text)
			}
		}
	}
}

// commandKeys hold what is run.
var commandKeys = set("COMMAND ARGS ENTRYPOINT TEST RUN SCRIPT CMD EXEC SHELL BEFORE_SCRIPT AFTER_SCRIPT RUNCMD BOOTCMD COMMANDS")

func (l *lookup) node(at string, n *yaml.Node, depth int) {
	if depth > 50 {
		return
	}
	switch n.Kind {
	case yaml.MappingNode:
		if object := mappingValue(n, "kind"); object != "" && mappingValue(n, "apiVersion") != "" {
			// A name in an object that is made for settings says enough; secretKey:
			// password of another one names an entry.
			l.kind, l.sure = "kubernetes", object == "ConfigMap"
			switch object {
			case "Secret":
				l.kubernetesSecret(n)
				return
			case "SealedSecret":
				return // encrypted
			case "Config":
				l.kind, l.sure = "yaml", true // of kubectl
			}
		}
		if v := mappingNode(n, "value"); v != nil && v.Kind == yaml.ScalarNode {
			sure := l.sure
			l.sure = l.sure || l.kind == "kubernetes"
			defer func() { l.sure = sure }()
			for _, key := range []string{"name", "key", "Name", "Key"} {
				if name := mappingValue(n, key); name != "" {
					l.name(v.Line, name, v.Value)
				}
			}
		}
		l.writtenFile(at, n)
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := n.Content[i].Value, n.Content[i+1]
			path := joinKeys(at, key)
			switch {
			case key == "content" && mappingValue(n, "path") != "":
			case key == "list" && lastKey(at) == "chpasswd" && value.Kind == yaml.ScalarNode:
				l.userPasswords(value)
			case commandKeys[strings.ToUpper(key)] && value.Kind != yaml.MappingNode:
				l.commandNode(path, value)
			case key == "value" && mappingValue(n, "name") != "":
			case value.Kind == yaml.ScalarNode:
				if l.block(path, value) {
					continue
				}
				if value.Tag != "!!null" && value.Tag != "!!bool" && !strings.HasPrefix(value.Tag, "!vault") && !strings.HasPrefix(value.Tag, "!Ref") && !strings.HasPrefix(value.Tag, "!reference") {
					l.name(value.Line, path, value.Value)
				}
			default:
				l.node(path, value, depth+1)
			}
		}
	case yaml.SequenceNode:
		for _, item := range n.Content {
			if last := strings.ToLower(lastKey(at)); (last == "secrets" || last == "imagepullsecrets") && codeName.MatchString(item.Value) {
				continue // the name of one
			}
			if item.Kind != yaml.ScalarNode {
				l.node(at, item, depth+1)
				continue
			}
			if name, value, ok := strings.Cut(item.Value, "="); ok && envName.MatchString(name) {
				l.name(item.Line, name, value)
			} else {
				l.name(item.Line, at, item.Value)
			}
		}
	}
}

// block looks at a file that stands in a scalar, as those of a ConfigMap do; it says
// whether that held a secret.
func (l *lookup) block(at string, n *yaml.Node) bool {
	if n.Style != yaml.LiteralStyle || strings.Count(n.Value, "\n") < 2 || strings.Contains(n.Value, "PRIVATE KEY") {
		return false
	}
	return l.embedded(n.Value, n.Line+1, "", at)
}

// commandNode is a command as a text or as a list of its words.
func (l *lookup) commandNode(at string, n *yaml.Node) {
	if slices.ContainsFunc(n.Content, func(item *yaml.Node) bool { return item.Kind != yaml.ScalarNode || strings.Contains(item.Value, "\n") }) {
		for _, item := range n.Content { // a list of commands
			l.commandNode(at, item)
		}
		return
	}
	if n.Kind == yaml.ScalarNode {
		if n.Style == yaml.LiteralStyle {
			l.hereDocs(n.Value, n.Line+1)
		}
		for i, line := range strings.Split(n.Value, "\n") {
			number := n.Line
			if n.Style == yaml.LiteralStyle {
				number += i + 1
			}
			l.command(number, at, resolveDefaults(line))
			l.commandSets(number, strings.TrimSpace(line))
		}
		return
	}
	var all []string
	for _, item := range n.Content {
		all = append(all, item.Value)
	}
	l.command(n.Line, at, resolveDefaults(strings.Join(all, " ")))
	if name, value, ok := strings.Cut(strings.Join(all, "\n"), "="); ok && envName.MatchString(name) {
		value, _, _ = strings.Cut(value, "\n")
		l.name(n.Line, name, value) // args: of a build
	}
}

func joinKeys(at, key string) string {
	if at == "" {
		return key
	}
	return at + "." + key
}

// lookJSON reads every text of a document, under the path of its keys. What is
// no JSON (comments, a tail) is read line by line.
func lookJSON(l *lookup) {
	dec := json.NewDecoder(bytes.NewReader(l.src.data))
	dec.UseNumber()
	lines, at := 1, int64(0)
	line := func() int {
		if o := dec.InputOffset(); o > at {
			lines += bytes.Count(l.src.data[at:o], []byte("\n"))
			at = o
		}
		return lines
	}
	if !l.jsonValue(dec, line, "", 0) {
		l.found = nil
		lookCode(l)
	}
}

func (l *lookup) jsonValue(dec *json.Decoder, line func() int, at string, depth int) bool {
	t, err := dec.Token()
	if err != nil || depth > 200 {
		return false
	}
	n := line()
	switch t := t.(type) {
	case json.Delim:
		var name, value string
		var valueLine int
		for dec.More() {
			path := at
			if t == '{' {
				key, err := dec.Token()
				if err != nil {
					return false
				}
				k, _ := key.(string)
				path = joinKeys(at, k)
				line()
				if (k == "name" || k == "key" || k == "value" || k == "Name" || k == "Key" || k == "Value") && l.sureOrTask(at) {
					text, ok := l.jsonText(dec, line, path, depth)
					if !ok {
						return false
					}
					if strings.EqualFold(k, "value") {
						value, valueLine = text, line()
						continue
					}
					name = text
					if strings.EqualFold(k, "key") {
						l.name(line(), path, text) // may be one itself: Jwt.Key
					}
					continue
				}
			}
			if !l.jsonValue(dec, line, path, depth+1) {
				return false
			}
		}
		if _, err := dec.Token(); err != nil {
			return false
		}
		line()
		switch {
		case value == "":
		case name != "":
			l.name(valueLine, name, value)
		default:
			l.name(valueLine, joinKeys(at, "value"), value)
		}
	case string:
		l.name(n, at, t)
	case json.Number:
		if parseName(at[strings.LastIndexByte(at, '.')+1:]).class == nameSecret && l.sure {
			l.name(n, at, t.String())
		}
	}
	return true
}

// sureOrTask is a list of {"name": …, "value": …}, as ECS and others have it.
func (l *lookup) sureOrTask(at string) bool {
	at = strings.ToLower(lastKey(at))
	return l.sure || at == "environment" || at == "env" || at == "values" || strings.HasSuffix(at, "variables")
}

// jsonText is the next value, if it is a text; anything else is looked through.
func (l *lookup) jsonText(dec *json.Decoder, line func() int, at string, depth int) (string, bool) {
	var raw json.RawMessage
	if dec.Decode(&raw) != nil {
		return "", false
	}
	line()
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s, true
	}
	inner := json.NewDecoder(bytes.NewReader(raw))
	inner.UseNumber()
	n := line()
	return "", l.jsonValue(inner, func() int { return n }, at, depth+1)
}

var (
	xmlElement   = regexp.MustCompile(`<([A-Za-z][\w.:-]*)(?:\s[^<>]*)?>([^<>]+)</`)
	xmlAttribute = regexp.MustCompile(`\b([A-Za-z][\w.:-]*)\s*=\s*"([^"]+)"`)
	plistEntry   = regexp.MustCompile(`^\s*<(key|string)>([^<>]+)</(?:key|string)>\s*$`)
	xmlKeyed     = regexp.MustCompile(`\b(?:key|name)\s*=\s*"([^"]+)"[^<>]*\bvalue\s*=\s*"([^"]+)"`)
)

// lookXML reads elements and attributes that stand on one line: web.config,
// Maven's settings.xml, Spring's beans.
func lookXML(l *lookup) {
	unescape := strings.NewReplacer("&quot;", `"`, "&apos;", "'", "&lt;", "<", "&gt;", ">", "&amp;", "&")
	key := ""
	l.eachLine(func(n int, line string) {
		if len(line) > 4000 {
			return
		}
		if m := plistEntry.FindStringSubmatch(line); m != nil {
			if m[1] == "key" {
				key = m[2]
			} else {
				l.name(n, key, unescape.Replace(m[2]))
			}
			return
		}
		for _, re := range []*regexp.Regexp{xmlKeyed, xmlElement, xmlAttribute} {
			for _, m := range re.FindAllStringSubmatch(line, -1) {
				if m[1] != "PublicKeyToken" && m[1] != "publicKeyToken" {
					l.name(n, m[1], unescape.Replace(strings.TrimSpace(m[2])))
				}
			}
		}
	})
}
