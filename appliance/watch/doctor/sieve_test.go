package doctor

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

// Wherever a block ends, a token in it or across its end is found.
func TestSieveFindsAcrossBlocks(t *testing.T) {
	for _, c := range []struct{ name, fill string }{
		{"lines", "vault: started\n"}, {"one long line", "x "},
	} {
		t.Run(c.name, func(t *testing.T) {
			for at := sieveBlock - 2*len(token); at <= sieveBlock+2*len(token); at += 11 {
				text := strings.Repeat(c.fill, at/len(c.fill)+1)[:at] + " " + token + " " + strings.Repeat(c.fill, 100)
				for _, step := range []int{997, 32 << 10, len(text)} {
					var s sieve
					for rest := []byte(text); len(rest) > 0; {
						n := min(step, len(rest))
						if got, err := s.Write(rest[:n]); got != n || err != nil {
							t.Fatal(got, err)
						}
						rest = rest[n:]
					}
					s.end()
					if !slices.Equal(s.found, []string{"a Vault token"}) {
						t.Fatalf("token at %d, %d bytes at once: %q", at, step, s.found)
					}
				}
			}
		})
	}
}

func TestSieveIsBounded(t *testing.T) {
	var s sieve
	chunk := bytes.Repeat([]byte("y"), 100<<10)
	for range 64 {
		if _, err := s.Write(chunk); err != nil {
			t.Fatal(err)
		}
		if len(s.rest) > 2*sieveBlock {
			t.Fatalf("it holds %d bytes", len(s.rest))
		}
	}
	s.end()
	if len(s.found) > 0 || s.lines != 0 {
		t.Errorf("%q in %d lines", s.found, s.lines)
	}
}

// Searching line by line finds what the patterns alone find.
func TestSecretsInLines(t *testing.T) {
	old := "s." + strings.Repeat("aB3", 8)
	for _, text := range []string{
		"", "\n", token, "a\n" + token, token + "\nb", "x" + token, "hv\nhvs.\n" + token + "\n", "hvs.short\nno",
		old, "\n" + old + "\n", "x" + old, old + "x", "token=" + old + "\n", "this is. no\ntoken", "AGE-SECRET-KEY-1" + strings.Repeat("Q", 58),
		"-----BEGIN PRIVATE KEY-----\nx", "--BEGIN\nPRIVATE KEY-----", "-----BEGIN OPENSSH PRIVATE KEY-----",
	} {
		for _, k := range secretKinds() {
			if got, want := k.in([]byte(text)), k.pattern.MatchString(text); got != want {
				t.Errorf("%s in %q: %t, want %t", k.what, text, got, want)
			}
		}
	}
}
