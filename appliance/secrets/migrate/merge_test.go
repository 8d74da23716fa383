package migrate

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"strongroom.example/appliance/secrets/dotenv"
)

// A rollback gives back what was taken, and keeps what was done since.
func TestUndo(t *testing.T) {
	tests := []struct {
		name, old, after, now, want string
		superseded                  string
		conflict                    bool
	}{
		{name: "untouched", old: "A=1\nP=2\n", after: "P=2\n", now: "P=2\n", want: "A=1\nP=2\n"},
		{name: "never cut", old: "A=1\nP=2\n", after: "P=2\n", now: "A=1\nP=2\n", want: "A=1\nP=2\n"},
		{name: "one added behind", old: "A=1\n", after: "", now: "B=2\n", want: "A=1\nB=2\n"},
		{name: "one added in front", old: "P=1\nA=1\n", after: "P=1\n", now: "B=2\nP=1\n", want: "B=2\nP=1\nA=1\n"},
		{name: "in the middle", old: "P=1\nA=1\nQ=2\n", after: "P=1\nQ=2\n", now: "P=1\nB=x\nQ=3\n", want: "P=1\nA=1\nB=x\nQ=3\n"},
		{name: "no newline at the end", old: "A=1", after: "", now: "B=2", want: "A=1\nB=2"},
		{name: "no newline before", old: "P=1\nA=1", after: "P=1\n", now: "P=2", want: "A=1\nP=2"},
		{name: "emptied", old: "P=1\nA=1\nB=2\n", after: "P=1\n", now: "", want: "A=1\nB=2\n"},
		{name: "there again", old: "A=1\nB=2\n", after: "", now: "A=1\n", want: "B=2\nA=1\n"},
		{name: "there again, newer", old: "A=1\nB=2\n", after: "", now: "A=9\n", want: "B=2\nA=9\n", superseded: "A"},
		{name: "into quotes", old: "P=1\nA=1\n", after: "P=1\n", now: "Q='x\nP=1\ny'\n", want: "Q='x\nP=1\ny'\nA=1\n"},
		{name: "many lines", old: "A='1\n2'\nP=1\n", after: "P=1\n", now: "P=1\nB=1\n", want: "A='1\n2'\nP=1\nB=1\n"},
		{name: "CRLF", old: "A=1\r\nP=1\r\n", after: "P=1\r\n", now: "P=2\r\n", want: "A=1\r\nP=2\r\n"},
		{name: "malformed now", old: "A=1\n", after: "", now: "B='\n", conflict: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k := kept{name: ".env", data: []byte(tt.old), after: []byte(tt.after), dialect: dotenv.Python}
			got, superseded, err := undo([]byte(tt.now), k)
			if (err != nil) != tt.conflict || string(got) != tt.want || strings.Join(superseded, " ") != tt.superseded {
				t.Fatalf("got %q, %q, %v", got, superseded, err)
			}
			if err != nil {
				return
			}
			if again, _, err := undo(got, k); err != nil || string(again) != string(got) {
				t.Errorf("a second time: %q, %v", again, err)
			}
		})
	}
}

func TestMerge3(t *testing.T) {
	split := func(s string) []string { return strings.Split(s, "") }
	for _, tt := range []struct{ base, mine, theirs, want string }{
		{"abc", "abc", "abc", "abc"}, {"abc", "xabc", "abcy", "xabcy"}, {"abc", "ac", "abcd", "acd"}, {"abcde", "aBcde", "abcDe", "aBcDe"},
		{"abc", "aXc", "aXc", "aXc"}, {"abc", "aXc", "aYc", ""}, {"abc", "aXbc", "aBc", "aXBc"}, {"abc", "aBc", "abXc", "aBXc"}, {"abc", "aXBc", "aBc", "aXBc"}, {"", "a", "b", ""}, {"", "a", "", "a"}, {"abc", "", "abc", ""}, {"ab", "ab", "", ""},
	} {
		got, ok := merge3(split(tt.base), split(tt.mine), split(tt.theirs))
		if joined := strings.Join(got, ""); joined != tt.want || ok != (tt.want != "" || len(tt.mine)*len(tt.theirs) == 0) {
			t.Errorf("%q, %q, %q: %q, %t", tt.base, tt.mine, tt.theirs, joined, ok)
		}
	}
	// One side alone is that side, whatever it is.
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		some := func() []string {
			out := make([]string, r.IntN(8))
			for i := range out {
				out[i] = string(rune('a' + r.IntN(3)))
			}
			return out
		}
		base, mine := some(), some()
		if got, ok := merge3(base, mine, base); !ok || !slices.Equal(got, mine) {
			t.Fatalf("%q and %q: %q, %t", base, mine, got, ok)
		}
		if got, ok := merge3(base, base, mine); !ok || !slices.Equal(got, mine) {
			t.Fatalf("%q and theirs %q: %q, %t", base, mine, got, ok)
		}
	}
}
