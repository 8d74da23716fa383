package apikeys

import (
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"strongroom.example/plugin/provider"
)

// selfMade is a provider whose credential is a key that it makes itself, at a
// service that refuses every credential that does not work.
func selfMade(t *testing.T) (w *world, old []string) {
	t.Helper()
	w = newWorld(t, remoteCaps())
	w.remote.strict = true
	w.remote.keys["seed"] = &serviceKey{id: "seed", value: "by-hand", alive: true}
	w.write("providers/svc", map[string]any{"type": "remote", "credential": "key=by-hand", "max_rotations_per_minute": 1})
	for _, name := range []string{"ops/svc", "k0", "k1"} {
		w.remoteKey(name, nil)
	}
	w.write("providers/svc", map[string]any{"credential": map[string]any{}, "credential_key": "ops/svc"})
	w.write("rotate/k1", nil)
	delete(w.remote.keys, "seed")
	for _, k := range w.remote.keys {
		old = append(old, k.value)
	}
	w.clock.advance(time.Second)
	return w, old
}

// The process stops before and after every write and call. As soon as one key
// or the campaign itself is stored as compromised, everything must end, and the
// provider must still have a credential to go on with.
func TestCompromisedCredentialGoesOnAfterACrash(t *testing.T) {
	for n := 1; ; n += stride() {
		w, old := selfMade(t)
		cr := &crasher{at: n}
		w.storage.setFault(cr.storage)
		w.remote.setFault(cr.service)
		_, asked := w.do(logical.UpdateOperation, "providers/svc/rotate", map[string]any{"compromised": true})
		for range 3 {
			if asked == nil && !cr.isDead() { // the scheduler's part
				w.clock.advance(time.Second)
				w.tick()
			}
		}
		w.storage.setFault(nil)
		w.remote.setFault(nil)
		if !cr.hit() {
			if n < 25 {
				t.Errorf("only %d points were reached", n)
			}
			return
		}
		w.start()
		if n == 1 { // before the first write nothing has been promised
			w.write("providers/svc/rotate", map[string]any{"compromised": true})
		}
		for range 10 {
			w.pass(time.Minute)
		}
		for _, value := range old {
			if w.remote.works(value) {
				t.Errorf("point %d (%s): %s still works", n, cr.where, value)
			}
		}
		if err := settled(w, remoteCaps()); err != nil {
			t.Errorf("point %d (%s): %v", n, cr.where, err)
		}
		if left, err := (store{w.storage}).campaigns(t.Context()); err != nil || len(left) > 0 {
			t.Errorf("point %d (%s): campaigns left: %v %v", n, cr.where, left, err)
		}
	}
}

// Where no new credential can be made, the old one ends all the same, nobody
// gets a key made with it, and all goes on with one that is written by hand.
func TestCompromisedCredentialWithoutSuccessor(t *testing.T) {
	w, old := selfMade(t)
	w.remote.setFault(failing("create", provider.KindTransient))
	resp := w.write("providers/svc/rotate", map[string]any{"compromised": true})
	if resp.Data["marked_keys"] != 2 || len(resp.Warnings) == 0 {
		t.Errorf("%v %v", resp.Data, resp.Warnings)
	}
	w.remote.setFault(nil)
	w.pass(time.Minute)
	for _, name := range []string{"ops/svc", "k0", "k1"} {
		if _, err := w.do(logical.ReadOperation, "creds/"+name, nil); err == nil {
			t.Errorf("%s is still given to readers", name)
		}
	}
	w.remote.keys["new"] = &serviceKey{id: "new", value: "by-hand-again", alive: true}
	w.write("providers/svc", map[string]any{"credential": "key=by-hand-again", "credential_key": ""})
	for range 70 { // the engine may be in a backoff of up to an hour
		w.pass(time.Minute)
	}
	delete(w.remote.keys, "new")
	for _, value := range old {
		if w.remote.works(value) {
			t.Errorf("%s still works", value)
		}
	}
	if err := settled(w, remoteCaps()); err != nil {
		t.Error(err)
	}
}

// A compromised credential that is rotated as a key makes its successor first.
func TestCompromisedCredentialRotatedAsAKey(t *testing.T) {
	w, _ := selfMade(t)
	before := w.read("creds/ops/svc", nil)["key"].(string)
	cr := &crasher{at: 2} // the mark is stored, and nothing else
	w.storage.setFault(cr.storage)
	if _, err := w.do(logical.UpdateOperation, "rotate/ops/svc", map[string]any{"compromised": true}); err == nil {
		t.Fatal("the crash did not happen")
	}
	w.storage.setFault(nil)
	w.start()
	for range 5 {
		w.pass(time.Minute)
	}
	if w.remote.works(before) {
		t.Error("the compromised one still works")
	}
	if now := w.read("creds/ops/svc", nil)["key"].(string); !w.remote.works(now) {
		t.Error("the new one does not work")
	}
}

// setBack gives an engine with a key, whose wall clock is days behind, and a
// function that ends its process: the next one goes on from the time that was
// stored nine minutes ago, or an hour, where storage has taken no later one.
func setBack(t *testing.T, ago time.Duration) (w *world, restart func()) {
	t.Helper()
	w = newWorld(t, remoteCaps())
	w.remoteKey("k", map[string]any{"grace_period": "1d"})
	w.clock.jump(-3 * day)
	w.pass(time.Minute)
	stored, err := w.storage.Get(t.Context(), clockKey)
	if err != nil || stored == nil {
		t.Fatal(stored, err)
	}
	w.clock.advance(ago)
	return w, func() {
		if err := w.storage.Put(t.Context(), stored); err != nil {
			t.Fatal(err)
		}
		w.start()
	}
}

// What was made after a campaign is not known to others, whatever the clock shows
// afterwards: its readers keep what they were promised, and nothing is made again
// and again.
func TestMadeAfterACampaignByAClockThatIsSetBack(t *testing.T) {
	for name, after := range map[string]func(w *world){
		"rotated": func(w *world) { w.write("rotate/k", map[string]any{"force": true}) },
		"imported": func(w *world) {
			w.remote.keys["mine"] = &serviceKey{id: "mine", value: "mine", alive: true}
			w.write("import/k", map[string]any{"key": "mine", "provider_key_id": "mine"})
		},
		"by itself":      func(w *world) { w.tick() },
		"a moment later": func(w *world) { w.clock.advance(time.Second); w.write("rotate/k", nil) },
		"twice":          func(w *world) { w.tick(); w.write("rotate/k", nil) },
		"another key":    func(w *world) { w.tick(); w.remoteKey("new", nil) },
	} {
		for _, looked := range []bool{false, true} {
			for _, accept := range []bool{false, true} {
				for _, ago := range []time.Duration{9 * time.Minute, time.Hour} {
					t.Run(fmt.Sprintf("%s, looked at %v, accepted %v, %s", name, looked, accept, ago), func(t *testing.T) {
						w, restart := setBack(t, ago)
						w.write("providers/svc/rotate", map[string]any{"compromised": true})
						if after(w); looked {
							w.tick()
						}
						restart()
						promised := w.read("creds/k", nil)["key"].(string)
						if accept {
							w.write("config", map[string]any{"accept_clock": true})
						}
						made := len(w.remote.keys)
						for range 2 * 60 {
							w.pass(time.Minute)
						}
						if !w.remote.works(promised) || w.read("creds/k", nil)["key"] != promised {
							t.Error("what readers were promised was ended")
						}
						if n := len(w.remote.keys) - made; n > 0 {
							t.Errorf("%d keys were made, and nobody has asked for any", n)
						}
						if err := settled(w, remoteCaps()); err != nil {
							t.Error(err)
						}
					})
				}
			}
		}
	}
}

// A campaign reaches everything that was there when it began, whatever the clock
// showed when that was made, and ends it within minutes.
func TestCampaignByAClockThatIsSetBack(t *testing.T) {
	compromised := func(w *world) { w.write("providers/svc/rotate", map[string]any{"compromised": true}) }
	accept := func(w *world) { w.write("config", map[string]any{"accept_clock": true}) }
	for name, then := range map[string]func(w *world, restart func()){
		"what was made before the restart": func(w *world, restart func()) { restart(); compromised(w) },
		"a moment later":                   func(w *world, restart func()) { restart(); w.pass(time.Second); compromised(w) },
		"the clock is accepted first": func(w *world, restart func()) {
			restart()
			accept(w)
			w.pass(time.Second)
			compromised(w)
		},
		"the clock is accepted, and the process ends": func(w *world, _ func()) { accept(w); w.start(); compromised(w) },
		"a second one": func(w *world, _ func()) { compromised(w); w.write("rotate/k", nil); compromised(w) },
		"a second one after the restart": func(w *world, restart func()) {
			compromised(w)
			w.write("rotate/k", nil)
			restart()
			compromised(w)
		},
		"the clock is accepted at the same time": func(w *world, restart func()) { accept(w); compromised(w) },
		"marked before the restart": func(w *world, restart func()) {
			w.remote.setFault(failing("create", provider.KindTransient))
			compromised(w)
			w.tick()
			w.remote.setFault(nil)
			restart()
		},
		"the clock is accepted before a key is looked at": func(w *world, _ func()) { compromised(w); accept(w) },
		"the clock is accepted before a restart":          func(w *world, restart func()) { compromised(w); accept(w); w.start() },
		"the clock is accepted after a restart":           func(w *world, restart func()) { compromised(w); restart(); accept(w) },
		"one key, with new_first": func(w *world, restart func()) {
			w.remote.setFault(failing("create", provider.KindTransient))
			w.write("rotate/k", map[string]any{"compromised": true, "new_first": "5m"})
			w.remote.setFault(nil)
			restart()
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, restart := setBack(t, 2*clockSaveEvery-10*time.Second)
			w.write("rotate/k", nil)
			then(w, restart)
			var old []string
			for _, k := range w.remote.keys {
				old = append(old, k.value)
			}
			for range 8 {
				w.pass(time.Minute)
			}
			for _, value := range old {
				if w.remote.works(value) {
					t.Errorf("%s is known to others, and works", value)
				}
			}
			if err := settled(w, remoteCaps()); err != nil {
				t.Error(err)
			}
			w.pass(20 * time.Minute)
			for _, c := range w.b.campaigns.byProvider {
				if c.Started.After(w.b.clock.now()) {
					t.Errorf("a date is left in the future: %+v", c)
				}
			}
		})
	}
}
