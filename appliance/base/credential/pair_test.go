package credential

import (
	"strings"
	"testing"
)

func TestEAB(t *testing.T) {
	for name, c := range map[string]struct{ text, want, fault string }{
		"url-safe":   {"key_id = \"k\"\nmac_key = \"aGVsbG8_-w\"\n", "aGVsbG8_-w", ""},
		"standard":   {"key_id = \"k\"\nmac_key = \"aGVsbG8/+w==\"\n", "aGVsbG8_-w", ""},
		"not base64": {"key_id = \"k\"\nmac_key = \"canary!\"\n", "", "not base64"},
		"no key":     {"key_id = \"canary\"\n", "", "F: mac_key: is missing"},
		"more":       {"key_id = \"k\"\nmac_key = \"aGVsbG8\"\ncanary = 1\n", "", "F:3: unknown key; known here: "},
		"not TOML":   {"canary", "", "F:1: "},
		"empty":      {"", "", "key_id: is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			id, key, err := EAB("F", []byte(c.text))
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
		id, key, err := EAB("F", []byte(text))
		if err == nil && (id == "" || key == "" || strings.ContainsAny(key, "+/=")) {
			t.Errorf("%q gives %q, %q", text, id, key)
		}
	})
}
