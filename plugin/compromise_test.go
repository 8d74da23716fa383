package apikeys

import (
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
	for n := 1; ; n++ {
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
