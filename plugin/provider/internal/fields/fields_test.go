package fields

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestReads(t *testing.T) {
	m := New("settings", map[string]any{
		"s": "text", "i": json.Number("7"), "istr": "8", "ifl": 9.0, "b": true, "bstr": "false",
		"d": "1m30s", "dsec": 5, "l": []any{"a", "b"}, "lcsv": "a, b,", "tl": []string{"x"},
		"sub":  map[string]any{"x": "y"},
		"list": []any{map[string]any{"n": "1"}, map[string]any{"n": "2"}},
		"toml": []map[string]any{{"n": "3"}},
		"null": nil,
	})
	for _, c := range []struct {
		name      string
		got, want any
	}{
		{"string", m.String("s", "", 10), "text"},
		{"default string", m.String("absent", "def", 10), "def"},
		{"null is absent", m.String("null", "def", 10), "def"},
		{"json number", m.Int("i", 0, 0, 10), 7},
		{"number as string", m.Int("istr", 0, 0, 10), 8},
		{"whole float", m.Int("ifl", 0, 0, 10), 9},
		{"bool", m.Bool("b", false), true},
		{"bool as string", m.Bool("bstr", true), false},
		{"duration", m.Duration("d", 0, 0, time.Hour), 90 * time.Second},
		{"seconds", m.Duration("dsec", 0, 0, time.Hour), 5 * time.Second},
		{"list", m.Strings("l", 5), []string{"a", "b"}},
		{"list in one string", m.Strings("lcsv", 5), []string{"a", "b"}},
		{"typed list", m.Strings("tl", 5), []string{"x"}},
		{"sub", m.Sub("sub").String("x", "", 5), "y"},
		{"list of tables", both(m.SubList("list", 5)), "12"},
		{"toml list of tables", m.SubList("toml", 5)[0].String("n", "", 5), "3"},
		{"no table", m.Sub("nosub") == nil, true},
	} {
		if !reflect.DeepEqual(c.got, c.want) {
			t.Errorf("%s: got %#v, want %#v", c.name, c.got, c.want)
		}
	}
	if err := m.Err(); err != nil {
		t.Fatal(err)
	}
}

func both(list []*Map) string {
	return list[0].String("n", "", 5) + list[1].String("n", "", 5)
}

func TestFaults(t *testing.T) {
	canary := "hunter2-secret"
	for _, c := range []struct {
		name, want string
		value      any
		read       func(m *Map)
	}{
		{"string is a number", "settings.f: must be a string, is a number", 3, func(m *Map) { m.String("f", "", 5) }},
		{"string too long", "settings.f: has 14 bytes, at most 5", canary, func(m *Map) { m.String("f", "", 5) }},
		{"not one of", `settings.f: "x" is not one of a, b`, "x", func(m *Map) { m.OneOf("f", "a", "a", "b") }},
		{"int out of range", "settings.f: 11 is not within 1 to 10", 11, func(m *Map) { m.Int("f", 1, 1, 10) }},
		{"int is a fraction", "must be a whole number, is a number", 1.5, func(m *Map) { m.Int("f", 1, 1, 10) }},
		{"int is huge", "must be a whole number", 1e300, func(m *Map) { m.Int("f", 1, 1, 10) }},
		{"int is text", "must be a whole number, is a string", canary, func(m *Map) { m.Int("f", 1, 1, 10) }},
		{"bool is text", `must be true or false, is "yes"`, "yes", func(m *Map) { m.Bool("f", false) }},
		{"bool is a number", "must be true or false, is a number", 1, func(m *Map) { m.Bool("f", false) }},
		{"duration is text", `"soon" is no duration`, "soon", func(m *Map) { m.Duration("f", 0, 0, 1) }},
		{"duration is a list", "must be a duration", []any{}, func(m *Map) { m.Duration("f", 0, 0, 1) }},
		{"duration too long", "2h0m0s is not within 0s to 1h0m0s", "2h", func(m *Map) { m.Duration("f", 0, 0, time.Hour) }},
		{"list of numbers", "entry 1 must be a string", []any{"a", 1}, func(m *Map) { m.Strings("f", 5) }},
		{"list is a number", "must be a list of strings", 1, func(m *Map) { m.Strings("f", 5) }},
		{"list too long", "has 3 entries, at most 2", "a,b,c", func(m *Map) { m.Strings("f", 2) }},
		{"sub is text", "must be a table of fields, is a string", "x", func(m *Map) { m.Sub("f") }},
		{"unknown in sub", "settings.f.typo: is not known here; known are right", map[string]any{"typo": 1}, func(m *Map) { m.Sub("f").String("right", "", 1) }},
		{"nothing known", "known are none", map[string]any{"typo": 1}, func(m *Map) { m.Sub("f") }},
		{"tables is text", "must be a list of tables", "x", func(m *Map) { m.SubList("f", 2) }},
		{"tables hold text", "entry 0 must be a table", []any{"x"}, func(m *Map) { m.SubList("f", 2) }},
		{"too many tables", "has 2 entries, at most 1", []map[string]any{{}, {}}, func(m *Map) { m.SubList("f", 1) }},
		{"path of a list entry", "settings.f[0].n: must be a string", []map[string]any{{"n": 1}}, func(m *Map) { m.SubList("f", 1)[0].String("n", "", 1) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := New("settings", map[string]any{"f": c.value})
			c.read(m)
			err := m.Err()
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q in it", err, c.want)
			}
			if strings.Contains(err.Error(), canary) {
				t.Fatalf("quotes a value of the wrong type, which may be a secret: %v", err)
			}
		})
	}
}

func TestAllFaultsAtOnce(t *testing.T) {
	m := New("", map[string]any{"a": 1, "b\n\"": 2, strings.Repeat("c", 100): 3})
	m.String("a", "", 1)
	err := m.Err()
	if n := len(strings.Split(err.Error(), "\n")); n != 3 {
		t.Fatalf("%d lines of faults, want 3 (names quoted, none with a raw newline):\n%v", n, err)
	}
}
