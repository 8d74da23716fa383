package apikeys

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"strongroom.example/plugin/lifecycle"
	"strongroom.example/plugin/provider"
	"strongroom.example/plugin/provider/liar"
)

var errCrash = errors.New("the process is gone")

// crasher stops the process at the nth point: before or after a storage write,
// before a provider's effect or between the effect and its answer. From then on
// nothing that the old process does has any effect.
type crasher struct {
	mu     sync.Mutex
	at     int
	count  int
	dead   bool
	single bool // fail once and live on, as a network fault does
	where  string
}

func (c *crasher) point(what string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead {
		return errCrash
	}
	c.count++
	if c.count != c.at {
		return nil
	}
	c.where = what
	c.dead = !c.single
	return errCrash
}

func (c *crasher) isDead() bool { c.mu.Lock(); defer c.mu.Unlock(); return c.dead }
func (c *crasher) hit() bool    { c.mu.Lock(); defer c.mu.Unlock(); return c.where != "" }

func (c *crasher) storage(op, key string, after bool) error {
	if op == "get" {
		if c.isDead() {
			return errCrash
		}
		return nil
	}
	return c.point(fmt.Sprintf("%s %s, after: %v", op, key, after))
}

func (c *crasher) service(op string, after bool) error {
	err := c.point(fmt.Sprintf("provider %s, after: %v", op, after))
	if err == nil {
		return nil
	}
	kind := provider.KindTransient
	if op == "create" && after {
		kind = provider.KindUncertain
	}
	return &provider.Error{Op: op, Kind: kind, Msg: "no answer", Err: err}
}

// promise is what a client has read and may rely on.
type promise struct {
	value string
	until time.Time
}

// clients read after every step and remember what they were promised.
type clients struct {
	promises []promise
}

func (c *clients) read(w *world, name string) {
	resp, err := w.do(logical.ReadOperation, "creds/"+name, nil)
	if err != nil || resp == nil {
		return
	}
	ttl := time.Duration(resp.Data["cache_ttl"].(int64)) * time.Second
	c.promises = append(c.promises, promise{resp.Data["key"].(string), w.clock.Wall().Add(ttl)})
}

// forget is for steps that break promises on purpose.
func (c *clients) forget() { c.promises = nil }

func (c *clients) check(w *world) error {
	for _, p := range c.promises {
		if w.clock.Wall().Before(p.until) && !w.remote.works(p.value) {
			return fmt.Errorf("%s was promised until %s and is dead at %s", p.value, p.until, w.clock.Wall())
		}
	}
	return nil
}

// crashSteps is a key's life. Each step tolerates failure: after a crash
// nothing works any more.
func crashSteps(w *world, c *clients, caps provider.Capabilities) []func() {
	const name = "app/prod/key"
	write := func(path string, data map[string]any) { _, _ = w.do(logical.UpdateOperation, path, data) }
	return []func(){
		func() {
			write("keys/"+name, map[string]any{"provider": "svc", "rotation_period": "30d", "grace_period": "1d"})
		},
		func() { write("rotate/"+name, nil) },
		func() { w.pass(25 * time.Hour) }, // version 1 is revoked
		func() { w.pass(30 * day) },       // rotates by itself
		func() { w.pass(12 * time.Hour) },
		func() {
			if caps.Overlap {
				w.read("status", nil)
				write("rollback/"+name, map[string]any{"version": 2})
			}
		},
		func() { w.pass(26 * time.Hour) },
		func() { write("rotate/"+name, map[string]any{"force": true}); c.forget() },
		func() { write("rotate/"+name, map[string]any{"compromised": true}); c.forget() },
		func() { w.pass(time.Hour) },
	}
}

// deleteSteps end the key; nothing may be left at the provider.
func deleteSteps(w *world) []func() {
	return []func(){
		func() {
			_, _ = w.do(logical.UpdateOperation, "keys/gone", map[string]any{"provider": "svc", "rotation_period": "30d", "grace_period": "1d"})
		},
		func() { _, _ = w.do(logical.UpdateOperation, "rotate/gone", nil) },
		func() { _, _ = w.do(logical.DeleteOperation, "keys/gone", nil) },
		func() { w.pass(25 * time.Hour) },
	}
}

func crashCaps() map[string]provider.Capabilities {
	full := remoteCaps()
	noTest := full
	noTest.Test = false
	twoKeys := full
	twoKeys.Named, twoKeys.MaxKeys = false, 2
	noOverlap := full
	noOverlap.Overlap = false
	return map[string]provider.Capabilities{"full": full, "no test": noTest, "two keys without names": twoKeys, "no overlap": noOverlap}
}

// stride is by how many points a test of every point goes on: the short form
// takes some of them, by the same code.
func stride() int { return shorter(1, 7) }

// shorter is a number of the plain run, or of the short one.
func shorter(plain, short int) int {
	if testing.Short() {
		return short
	}
	return plain
}

func TestCrashAtEveryPoint(t *testing.T) {
	for name, caps := range crashCaps() {
		for _, single := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, single fault %v", name, single), func(t *testing.T) {
				points := 0
				for n := 1; ; n += stride() {
					if !crashOnce(t, caps, n, single, crashSteps) {
						break
					}
					points++
				}
				t.Logf("%d points", points)
				if points*stride() < 40 {
					t.Errorf("only %d points were reached, the life is too short to prove anything", points)
				}
			})
		}
	}
}

func TestCrashWhileDeleting(t *testing.T) {
	for n := 1; ; n += stride() {
		if !crashOnce(t, remoteCaps(), n, false, func(w *world, _ *clients, _ provider.Capabilities) []func() { return deleteSteps(w) }) {
			if n < 15 {
				t.Errorf("only %d points were reached", n)
			}
			return
		}
	}
}

// crashOnce lives a life that is interrupted at point n, recovers, and checks
// what must hold. It tells whether the point was reached.
func crashOnce(t *testing.T, caps provider.Capabilities, n int, single bool, steps func(*world, *clients, provider.Capabilities) []func()) bool {
	t.Helper()
	w := newWorld(t, caps)
	w.write("providers/svc", map[string]any{"type": "remote", "max_rotations_per_minute": 0})
	c, cr := &clients{}, &crasher{at: n, single: single}
	w.storage.setFault(cr.storage)
	w.remote.setFault(cr.service)
	for _, step := range steps(w, c, caps) {
		step()
		if cr.isDead() {
			break
		}
		for _, name := range w.b.index.page("", 10) {
			c.read(w, name)
		}
		if err := c.check(w); err != nil {
			t.Fatalf("point %d (%s): %v", n, cr.where, err)
		}
	}
	if !cr.hit() {
		return false
	}
	w.storage.setFault(nil)
	w.remote.setFault(nil)
	if cr.isDead() {
		w.start()
	}
	if err := c.check(w); err != nil {
		t.Fatalf("point %d (%s), after the restart: %v", n, cr.where, err)
	}
	// Long enough for every retry, short enough that no rotation is due.
	for range 40 {
		w.pass(10 * time.Minute)
		if err := c.check(w); err != nil {
			t.Fatalf("point %d (%s), while recovering: %v", n, cr.where, err)
		}
	}
	personLooks(w)
	if err := settled(w, caps); err != nil {
		t.Errorf("point %d (%s): %v\ncalls: %s", n, cr.where, err, strings.Join(w.remote.calls, ", "))
	}
	return true
}

// personLooks resolves what the engine may not: without names nobody can tell
// whose a key is.
func personLooks(w *world) {
	if w.remote.caps.Named {
		return
	}
	for _, name := range w.b.index.page("", 100) {
		snap, err := w.b.snapshot(w.t.Context(), w.storage, name)
		if err != nil || snap == nil || snap.rec.Uncertain == nil {
			continue
		}
		asked := map[string]any{"action": "absent"}
		for _, id := range w.remote.alive() {
			if snap.rec.Life.ByProviderID(id) == nil {
				asked = map[string]any{"action": "revoke", "provider_key_id": id}
			}
		}
		w.write("resolve/"+name, asked)
	}
	for range 20 {
		w.pass(10 * time.Minute)
	}
}

// settled checks the invariants of a world at rest.
func settled(w *world, caps provider.Capabilities) error {
	known := map[string]bool{}
	for _, name := range w.b.index.page("", 100) {
		rec, err := (store{w.storage}).key(w.t.Context(), name)
		if err != nil {
			return err
		}
		if rec == nil {
			return fmt.Errorf("key %s is in the index only", name)
		}
		if rec.Uncertain != nil {
			return fmt.Errorf("key %s is uncertain although the provider lists", name)
		}
		if err := rec.Life.Check(); err != nil {
			return err
		}
		for i := range rec.Life.Versions {
			v := &rec.Life.Versions[i]
			if v.Alive() {
				known[v.ProviderID] = true
			}
			if v.Compromised && v.State != lifecycle.Revoked {
				return fmt.Errorf("version %d is compromised and %s", v.Number, v.State)
			}
			if v.State == lifecycle.Pending {
				return fmt.Errorf("version %d is pending for ever", v.Number)
			}
		}
		if rec.Deleting != nil {
			continue
		}
		resp, err := w.do(logical.ReadOperation, "creds/"+name, nil)
		if err != nil || resp == nil {
			return fmt.Errorf("key %s cannot be read: %v", name, err)
		}
		if !w.remote.works(resp.Data["key"].(string)) {
			return fmt.Errorf("the current version %v of %s does not work", resp.Data["version"], name)
		}
	}
	alive := w.remote.alive()
	for _, id := range alive {
		if !known[id] {
			return fmt.Errorf("%s is alive at the provider and unknown to the engine", id)
		}
	}
	for id := range known {
		if !slices.Contains(alive, id) {
			return fmt.Errorf("the engine takes %s for alive", id)
		}
	}
	if open, err := (store{w.storage}).intents(w.t.Context()); err != nil || len(open) > 0 {
		return fmt.Errorf("%d intents are open, %v", len(open), err)
	}
	return nil
}

// A write may fail and have been carried out. What was made before it is not ended by
// what memory still believes: here a successor has the id of those that it replaces.
func TestAWriteThatFailedMayHaveBeenCarriedOut(t *testing.T) {
	for n := 1; ; n++ {
		h := newHostile(t, liar.Services()["neither"], liar.Lies{SameID: true})
		h.keys = h.keys[:1]
		h.write("keys/app/key", map[string]any{"provider": "svc", "grace_period": "1h"})
		h.write("rotate/app/key", nil)
		h.go_(2*time.Hour, 10*time.Minute) // the end of the first one is put off, as it has the id of the second
		cr := &crasher{at: n}
		h.storage.setFault(cr.storage) // storage alone: the service is asked as ever
		_, _ = h.do(logical.UpdateOperation, "rotate/app/key", map[string]any{"compromised": true})
		h.storage.setFault(nil)
		if !cr.hit() {
			break
		}
		h.start()
		resp, err := h.do(logical.ReadOperation, "creds/app/key", nil)
		if err != nil {
			continue // what is compromised is not served
		}
		if k := h.liar.Truth(resp.Data["key"].(string)); k == nil || !k.Alive {
			t.Errorf("write %d (%s): version %v is served, and the engine has ended it", n, cr.where, resp.Data["version"])
		}
	}
}
