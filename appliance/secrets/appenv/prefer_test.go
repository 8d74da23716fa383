package appenv

import (
	"slices"
	"testing"
)

func TestPreferOwn(t *testing.T) {
	for value, want := range map[string]string{"": "own", "environment": "own", "vault": "vault", "Vault": "error", "yes": "error"} {
		own, err := PreferOwn(value)
		if got := map[bool]string{true: "own", false: "vault"}[own]; err == nil && got != want || err != nil && want != "error" {
			t.Errorf("%q: %v, %v", value, own, err)
		}
	}
}

// What the environment sets wins, but not what it sets to nothing, and never the
// caller's token.
func TestWithoutOwn(t *testing.T) {
	env := []string{"A=own", "B=", "C=own=x", "VAULT_TOKEN=mine", "E", "a=x", "PATH=/bin"}
	var pairs []Pair
	for _, name := range []string{"A", "B", "C", "D", "E", "VAULT_TOKEN", "PATH"} {
		pairs = append(pairs, Pair{name, "of Vault"})
	}
	rest, kept := WithoutOwn(env, pairs, []string{"PATH"})
	var left []string
	for _, p := range rest {
		left = append(left, p.Name)
	}
	if want := []string{"B", "D", "E", "VAULT_TOKEN", "PATH"}; !slices.Equal(left, want) {
		t.Errorf("of Vault are %q, want %q", left, want)
	}
	if want := []string{"A", "C"}; !slices.Equal(kept, want) {
		t.Errorf("kept are %q, want %q", kept, want)
	}
}
