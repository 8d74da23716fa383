package appenv

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDerive(t *testing.T) {
	for _, tt := range []struct{ leaf, field, want string }{
		{"database-url", "value", "DATABASE_URL"},
		{"api-keys/provider-a", "value", "API_KEYS_PROVIDER_A"},
		{"aws-credentials", "access-key-id", "AWS_CREDENTIALS_ACCESS_KEY_ID"},
		{"Mixed.Case1", "value", "MIXED_CASE1"},
	} {
		if got := Derive(tt.leaf, tt.field); got != tt.want {
			t.Errorf("%s:%s is %q, want %q", tt.leaf, tt.field, got, tt.want)
		}
	}
}

func TestPut(t *testing.T) {
	l := &loader{from: map[string]string{}}
	if err := l.put("A", "secret-x", "one"); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct{ variable, value, want string }{
		"twice":   {"A", "secret-y", "one and two are both A"},
		"no name": {"1A", "secret-y", `"1A" is no name`},
		"equals":  {"A=B", "secret-y", "is no name"},
		"NUL":     {"B", "secret-y\x00", "NUL byte"},
	} {
		err := l.put(tt.variable, tt.value, "two")
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret-") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	for _, shown := range []string{fmt.Sprint(l.pairs), fmt.Sprintf("%v %+v %#v %s", l.pairs[0], l.pairs[0], l.pairs[0], l.pairs[0])} {
		if strings.Contains(shown, "secret-x") {
			t.Errorf("printing a pair shows its value: %s", shown)
		}
	}
}

func TestText(t *testing.T) {
	for _, tt := range []struct {
		v    any
		want string
	}{{"a", "a"}, {json.Number("12345678901234567890"), "12345678901234567890"}, {true, "true"}, {nil, ""}, {map[string]any{"a": []any{"b"}}, `{"a":["b"]}`}} {
		if got, err := text(tt.v); got != tt.want || err != nil {
			t.Errorf("%v is %q, %v", tt.v, got, err)
		}
	}
}

func TestReadMapping(t *testing.T) {
	file := filepath.Join(t.TempDir(), "m.toml")
	for name, tt := range map[string]struct {
		text string
		want []string
	}{
		"good":    {"format = 1\n[variables.A]\npath = \"a/p/x\"\n", nil},
		"several": {"format = 2\ncolour = 1\n[variables.A]\nengine = \"x\"\n", []string{`colour: unknown key`, "format: 2", `variables.A.engine: "x"`, "variables.A.path: is missing"}},
		"syntax":  {"format", []string{"m.toml:1: "}},
	} {
		if err := os.WriteFile(file, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := ReadMapping(file)
		if (err == nil) != (tt.want == nil) {
			t.Errorf("%s: got %v", name, err)
		}
		for _, want := range tt.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q is not in %q", name, want, err)
			}
		}
	}
}
