package rules

import (
	"regexp"
	"strings"
	"testing"
)

func defaults(t testing.TB) *Set {
	t.Helper()
	s, err := Default()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestEveryRuleCompiles(t *testing.T) {
	s := defaults(t)
	if len(s.rules) < 200 {
		t.Fatalf("only %d rules", len(s.rules))
	}
	for _, r := range s.rules {
		re, err := regexp.Compile(r.Regex)
		if err != nil {
			t.Errorf("%s: %v", r.ID, err)
			continue
		}
		if r.SecretGroup > re.NumSubexp() {
			t.Errorf("%s: group %d of %d", r.ID, r.SecretGroup, re.NumSubexp())
		}
		for _, a := range r.Allowlists {
			for _, x := range a.Regexes {
				if _, err := regexp.Compile(x); err != nil {
					t.Errorf("%s: %v", r.ID, err)
				}
			}
		}
	}
	for _, x := range s.global.Regexes {
		if _, err := regexp.Compile(x); err != nil {
			t.Error(err)
		}
	}
}

func TestParseRefusesTheUnknown(t *testing.T) {
	for name, text := range map[string]string{
		"key":    "[[rules]]\nid = \"x\"\nregex = \"y\"\nrequired = [1]\n",
		"syntax": "[[rules",
		"empty":  "[[rules]]\nid = \"x\"\n",
	} {
		if _, err := parse(text); err == nil {
			t.Errorf("%s: want an error", name)
		}
	}
}

// The parts keep scanners of this repository from seeing tokens in it.
func TestMatch(t *testing.T) {
	s := defaults(t)
	tests := []struct {
		name, text, want string
	}{
		{"GitHub", `T="` + "gh" + "p_" + `8wHk3VzYq0LmN5RbTxJc7GdFuPsEa2QiXo91"`, "github-pat"},
		{"AWS id", `AWS_ACCESS_KEY_ID="` + "AK" + `IAZ5GNQ7WPLR2XTUVB"`, "aws-access-token"},
		{"documentation's AWS id", `AWS_ACCESS_KEY_ID="` + "AK" + `IAIOSFODNN7EXAMPLE"`, ""},
		{"generic", `PROVIDER_TOKEN="q8Zr2Lw0Xv6Kt9Bn3Yc1"`, "generic-api-key"},
		{"reference", `PROVIDER_TOKEN="${OTHER_TOKEN}"`, ""},
		{"plain", `LOG_LEVEL="debug"`, ""},
		{"private key", "K=\"-----BEGIN RSA PRIVATE " + "KEY-----\n" + strings.Repeat("MIIEpAIBAAKCAQEA7", 8) + "\n-----END RSA PRIVATE KEY-----\"", "private-key"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := strings.Join(s.Match(tt.text), " "); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	if !s.Allowed("xxxxxxxx") || s.Allowed("q8Zr2Lw0Xv6Kt9Bn3Yc1") {
		t.Error("placeholders")
	}
}

func TestEntropy(t *testing.T) {
	for s, want := range map[string]float64{"": 0, "aaaa": 0, "abab": 1, "abcd": 2} {
		if got := Entropy(s); got != want {
			t.Errorf("%q: %v, want %v", s, got, want)
		}
	}
}
