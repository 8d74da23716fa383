package front

import (
	"context"
	"encoding/json"
	"net/url"
	"strings"
	"testing"

	"strongroom.example/test/vaulttest"
)

// Every path that the served Vault has, with all its auth methods and secrets engines,
// has a class: what Vault itself calls unauthenticated is open, a log-in or refused, or
// else Vault is asked before anything is wrapped.
func TestClassesOfTheServedVault(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a Vault")
	}
	s := vaulttest.New(t)
	ctx, cancel := context.WithTimeout(t.Context(), vaulttest.Patience)
	defer cancel()
	c := vaulttest.API(s.Root)
	mount := func(kind, at, typ string) {
		if _, err := c.Logical().WriteWithContext(ctx, "sys/"+kind+"/"+at, map[string]any{"type": typ}); err != nil {
			t.Logf("%s %s: %v", kind, typ, err) // not in this Vault
		}
	}
	for _, typ := range strings.Fields("approle userpass jwt oidc ldap cert kubernetes github aws azure gcp okta radius kerberos oci alicloud cf") {
		mount("auth", "some/"+typ, typ)
	}
	for _, typ := range strings.Fields("pki ssh kv kv-v2 transit totp database ldap kubernetes aws") {
		mount("mounts", "some/"+typ, typ)
	}
	s.MountAPIKeys(t)
	secret, err := c.Logical().ReadRawWithContext(ctx, "sys/internal/specs/openapi")
	if err != nil {
		t.Fatal(err)
	}
	defer secret.Body.Close()
	var doc struct {
		Paths map[string]map[string]json.RawMessage
	}
	if err := json.NewDecoder(secret.Body).Decode(&doc); err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for pattern, ops := range doc.Paths {
		path := strings.NewReplacer("{", "", "}", "").Replace(pattern)
		for op := range ops {
			method := strings.ToUpper(op)
			if strings.HasPrefix(op, "x-") || op == "parameters" || op == "description" {
				continue
			}
			v, to := judge(method, &url.URL{Path: "/v1" + path}, "", false)
			name := to.class.name
			switch free := string(ops["x-vault-unauthenticated"]) == "true"; {
			case v != passed:
				name = "machine only"
				if !strings.HasPrefix(path, "/sys/") {
					t.Errorf("%s %s is refused: %s", method, path, v.text)
				}
			case free && to.class == token && to.mayBeOpen(method):
				name = "as Vault says"
			case free && to.class == token:
				t.Errorf("%s %s asks no token, and no class has it", method, path)
			case path == "/sys/internal/ui/feature-flags": // answers anybody, whatever its description says
			case !free && to.class == open && !strings.HasPrefix(path, "/identity/oidc/"):
				t.Errorf("%s %s asks for a token, and is open here", method, path)
			}
			seen[name]++
		}
	}
	t.Logf("paths: %v", seen)
	for _, name := range []string{"open", "log-in", "token", "machine only", "as Vault says"} {
		if seen[name] == 0 {
			t.Errorf("no path is %q: %v", name, seen)
		}
	}
}
