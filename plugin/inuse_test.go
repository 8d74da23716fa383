package apikeys

import (
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"strongroom.example/plugin/provider"
)

// use says when the key of this value was last used at the service.
func (s *service) use(value any, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.keys {
		if k.value == value {
			k.used = at
		}
	}
}

// replaced has a key with 4 days of grace whose version 1 was replaced by
// version 2, and gives the value of version 1.
func replaced(t *testing.T, mode string) (w *world, old string) {
	t.Helper()
	w = newWorld(t, remoteCaps())
	if mode != "" {
		w.write("config", map[string]any{"revoke_in_use": mode})
	}
	w.remoteKey("k", map[string]any{"grace_period": "4d"})
	old = w.read("creds/k", nil)["key"].(string)
	w.write("rotate/k", nil)
	return w, old
}

func TestVersionInUseIsToldOfBeforeItEnds(t *testing.T) {
	w, old := replaced(t, "")
	w.pass(2 * day)
	w.remote.use(old, w.clock.Wall())
	w.pass(23 * time.Hour)
	if w.events.has("apikeys/in-use") {
		t.Error("it was told of too early")
	}
	w.pass(2 * time.Hour) // a day before the end, it is looked at
	if !w.events.has("apikeys/in-use") {
		t.Error("nobody was told")
	}
	state := w.read("status", nil)["keys"].(map[string]any)["k"].(map[string]any)
	if state["condition"] != "in_use" || state["in_use"].([]map[string]any)[0]["version"] != 1 {
		t.Errorf("status: %v", state)
	}
	shown := w.read("versions/k", nil)["versions"].(map[string]any)["1"].(map[string]any)
	if shown["last_used_time"] != stamp(w.clock.Wall().Add(-25*time.Hour)) {
		t.Errorf("last_used_time %v", shown["last_used_time"])
	}
	w.pass(23 * time.Hour) // its grace is over
	if w.remote.works(old) {
		t.Error("warn does not keep a version alive")
	}
	if state := w.read("keys/k", nil)["condition"]; state != "ok" {
		t.Errorf("afterwards the key is %v", state)
	}
}

func TestVersionNotInUse(t *testing.T) {
	for name, set := range map[string]func(w *world, old string){
		"never used":             func(*world, string) {},
		"used before it was old": func(w *world, old string) { w.remote.use(old, w.clock.Wall().Add(-time.Second)) },
		"nobody can tell": func(w *world, _ string) {
			w.remote.setFault(failing("last_used", provider.KindTransient))
		},
	} {
		for _, mode := range []string{inUseWarn, inUseDelay} {
			t.Run(name+", "+mode, func(t *testing.T) {
				w, old := replaced(t, mode)
				set(w, old)
				w.pass(3*day + time.Hour)
				w.pass(day)
				if w.events.has("apikeys/in-use") || w.remote.works(old) {
					t.Errorf("told of: %v, alive: %v", w.events.has("apikeys/in-use"), w.remote.works(old))
				}
			})
		}
	}
}

func TestDelayedRevocation(t *testing.T) {
	t.Run("until the use ends", func(t *testing.T) {
		w, old := replaced(t, inUseDelay)
		w.pass(3*day + time.Hour)
		w.remote.use(old, w.clock.Wall())
		w.pass(day)
		if !w.remote.works(old) || !w.events.has("apikeys/in-use") {
			t.Error("it was not put off")
		}
		if _, err := w.do(logical.ReadOperation, "creds/k", map[string]any{"version": 1}); err == nil {
			t.Error("readers still get it, and would be promised something")
		}
		w.start() // what is put off stays so over a restart
		w.tick()
		if !w.remote.works(old) {
			t.Error("a restart revoked it")
		}
		for range 3 {
			w.pass(day)
		}
		if w.remote.works(old) {
			t.Error("it is alive although nobody used it for days")
		}
	})
	t.Run("for one more grace period at most", func(t *testing.T) {
		w, old := replaced(t, inUseDelay)
		for range 7 {
			w.pass(day)
			w.remote.use(old, w.clock.Wall())
		}
		if !w.remote.works(old) {
			t.Error("it is dead already")
		}
		w.pass(day + time.Minute)
		if w.remote.works(old) {
			t.Error("it is still alive")
		}
	})
	for name, end := range map[string]func(w *world) error{
		"not where somebody ends it": func(w *world) error {
			_, err := w.do(logical.DeleteOperation, "versions/k", map[string]any{"version": 1, "force": true})
			return err
		},
		"not where it is compromised": func(w *world) error {
			_, err := w.do(logical.UpdateOperation, "rotate/k", map[string]any{"compromised": true})
			return err
		},
		"not where the key is deleted at once": func(w *world) error {
			_, err := w.do(logical.DeleteOperation, "keys/k", map[string]any{"revoke_now": true})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, old := replaced(t, inUseDelay)
			w.remote.use(old, w.clock.Wall().Add(time.Minute))
			w.clock.advance(2 * time.Minute)
			if err := end(w); err != nil {
				t.Fatal(err)
			}
			w.tick()
			if w.remote.works(old) {
				t.Error("it is still alive")
			}
		})
	}
	t.Run("not where the next version needs its place", func(t *testing.T) {
		caps := remoteCaps()
		caps.MaxKeys = 2
		w := newWorld(t, caps)
		w.write("config", map[string]any{"revoke_in_use": inUseDelay})
		w.remoteKey("k", map[string]any{"grace_period": "4d"})
		old := w.read("creds/k", nil)["key"].(string)
		w.write("rotate/k", nil)
		w.pass(3*day + time.Hour)
		w.remote.use(old, w.clock.Wall())
		w.pass(day)
		if w.remote.works(old) {
			t.Error("it keeps a place of two")
		}
	})
}

func TestLastUsedOnRequest(t *testing.T) {
	w, old := replaced(t, "")
	w.remote.use(old, w.clock.Wall())
	shown := w.read("versions/k", map[string]any{"last_used": true})["versions"].(map[string]any)
	if got := shown["1"].(map[string]any)["last_used_time"]; got != stamp(w.clock.Wall()) {
		t.Errorf("version 1: %v", got)
	}
	if got := shown["2"].(map[string]any); got["last_used_time"] != nil || got["last_used_checked_time"] == nil {
		t.Errorf("version 2: %v", got)
	}
	w.remote.setFault(failing("last_used", provider.KindTransient))
	resp, err := w.do(logical.ReadOperation, "versions/k", map[string]any{"last_used": true})
	if err != nil || len(resp.Warnings) != 2 {
		t.Errorf("%v %v", err, resp)
	}
	w.localKey("l", nil)
	w.refused(logical.ReadOperation, "versions/l", map[string]any{"last_used": true}, "does not know")
	w.refused(logical.UpdateOperation, "config", map[string]any{"revoke_in_use": "never"}, `"never"`, "warn or delay")
}
