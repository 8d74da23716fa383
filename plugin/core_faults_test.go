package apikeys

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"strongroom.example/plugin/lifecycle"
	"strongroom.example/plugin/provider"
)

// once gives a fault that runs do at the first operation of this name, and fails
// nothing.
func once(op, key string, after bool, do func()) func(string, string, bool) error {
	done := false
	return func(o, k string, a bool) error {
		if !done && o == op && strings.HasPrefix(k, key) && a == after {
			done = true
			do()
		}
		return nil
	}
}

// lives has the service say that each new key ends by itself.
func lives(w *world, d time.Duration) {
	w.remote.answer = func(k *provider.Key) { k.Expires = w.clock.Wall().Add(d) }
}

func creates(w *world) (n int) {
	w.remote.mu.Lock()
	defer w.remote.mu.Unlock()
	for _, c := range w.remote.calls {
		n += boolInt(strings.HasPrefix(c, "create "))
	}
	return n
}

// engine-core 1: a window is asked of the policy's time, not of an expiry.
func TestKeyThatExpiresRotatesOutsideItsWindow(t *testing.T) {
	w := newWorld(t, remoteCaps())
	lives(w, 10*day)
	w.remoteKey("k", map[string]any{"rotation_schedule": "0 3 1 * *", "rotation_window": "1h", "grace_period": "1d"})
	writes := len(w.storage.writes())
	for range 12 * 24 {
		w.pass(time.Hour)
		if _, err := w.do(opRead, "creds/k", nil); err != nil {
			t.Fatalf("the key is down: %v", err)
		}
	}
	if v := w.version("k"); v < 2 {
		t.Errorf("version %d after its end", v)
	}
	if n := len(w.storage.writes()) - writes; n > 12*150 {
		t.Errorf("%d writes in 12 days", n)
	}
}

// engine 1: a life that is not longer than the grace makes no storm.
func TestLifeShorterThanTheGraceMakesNoStorm(t *testing.T) {
	for _, life := range []time.Duration{31 * time.Second, time.Minute, 10 * time.Minute, time.Hour, day, 7 * day, 7*day + time.Second} {
		for _, overlap := range []bool{true, false} {
			t.Run(fmt.Sprint(life, overlap), func(t *testing.T) {
				caps := remoteCaps()
				caps.Overlap = overlap
				w := newWorld(t, caps)
				lives(w, life)
				w.remoteKey("k", nil)
				for range 600 {
					w.pass(time.Second * 6)
				}
				if n := creates(w); n > 1+int(time.Hour/max(life/2, lifecycle.MinPeriod)) {
					t.Errorf("%d keys in an hour, each said to live %s", n, life)
				}
				if _, err := w.do(opRead, "creds/k", nil); err != nil {
					t.Errorf("the key is down: %v", err)
				}
			})
		}
	}
}

// engine 2: a new key that has ended already, or is about to, replaces nothing.
func TestNewKeyThatHasEndedAlreadyReplacesNothing(t *testing.T) {
	for _, life := range []time.Duration{-365 * day, -time.Hour, -time.Second, 0, time.Second, 29 * time.Second} {
		t.Run(life.String(), func(t *testing.T) {
			w := newWorld(t, remoteCaps())
			w.remoteKey("k", map[string]any{"rotation_period": "30d", "grace_period": "1d"})
			good := w.read("creds/k", nil)["key"].(string)
			lives(w, life)
			w.pass(30 * day)
			for range 60 {
				w.pass(time.Minute)
			}
			got := w.read("creds/k", nil)
			if got["key"] != good || !w.remote.works(good) {
				t.Errorf("readers get version %v", got["version"])
			}
			if n := creates(w); n > 12 {
				t.Errorf("%d keys were made in an hour", n)
			}
			if n := len(w.remote.alive()); n != 1 {
				t.Errorf("%d keys are alive", n)
			}
			state := w.read("keys/k", nil)
			if got := state["condition"]; got != "failing" || !strings.Contains(fmt.Sprint(state["rotation_failure"]), "ends at") {
				t.Errorf("state %v", state)
			}
			w.remote.answer = nil
			w.pass(2 * time.Hour)
			if v := w.read("creds/k", nil); !w.remote.works(v["key"].(string)) || v["key"] == good {
				t.Error("it has not recovered")
			}
		})
	}
}

// engine-core 2: a key that is created again while a worker finds it gone.
func TestKeyCreatedAgainWhileAWorkerFindsItGone(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.remoteKey("k", nil)
	if err := w.storage.Storage.Delete(t.Context(), "key/k"); err != nil { // what a crash in the deletion leaves
		t.Fatal(err)
	}
	w.b.cache.purge()
	w.b.index.review("k", w.b.clock.now())
	created := make(chan error, 1)
	w.storage.setFault(once("get", "key/k", false, func() {
		go func() {
			_, err := w.do(opWrite, "keys/k", map[string]any{"provider": "svc"})
			created <- err
		}()
	}))
	w.b.tick(t.Context())
	if err := <-created; err != nil {
		t.Fatal(err)
	}
	w.b.running.Wait()
	w.storage.setFault(nil)
	if _, err := w.do(opRead, "creds/k", nil); err != nil || !w.b.index.has("k") {
		t.Fatalf("the key has vanished: %v", err)
	}
	w.pass(91 * day)
	if v := w.version("k"); v != 2 {
		t.Errorf("version %d: it is not rotated", v)
	}
	w.pass(lateList)
	if _, err := w.do(opDelete, "keys/k", map[string]any{"revoke_now": true}); err != nil || w.b.index.has("k") {
		t.Errorf("deleting it: %v", err)
	}
}

// engine-core 3, scale 1: a change of the defaults is not lost for keys that are
// touched meanwhile, by a request or a worker, nor over a crash at any point.
func TestChangeOfTheDefaultsReachesEveryKey(t *testing.T) {
	for _, op := range []string{"look", "config"} {
		for _, after := range []bool{false, true} {
			for _, crash := range []bool{false, true} {
				t.Run(fmt.Sprint(op, after, crash), func(t *testing.T) {
					w := newWorld(t, remoteCaps())
					n := shorter(300, 60)
					w.localKey("k0", nil)
					for i := 1; i < n; i++ {
						w.localKey(fmt.Sprintf("k%d", i), nil)
					}
					w.pass(40 * day)
					w.storage.setFault(once("put", op, after, func() {
						for i := range n {
							w.read(fmt.Sprintf("creds/k%d", i), nil)
							if i%3 == 0 {
								w.write(fmt.Sprintf("keys/k%d", i), map[string]any{"custom_metadata": "a=b"})
							}
						}
					}))
					w.write("config", map[string]any{"rotation_period": "30d"})
					w.storage.setFault(nil)
					if crash {
						w.start()
					}
					w.tick()
					w.b.tick(t.Context())
					if v := w.version("k1"); v != 2 {
						t.Errorf("k1 has version %d", v)
					}
					lost := 0
					for i := range n {
						lost += boolInt(w.version(fmt.Sprintf("k%d", i)) != 2)
					}
					if lost > 0 {
						t.Errorf("the change is lost for %d of %d keys", lost, n)
					}
					if left := w.b.index.looks(""); left != 0 {
						t.Errorf("%d keys are still to be looked at", left)
					}
					if entry, err := w.storage.Storage.Get(t.Context(), lookKey); err != nil || entry != nil {
						t.Errorf("storage still says that there is something to look at: %v", err)
					}
				})
			}
		}
	}
}

// The cache keeps nothing that was made from what has changed meanwhile.
func TestChangedProviderIsNotPutBackByASave(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.remoteKey("k", map[string]any{"grace_period": "7d"})
	w.storage.setFault(once("put", "key/k", true, func() {
		w.remote.caps.Overlap = false
		w.write("providers/svc", map[string]any{"max_rotations_per_minute": 0})
	}))
	w.write("keys/k", map[string]any{"custom_metadata": "a=b"})
	w.storage.setFault(nil)
	snap, err := w.b.snapshot(t.Context(), w.storage, "k")
	if err != nil || snap.caps.Overlap {
		t.Errorf("the cache says that two keys may live: %v", err)
	}
}

// engine-core 4: old versions of keys that rotate meanwhile are marked, too.
func TestCompromisedProviderSparesNoOldVersion(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.remoteKey("k", map[string]any{"grace_period": "7d"})
	w.clock.advance(time.Hour)
	w.write("rotate/k", nil)
	w.clock.advance(time.Hour)
	var old []string
	for _, k := range w.remote.keys {
		old = append(old, k.value)
	}
	w.storage.setFault(once("put", "campaign/", true, func() { w.clock.advance(time.Second); w.write("rotate/k", nil) }))
	w.write("providers/svc/rotate", map[string]any{"compromised": true})
	w.storage.setFault(nil)
	for _, v := range []int{1, 2} {
		if _, err := w.do(opRead, "creds/k", map[string]any{"version": v}); err == nil {
			t.Errorf("version %d is given to readers", v)
		}
	}
	w.tick()
	for _, value := range old {
		if w.remote.works(value) {
			t.Errorf("%s still works", value)
		}
	}
}

// A key that is being made at that moment counts as made before, whenever its
// answer comes; one that is begun after it does not, however coarse the clock.
func TestCompromisedProviderAndAKeyInTheMaking(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.remoteKey("k", nil)
	asked := false
	w.remote.setFault(func(op string, after bool) error {
		if op == "create" && after && !asked {
			asked = true
			w.remote.mu.Unlock()
			w.clock.advance(time.Second)
			w.write("providers/svc/rotate", map[string]any{"compromised": true})
			w.clock.advance(time.Second)
			w.remote.mu.Lock()
		}
		return nil
	})
	_, _ = w.do(opWrite, "rotate/k", nil)
	w.remote.setFault(nil)
	w.tick()
	w.start()
	for range 3 {
		w.pass(time.Second)
	}
	for _, id := range []string{"id-1", "id-2"} {
		if w.remote.keys[id].alive {
			t.Errorf("%s still works", id)
		}
	}
	if n, v := creates(w), w.version("k"); n != 3 || v != 3 {
		t.Errorf("%d keys were made, version %d is current", n, v)
	}
}

// engine-core 5, 27: with a provider that cannot be built what must work works, and
// it is not built at each read.
func TestProviderThatCannotBeBuilt(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.remoteKey("a", nil)
	w.remoteKey("b", nil)
	w.remoteKey("c", nil)
	w.clock.advance(time.Hour)
	w.remote.build = func() error { return errors.New("the credential has no such form") }
	w.start()
	before := w.remote.builds
	for range 20 {
		w.read("creds/a", nil)
		w.read("keys/a", nil)
		w.pass(time.Minute)
	}
	if n := w.remote.builds - before; n > 2 {
		t.Errorf("it was built %d times", n)
	}
	resp := w.write("rotate/a", map[string]any{"compromised": true})
	if len(resp.Warnings) == 0 {
		t.Error("no warning")
	}
	if _, err := w.do(opRead, "creds/a", nil); err == nil {
		t.Error("a compromised key is given to readers")
	}
	w.write("providers/svc/rotate", map[string]any{"compromised": true})
	for _, name := range []string{"b", "c"} {
		if _, err := w.do(opRead, "creds/"+name, nil); err == nil {
			t.Errorf("%s is given to readers", name)
		}
	}
	w.refused(opWrite, "rotate/b", nil, "no such form")
	if _, err := w.do(opDelete, "keys/c", map[string]any{"revoke_now": true}); err != nil {
		t.Errorf("deleting: %v", err)
	}
	for range 30 {
		w.pass(time.Minute)
	}
	w.remote.build = nil
	w.write("providers/svc", map[string]any{"max_rotations_per_minute": 0})
	for range 70 {
		w.pass(time.Minute)
	}
	for _, id := range []string{"id-1", "id-2", "id-3"} {
		if w.remote.keys[id].alive {
			t.Errorf("%s still works", id)
		}
	}
	for _, name := range []string{"a", "b"} {
		if got := w.read("creds/"+name, nil); !w.remote.works(got["key"].(string)) {
			t.Errorf("%s does not work", name)
		}
	}
}

// engine-core 6: a version is ended as it was made, whatever has changed since.
func TestVersionsAreEndedAsTheyWereMade(t *testing.T) {
	change := map[string]func(w *world){
		"parameters": func(w *world) { w.write("keys/k", map[string]any{"parameters": map[string]any{"scope": "other"}}) },
		"base URL": func(w *world) {
			w.write("providers/svc", map[string]any{"settings": map[string]any{"base_url": "https://b.example"}, "credential": "key=x"})
		},
		"both, twice": func(w *world) {
			w.write("keys/k", map[string]any{"parameters": map[string]any{"scope": "other"}})
			w.write("providers/svc", map[string]any{"settings": map[string]any{"base_url": "https://b.example"}, "credential": "key=x"})
			w.write("keys/k", map[string]any{"parameters": map[string]any{"scope": "third"}})
			w.write("providers/svc", map[string]any{"settings": map[string]any{"base_url": "https://c.example"}, "credential": "key=x"})
		},
	}
	end := map[string]func(w *world){
		"grace":        func(w *world) { w.write("rotate/k", nil); w.start(); w.pass(2 * day) },
		"compromise":   func(w *world) { w.write("rotate/k", map[string]any{"compromised": true}) },
		"deletion":     func(w *world) { _, _ = w.do(opDelete, "keys/k", map[string]any{"revoke_now": true}) },
		"a lost mint":  nil,
		"grace before": nil,
	}
	for changed, do := range change {
		for ended, finish := range end {
			t.Run(changed+", "+ended, func(t *testing.T) {
				w := newWorld(t, remoteCaps())
				w.remote.scoped = true
				w.write("providers/svc", map[string]any{"type": "remote", "settings": map[string]any{"base_url": "https://a.example"}})
				w.write("keys/k", map[string]any{"provider": "svc", "parameters": map[string]any{"scope": "one"}, "grace_period": "1d"})
				switch ended {
				case "a lost mint":
					w.remote.setFault(func(op string, after bool) error {
						if op == "create" && after {
							return &provider.Error{Op: op, Kind: provider.KindUncertain, Msg: "no answer"}
						}
						return nil
					})
					_, _ = w.do(opWrite, "rotate/k", nil)
					w.remote.setFault(nil)
					do(w)
					w.pass(5 * time.Minute)
					if w.remote.keys["id-2"].alive {
						t.Error("the lost key is alive")
					}
					return
				case "grace before":
					w.write("rotate/k", nil)
					do(w)
					w.pass(2 * day)
				default:
					do(w)
					finish(w)
				}
				if w.remote.keys["id-1"].alive {
					t.Errorf("id-1 is alive: %v", w.read("versions/k", nil)["versions"])
				}
			})
		}
	}
}

// engine-core 7: text stays text, and a number keeps its digits.
func TestValuesKeepTheirDigits(t *testing.T) {
	w := newWorld(t, remoteCaps())
	for given, want := range map[string]string{
		"12345678": "12345678", "123456789012": "123456789012", "9007199254740993": "9007199254740993", "1e3": "1e3",
		"0123": "0123", "1.0": "1.0", "true": "true", "null": "null", "0x10": "0x10", "12345678901234567890123": "12345678901234567890123",
		`"quoted"`: `"quoted"`, "a=b=c": "a=b=c", "": "",
	} {
		w.write("providers/svc", map[string]any{"type": "remote", "credential": []any{"password=" + given}})
		if got := w.b.providers.record("svc").Credential["password"]; got != want {
			t.Errorf("credential=password=%s is stored as %q", given, got)
		}
	}
	for given, want := range map[any]string{
		json.Number("12345678"): "12345678", json.Number("9007199254740993"): "9007199254740993", json.Number("1.10"): "1.10",
		float64(12345678): "12345678", true: "true", "text": "text",
	} {
		w.write("providers/svc", map[string]any{"credential": map[string]any{"password": given}})
		if got := w.b.providers.record("svc").Credential["password"]; got != want {
			t.Errorf("%v (%T) is stored as %q", given, given, got)
		}
	}
	w.write("providers/svc", map[string]any{"credential": `{"password": 9007199254740993}`})
	if got := w.b.providers.record("svc").Credential["password"]; got != "9007199254740993" {
		t.Errorf("a JSON object: %q", got)
	}
	w.remoteKey("k", map[string]any{"custom_metadata": []any{"account_id=123456789012"}, "parameters": map[string]any{"scope": json.Number("9007199254740993")}})
	w.start()
	if got := w.read("keys/k", nil); fmt.Sprint(got["custom_metadata"]) != "map[account_id:123456789012]" || fmt.Sprint(got["parameters"]) != "map[scope:9007199254740993]" {
		t.Errorf("%v %v", got["custom_metadata"], got["parameters"])
	}
	w.remote.keys["x"] = &serviceKey{id: "x", value: "the-key", alive: true}
	w.write("import/k", map[string]any{"values": map[string]any{"key": "the-key", "account_id": json.Number("123456789012")}})
	if got := w.read("creds/k", nil)["values"]; fmt.Sprint(got) != "map[account_id:123456789012 key:the-key]" {
		t.Errorf("%v", got)
	}
	w.refused(opWrite, "providers/svc", map[string]any{"credential": `{"a": 1} {"b": 2}`}, "credential")
}

// engine-core 8, engine 5: without names nothing is ended that may be somebody else's.
func TestWithoutNamesNobodysKeyIsEnded(t *testing.T) {
	caps := remoteCaps()
	caps.Named = false
	lost := func(effect bool) (*world, func()) {
		w := newWorld(t, caps)
		w.remoteKey("a", map[string]any{"grace_period": "1d"})
		w.remoteKey("b", map[string]any{"grace_period": "1d"})
		w.remote.setFault(func(op string, after bool) error {
			if op == "create" && after == effect {
				return &provider.Error{Op: op, Kind: provider.KindUncertain, Msg: "no answer"}
			}
			return nil
		})
		return w, func() { _, _ = w.do(opWrite, "rotate/a", nil); w.remote.setFault(nil) }
	}
	t.Run("another key of the mount", func(t *testing.T) {
		w, lose := lost(false)
		lose()
		w.write("rotate/b", nil)
		for range 10 {
			w.pass(time.Minute)
		}
		if got := w.read("creds/b", nil); !w.remote.works(got["key"].(string)) {
			t.Error("b is dead")
		}
		if w.read("keys/a", nil)["uncertain"] != nil || w.read("status", nil)["open_intents"] != 0 {
			t.Errorf("nothing was made, nothing is uncertain: %v", w.read("keys/a", nil))
		}
	})
	t.Run("a colleague's", func(t *testing.T) {
		for _, age := range []time.Duration{0, -time.Hour, time.Hour} { // whatever its clock says
			w, lose := lost(false)
			lose()
			w.remote.keys["theirs"] = &serviceKey{id: "theirs", value: "theirs", alive: true, created: w.clock.Wall().Add(age)}
			for range 10 {
				w.pass(time.Minute)
			}
			if !w.remote.works("theirs") {
				t.Error("somebody else's key was ended")
			}
			if w.read("keys/a", nil)["uncertain"] == nil {
				t.Error("nobody is told")
			}
		}
	})
	t.Run("ours, with a clock that is off", func(t *testing.T) { // engine 6, engine-core 19
		w, lose := lost(true)
		lose()
		w.remote.keys["id-3"].created = w.clock.Wall().Add(-time.Hour)
		for range 10 {
			w.pass(time.Minute)
		}
		u, _ := w.read("keys/a", nil)["uncertain"].(map[string]any)
		if u == nil || !strings.Contains(fmt.Sprint(u["reason"]), "id-3") {
			t.Errorf("it is taken for somebody else's: %v", u)
		}
		w.refused(opWrite, "resolve/a", map[string]any{"action": "revoke", "provider_key_id": "id-2"}, "another key of this mount")
		w.write("resolve/a", map[string]any{"action": "revoke", "provider_key_id": "id-3"})
		w.write("rotate/a", nil)
		if w.remote.keys["id-3"].alive {
			t.Error("it is alive")
		}
	})
}

// engine-core 9: a record that has no room for another version makes no storm.
func TestRecordWithoutRoomMakesNoKeys(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.remote.answer = func(k *provider.Key) { k.Values["blob"] = strings.Repeat("x", 30<<10) }
	w.remoteKey("k", map[string]any{"rotation_period": "30s", "grace_period": "30d"})
	for range 120 {
		w.pass(30 * time.Second)
	}
	before := creates(w)
	for range 120 {
		w.pass(5 * time.Second)
	}
	if n := creates(w) - before; n > 0 {
		t.Errorf("%d keys were made for which there is no room", n)
	}
	state := w.read("keys/k", nil)
	if got := state["condition"]; got != "failing" || !strings.Contains(fmt.Sprint(state["rotation_failure"]), "no room") {
		t.Errorf("condition %v, %v", got, state["rotation_failure"])
	}
	if err := settledExcept(w); err != nil {
		t.Error(err)
	}
}

// settledExcept is settled for keys that are alive only as far as the engine knows.
func settledExcept(w *world) error {
	open, err := (store{w.storage}).intents(context.Background())
	if err != nil || len(open) > 0 {
		return fmt.Errorf("%d intents are open, %v", len(open), err)
	}
	snap, err := w.b.snapshot(context.Background(), w.storage, "k")
	if err != nil {
		return err
	}
	if alive := w.remote.alive(); len(alive) != snap.rec.Life.Alive() {
		return fmt.Errorf("%d keys are alive at the service, %d as far as the engine knows", len(alive), snap.rec.Life.Alive())
	}
	return nil
}
