package apikeys

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"strongroom.example/plugin/provider"
)

// counted is what status tells of all keys, against what each of them says.
func counted(w *world) error {
	w.t.Helper()
	status := w.read("status", nil)
	want := map[string]int{}
	for _, name := range w.b.index.page("", 10_000) {
		resp, err := w.do(opRead, "keys/"+name, nil)
		if err != nil {
			return err
		}
		state := map[string]any{"condition": "deleting"}
		if resp != nil {
			state = resp.Data
		} else if snap, err := w.b.snapshot(w.t.Context(), w.storage, name); err != nil || snap == nil || !w.b.isGone(snap.rec) {
			return fmt.Errorf("%s is not found, and has a record: %v", name, err)
		} else { // its record waits for a list that lags
			state["provider"] = snap.rec.Def.Provider
		}
		// One that is due and has not had its turn, as the cap of its provider is used
		// up, is as the last look found it.
		w.b.index.mu.RLock()
		e := *w.b.index.entryLocked(name)
		w.b.index.mu.RUnlock()
		if at := w.b.clock.now().Unix(); state["condition"] == "overdue" && e.rotateAt <= at && e.reviewAt <= at {
			state["condition"] = string(e.condition)
		}
		want[fmt.Sprintf("%s %s", state["provider"], state["condition"])]++
		if _, listed := status["keys"].(map[string]any)[name]; listed != (state["condition"] != "ok") {
			return fmt.Errorf("%s is %v, and status lists it: %v", name, state["condition"], listed)
		}
	}
	got := map[string]int{}
	for p, of := range status["by_provider"].(map[string]any) {
		for word, n := range of.(map[string]any)["conditions"].(map[string]any) {
			got[p+" "+word] = n.(int)
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		return fmt.Errorf("status counts %v, the keys say %v", got, want)
	}
	return nil
}

// Whatever happens, and whenever a condition changes by itself, the counts are what
// the keys say, over restarts too.
func TestStatusCountsWhatTheKeysSay(t *testing.T) {
	for seed := range uint64(shorter(6, 2)) {
		rng := rand.New(rand.NewPCG(seed, 7))
		w := newWorld(t, remoteCaps())
		w.write("providers/svc", map[string]any{"type": "remote", "max_rotations_per_minute": 2})
		w.write("providers/gen", map[string]any{"type": "generated"})
		for step := range 80 {
			name := fmt.Sprintf("k%d", rng.IntN(8))
			switch rng.IntN(10) {
			case 0, 1:
				_, _ = w.do(opWrite, "keys/"+name, map[string]any{"provider": []string{"svc", "gen"}[rng.IntN(2)], "rotation_period": "2d", "grace_period": "1d"})
			case 2:
				_, _ = w.do(opWrite, "rotate/"+name, map[string]any{"compromised": rng.IntN(2) == 0})
			case 3:
				_, _ = w.do(opDelete, "keys/"+name, map[string]any{"revoke_now": rng.IntN(2) == 0})
			case 4:
				w.remote.setFault(failing([]string{"create", "test", "revoke", "list"}[rng.IntN(4)], provider.Kind(1+rng.IntN(7))))
			case 5:
				w.remote.setFault(nil)
			case 6:
				w.start()
			case 7:
				lives(w, time.Duration(1+rng.IntN(48))*time.Hour)
			default:
				w.pass(time.Duration(rng.IntN(36)) * time.Hour)
			}
			w.tick()
			if err := counted(w); err != nil {
				t.Fatalf("seed %d, step %d: %v", seed, step, err)
			}
		}
	}
}

// scale 3: status costs one request of a few KB and reads no key.
func TestStatusReadsNoKey(t *testing.T) {
	w := newWorld(t, remoteCaps())
	for i := range shorter(3000, 500) {
		w.localKey(fmt.Sprintf("k%d", i), nil)
	}
	w.start()
	before := w.storage.readCount()
	raw, err := json.Marshal(w.read("status", nil))
	if err != nil || len(raw) > 6<<10 {
		t.Errorf("%d bytes: %v", len(raw), err)
	}
	w.read("metrics", nil)
	if n := w.storage.readCount() - before; n != 0 {
		t.Errorf("%d reads", n)
	}
	w.write("config", map[string]any{"cache_bytes": 1 << 20})
	w.read("creds/k1", nil)
	w.read("status", map[string]any{"all": true, "limit": 3000})
	before = w.storage.readCount()
	w.read("creds/k1", nil)
	if w.storage.readCount() != before {
		t.Error("one who went through all keys has pushed out what is in use")
	}
}

// The index of 0.1 tells nothing of a key: each is looked at once, and never again.
func TestIndexOfAnOlderReleaseIsFilledIn(t *testing.T) {
	w := newWorld(t, remoteCaps())
	for i := range 20 {
		w.localKey(fmt.Sprintf("k%d", i), nil)
	}
	st := store{w.storage}
	numbers, err := st.shards(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range numbers {
		entries, err := st.shard(t.Context(), n)
		if err != nil {
			t.Fatal(err)
		}
		for i := range entries {
			entries[i].Condition, entries[i].Wanted, entries[i].Rotated = "", 0, 0
		}
		if err := st.putShard(t.Context(), n, entries); err != nil {
			t.Fatal(err)
		}
	}
	w.start()
	w.tick()
	if err := counted(w); err != nil {
		t.Error(err)
	}
	w.b.Cleanup(t.Context())
	w.start()
	if n := w.b.index.looks(""); n != 0 {
		t.Errorf("%d keys are looked at again", n)
	}
}

// asNewer is an entry as a later release would have written it.
func asNewer(entry string) string {
	return strings.Replace(entry, fmt.Sprintf(`"format":%d`, storageFormat), `"format":9`, 1)
}

// A record of a newer format is refused for that key alone: read where it can be,
// never written, rotated or ended.
func TestRecordOfANewerFormat(t *testing.T) {
	for name, unreadable := range map[string]bool{"readable": false, "unreadable": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, remoteCaps())
			w.remoteKey("new", map[string]any{"rotation_period": "1d", "grace_period": "1d"})
			w.remoteKey("old", map[string]any{"rotation_period": "1d", "grace_period": "1d"})
			w.write("rotate/new", nil)
			entry, err := w.storage.Storage.Get(t.Context(), "key/new")
			if err != nil {
				t.Fatal(err)
			}
			value := asNewer(string(entry.Value))
			if unreadable {
				value = strings.Replace(value, `"name":"new"`, `"name":{"of":"new"}`, 1)
			}
			if err := w.storage.Storage.Put(t.Context(), &logical.StorageEntry{Key: "key/new", Value: []byte(value)}); err != nil {
				t.Fatal(err)
			}
			w.start()
			resp, err := w.do(opRead, "creds/new", nil)
			if unreadable == (err == nil) {
				t.Errorf("reading it: %v %v", resp, err)
			}
			if err != nil && !strings.Contains(err.Error(), "format 9") {
				t.Errorf("the error does not say why: %v", err)
			}
			for path, data := range map[string]map[string]any{
				"rotate/new": {"compromised": true}, "keys/new": {"grace_period": "2d"}, "import/new": {"key": "x"}, "rollback/new": {"version": 1},
			} {
				if _, err := w.do(opWrite, path, data); err == nil || !strings.Contains(err.Error(), "format 9") {
					t.Errorf("%s: %v", path, err)
				}
			}
			if _, err := w.do(opDelete, "keys/new", map[string]any{"revoke_now": true}); err == nil {
				t.Error("it was deleted")
			}
			alive := len(w.remote.alive())
			for range 10 {
				w.pass(day)
			}
			if got, err := w.storage.Storage.Get(t.Context(), "key/new"); err != nil || string(got.Value) != value {
				t.Error("it was written")
			}
			if v := w.version("old"); v < 5 {
				t.Errorf("the mount does not go on: version %d", v)
			}
			if n := len(w.remote.alive()); n > alive+1 || n < 3 {
				t.Errorf("%d keys are alive, were %d", n, alive)
			}
			if _, listed := w.read("status", nil)["keys"].(map[string]any)["new"]; !listed {
				t.Error("status does not tell of it")
			}
		})
	}
}

// A campaign answers at once, and status tells how far it is.
func TestCampaignShowsItsProgress(t *testing.T) {
	w := newWorld(t, remoteCaps())
	for i := range 50 {
		w.remoteKey(fmt.Sprintf("k%d", i), nil)
	}
	w.clock.advance(time.Second)
	before := len(w.storage.writes())
	if got := w.write("providers/svc/rotate", map[string]any{"compromised": true}).Data["marked_keys"]; got != 50 {
		t.Errorf("%v keys", got)
	}
	if n := len(w.storage.writes()) - before; n > 1 {
		t.Errorf("%d writes before the answer", n)
	}
	c := w.read("status", nil)["compromised"].(map[string]any)["svc"].(map[string]any)
	if c["keys_left"] != 50 || c["started_time"] == nil {
		t.Errorf("%v", c)
	}
	w.tick()
	w.b.tick(t.Context())
	if c := w.read("status", nil)["compromised"].(map[string]any); len(c) != 0 {
		t.Errorf("%v", c)
	}
}

// What a newer release has written, or what is damaged, keeps no mount from being
// read, and nobody writes over it by mistake.
func TestMountWithEntriesOfANewerFormat(t *testing.T) {
	for name, c := range map[string]struct {
		key    string
		change func(string) string
		write  string // what must be refused afterwards
	}{
		"provider":                 {"provider/svc", asNewer, "providers/svc"},
		"provider, of other types": {"provider/svc", func(string) string { return `{"format":9,"data":{"name":{"a":1}}}` }, "providers/svc"},
		"provider, damaged":        {"provider/svc", func(string) string { return `{"format":1,"data":{"name":{"a":1}}}` }, ""},
		"config":                   {"config", asNewer, ""},
		"clock":                    {"clock", asNewer, ""},
		"meta":                     {"meta", asNewer, ""},
		"index":                    {shardKey(shardOf("local")), asNewer, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, remoteCaps())
			w.write("config", map[string]any{"grace_period": "3d"})
			w.localKey("local", nil)
			w.remoteKey("k", nil)
			w.tick()
			entry, err := w.storage.Storage.Get(t.Context(), c.key)
			if err != nil || entry == nil {
				t.Fatalf("%s: %v", c.key, err)
			}
			value := c.change(string(entry.Value))
			if err := w.storage.Storage.Put(t.Context(), &logical.StorageEntry{Key: c.key, Value: []byte(value)}); err != nil {
				t.Fatal(err)
			}
			w.start()
			w.tick()
			for _, name := range []string{"local", "k"} {
				if got := w.read("creds/"+name, nil); got["version"] != 1 {
					t.Errorf("%s: %v", name, got)
				}
			}
			w.write("rotate/local", nil)
			if c.write != "" {
				w.refused(opWrite, c.write, map[string]any{"max_rotations_per_minute": 5}, "format 9")
				w.refused(opWrite, "rotate/k", nil, "format 9")
				if got, err := w.storage.Storage.Get(t.Context(), c.key); err != nil || string(got.Value) != value {
					t.Error("it was written")
				}
			}
		})
	}
}

// A definition changes also while its provider cannot be built.
func TestDefinitionChangesWithoutItsProvider(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.remoteKey("k", nil)
	w.remote.build = func() error { return fmt.Errorf("no") }
	w.start()
	w.write("keys/k", map[string]any{"rotation_period": "30d", "custom_metadata": "a=b"})
	if got := w.read("keys/k", nil)["effective_rotation_period"]; got != int64(30*86400) {
		t.Errorf("%v", got)
	}
	w.refused(opWrite, "keys/k", map[string]any{"parameters": "scope=a"}, "no")
}

// What is idle writes little: two times a day and key, its sweep and the index, and
// once or twice the index for the look at the current version.
func TestIdleKeysWriteLittle(t *testing.T) {
	w := newWorld(t, remoteCaps())
	const n, days = 20, 5
	for i := range n {
		w.remoteKey(fmt.Sprintf("k%d", i), nil)
		w.write(fmt.Sprintf("rotate/k%d", i), nil)
	}
	w.pass(8 * day)
	before := len(w.storage.writes())
	for range days * 24 * 12 {
		w.pass(5 * time.Minute)
	}
	writes := slices.DeleteFunc(w.storage.writes()[before:], func(line string) bool { return line == "put clock" })
	if got := len(writes); got > 4*n*days || got == 0 {
		t.Errorf("%d writes in %d days for %d keys", got, days, n)
	}
	works := 0
	for i := range n {
		if w.read(fmt.Sprintf("check/k%d", i), nil)["result"] == "works" {
			works++
		}
	}
	if works != n {
		t.Errorf("%d of %d keys were looked at", works, n)
	}
}

// scale 1, 5: what concerns every key answers at once at any number of them.
func TestChangesOfManyKeysAnswerAtOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	w := bigWorld(t, 100_000)
	period := 80
	for name, do := range map[string]func(){
		"config":      func() { period--; w.write("config", map[string]any{"rotation_period": fmt.Sprintf("%dd", period)}) },
		"compromised": func() { w.write("providers/gen/rotate", map[string]any{"compromised": true}) },
		"status":      func() { w.read("status", nil) },
	} {
		written := len(w.storage.writes())
		started := time.Now()
		do()
		took, n := time.Since(started), len(w.storage.writes())-written
		t.Logf("%s: %s, %d writes", name, took, n)
		if n > 3 { // a number of its own, whatever the number of keys
			t.Errorf("%s made %d writes", name, n)
		}
	}
}

// What is due and does not begin is told, with what it waits for.
func TestStatusTellsWhatHoldsRotationsBack(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.write("providers/svc", map[string]any{"type": "remote", "max_rotations_per_minute": 2})
	w.write("config", map[string]any{"jitter": 0})
	for i := range 5 {
		w.remoteKey(fmt.Sprint("k", i), map[string]any{"rotation_period": "30d", "grace_period": "1d"})
	}
	waiting := func() (n int) {
		for i := range 5 {
			n += boolInt(w.read(fmt.Sprint("keys/k", i), nil)["rotation_waits_for"] == "cap")
		}
		return n
	}
	svc := func() map[string]any {
		return w.read("status", nil)["by_provider"].(map[string]any)["svc"].(map[string]any)
	}
	w.pass(30 * day)
	for _, want := range []int{3, 1, 0} {
		w.pass(time.Second) // now it is late, and is looked at for that
		w.pass(time.Second)
		got := svc()
		if n, _ := got["due_rotations"].(int); n != want || waiting() != want {
			t.Fatalf("%d of the keys wait, want %d: %v", waiting(), want, got)
		}
		if until := stamp(w.clock.Wall().Truncate(time.Minute).Add(time.Minute)); want > 0 && (got["rotations_wait_for"] != "cap" || got["rotations_wait_until"] != until) {
			t.Errorf("%v", got)
		}
		w.pass(time.Minute)
	}
	w.pass(29 * day)
	w.remote.setFault(failing("create", provider.KindRateLimited))
	w.pass(day)
	w.pass(time.Second)
	w.pass(time.Second)
	if got := svc(); got["rotations_wait_for"] != "pause" || got["due_rotations"] == nil {
		t.Errorf("left alone: %v", got)
	}
}
