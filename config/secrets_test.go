package config

import (
	"strings"
	"testing"
)

func TestDecodePair(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		good bool
	}{
		"both":         {"a = \"1\"\n# note\nb = \"CANARY\"\n", true},
		"one":          {"b = \"CANARY\"\n", false},
		"empty":        {"a = \"\"\nb = \"CANARY\"\n", false},
		"more":         {"a = \"1\"\nb = \"CANARY\"\nc = 1\n", false},
		"another case": {"A = \"1\"\nb = \"CANARY\"\n", false},
		"a number":     {"a = 1\nb = \"CANARY\"\n", false},
		"no TOML":      {"a = CANARY\n", false},
		"twice":        {"a = \"1\"\nb = \"CANARY\"\nb = \"CANARY\"\n", false},
		"nothing":      {"", false},
	} {
		a, b, err := DecodePair("F", []byte(c.text), "a", "b")
		if (err == nil) != c.good || c.good && (a != "1" || b != "CANARY") || err != nil && strings.Contains(err.Error(), "CANARY") {
			t.Errorf("%s: %q, %q, %v", name, a, b, err)
		}
	}
}
