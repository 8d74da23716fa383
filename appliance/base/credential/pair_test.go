package credential

import (
	"strings"
	"testing"
)

func TestPair(t *testing.T) {
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
		a, b, err := Pair([]byte(c.text), "a", "b")
		if (err == nil) != c.good || c.good && (a != "1" || b != "CANARY") || err != nil && strings.Contains(err.Error(), "CANARY") {
			t.Errorf("%s: %q, %q, %v", name, a, b, err)
		}
	}
}

func TestEAB(t *testing.T) {
	for name, c := range map[string]struct{ text, want, fault string }{
		"url-safe":   {"key_id = \"k\"\nmac_key = \"aGVsbG8_-w\"\n", "aGVsbG8_-w", ""},
		"standard":   {"key_id = \"k\"\nmac_key = \"aGVsbG8/+w==\"\n", "aGVsbG8_-w", ""},
		"not base64": {"key_id = \"k\"\nmac_key = \"canary!\"\n", "", "not base64"},
		"no key":     {"key_id = \"canary\"\n", "", "must hold"},
		"more":       {"key_id = \"k\"\nmac_key = \"aGVsbG8\"\ncanary = 1\n", "", "must hold"},
		"not TOML":   {"canary", "", "must hold"},
		"empty":      {"", "", "must hold"},
	} {
		t.Run(name, func(t *testing.T) {
			id, key, err := EAB([]byte(c.text))
			if c.fault == "" {
				if err != nil || id != "k" || key != c.want {
					t.Errorf("%q, %q, %v", id, key, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.fault) || strings.Contains(err.Error(), "canary") {
				t.Errorf("error = %v", err)
			}
		})
	}
}

func FuzzEAB(f *testing.F) {
	f.Add("key_id = \"k\"\nmac_key = \"aGVsbG8_-w\"\n")
	f.Add("key_id = 1")
	f.Fuzz(func(t *testing.T, text string) {
		id, key, err := EAB([]byte(text))
		if err == nil && (id == "" || key == "" || strings.ContainsAny(key, "+/=")) {
			t.Errorf("%q gives %q, %q", text, id, key)
		}
	})
}
