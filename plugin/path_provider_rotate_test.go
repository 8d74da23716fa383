package apikeys

import (
	"fmt"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
)

// What would be sent is shown whole, but for the secrets in it.
func TestDryRun(t *testing.T) {
	w := newWorld(t, remoteCaps())
	const canary = "canary-77ab"
	w.write("providers/web", map[string]any{
		"type": "http", "credential": "token=" + canary,
		"settings": map[string]any{
			"auth":   map[string]any{"type": "bearer", "token": "{{credential.token}}"},
			"create": map[string]any{"url": "https://api.example.com/teams/{{param.team}}/keys", "id": "$.id", "values": map[string]any{"key": "$.key"}},
			"parameters": map[string]any{
				"team": map[string]any{"required": true},
			},
		},
	})
	resp := w.write("providers/web/dry_run", map[string]any{"parameters": "team=blue"})
	requests := resp.Data["requests"].([]map[string]any)
	if len(requests) == 0 || requests[0]["operation"] != "create" || requests[0]["url"] != "https://api.example.com/teams/blue/keys" {
		t.Errorf("%v", requests)
	}
	shown := fmt.Sprint(resp.Data)
	if strings.Contains(shown, canary) || !strings.Contains(shown, "********") {
		t.Errorf("the credential is not masked: %s", shown)
	}
	w.refused(logical.UpdateOperation, "providers/web/dry_run", map[string]any{"parameters": "squad=blue"}, "squad")
	w.refused(logical.UpdateOperation, "providers/web/dry_run", nil, "team")
	w.refused(logical.UpdateOperation, "providers/none/dry_run", nil, `no provider "none"`)
	w.localKey("k", nil)
	w.refused(logical.UpdateOperation, "providers/gen/dry_run", nil, "sends no requests")
}

func TestProviderIsDeletedWhenNothingIsMadeWithIt(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.remoteKey("k", nil)
	w.refused(logical.DeleteOperation, "providers/svc", nil, "used by 1 key,", `"k"`)
	if _, err := w.do(logical.DeleteOperation, "keys/k", map[string]any{"revoke_now": true}); err != nil {
		t.Fatal(err)
	}
	w.tick()
	if _, err := w.do(logical.DeleteOperation, "providers/svc", nil); err != nil {
		t.Fatal(err)
	}
	w.start()
	if resp, err := w.do(logical.ReadOperation, "providers/svc", nil); resp != nil || err != nil {
		t.Errorf("it came back: %v %v", resp, err)
	}
}

func TestRotationOfAProviderIsRefused(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.remoteKey("k", nil)
	w.refused(logical.UpdateOperation, "providers/svc/rotate", nil, "written by hand", "credential_key")
	w.refused(logical.UpdateOperation, "providers/none/rotate", nil, `no provider "none"`)
}
