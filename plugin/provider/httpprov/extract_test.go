package httpprov

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func pathOf(t *testing.T, text string) *path {
	t.Helper()
	p, err := parsePath(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestDecode(t *testing.T) {
	for _, bad := range []string{"", " ", "{", "nonsense", `{"a":1}{"b":2}`, `{"a":1} x`, "\x00", `{"a":1,"a":2}`, `{"b":[{"a":"x"},{"a":"x","c":{"d":1,"e":{},"d":2}}]}`, `{"a":1,"\u0061":2}`,
		"{\"a\":\"caf\xe9\"}", "\xff\xfe{\x00}\x00", strings.Repeat("[", 20000)} {
		if v, err := decode([]byte(bad)); !errors.Is(err, errAnswer) {
			t.Errorf("%.30q: %v, %v", bad, v, err)
		}
	}
	if v, err := decode([]byte(" {\"n\": 12345678901234567890}\n")); err != nil || pathOf(t, "$.n").text(v) != "12345678901234567890" {
		t.Errorf("a large number is changed: %v, %v", v, err)
	}
	for _, good := range []string{"\ufeff{\"n\":\"1\"}", `{"n":"1","l":[{"n":2},{"n":2},"n","n"],"o":{"n":"1","l":"n"}}`} {
		if v, err := decode([]byte(good)); err != nil || pathOf(t, "$.n").text(v) != "1" {
			t.Errorf("%q: %v, %v", good, v, err)
		}
	}
}

func TestExtract(t *testing.T) {
	doc, err := decode([]byte(`{"id":"abc","n":42,"f":1.5,"e":1e3,"empty":"","null":null,"list":[{"x":"1"},{"x":"2"}],"dots":"..",
		"half":"x\ud800y","line":"a\nb","long":"` + strings.Repeat("x", maxValue+1) + `"}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ what, path, want, bad string }{
		{what: "id", path: "$.id", want: "abc"},
		{what: "id", path: "$.n", want: "42"},
		{what: "id", path: "$.f", bad: "not whole"},
		{what: "id", path: "$.e", bad: "not whole"},
		{what: "id", path: "$.empty", bad: "empty"},
		{what: "id", path: "$.dots", bad: "dot"},
		{what: "id", path: "$.line", bad: "control"},
		{what: "id", path: "$.long", bad: "more than 256"},
		{what: "id", path: "$.null", bad: "neither"},
		{what: "id", path: "$.absent", bad: "selects nothing"},
		{what: "id", path: "$.list[*].x", bad: "selects 2 values"},
		{what: "value", path: "$.id", want: "abc"},
		{what: "value", path: "$.list[0].x", want: "1"},
		{what: "value", path: "$.list[?@.x=='2'].x", want: "2"},
		{what: "value", path: "$.n", bad: "no string"},
		{what: "value", path: "$.half", bad: "no character"},
		{what: "value", path: "$.empty", bad: "is empty"},
		{what: "value", path: "$.absent", bad: "selects nothing"},
		{what: "value", path: "$.long", bad: "more than"},
		{what: "value", path: "$.list[*].x", bad: "selects 2"},
		{what: "text", path: "$.n", want: "42"},
		{what: "text", path: "$.null", want: ""},
		{what: "text", path: "$.list", want: ""},
		{what: "text", path: "$.list[*].x", want: ""},
	} {
		p := pathOf(t, tc.path)
		var got string
		var err error
		switch tc.what {
		case "id":
			got, err = p.id(doc)
		case "value":
			got, err = p.stringValue(doc)
		case "text":
			got = p.text(doc)
		}
		if tc.bad != "" {
			if err == nil || !strings.Contains(err.Error(), tc.bad) || !errors.Is(err, errAnswer) {
				t.Errorf("%s %s: %v, want %q", tc.what, tc.path, err, tc.bad)
			}
			continue
		}
		if err != nil || got != tc.want {
			t.Errorf("%s %s: %q, %v", tc.what, tc.path, got, err)
		}
	}
	for path, want := range map[string]int{"$.list": 2, "$.null": 0} {
		if l, err := pathOf(t, path).list(doc, false); err != nil || len(l) != want {
			t.Errorf("list %s: %v, %v", path, l, err)
		}
	}
	for _, path := range []string{"$.absent", "$.id", "$.list[*]"} {
		if l, err := pathOf(t, path).list(doc, false); !errors.Is(err, errAnswer) {
			t.Errorf("list %s: %v, %v", path, l, err)
		}
	}
	if l, err := pathOf(t, "$.absent").list(doc, true); err != nil || len(l) != 0 {
		t.Errorf("an absent list where that means none: %v, %v", l, err)
	}
	if l, err := pathOf(t, "$.absent").list("an error page", true); !errors.Is(err, errAnswer) {
		t.Errorf("an answer that is no table at all: %v, %v", l, err)
	}
	for _, bad := range []string{"", "id", "$..[", "$" + strings.Repeat(".x", 200)} {
		if _, err := parsePath(bad); err == nil {
			t.Errorf("%.20q is accepted as a path", bad)
		}
	}
}

func TestReadTime(t *testing.T) {
	want := time.Date(2026, 11, 24, 15, 4, 5, 0, time.UTC)
	for _, in := range []string{
		"2026-11-24T15:04:05Z", "2026-11-24T16:04:05+01:00", "2026-11-24T15:04:05+0000", "2026-11-24T15:04:05", "2026-11-24 15:04:05",
		"2026-11-24 15:04:05 UTC", "Tue, 24 Nov 2026 15:04:05 GMT", "Tue, 24 Nov 2026 15:04:05 +0000", "1795532645", "1795532645000", "1795532645.0",
	} {
		if got, ok := readTime(in); !ok || !got.Equal(want) {
			t.Errorf("%q: %v, %v", in, got, ok)
		}
	}
	if got, ok := readTime("2026-11-24"); !ok || !got.Equal(want.Truncate(24*time.Hour)) {
		t.Errorf("a date: %v, %v", got, ok)
	}
	for _, never := range []string{"", "0", "0001-01-01T00:00:00Z"} {
		if got, ok := readTime(never); !ok || !got.IsZero() {
			t.Errorf("%q: %v, %v; want never", never, got, ok)
		}
	}
	for _, bad := range []string{"yesterday", "-5", "1e300", "NaN", "2026-13-01", "Inf"} {
		if got, ok := readTime(bad); ok || !got.IsZero() {
			t.Errorf("%q: %v, %v; want unreadable", bad, got, ok)
		}
	}
}

func TestMask(t *testing.T) {
	m := &masker{}
	m.add("hunter2", "abc", "hunter2-and-more")
	for in, want := range map[string]string{
		"the token limit (50) is reached": "the token limit (50) is reached",
		"bad key hunter2 given":           "bad key ******** given",
		"hunter2-and-more!":               "********!",
		"abc is too short to be hidden":   "abc is too short to be hidden",
		"looks like sk-live-51Hx9aQ8z":    "looks like ********",
		"a_long_identifier_without_num":   "********",
		"authentication is required":      "authentication is required",
		"line\nbreak\x00and\ttab":         "line break and tab",
		"":                                "",
	} {
		if got := m.message(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	if got := m.message(strings.Repeat("hunter2 ", 99) + "hunter2"); strings.Contains(got, "hunter") {
		t.Errorf("half a secret stays: %q", got)
	}
	if got := m.message(strings.Repeat("word ", 1000)); len(got) > maxMessage+len("…") {
		t.Errorf("%d bytes", len(got))
	}
}
