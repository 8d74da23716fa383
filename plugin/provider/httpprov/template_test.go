package httpprov

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

func TestParseTemplate(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want []part
		bad  string
	}{
		{in: "", want: nil},
		{in: "plain", want: []part{{text: "plain"}}},
		{in: "{{name}}", want: []part{{ref: "name"}}},
		{in: "a{{ param.x-1 }}b{{value.key}}", want: []part{{text: "a"}, {ref: "param.x-1"}, {text: "b"}, {ref: "value.key"}}},
		{in: "{ } single", want: []part{{text: "{ } single"}}},
		{in: "{{", bad: "without }}"},
		{in: "{{name", bad: "without }}"},
		{in: "name}}", bad: "without {{"},
		{in: "{{name}}}}", bad: "without {{"},
		{in: "{{}}", bad: "no reference"},
		{in: "{{a b}}", bad: "no reference"},
		{in: "{{.name}}", bad: "no reference"},
		{in: "{{param}}", bad: "no reference"},
		{in: "{{param.}}", bad: "no reference"},
		{in: "{{param.a.b}}", bad: "no reference"},
		{in: "{{secret.x}}", bad: "no reference"},
		{in: "{{{{name}}}}", bad: "no reference"},
		{in: `{{printf "x"}}`, bad: "no reference"},
		{in: strings.Repeat("x", maxTemplate+1), bad: "bytes"},
	} {
		got, err := parseTemplate(tc.in)
		if tc.bad != "" {
			if err == nil || !strings.Contains(err.Error(), tc.bad) {
				t.Errorf("%.40q: %v, want %q", tc.in, err, tc.bad)
			}
			continue
		}
		if err != nil || !reflect.DeepEqual(got.parts, tc.want) {
			t.Errorf("%q: %+v, %v", tc.in, got.parts, err)
		}
	}
}

func must(t *testing.T, text string) template {
	t.Helper()
	tmpl, err := parseTemplate(text)
	if err != nil {
		t.Fatal(err)
	}
	return tmpl
}

func TestRender(t *testing.T) {
	s := scope{"name": `a"b`, "param.n": json.Number("7"), "param.b": true, "param.l": []any{"x"}, "param.i": int64(-1), "param.f": 1.5, "param.int": 3}
	for _, tc := range []struct{ in, want, bad string }{
		{in: "x-{{name}}-{{param.n}}-{{param.b}}-{{param.i}}-{{param.f}}-{{param.int}}", want: `x-a"b-7-true--1-1.5-3`},
		{in: "{{param.absent}}", bad: "{{param.absent}} has no value"},
		{in: "{{param.l}}", bad: "list or a table"},
	} {
		got, err := must(t, tc.in).render(s, nil)
		if tc.bad != "" {
			if err == nil || !strings.Contains(err.Error(), tc.bad) {
				t.Errorf("%q: %v, want %q", tc.in, err, tc.bad)
			}
			continue
		}
		if err != nil || got != tc.want {
			t.Errorf("%q: %q, %v", tc.in, got, err)
		}
	}
	if _, present, err := must(t, "{{param.absent}}").renderOptional(s); present || err != nil {
		t.Errorf("an absent value alone is left out: %v, %v", present, err)
	}
	if _, _, err := must(t, "x{{param.absent}}").renderOptional(s); err == nil {
		t.Error("an absent value within text is no error")
	}
}

func TestEscapeSegment(t *testing.T) {
	for in, want := range map[string]string{
		"plain": "plain", "a/b": "a%2Fb", "a b": "a%20b", "?#&": "%3F%23&", "ü": "%C3%BC", "a..b": "a..b", "%2F": "%252F",
	} {
		if got, err := escapeSegment(in); err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", in, got, err, want)
		}
	}
	for _, bad := range []string{"", ".", "..", "a\nb", "\x00", "\x7f"} {
		if got, err := escapeSegment(bad); err == nil {
			t.Errorf("%q is accepted as %q", bad, got)
		}
	}
}

func TestBody(t *testing.T) {
	parse := func(text string) node {
		t.Helper()
		v, err := decode([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		budget := maxNodes
		n, err := parseNode(v, 0, &budget)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	s := scope{"name": "x\",\"admin\":true,\"y\":\"\n", "param.l": []any{"r", json.Number("1")}, "param.t": map[string]any{"k": nil}}
	n := parse(`{"name":"{{name}}","mixed":"n={{name}}","scopes":"{{param.l}}","t":"{{param.t}}","gone":"{{param.absent}}",
		"list":["a","{{param.absent}}","{{param.l}}"],"n":1.50,"null":null,"b":false,"empty":{},"none":[]}`)
	v, _, err := n.build(s)
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"b":false,"empty":{},"list":["a",["r",1]],"mixed":"n=x\",\"admin\":true,\"y\":\"\n","n":1.50,"name":"x\",\"admin\":true,\"y\":\"\n","none":[],"null":null,"scopes":["r",1],"t":{"k":null}}`
	if string(got) != want {
		t.Errorf("got\n%s, want\n%s", got, want)
	}
	for _, bad := range []string{`{"a":["x{{param.absent}}"]}`, `{"a":{"b":"x{{param.l}}"}}`} {
		if _, _, err := parse(bad).build(s); err == nil {
			t.Errorf("%s is built", bad)
		}
	}
}

func TestBodyLimits(t *testing.T) {
	deep := any("x")
	for range maxDepth + 1 {
		deep = []any{deep}
	}
	wide := make([]any, maxNodes)
	for name, v := range map[string]any{
		"too deep": deep, "too many": wide, "bad template": map[string]any{"a": []any{"{{"}}, "odd type": struct{}{},
	} {
		budget := maxNodes
		if _, err := parseNode(v, 0, &budget); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}
