package apikeys

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
)

var writeGolden = flag.Bool("write-golden", false, "write testdata/store-N.json of the present storage format; a format that was released is never written again")

// TestStoreOfEveryRelease reads a mount's storage as each storage format wrote
// it. A later release must find in it what the earlier one has put there.
func TestStoreOfEveryRelease(t *testing.T) {
	current := filepath.Join("testdata", fmt.Sprintf("store-%d.json", storageFormat))
	if *writeGolden {
		makeGolden(t, current)
	}
	files, err := filepath.Glob(filepath.Join("testdata", "store-*.json"))
	if err != nil || len(files) != storageFormat {
		t.Fatalf("%v, %v: every format up to %d must be there", files, err, storageFormat)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) { readGolden(t, file) })
	}
}

// makeGolden lives through everything that leaves a trace in storage.
func makeGolden(t *testing.T, file string) {
	t.Helper()
	w := newWorld(t, remoteCaps())
	w.write("config", map[string]any{"grace_period": "3d", "jitter": 0})
	w.localKey("app/prod/local", map[string]any{"hash_old_versions": true, "custom_metadata": map[string]any{"team": "data"}})
	w.write("rotate/app/prod/local", nil)
	w.remoteKey("app/prod/remote", map[string]any{"rotation_schedule": "0 3 1 * *", "time_zone": "Europe/Berlin", "spread_group": "pair"})
	w.write("rotate/app/prod/remote", nil)
	w.write("webhooks/h", map[string]any{"url": "https://example.org/", "secret": hookSecret, "events": "never"})
	w.remoteKey("open", nil)
	cr := &crasher{at: 4}
	w.remote.setFault(cr.service)
	w.storage.setFault(cr.storage)
	_, _ = w.do(opWrite, "rotate/open", nil) // leaves an open intent
	w.storage.setFault(nil)
	entries := map[string]json.RawMessage{}
	for key, e := range w.takeSnapshot() {
		entries[key] = e.Value
	}
	raw, err := json.MarshalIndent(entries, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append(raw, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

func readGolden(t *testing.T, file string) {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var entries map[string]json.RawMessage
	if err := json.Unmarshal(raw, &entries); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, remoteCaps())
	w.storage.Storage = &logical.InmemStorage{}
	for key, value := range entries {
		if err := w.storage.Storage.Put(t.Context(), &logical.StorageEntry{Key: key, Value: value}); err != nil {
			t.Fatal(err)
		}
	}
	w.start()
	for name, want := range map[string]map[string]any{
		"app/prod/local":  {"version": 2, "state": "current", "cache_ttl": int64(3 * 86400)},
		"app/prod/remote": {"version": 2, "state": "current", "last_rotated_time": "2026-03-01T12:00:00Z"},
		"open":            {"version": 1, "state": "current"},
	} {
		got := w.read("creds/"+name, nil)
		for field, v := range want {
			if got[field] != v {
				t.Errorf("%s: %s is %v, want %v", name, field, got[field], v)
			}
		}
		if got["key"] == "" {
			t.Errorf("%s has no value", name)
		}
	}
	if w.read("versions/app/prod/local", nil)["versions"].(map[string]any)["1"].(map[string]any)["verifiable_hashed"] != true {
		t.Error("the hash of version 1 is lost")
	}
	if got := w.read("config", nil)["grace_period"]; got != int64(3*86400) {
		t.Errorf("config: %v", got)
	}
	if got := w.read("webhooks/h", nil)["url"]; got != "https://example.org/" {
		t.Errorf("webhook: %v", got)
	}
	if n := w.read("status", nil)["open_intents"]; n != 1 {
		t.Errorf("%v intents are open, want 1", n)
	}
	if got := w.read("keys/app/prod/remote", nil); got["next_rotation_time"] != "2026-04-01T01:00:00Z" || got["spread_group"] != "pair" {
		t.Errorf("schedule: %v", got)
	}
	w.pass(10 * time.Minute)
	if n := w.read("status", nil)["open_intents"]; n != 0 {
		t.Errorf("the intent stays open: %v", n)
	}
	w.write("rotate/app/prod/local", nil)
}
