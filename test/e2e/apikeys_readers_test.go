package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/hcl"
	"github.com/hashicorp/vault/api"
	"go.yaml.in/yaml/v3"

	"strongroom.example/appliance/base/proc"
	"strongroom.example/test/vaulttest"
)

const readersPage = "read-keys-with-others.md"

// Every manifest of docs/read-keys-with-others.md reads, and sees no change
// while the key is the same. Vault Agent is the real one. The others are held by
// what their programs compare; the sources are named.
func TestReadersPage(t *testing.T) {
	s := keyedVault(t, "7d")
	l := vaulttest.API(s.Root).Logical()
	mustWrite := func(path string, data map[string]any) *api.Secret {
		t.Helper()
		sec, err := l.WriteWithContext(t.Context(), path, data)
		if err != nil {
			t.Fatal(err)
		}
		return sec
	}
	// Its ttl counts down from the first second.
	mustWrite("apikeys/keys/"+clientKey, map[string]any{"rotation_period": "1d"})
	mustWrite("sys/policies/acl/billing", map[string]any{"policy": docBlock(t, readersPage, "policy")})
	mustWrite("sys/auth/approle", map[string]any{"type": "approle"})
	mustWrite("auth/approle/role/billing", map[string]any{"token_policies": "billing"})
	role, err := l.ReadWithContext(t.Context(), "auth/approle/role/billing/role-id")
	if err != nil {
		t.Fatal(err)
	}
	roleID, secretID := role.Data["role_id"].(string), mustWrite("auth/approle/role/billing/secret-id", nil).Data["secret_id"].(string)
	login := mustWrite("auth/approle/login", map[string]any{"role_id": roleID, "secret_id": secretID})
	reader := vaulttest.API(s.Client(t, login.Auth.ClientToken)).Logical()

	t.Run("agent", func(t *testing.T) { agentBlock(t, s, roleID, secretID) })

	read := func(path string) map[string]any {
		t.Helper()
		sec, err := reader.ReadWithContext(t.Context(), path)
		if err != nil || sec == nil {
			t.Fatalf("read %s: %v, %v", path, sec, err)
		}
		return sec.Data
	}
	// unchanged reads until the countdown has moved, and wants what is compared to
	// have stayed the same; then it rotates, and wants it changed.
	unchanged := func(t *testing.T, path string, compared func(map[string]any) string) {
		t.Helper()
		began, before := fmt.Sprint(read("apikeys/creds/" + clientKey)["ttl"]), compared(read(path))
		for fmt.Sprint(read("apikeys/creds/" + clientKey)["ttl"]) == began {
			select {
			case <-t.Context().Done():
				t.Fatal("ttl does not count down")
			case <-time.After(20 * time.Millisecond):
			}
		}
		if after := compared(read(path)); after != before {
			t.Errorf("the key is the same, and it compares\n%s\n%s", before, after)
		}
		rotate(t, s)
		if after := compared(read(path)); after == before {
			t.Error("another key compares as the same")
		}
	}
	asJSON := func(data map[string]any) string {
		out, err := json.Marshal(data)
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}

	// controllers/vaultstaticsecret_controller.go: type kv-v1 reads mount/path, and
	// the HMAC is over every field and the raw data.
	t.Run("vso", func(t *testing.T) {
		spec := manifest(t, "vso", "VaultStaticSecret")["spec"].(map[string]any)
		if spec["type"] != "kv-v1" || spec["hmacSecretData"] != true {
			t.Errorf("type %v, hmacSecretData %v", spec["type"], spec["hmacSecretData"])
		}
		unchanged(t, fmt.Sprintf("%v/%v", spec["mount"], spec["path"]), asJSON)
	})
	// controllers/vaultdynamicsecret_controller.go: static creds are recognised by
	// last_vault_rotation and rotation_period; staticTransOpt leaves four fields and
	// the raw data out of the HMAC, the destination's transformation more.
	t.Run("vso-dynamic", func(t *testing.T) {
		spec := manifest(t, "vso-dynamic", "VaultDynamicSecret")["spec"].(map[string]any)
		includes := spec["destination"].(map[string]any)["transformation"].(map[string]any)["includes"].([]any)
		path := fmt.Sprintf("%v/%v", spec["mount"], spec["path"])
		data := read(path)
		if _, err := time.Parse(time.RFC3339Nano, fmt.Sprint(data["last_vault_rotation"])); err != nil {
			t.Errorf("last_vault_rotation: %v", err)
		}
		if n, err := data["rotation_period"].(json.Number).Int64(); err != nil || n < 1 || spec["allowStaticCreds"] != true {
			t.Errorf("rotation_period %v, allowStaticCreds %v: it takes it for no static credential", data["rotation_period"], spec["allowStaticCreds"])
		}
		unchanged(t, path, func(data map[string]any) string {
			kept := map[string]any{}
			for k, v := range data {
				if slices.Contains([]string{"ttl", "rotation_schedule", "rotation_period", "last_vault_rotation"}, k) {
					continue
				}
				for _, in := range includes {
					if regexp.MustCompile(in.(string)).MatchString(k) {
						kept[k] = v
					}
				}
			}
			return asJSON(kept)
		})
	})
	// pkg/provider/vault/client_get.go: version v1 reads path/key; extract takes every field.
	t.Run("eso", func(t *testing.T) {
		store := manifest(t, "eso", "SecretStore")["spec"].(map[string]any)["provider"].(map[string]any)["vault"].(map[string]any)
		spec := manifest(t, "eso", "ExternalSecret")["spec"].(map[string]any)
		if store["version"] != "v1" {
			t.Errorf("version %v", store["version"])
		}
		key := spec["dataFrom"].([]any)[0].(map[string]any)["extract"].(map[string]any)["key"]
		unchanged(t, fmt.Sprintf("%v/%v", store["path"], key), asJSON)
	})
	// vault/resource_generic_endpoint.go: what is read is laid over the fields that were written.
	t.Run("terraform", func(t *testing.T) {
		var file struct {
			Resource map[string]map[string]struct {
				Path   string `hcl:"path"`
				Ignore bool   `hcl:"ignore_absent_fields"`
				Data   string `hcl:"data_json"`
			} `hcl:"resource"`
		}
		if err := hcl.Decode(&file, docBlock(t, readersPage, "terraform")); err != nil {
			t.Fatal(err)
		}
		r := file.Resource["vault_generic_endpoint"]["billing"]
		if r.Path == "" || !r.Ignore {
			t.Fatalf("%+v", r)
		}
		plan := func() (before, after string) {
			var want map[string]any
			if err := json.Unmarshal([]byte(r.Data), &want); err != nil {
				t.Fatal(err)
			}
			before = asJSON(want)
			got, err := l.ReadWithContext(t.Context(), r.Path)
			if err != nil || got == nil {
				t.Fatal(got, err)
			}
			for k := range want {
				if v, ok := got.Data[k]; ok {
					want[k] = v
				}
			}
			return before, asJSON(want)
		}
		apply := func() {
			var data map[string]any
			if err := json.Unmarshal([]byte(r.Data), &data); err != nil {
				t.Fatal(err)
			}
			mustWrite(r.Path, data)
			if before, after := plan(); before != after {
				t.Errorf("an endless difference:\n%s\n%s", before, after)
			}
		}
		apply()
		apply()
		if _, err := l.DeleteWithContext(t.Context(), r.Path); err != nil {
			t.Fatal(err)
		}
		apply()
	})
}

// manifest is the document of a kind in a block of YAML.
func manifest(t *testing.T, block, kind string) map[string]any {
	t.Helper()
	for _, doc := range strings.Split(docBlock(t, readersPage, block), "\n---\n") {
		var out map[string]any
		if err := yaml.Unmarshal([]byte(doc), &out); err != nil {
			t.Fatal(err)
		}
		if out["kind"] == kind {
			return out
		}
	}
	t.Fatalf("block %q has no %s", block, kind)
	return nil
}

func agentBlock(t *testing.T, s *vaulttest.Server, roleID, secretID string) {
	dir := vaulttest.Dir(t)
	out := filepath.Join(dir, "env")
	conf := strings.NewReplacer("https://vault.example.org", "unix://"+s.Layout.VaultSocket(), "/etc/billing", dir, "/run/billing", dir).
		Replace(docBlock(t, readersPage, "agent"))
	for name, text := range map[string]string{"role_id": roleID, "secret_id": secretID, "agent.hcl": conf} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	set := proc.NewSet()
	defer set.Close()
	agent, err := set.Start(proc.Spec{
		Name: "vault agent", Path: vaulttest.Bin(t, "vault"), Args: []string{"agent", "-config=" + filepath.Join(dir, "agent.hcl")},
		Env: []string{"HOME=" + dir}, LogFile: filepath.Join(dir, "agent.log"),
	})
	if err != nil {
		t.Fatal(err)
	}
	want := "BILLING_KEY=" + current(t, s)
	ctx, cancel := context.WithTimeout(t.Context(), vaulttest.Patience)
	defer cancel()
	if err := agent.WaitUp(ctx, func(ctx context.Context) error {
		for {
			if data, err := os.ReadFile(out); err == nil && string(data) == want {
				return nil
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(20 * time.Millisecond):
			}
		}
	}); err != nil {
		t.Fatalf("the agent has not written the key: %v", err)
	}
}
