package apikeys

import (
	"strings"
	"testing"
)

func TestOldVersionsKeptAsHashesOnly(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.localKey("k", map[string]any{"hash_old_versions": true, "grace_period": "1d"})
	first := w.read("creds/k", nil)["key"].(string)
	w.write("rotate/k", nil)
	entry, err := w.storage.Get(t.Context(), "key/k")
	if err != nil || strings.Contains(string(entry.Value), first) {
		t.Fatalf("the old key is in storage: %v", err)
	}
	w.start()
	if got := w.write("verify/k", map[string]any{"key": first}).Data; got["valid"] != true || got["version"] != 1 {
		t.Errorf("%v", got)
	}
	w.refused(opRead, "creds/k", map[string]any{"version": 1}, "hash only")
	w.refused(opWrite, "rollback/k", map[string]any{"version": 1}, "hash only")
	w.pass(2 * day)
	if got := w.write("verify/k", map[string]any{"key": first}).Data; got["valid"] != false {
		t.Errorf("after its grace: %v", got)
	}
}

func TestOnlyLocalKeysCanBeVerified(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.remoteKey("k", nil)
	w.refused(opWrite, "verify/k", map[string]any{"key": "x"}, "only that service")
}

func TestVerifyComparesEveryVersion(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.localKey("k", nil)
	var keys []string
	for range 4 {
		keys = append(keys, w.read("creds/k", nil)["key"].(string))
		w.write("rotate/k", nil)
	}
	for i, key := range keys {
		if got := w.write("verify/k", map[string]any{"key": key}).Data; got["version"] != i+1 {
			t.Errorf("key %d is taken for %v", i+1, got)
		}
		for _, wrong := range []string{key + "x", key[:len(key)-1], strings.ToUpper(key)} {
			if wrong != key && w.write("verify/k", map[string]any{"key": wrong}).Data["valid"] != false {
				t.Error("a wrong key is valid")
			}
		}
	}
	w.write("rotate/k", map[string]any{"compromised": true})
	if w.write("verify/k", map[string]any{"key": keys[3]}).Data["valid"] != false {
		t.Error("a compromised key is valid")
	}
}
