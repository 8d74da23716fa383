package fields

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
)

func TestReadHeldTo(t *testing.T) {
	whole := map[string]any{"held_to": "specification", "held_to_date": "2026-11-29", "held_to_source": "a module 1.2"}
	for name, c := range map[string]struct {
		change map[string]any
		says   string
	}{
		"nothing":        {map[string]any{"held_to": nil, "held_to_date": nil, "held_to_source": nil}, ""},
		"whole":          {nil, ""},
		"another level":  {map[string]any{"held_to": "hope"}, "held_to"},
		"no date":        {map[string]any{"held_to_date": nil}, "needs held_to_date"},
		"no source":      {map[string]any{"held_to_source": nil}, "needs held_to_date"},
		"no such day":    {map[string]any{"held_to_date": "2026-02-30"}, "is no date"},
		"another format": {map[string]any{"held_to_date": "29.11.2026"}, "is no date"},
	} {
		t.Run(name, func(t *testing.T) {
			in := map[string]any{}
			for _, from := range []map[string]any{whole, c.change} {
				for k, v := range from {
					in[k] = v
				}
			}
			m := New("settings", in)
			ReadHeldTo(m)
			err := m.Err()
			if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, want %q", err, c.says)
			}
		})
	}
}

// Text takes what looked like a number to vault write, and never one that has lost
// digits.
func TestTextAndWholeNumbers(t *testing.T) {
	for _, c := range []struct {
		in   any
		want string
		ok   bool
	}{
		{"a", "a", true}, {json.Number("0123"), "0123", true}, {7, "7", true}, {int64(math.MaxInt64), "9223372036854775807", true},
		{9.0, "9", true}, {1e300, "", false}, {1.5, "", false}, {true, "", false}, {nil, "", false}, {[]any{"a"}, "", false},
	} {
		if got, ok := Text(c.in); got != c.want || ok != c.ok {
			t.Errorf("Text(%#v): %q, %v", c.in, got, ok)
		}
	}
	m := New("settings", map[string]any{"n": json.Number("9007199254740993"), "t": 5, "list": []any{"a"}, "table": map[string]any{}, "long": "abcdef", "yes": true})
	if n, s := m.Int64("n", 1), m.Text("t", "", 3); n != 9007199254740993 || s != "5" {
		t.Errorf("%d, %q", n, s)
	}
	if n, s := m.Int64("absent", 4), m.Text("none", "def", 3); n != 4 || s != "def" {
		t.Errorf("defaults %d, %q", n, s)
	}
	m.Int64("list", 0)
	m.Int64("yes", 0)
	m.Text("table", "", 3)
	m.Text("long", "", 3)
	said := m.Err().Error()
	for _, want := range []string{"settings.list: must be a whole number, is a list", "settings.yes: must be a whole number, is a boolean",
		"settings.table: must be a string, is a table", "settings.long: has 6 bytes, at most 3 are allowed"} {
		if !strings.Contains(said, want) {
			t.Errorf("%q lacks %q", said, want)
		}
	}
}
