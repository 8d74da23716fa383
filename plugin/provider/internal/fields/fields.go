// Package fields reads a provider's settings and a key's parameters out of
// the loosely typed maps that Vault hands over, strictly: every name must be
// known, every value within its bounds, and all faults are reported at once
// with the path of the field.
//
// It is not a general decoder. It accepts a number or a boolean written as a
// string too, because `vault write` sends everything as strings.
package fields

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"strongroom.example/plugin/provider"
)

// maxShown is how many bytes of a bad value an error quotes.
const maxShown = 60

// Map is one map being read. Reads mark their names as known; Err then reports
// the rest as unknown. It is for one goroutine.
type Map struct {
	path   string
	values map[string]any
	known  map[string]bool
	faults *[]error
	subs   *[]*Map
}

// New begins to read values, whose fields are reported as path.name.
func New(path string, values map[string]any) *Map {
	return &Map{path: path, values: values, known: map[string]bool{}, faults: new([]error), subs: new([]*Map)}
}

// Err is every fault found, in the order of reading, and then every unknown
// name. Call it once, on the outermost map, after all reads.
func (m *Map) Err() error {
	for _, one := range append([]*Map{m}, *m.subs...) {
		for _, name := range one.Names() {
			if !one.known[name] {
				one.Fail(name, "is not known here; known are %s", one.knownNames())
			}
		}
	}
	return errors.Join(*m.faults...)
}

func (m *Map) knownNames() string {
	names := make([]string, 0, len(m.known))
	for name := range m.known {
		names = append(names, name)
	}
	if len(names) == 0 {
		return "none"
	}
	sort.Strings(names)
	return strings.Join(names, ", ")
}

// Fail records a fault of the field name; an empty name is the map itself.
func (m *Map) Fail(name, format string, args ...any) {
	*m.faults = append(*m.faults, fmt.Errorf("%s: %s", m.Path(name), fmt.Sprintf(format, args...)))
}

// Path is the full path of the field name.
func (m *Map) Path(name string) string {
	switch {
	case name == "":
		return m.path
	case m.path == "":
		return show(name)
	default:
		return m.path + "." + show(name)
	}
}

// show keeps a plain name plain and quotes and shortens any other.
func show(name string) string {
	plain := name != "" && len(name) <= maxShown && strings.IndexFunc(name, func(r rune) bool {
		return r != '_' && r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	}) < 0
	if plain {
		return name
	}
	return quote(name)
}

func quote(s string) string {
	if len(s) > maxShown {
		return strconv.Quote(s[:maxShown]) + "…"
	}
	return strconv.Quote(s)
}

// Has tells whether the field is there and not null.
func (m *Map) Has(name string) bool {
	v, ok := m.values[name]
	return ok && v != nil
}

// Names are the names that are there, sorted.
func (m *Map) Names() []string {
	names := make([]string, 0, len(m.values))
	for name := range m.values {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// Value marks the field as known and gives it as it is.
func (m *Map) Value(name string) any {
	m.known[name] = true
	return m.values[name]
}

// String reads a string of at most max bytes; def where it is absent.
func (m *Map) String(name, def string, max int) string {
	v := m.Value(name)
	if v == nil {
		return def
	}
	s, ok := v.(string)
	if !ok {
		m.Fail(name, "must be a string, is %s", kind(v))
		return def
	}
	if len(s) > max {
		m.Fail(name, "has %d bytes, at most %d are allowed", len(s), max)
		return def
	}
	return s
}

// OneOf reads a string that must be one of allowed.
func (m *Map) OneOf(name, def string, allowed ...string) string {
	s := m.String(name, def, 1<<16)
	if !slices.Contains(allowed, s) {
		m.Fail(name, "%s is not one of %s", quote(s), strings.Join(allowed, ", "))
		return def
	}
	return s
}

// Int reads a whole number from min to max; def where it is absent.
func (m *Map) Int(name string, def, min, max int) int {
	v := m.Value(name)
	if v == nil {
		return def
	}
	n, ok := Integer(v)
	if !ok {
		m.Fail(name, "must be a whole number, is %s", kind(v))
		return def
	}
	if n < int64(min) || n > int64(max) {
		m.Fail(name, "%d is not within %d to %d", n, min, max)
		return def
	}
	return int(n)
}

// Int64 is Int for the whole range.
func (m *Map) Int64(name string, def int64) int64 {
	v := m.Value(name)
	if v == nil {
		return def
	}
	n, ok := Integer(v)
	if !ok {
		m.Fail(name, "must be a whole number, is %s", kind(v))
		return def
	}
	return n
}

// Text reads v as text: a string, or a number as it was written, because
// `vault write` makes a number of what looks like one. A number that a float
// cannot hold exactly is refused.
func Text(v any) (string, bool) {
	switch v.(type) {
	case bool:
		return "", false
	case float64:
		if _, ok := Integer(v); !ok {
			return "", false
		}
	}
	return provider.ScalarText(v)
}

// Text reads a field as Text does; def where it is absent.
func (m *Map) Text(name, def string, max int) string {
	v := m.Value(name)
	if v == nil {
		return def
	}
	s, ok := Text(v)
	if !ok {
		m.Fail(name, "must be a string, is %s", kind(v))
		return def
	}
	if len(s) > max {
		m.Fail(name, "has %d bytes, at most %d are allowed", len(s), max)
		return def
	}
	return s
}

// Integer reads v as a whole number, whatever type carries it.
func Integer(v any) (int64, bool) {
	switch n := v.(type) {
	case int:
		return int64(n), true
	case int64:
		return n, true
	case float64:
		if n != math.Trunc(n) || math.Abs(n) >= 1<<53 { // from there on, digits are lost
			return 0, false
		}
		return int64(n), true
	case json.Number:
		i, err := n.Int64()
		return i, err == nil
	case string:
		i, err := strconv.ParseInt(n, 10, 64)
		return i, err == nil
	}
	return 0, false
}

// Bool reads true or false; def where it is absent.
func (m *Map) Bool(name string, def bool) bool {
	switch b := m.Value(name).(type) {
	case nil:
		return def
	case bool:
		return b
	case string:
		if b == "true" || b == "false" {
			return b == "true"
		}
		m.Fail(name, "must be true or false, is %s", quote(b))
	default:
		m.Fail(name, "must be true or false, is %s", kind(b))
	}
	return def
}

// Duration reads a length of time, as "30s" or as a number of seconds.
func (m *Map) Duration(name string, def, min, max time.Duration) time.Duration {
	v := m.Value(name)
	if v == nil {
		return def
	}
	var d time.Duration
	if n, ok := Integer(v); ok && n >= 0 && n <= int64(math.MaxInt64/time.Second) {
		d = time.Duration(n) * time.Second
	} else if s, isString := v.(string); isString {
		parsed, err := time.ParseDuration(s)
		if err != nil {
			m.Fail(name, `%s is no duration such as "30s"`, quote(s))
			return def
		}
		d = parsed
	} else {
		m.Fail(name, `must be a duration such as "30s" or a number of seconds, is %s`, kind(v))
		return def
	}
	if d < min || d > max {
		m.Fail(name, "%s is not within %s to %s", d, min, max)
		return def
	}
	return d
}

// Strings reads a list of at most max strings. One string alone counts as a
// list, split at commas.
func (m *Map) Strings(name string, max int) []string {
	var out []string
	switch list := m.Value(name).(type) {
	case nil:
		return nil
	case string:
		for s := range strings.SplitSeq(list, ",") {
			if s = strings.TrimSpace(s); s != "" {
				out = append(out, s)
			}
		}
	case []string:
		out = slices.Clone(list)
	case []any:
		for i, v := range list {
			s, ok := v.(string)
			if !ok {
				m.Fail(name, "entry %d must be a string, is %s", i, kind(v))
				continue
			}
			out = append(out, s)
		}
	default:
		m.Fail(name, "must be a list of strings, is %s", kind(list))
	}
	if len(out) > max {
		m.Fail(name, "has %d entries, at most %d are allowed", len(out), max)
		return nil
	}
	return out
}

// Sub reads a map within this one; nil where it is absent. Its faults and
// unknown names are reported by this map's Err.
func (m *Map) Sub(name string) *Map {
	v := m.Value(name)
	if v == nil {
		return nil
	}
	values, ok := v.(map[string]any)
	if !ok {
		m.Fail(name, "must be a table of fields, is %s", kind(v))
		return nil
	}
	return m.sub(m.Path(name), values)
}

// SubList reads a list of at most max maps.
func (m *Map) SubList(name string, max int) []*Map {
	var values []map[string]any
	switch list := m.Value(name).(type) {
	case nil:
		return nil
	case []map[string]any: // as a TOML array of tables is decoded
		values = list
	case []any:
		for i, v := range list {
			one, ok := v.(map[string]any)
			if !ok {
				m.Fail(name, "entry %d must be a table of fields, is %s", i, kind(v))
				continue
			}
			values = append(values, one)
		}
	default:
		m.Fail(name, "must be a list of tables, is %s", kind(list))
	}
	if len(values) > max {
		m.Fail(name, "has %d entries, at most %d are allowed", len(values), max)
		return nil
	}
	out := make([]*Map, 0, len(values))
	for i, one := range values {
		out = append(out, m.sub(fmt.Sprintf("%s[%d]", m.Path(name), i), one))
	}
	return out
}

func (m *Map) sub(path string, values map[string]any) *Map {
	s := &Map{path: path, values: values, known: map[string]bool{}, faults: m.faults, subs: m.subs}
	*m.subs = append(*m.subs, s)
	return s
}

// kind names a value's type as a person who writes JSON or TOML knows it,
// without the value: it may be a credential in the wrong place.
func kind(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case string:
		return "a string"
	case bool:
		return "a boolean"
	case int, int64, float64, json.Number:
		return "a number"
	case []any, []string, []map[string]any:
		return "a list"
	case map[string]any:
		return "a table"
	}
	return fmt.Sprintf("a %T", v)
}
