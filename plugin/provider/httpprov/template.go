package httpprov

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"strongroom.example/plugin/provider"
)

// A template is text with references of the form {{name}} or {{group.name}}.
// There are no functions, conditions or loops: what a request holds is decided
// by its declaration alone, and each place escapes values in its own way.
type template struct {
	parts []part
}

type part struct {
	text string // literal, where ref is empty
	ref  string
}

const maxTemplate = 8 << 10 // bytes

// The groups of references. Those of secretGroups may stand in headers and
// bodies only: URLs end up in logs.
const (
	groupVar        = "var"          // settings.variables
	groupParam      = "param"        // the key's parameters
	groupCredential = "credential"   // the provider's credential
	groupValue      = "value"        // the key's own values
	refName         = "name"         // the name of the key to create
	refID           = "id"           // the id of the key
	refPrefix       = "prefix"       // the beginning of the names to list
	refAccess       = "access_token" // what OAuth 2 gives for the credential; only auth says it
	groupExpires    = "expires"      // when the new key ends: .rfc3339, .date, .unix, .seconds
)

func secret(ref string) bool {
	group, _, _ := strings.Cut(ref, ".")
	return group == groupCredential || group == groupValue || ref == refAccess
}

// parseTemplate reads text. Every pair of braces must be a reference.
func parseTemplate(text string) (template, error) {
	var t template
	if len(text) > maxTemplate {
		return t, fmt.Errorf("has %d bytes, at most %d are allowed", len(text), maxTemplate)
	}
	for rest := text; rest != ""; {
		before, after, found := strings.Cut(rest, "{{")
		if strings.Contains(before, "}}") {
			return template{}, fmt.Errorf("%.60q: }} without {{ before it", before)
		}
		if before != "" {
			t.parts = append(t.parts, part{text: before})
		}
		if !found {
			break
		}
		ref, tail, closed := strings.Cut(after, "}}")
		if !closed {
			return template{}, fmt.Errorf("%.60q: {{ without }} behind it", after)
		}
		ref = strings.TrimSpace(ref)
		if !validRef(ref) {
			return template{}, fmt.Errorf("%.60q is no reference such as {{name}} or {{param.role}}", ref)
		}
		t.parts = append(t.parts, part{ref: ref})
		rest = tail
	}
	return t, nil
}

func validRef(ref string) bool {
	group, name, dotted := strings.Cut(ref, ".")
	switch group {
	case groupVar, groupParam, groupCredential, groupValue, groupExpires:
		return dotted && validName(name)
	}
	return validName(group) && !dotted
}

// validName is what a variable, a parameter, a value may be called.
func validName(s string) bool {
	return s != "" && len(s) <= 64 && strings.IndexFunc(s, func(r rune) bool {
		return r != '_' && r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	}) < 0
}

// sole is the reference that t consists of, with nothing around it.
func (t template) sole() (string, bool) {
	if len(t.parts) == 1 && t.parts[0].ref != "" {
		return t.parts[0].ref, true
	}
	return "", false
}

func (t template) refs() []string {
	var out []string
	for _, p := range t.parts {
		if p.ref != "" {
			out = append(out, p.ref)
		}
	}
	return out
}

// scope gives the values of references while one request is rendered. A
// reference that is allowed but has no value (an optional parameter that was
// left out) is absent.
type scope map[string]any

// render puts t together; escape may be nil. Lists and tables have no text.
func (t template) render(s scope, escape func(string) (string, error)) (string, error) {
	var b strings.Builder
	for _, p := range t.parts {
		if p.ref == "" {
			b.WriteString(p.text)
			continue
		}
		v, ok := s[p.ref]
		if !ok {
			return "", fmt.Errorf("{{%s}} has no value", p.ref)
		}
		text, ok := provider.ScalarText(v)
		if !ok {
			return "", fmt.Errorf("{{%s}} is a list or a table, which only a JSON body can hold", p.ref)
		}
		if escape != nil {
			escaped, err := escape(text)
			if err != nil {
				return "", fmt.Errorf("{{%s}} %w", p.ref, err)
			}
			text = escaped
		}
		b.WriteString(text)
	}
	return b.String(), nil
}

// renderOptional is render, except that a template which is one parameter
// without a value is left out. A secret without one is a fault: the request
// would go out without its credential.
func (t template) renderOptional(s scope) (text string, present bool, err error) {
	if ref, ok := t.sole(); ok && strings.HasPrefix(ref, groupParam+".") {
		if _, has := s[ref]; !has {
			return "", false, nil
		}
	}
	text, err = t.render(s, nil)
	return text, err == nil, err
}

// escapeSegment makes text part of one segment of a path.
func escapeSegment(text string) (string, error) {
	switch text {
	case "":
		return "", errors.New("is empty, and would change the path")
	case ".", "..":
		return "", fmt.Errorf("is %q, and would change the path", text)
	}
	if hasControl(text) {
		return "", errors.New("holds a control character")
	}
	return url.PathEscape(text), nil
}

func hasControl(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f }) >= 0
}

// node is a JSON value whose strings are templates.
type node struct {
	tmpl   *template
	list   []node
	table  map[string]node
	scalar any // a number, a boolean or null
}

const (
	maxDepth = 16
	maxNodes = 2000
)

// parseNode reads a JSON body's declaration. budget counts down the nodes.
func parseNode(v any, depth int, budget *int) (node, error) {
	if *budget--; *budget < 0 {
		return node{}, fmt.Errorf("has more than %d parts", maxNodes)
	}
	if depth > maxDepth {
		return node{}, fmt.Errorf("is nested deeper than %d", maxDepth)
	}
	switch v := v.(type) {
	case string:
		t, err := parseTemplate(v)
		return node{tmpl: &t}, err
	case []any:
		n := node{list: []node{}}
		for _, one := range v {
			child, err := parseNode(one, depth+1, budget)
			if err != nil {
				return n, err
			}
			n.list = append(n.list, child)
		}
		return n, nil
	case []map[string]any: // as TOML gives an array of tables
		list := make([]any, len(v))
		for i := range v {
			list[i] = v[i]
		}
		return parseNode(list, depth, budget)
	case map[string]any:
		n := node{table: map[string]node{}}
		for key, one := range v {
			child, err := parseNode(one, depth+1, budget)
			if err != nil {
				return n, err
			}
			n.table[key] = child
		}
		return n, nil
	case nil, bool, json.Number, int, int64, float64:
		return node{scalar: v}, nil
	}
	return node{}, fmt.Errorf("holds a %T, which JSON has no word for", v)
}

// build gives the JSON value. A string that is one reference takes the
// referenced value with its type; a parameter without a value is left out of
// the table or list that holds it.
func (n node) build(s scope) (v any, present bool, err error) {
	switch {
	case n.tmpl != nil:
		if ref, ok := n.tmpl.sole(); ok {
			v, present = s[ref]
			if !present && !strings.HasPrefix(ref, groupParam+".") {
				err = fmt.Errorf("{{%s}} has no value", ref)
			}
			return v, present, err
		}
		text, err := n.tmpl.render(s, nil)
		return text, err == nil, err
	case n.list != nil:
		out := make([]any, 0, len(n.list))
		for _, one := range n.list {
			v, present, err := one.build(s)
			if err != nil {
				return nil, false, err
			}
			if present {
				out = append(out, v)
			}
		}
		return out, true, nil
	case n.table != nil:
		out := make(map[string]any, len(n.table))
		for key, one := range n.table {
			v, present, err := one.build(s)
			if err != nil {
				return nil, false, err
			}
			if present {
				out[key] = v
			}
		}
		return out, true, nil
	}
	return n.scalar, true, nil
}

// templates are all templates within n, in a fixed order.
func (n node) templates() []template {
	var out []template
	if n.tmpl != nil {
		out = append(out, *n.tmpl)
	}
	for _, one := range n.list {
		out = append(out, one.templates()...)
	}
	keys := make([]string, 0, len(n.table))
	for key := range n.table {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		out = append(out, n.table[key].templates()...)
	}
	return out
}
