package apikeys

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"

	"strongroom.example/plugin/lifecycle"
)

func versionPending(n int, at time.Time) lifecycle.Version {
	return lifecycle.Version{Number: n, State: lifecycle.Pending, Created: at}
}

// standby is a second node on the same storage.
func standby(w *world) *world {
	s := *w
	s.sys = &testSystem{&logical.StaticSystemView{ReplicationStateVal: consts.ReplicationPerformanceStandby}}
	s.start()
	return &s
}

// tell tells the other node of every entry that was written since.
func (w *world) tell(other *world, since int) {
	for _, line := range w.storage.writes()[since:] {
		var op, key string
		if _, err := fmt.Sscan(line, &op, &key); err != nil {
			w.t.Fatal(err)
		}
		other.b.Invalidate(context.Background(), key)
	}
}

func TestStandbySeesEveryChange(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.localKey("a", nil)
	s := standby(w)
	s.read("creds/a", nil)
	steps := map[string]func(){
		"rotation":   func() { w.write("rotate/a", nil) },
		"new key":    func() { w.localKey("folder/b", nil) },
		"definition": func() { w.write("keys/a", map[string]any{"grace_period": "3d"}) },
		"config":     func() { w.write("config", map[string]any{"max_wait": 5}) },
		"provider":   func() { w.write("providers/second", map[string]any{"type": "generated"}) },
		"webhook": func() {
			w.write("webhooks/h", map[string]any{"url": "https://example.org/", "secret": "0123456789abcdef", "events": "never"})
		},
		"deletion": func() {
			if _, err := w.do(opDelete, "keys/folder/b", map[string]any{"revoke_now": true}); err != nil {
				t.Fatal(err)
			}
		},
	}
	for _, name := range []string{"rotation", "new key", "definition", "config", "provider", "webhook", "deletion"} {
		t.Run(name, func(t *testing.T) {
			before := len(w.storage.writes())
			steps[name]()
			w.tell(s, before)
			for _, path := range []string{"creds/a", "keys/a", "versions/a", "config", "providers/second", "webhooks/h", "keys/folder/b"} {
				want, errW := w.do(opRead, path, nil)
				got, errS := s.do(opRead, path, nil)
				if fmt.Sprint(want) != fmt.Sprint(got) || fmt.Sprint(errW) != fmt.Sprint(errS) {
					t.Errorf("%s: the standby says %v %v, the active node %v %v", path, got, errS, want, errW)
				}
			}
			want, errW := w.do(opList, "keys/", nil)
			got, errS := s.do(opList, "keys/", nil)
			if errW != nil || errS != nil || fmt.Sprint(want.Data) != fmt.Sprint(got.Data) {
				t.Errorf("the standby lists %v, the active node %v", got.Data, want.Data)
			}
		})
	}
}

// TestLeaderThatHung comes back after another node has taken over: storage takes
// no write of it any more, and it revokes nothing at the provider.
func TestLeaderThatHung(t *testing.T) {
	caps := remoteCaps()
	caps.LastUsed = false // noting a use is a write, too
	w := newWorld(t, caps)
	w.remoteKey("k", map[string]any{"rotation_period": "90d", "grace_period": "1h"})
	w.write("rotate/k", nil)
	w.tick()
	alive := len(w.remote.alive())
	if alive != 2 {
		t.Fatalf("%d keys are alive, want the current one and one in grace", alive)
	}
	w.clock.advance(time.Hour + time.Minute)
	w.storage.setFault(func(op, _ string, _ bool) error {
		if op != "get" && op != "list" {
			return errors.New("node is not the leader")
		}
		return nil
	})
	for range 3 {
		w.b.tick(t.Context())
		w.b.running.Wait()
	}
	if n := len(w.remote.alive()); n != alive {
		t.Errorf("%d keys are alive: it revoked without a word from storage", n)
	}
	w.storage.setFault(nil) // it was the leader all the time
	w.pass(pauseAfterError)
	if n := len(w.remote.alive()); n != 1 {
		t.Errorf("%d keys are alive, want 1", n)
	}
}

func TestReadsNeedNoStorageWhileCached(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.localKey("k", nil)
	w.read("creds/k", nil)
	before := w.storage.readCount()
	for range 10 {
		w.read("creds/k", nil)
		w.read("versions/k", nil)
		if _, err := w.do(opRead, "creds/none", nil); err != nil {
			t.Fatal(err)
		}
		if _, err := w.do(opList, "creds/", nil); err != nil {
			t.Fatal(err)
		}
	}
	if n := w.storage.readCount() - before; n != 0 {
		t.Errorf("%d storage reads", n)
	}
}

func TestCacheIsBounded(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.write("config", map[string]any{"cache_bytes": 1 << 20})
	for i := range 2000 {
		w.localKey(fmt.Sprintf("k%d", i), nil)
	}
	entries, bytes := w.b.cache.stats()
	if bytes > 1<<20 || entries == 0 || entries >= 2000 {
		t.Errorf("%d entries, %d bytes", entries, bytes)
	}
	if got := w.read("creds/k0", nil)["version"]; got != 1 {
		t.Errorf("one that was pushed out: version %v", got)
	}
}

// TestCacheNeverGoesBack has a reader load a record while a writer changes it.
func TestCacheNeverGoesBack(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.localKey("k", nil)
	w.b.cache.purge()
	mark := w.b.cache.mark("k")
	old, err := (store{w.storage}).key(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	w.write("rotate/k", nil)
	w.b.cache.fill("k", w.b.makeSnapshot(old), mark) // the slow reader
	if got := w.read("creds/k", nil)["version"]; got != 2 {
		t.Errorf("version %v from a cache that is older than storage", got)
	}
}

func TestStartThatFailsIsTriedAgain(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.localKey("k", nil)
	w.storage.setFault(func(op, key string, _ bool) error {
		if op == "get" && key == configKey {
			return errors.New("storage is not there yet")
		}
		return nil
	})
	w.start()
	if _, err := w.do(opRead, "creds/k", nil); err == nil {
		t.Fatal("it answers although it could not read its storage")
	}
	w.tick()
	w.storage.setFault(nil)
	if got := w.read("creds/k", nil)["version"]; got != 1 {
		t.Errorf("version %v", got)
	}
}

func TestInvalidationThatFailsStartsOver(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.localKey("k", nil)
	w.storage.setFault(func(op, key string, _ bool) error {
		if op == "get" && key == "provider/gen" {
			return errors.New("not now")
		}
		return nil
	})
	w.b.Invalidate(t.Context(), "provider/gen")
	if w.b.ready.Load() {
		t.Error("it goes on with what it could not read")
	}
	w.storage.setFault(nil)
	w.read("creds/k", nil)
	w.write("rotate/k", nil)
	w.b.Invalidate(t.Context(), "index/zzz")
	w.b.Invalidate(t.Context(), "something/else")
	w.read("creds/k", nil)
}

func TestCleanLeavesAnExactIndex(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.localKey("k", map[string]any{"rotation_period": "1d"})
	w.pass(2 * day)
	w.b.Cleanup(t.Context())
	entries, err := (store{w.storage}).shard(t.Context(), shardOf("k"))
	if err != nil || len(entries) != 1 {
		t.Fatalf("%v %v", entries, err)
	}
	if at := entries[0].RotateAt; at < w.clock.Wall().Add(20*time.Hour).Unix() {
		t.Errorf("stored as due at %s", time.Unix(at, 0))
	}
}

// TestIndexGuarantees changes keys at random, with storage that fails now and
// then, and checks after each change what a crash at this moment would leave:
// every key is in the stored index, and none must be looked at earlier than
// stored.
func TestIndexGuarantees(t *testing.T) {
	for seed := range uint64(shorter(10, 2)) {
		rng := rand.New(rand.NewPCG(seed, 2))
		w := newWorld(t, remoteCaps())
		w.write("providers/svc", map[string]any{"type": "remote", "max_rotations_per_minute": 0})
		for step := range 60 {
			faults := rand.New(rand.NewPCG(seed, uint64(step)))
			var mu sync.Mutex
			w.storage.setFault(func(op, _ string, _ bool) error {
				mu.Lock()
				defer mu.Unlock()
				if op != "get" && faults.IntN(12) == 0 {
					return errCrash
				}
				return nil
			})
			name := fmt.Sprintf("k%d", rng.IntN(4))
			switch rng.IntN(7) {
			case 0, 1:
				_, _ = w.do(opWrite, "keys/"+name, map[string]any{"provider": "svc", "rotation_period": fmt.Sprintf("%dd", 2+rng.IntN(60)), "grace_period": "1d"})
			case 2:
				_, _ = w.do(opWrite, "rotate/"+name, nil)
			case 3:
				_, _ = w.do(opDelete, "keys/"+name, map[string]any{"revoke_now": rng.IntN(2) == 0})
			case 4:
				_, _ = w.do(opWrite, "keys/"+name, map[string]any{"provider": "svc", "spread_group": fmt.Sprintf("g%d", rng.IntN(2))})
			case 5:
				_ = w.b.index.flush(t.Context(), store{w.storage})
			case 6:
				w.pass(time.Duration(rng.IntN(48)) * time.Hour)
			}
			w.storage.setFault(nil)
			if err := indexHolds(w); err != nil {
				t.Fatalf("seed %d, step %d: %v", seed, step, err)
			}
			if rng.IntN(10) == 0 {
				w.start()
			}
		}
	}
}

func indexHolds(w *world) error {
	ctx := context.Background()
	st := store{w.storage}
	stored := map[string]packedEntry{}
	numbers, err := st.shards(ctx)
	if err != nil {
		return err
	}
	for _, n := range numbers {
		entries, err := st.shard(ctx, n)
		if err != nil {
			return err
		}
		for _, e := range entries {
			stored[e.Name] = e
		}
	}
	names, err := w.storage.List(ctx, keyPrefix)
	if err != nil {
		return err
	}
	for _, name := range names {
		rec, err := st.key(ctx, name)
		if err != nil {
			return err
		}
		e, ok := stored[name]
		if !ok {
			return fmt.Errorf("key %s is not in the stored index", name)
		}
		want := w.b.dueOf(w.b.makeSnapshot(rec))
		if w.b.intents.open(name) {
			continue // found by the log
		}
		if !notLater(earlier(e.RotateAt, e.ReviewAt), earlier(want.rotateAt, want.reviewAt)) || (e.Group != want.group && e.ReviewAt != 1) {
			return fmt.Errorf("key %s is stored as %+v and truly %+v", name, e, want)
		}
	}
	return nil
}

func TestStoredEntries(t *testing.T) {
	st := store{&logical.InmemStorage{}}
	cases := map[string]struct {
		value string
		want  string
	}{
		"not JSON":       {"secret-value", "not JSON at byte"},
		"wrong type":     {`{"format":1,"data":{"name":["secret-value"]}}`, `wrong type in field "name"`},
		"newer format":   {`{"format":9,"data":{}}`, fmt.Sprintf("format 9, this release reads up to %d", storageFormat)},
		"no format":      {`{"data":{}}`, "no format"},
		"data missing":   {`{"format":1}`, "damaged"},
		"format as text": {`{"format":"secret-value"}`, "wrong type"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if err := st.s.Put(t.Context(), &logical.StorageEntry{Key: "key/k", Value: []byte(c.value)}); err != nil {
				t.Fatal(err)
			}
			_, err := st.key(t.Context(), "k")
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret-value") {
				t.Errorf("got %v, want %q and no value", err, c.want)
			}
		})
	}
	if _, err := encodeEntry("k", make([]byte, maxEntryBytes)); !errors.Is(err, errEntryTooLarge) {
		t.Errorf("%v", err)
	}
	if err := st.s.Put(t.Context(), &logical.StorageEntry{Key: "index/fff1", Value: []byte("{}")}); err != nil {
		t.Fatal(err)
	}
	if _, err := st.shards(t.Context()); err == nil {
		t.Error("a shard with an impossible number")
	}
}

func FuzzStoredKey(f *testing.F) {
	f.Add([]byte(`{"format":1,"data":{"name":"k","life":{"versions":[{"number":1,"state":"current"}],"last":1}}}`))
	f.Add([]byte(`{"format":1,"data":null}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var rec keyRecord
		if decodeEntry("k", raw, &rec) != nil {
			return
		}
		_ = rec.Life.Check()
		rec.tidy(2)
		rec.clone()
	})
}

func FuzzStoredIntent(f *testing.F) {
	f.Add([]byte(`{"format":1,"key":"k","uid":"u","name":"n"}`), "mint")
	f.Fuzz(func(t *testing.T, raw []byte, kind string) {
		in, err := decodeIntent("id", &framework.WALEntry{Kind: kind, Data: rawJSON(raw)})
		if err == nil && (in.Key == "" || in.UID == "" || in.Name == "") {
			t.Errorf("%q was taken", raw)
		}
	})
}

type rawJSON []byte

func (r rawJSON) MarshalJSON() ([]byte, error) { return r, nil }
