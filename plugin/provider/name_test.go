package provider

import (
	"strings"
	"testing"
)

func TestCheckName(t *testing.T) {
	for _, tc := range []struct {
		name, in string
		ok       bool
	}{
		{"usual", "sr-4f2a_Prod-7", true},
		{"longest", strings.Repeat("a", MaxNameBytes), true},
		{"empty", "", false},
		{"one too long", strings.Repeat("a", MaxNameBytes+1), false},
		{"slash", "a/b", false},
		{"quote", `a"b`, false},
		{"newline", "a\nb", false},
		{"not ascii", "ä", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if err := CheckName(tc.in); (err == nil) != tc.ok {
				t.Fatalf("CheckName(%q) = %v, want ok=%v", tc.in, err, tc.ok)
			}
		})
	}
}
