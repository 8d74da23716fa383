package apikeys

import (
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"strongroom.example/plugin/provider"
)

// Seal-wrap covers every storage entry that holds a secret, and the log of
// intents. Vault treats a path that ends in a slash as a prefix.
func TestSealWrapCoversEverySecret(t *testing.T) {
	w := newWorld(t, remoteCaps())
	const canary = "canary-8d1f"
	r := newReceiver(t)
	w.write("providers/svc", map[string]any{"type": "remote", "credential": "key=" + canary + "-provider"})
	w.hook(r, map[string]any{"secret": canary + "-webhook-secret"})
	w.held()
	r.status.Store(503)
	w.remoteKey("app/k", nil)
	w.localKey("app/l", nil)
	w.localKey("app/h", map[string]any{"hash_old_versions": true})
	var secrets []string
	for _, name := range []string{"app/k", "app/l", "app/h"} {
		secrets = append(secrets, w.read("creds/"+name, nil)["key"].(string))
		w.write("rotate/"+name, nil)
		secrets = append(secrets, w.read("creds/"+name, nil)["key"].(string))
	}
	w.write("config", map[string]any{"max_versions": 5})
	w.pass(time.Hour)                                            // index and clock are stored too
	w.remote.setFault(failing("create", provider.KindUncertain)) // leaves an intent open
	if _, err := w.do(logical.UpdateOperation, "rotate/app/k", nil); err == nil {
		t.Fatal("the rotation succeeded")
	}

	covered := func(key string) bool {
		for _, p := range w.b.SpecialPaths().SealWrapStorage {
			if key == p || (strings.HasSuffix(p, "/") && strings.HasPrefix(key, p)) {
				return true
			}
		}
		return false
	}
	kinds := map[string]bool{}
	keys, err := logical.CollectKeys(t.Context(), w.storage)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		kind, _, _ := strings.Cut(key, "/")
		kinds[kind] = true
		entry, err := w.storage.Get(t.Context(), key)
		if err != nil || entry == nil {
			t.Fatalf("%s: %v", key, err)
		}
		for _, s := range append(secrets, canary) {
			if strings.Contains(string(entry.Value), s) && !covered(key) {
				t.Errorf("%s holds a secret and is not wrapped", key)
			}
		}
		if (kind == "wal" || kind == "key") && !covered(key) {
			t.Errorf("%s is not wrapped", key)
		}
	}
	for _, kind := range []string{"key", "wal", "provider", "webhook", "event", "index", "config", "meta", "clock"} {
		if !kinds[kind] {
			t.Errorf("nothing of the kind %s was stored: %v", kind, kinds)
		}
	}
	w.die()
}
