package httpprov

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"

	"strongroom.example/plugin/provider/internal/fields"
)

const (
	maxParams    = 50
	maxParamJSON = 32 << 10 // bytes of a list or table, written as JSON
	maxParamText = 4 << 10
)

// A parameter is what a key's definition may, or must, say.
type parameter struct {
	kind     string // string, integer, boolean, list, table
	required bool
	def      any // nil: none
	allowed  []string
	pattern  *regexp.Regexp // of a whole string; nil: any
	min, max int64          // of an integer
}

// present tells whether the parameter always has a value.
func (p parameter) present() bool { return p.required || p.def != nil }

// readParameters reads the declarations under settings.parameters.
func readParameters(m *fields.Map) map[string]parameter {
	out := map[string]parameter{}
	if m == nil {
		return out
	}
	if len(m.Names()) > maxParams {
		m.Fail("", "declares %d parameters, at most %d are allowed", len(m.Names()), maxParams)
		return out
	}
	for _, name := range m.Names() {
		if !validName(name) {
			m.Value(name)
			m.Fail(name, "is no name: only letters, digits, _ and - are allowed, at most 64")
			continue
		}
		d := m.Sub(name)
		if d == nil {
			continue
		}
		p := parameter{
			kind:     d.OneOf("type", "string", "string", "integer", "boolean", "list", "table"),
			required: d.Bool("required", false),
			allowed:  d.Strings("allowed", 100),
			pattern:  readPattern(d, "pattern"),
			min:      d.Int64("min", math.MinInt64),
			max:      d.Int64("max", math.MaxInt64),
		}
		if p.pattern != nil && p.kind != "string" {
			d.Fail("pattern", "is only for parameters of type string")
		}
		for _, bound := range []string{"min", "max"} {
			if d.Has(bound) && p.kind != "integer" {
				d.Fail(bound, "is only for parameters of type integer")
			}
		}
		if p.min > p.max {
			d.Fail("min", "%d is above max, %d", p.min, p.max)
		}
		d.String("description", "", 1000)
		if v := d.Value("default"); v != nil {
			if p.required {
				d.Fail("default", "cannot stand beside required = true")
			}
			checked, err := p.check(v)
			if err != nil {
				d.Fail("default", "%v", err)
			}
			p.def = checked
		}
		if len(p.allowed) > 0 && p.kind != "string" {
			d.Fail("allowed", "is only for parameters of type string")
		}
		out[name] = p
	}
	return out
}

// readPattern reads a regular expression (RE2) that must fit a whole text.
func readPattern(m *fields.Map, name string) *regexp.Regexp {
	text := m.String(name, "", 500)
	if text == "" {
		return nil
	}
	_, err := regexp.Compile(text) // by itself: it must not close the group around it
	re, wrapErr := regexp.Compile(`^(?:` + text + `)$`)
	if err != nil || wrapErr != nil {
		m.Fail(name, "%.100q is no regular expression (RE2)", text)
		return nil
	}
	return re
}

// check gives v as the declared type.
func (p parameter) check(v any) (any, error) {
	switch p.kind {
	case "string":
		s, ok := fields.Text(v)
		switch {
		case !ok:
			return nil, errors.New("must be a string")
		case len(s) > maxParamText:
			return nil, fmt.Errorf("has %d bytes, at most %d are allowed", len(s), maxParamText)
		case hasControl(s):
			return nil, errors.New("holds a control character")
		case len(p.allowed) > 0 && !slices.Contains(p.allowed, s):
			return nil, fmt.Errorf("%.60q is not one of %s", s, strings.Join(p.allowed, ", "))
		case p.pattern != nil && !p.pattern.MatchString(s):
			return nil, fmt.Errorf("%.60q is not of the form %s", s, p.pattern)
		}
		return s, nil
	case "integer":
		n, ok := fields.Integer(v)
		if !ok {
			return nil, errors.New("must be a whole number")
		}
		if n < p.min || n > p.max {
			return nil, fmt.Errorf("%d is not within %d to %d", n, p.min, p.max)
		}
		return n, nil
	case "boolean":
		if s, ok := v.(string); ok && (s == "true" || s == "false") {
			return s == "true", nil
		}
		if b, ok := v.(bool); ok {
			return b, nil
		}
		return nil, errors.New("must be true or false")
	}
	// The vault CLI can only hand over text: JSON in it is as good.
	if s, ok := v.(string); ok {
		if len(s) > maxParamJSON {
			return nil, fmt.Errorf("has more than %d bytes", maxParamJSON)
		}
		decoded, err := decode([]byte(s))
		if err != nil {
			return nil, fmt.Errorf("must be a %s, or one written as JSON", p.kind)
		}
		v = decoded
	}
	switch v.(type) {
	case []any, []string, []map[string]any:
		if p.kind != "list" {
			return nil, errors.New("must be a table")
		}
	case map[string]any:
		if p.kind != "table" {
			return nil, errors.New("must be a list")
		}
	default:
		return nil, fmt.Errorf("must be a %s", p.kind)
	}
	text, err := json.Marshal(v)
	switch {
	case err != nil:
		return nil, errors.New("cannot be written as JSON")
	case len(text) > maxParamJSON:
		return nil, fmt.Errorf("has %d bytes as JSON, at most %d are allowed", len(text), maxParamJSON)
	}
	return v, nil
}

// resolve checks a key's parameters against the declarations and adds the
// defaults. All faults come at once.
func resolve(declared map[string]parameter, params map[string]any) (scope, error) {
	s := scope{}
	m := fields.New("parameters", params)
	names := make([]string, 0, len(declared))
	for name := range declared {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		p := declared[name]
		v := m.Value(name)
		if v == nil {
			switch {
			case p.required:
				m.Fail(name, "is required")
			case p.def != nil:
				s[groupParam+"."+name] = p.def
			}
			continue
		}
		checked, err := p.check(v)
		if err != nil {
			m.Fail(name, "%v", err)
			continue
		}
		s[groupParam+"."+name] = checked
	}
	return s, m.Err()
}
