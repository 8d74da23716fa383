package config

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl"
)

func TestPolicies(t *testing.T) {
	all := Policies()
	want := []string{PolicyAdmin, PolicyCanary, PolicyDoctor, PolicyDrill, PolicyMonitor, PolicyOperator, PolicyReader, PolicySnapshot}
	slices.Sort(want)
	if got := slices.Sorted(maps.Keys(all)); !slices.Equal(got, want) {
		t.Fatalf("policies = %q, want %q", got, want)
	}
	// What a job may do that changes anything; everything else only looks.
	changes := map[string][]string{
		PolicyCanary: {"secret/data/strongroom/canary"},
		PolicyDoctor: {"auth/token/lookup-accessor"}, // a read that Vault has as an update
		PolicyOperator: {
			"apikeys/rotate/*", "apikeys/check/*", "database/rotate-root/*", "database/rotate-role/*",
			"sys/leases/lookup", "sys/leases/revoke",
		},
	}
	for name, text := range all {
		var policy struct {
			Path map[string]struct {
				Capabilities []string `hcl:"capabilities"`
			} `hcl:"path"`
		}
		if err := hcl.Decode(&policy, text); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if len(policy.Path) == 0 || !strings.HasPrefix(text, "# ") {
			t.Errorf("%s grants nothing, or doesn't say what for", name)
		}
		if name == PolicyAdmin {
			continue
		}
		for path, rule := range policy.Path {
			for _, c := range rule.Capabilities {
				if path == "auth/token/revoke-self" || path == "auth/token/renew-self" {
					continue // its own token
				}
				if c != "read" && c != "list" && c != "sudo" && !slices.Contains(changes[name], path) {
					t.Errorf("%s: %q on %q", name, c, path)
				}
			}
			for _, secret := range []string{"creds", "secret/data/+", "sys/raw", "*"} {
				if path == secret || strings.HasPrefix(path, "apikeys/"+secret) {
					t.Errorf("%s reaches %q", name, path)
				}
			}
		}
	}
}
