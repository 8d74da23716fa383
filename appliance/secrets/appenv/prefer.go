package appenv

import (
	"fmt"
	"slices"
	"strings"
)

// PreferVariable says which of both wins where a process's own environment sets
// a variable that Vault has: environment, which is the default, or vault. The
// Python client reads it too.
const PreferVariable = "STRONGROOM_ENV_PREFER"

// PreferOwn reads the value of PreferVariable.
func PreferOwn(value string) (own bool, err error) {
	switch value {
	case "", "environment":
		return true, nil
	case "vault":
		return false, nil
	}
	return false, fmt.Errorf("%s: %q must be environment or vault", PreferVariable, value)
}

// WithoutOwn leaves out the pairs that env, as NAME=value, sets to something,
// and gives their names. Not among them are those that were asked for by name,
// and VAULT_TOKEN: the caller's login is not the program's.
func WithoutOwn(env []string, pairs []Pair, asked []string) (rest []Pair, kept []string) {
	own := map[string]bool{}
	for _, e := range env {
		name, value, _ := strings.Cut(e, "=")
		own[name] = own[name] || value != "" && name != "VAULT_TOKEN" && !slices.Contains(asked, name)
	}
	for _, p := range pairs {
		if own[p.Name] {
			kept = append(kept, p.Name)
			continue
		}
		rest = append(rest, p)
	}
	return rest, kept
}
