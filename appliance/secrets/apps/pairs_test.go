package apps

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"strongroom.example/config"
	"strongroom.example/test/vaulttest"
)

// Roles add up: with two of them a person may all that each allows, though Vault lets
// the policy decide that names a path most exactly. Asked of Vault, for every pair, on
// each path that a policy names.
func TestRolesAddUp(t *testing.T) {
	t.Parallel()
	s := vaulttest.New(t)
	ctx := t.Context()
	conf := parse(t, strings.Replace(strings.Replace(every, "ISSUER", "https://issuer", 1), "roles = [\"owner:a\"]", "roles = [\"owner:a\", \"owner:b\"]", 1)+"[[app]]\nname = \"b\"\n[[app.environment]]\nname = \"e\"\n[[app.environment.database]]\ndatabase = \"d\"\naccess = \"static\"\nusername = \"u\"\n[[app.environment.database]]\ndatabase = \"d\"\naccess = \"owner\"\n")
	policies := map[string]string{"a-owner": conf.OwnerPolicyText("a"), "b-owner": conf.OwnerPolicyText("b")}
	for name, text := range config.Policies() {
		policies[name] = text
	}
	paths := map[string]bool{}
	named := regexp.MustCompile(`(?m)^path "([^"]+)"`)
	roles := map[string]string{"admin": "", "operator": "", "reader": "", "owner:a": "", "owner:b": ""}
	for name, text := range policies {
		if _, err := s.Root.Write(ctx, "sys/policies/acl/"+name, map[string]any{"policy": text}); err != nil {
			t.Fatal(err)
		}
	}
	for role := range roles {
		for _, p := range conf.PoliciesOf([]string{role}) {
			for _, m := range named.FindAllStringSubmatch(policies[p], -1) {
				for _, x := range []string{"a/x", "x", "b/e/x"} {
					paths[strings.TrimSuffix(strings.NewReplacer("+", "x", "*", x).Replace(m[1]), "/")] = true
				}
			}
		}
	}
	list := sortedKeys(paths)
	rights := func(roles ...string) map[string][]string {
		t.Helper()
		token, err := s.Root.ChildToken(ctx, "asked", vaulttest.Patience, conf.PoliciesOf(roles)...)
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.Root.Write(ctx, "sys/capabilities", map[string]any{"token": token, "paths": list})
		if err != nil {
			t.Fatal(err)
		}
		out := map[string][]string{}
		for _, p := range list {
			out[p] = stringsOf(got[p])
		}
		return out
	}
	alone := map[string]map[string][]string{}
	for role := range roles {
		alone[role] = rights(role)
	}
	asked := 0
	for one := range roles {
		for two := range roles {
			if one >= two {
				continue
			}
			both := rights(one, two)
			for _, p := range list {
				asked++
				for _, role := range []string{one, two} {
					for _, c := range alone[role][p] {
						// One thing is no folder: to list it means nothing.
						leaf := c == "list" && slices.Contains([]string{"database/config/d", "database/roles/a-ro", "database/roles/b-e-owner", "database/static-roles/b-e-static", "secret/metadata"}, p) || c == "read" && p == "secret/metadata"
						if !slices.Contains(both[p], c) && c != "deny" && !leaf {
							t.Errorf("%s and %s may %q on %s, and %s alone %q", one, two, both[p], p, role, alone[role][p])
						}
					}
				}
			}
			// What is asked with a parameter: a lease of nobody's app.
			if one == "operator" || two == "operator" {
				token, err := s.Root.ChildToken(ctx, "asked", vaulttest.Patience, conf.PoliciesOf([]string{one, two})...)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := s.Client(t, token).Write(ctx, "sys/leases/revoke", map[string]any{"lease_id": "auth/userpass/login/x/y"}); err != nil && strings.Contains(fmt.Sprint(err), "permission denied") {
					t.Errorf("%s and %s may not end a lease: %v", one, two, err)
				}
			}
		}
	}
	t.Logf("%d pairs of roles and paths", asked)
}
