package apikeys

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"strongroom.example/plugin/lifecycle"
	"strongroom.example/plugin/provider"
)

// endAt has the service end the key of this value by itself.
func (s *service) endAt(value any) { s.setAlive(value, false) }

func (s *service) setAlive(value any, alive bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.keys {
		if k.value == value {
			k.alive = alive
		}
	}
}

func (s *service) called(op string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, call := range s.calls {
		if strings.HasPrefix(call, op+" ") {
			n++
		}
	}
	return n
}

func (e *eventLog) count(kind string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := 0
	for _, k := range e.types {
		if k == "apikeys/"+kind {
			n++
		}
	}
	return n
}

// hours lets so many pass, one by one.
func (w *world) hours(n int) {
	for range n {
		w.pass(time.Hour)
	}
}

// checkWorld has a key that was made a day ago, and gives its value.
func checkWorld(t *testing.T, caps provider.Capabilities) (w *world, value any) {
	t.Helper()
	w = newWorld(t, caps)
	w.remoteKey("k", nil)
	w.hours(24)
	return w, w.read("creds/k", nil)["key"]
}

func (w *world) check(name string) map[string]any {
	w.t.Helper()
	return w.write("check/"+name, nil).Data
}

// unmoved gives what a check must never change: what the service has, and what the
// engine has of the versions and their end.
func (w *world) unmoved(name string) string {
	w.t.Helper()
	rec, err := (store{w.storage.Storage}).key(w.t.Context(), name)
	if err != nil || rec == nil {
		w.t.Fatalf("%s: %v", name, err)
	}
	return fmt.Sprint(w.remote.alive(), w.remote.count, w.remote.killed) + asText(&keyRecord{Life: rec.Life, Values: rec.Values, Wait: rec.Wait,
		MintFailure: rec.MintFailure, LastRotation: rec.LastRotation, ScheduleFrom: rec.ScheduleFrom, Requested: rec.Requested})
}

func TestDeadKeyIsToldOfWithinADay(t *testing.T) {
	w, value := checkWorld(t, remoteCaps())
	if got := w.read("keys/k", nil)["check"].(map[string]any); got["result"] != "works" || got["seen_time"] == nil {
		t.Fatalf("after a day: %v", got)
	}
	served, before := fmt.Sprint(w.read("stable-creds/k", nil)), w.unmoved("k")
	w.remote.endAt(value)
	before = strings.Replace(before, "[id-1]", "[]", 1)
	w.hours(24)
	if n := w.events.count("dead"); n != 1 {
		t.Errorf("%d events after a day", n)
	}
	if got := w.read("keys/k", nil)["condition"]; got != "dead" {
		t.Errorf("its condition is %v", got)
	}
	state := w.read("status", nil)
	if got := state["keys"].(map[string]any)["k"].(map[string]any)["check"].(map[string]any); got["result"] != "dead" || got["reason"] == "" {
		t.Errorf("status: %v", got)
	}
	if got := state["by_provider"].(map[string]any)["svc"].(map[string]any)["conditions"].(map[string]any)["dead"]; got != 1 {
		t.Errorf("counted: %v", got)
	}
	w.hours(48)
	if n := w.events.count("dead"); n != 1 {
		t.Errorf("it was told %d times", n)
	}
	if got := fmt.Sprint(w.read("stable-creds/k", nil)); got != served {
		t.Errorf("readers got %s, and get %s", served, got)
	}
	if after := w.unmoved("k"); after != before {
		t.Errorf("something was done\n%s\n%s", before, after)
	}
	w.remote.setAlive(value, true)
	w.hours(5)
	if got := w.read("keys/k", nil)["condition"]; got != "ok" || w.events.count("alive") != 1 {
		t.Errorf("it works again, and is %v, %d events", got, w.events.count("alive"))
	}
	w.hours(48)
	if w.events.count("alive") != 1 || w.events.count("dead") != 1 {
		t.Errorf("%v", w.events.types)
	}
}

// What a look finds, by what the service answers for hours.
func TestWhatSaysThatAKeyIsDead(t *testing.T) {
	said := func(kind provider.Kind, status int) error {
		return &provider.Error{Op: "test", Kind: kind, Status: status, Msg: "the service says no"}
	}
	for name, c := range map[string]struct {
		answer error
		dead   bool
	}{
		"it works":                    {nil, false},
		"401":                         {said(provider.KindUnauthorized, 401), true},
		"it has ended":                {said(provider.KindExpired, 401), true},
		"403, a right or an account":  {said(provider.KindForbidden, 403), false},
		"a limit of the account":      {said(provider.KindLimit, 403), false},
		"403, and nothing said of it": {&provider.Error{Op: "test", Kind: provider.KindUnauthorized, Status: 403, Unsure: true, Msg: "the service refuses the key"}, false},
		"402":                         {said(provider.KindForbidden, 402), false},
		"429":                         {&provider.Error{Op: "test", Kind: provider.KindRateLimited, Status: 429, RetryAfter: time.Minute, Msg: "slow down"}, false},
		"500":                         {said(provider.KindTransient, 500), false},
		"503":                         {said(provider.KindTransient, 503), false},
		"no answer":                   {said(provider.KindTransient, 0), false},
		"400":                         {said(provider.KindRejected, 400), false},
		"404":                         {said(provider.KindNotFound, 404), false},
		"an error of no known type":   {fmt.Errorf("dial tcp: no route to host"), false},
	} {
		t.Run(name, func(t *testing.T) {
			w, _ := checkWorld(t, remoteCaps())
			before := w.unmoved("k")
			w.remote.setFault(func(op string, after bool) error {
				if op == "test" && !after {
					return c.answer
				}
				return nil
			})
			w.hours(60)
			want, result := "ok", "unknown"
			if c.dead {
				want, result = "dead", "dead"
			} else if c.answer == nil {
				result = "works"
			}
			got := w.read("keys/k", nil)
			if got["condition"] != want || got["check"].(map[string]any)["result"] != result {
				t.Errorf("%v, %v", got["condition"], got["check"])
			}
			if n := w.events.count("dead"); n != boolInt(c.dead) {
				t.Errorf("%d events", n)
			}
			if after := w.unmoved("k"); after != before {
				t.Errorf("something was done\n%s\n%s", before, after)
			}
			if n := w.remote.called("test"); n > 1+60/4+4 {
				t.Errorf("%d tests in three days", n)
			}
			w.remote.setFault(nil)
			w.hours(24)
			if got := w.read("check/k", nil); got["condition"] != "ok" || got["result"] != "works" || w.events.count("alive") != boolInt(c.dead) {
				t.Errorf("when all is well again: %v, %v", got, w.events.types)
			}
		})
	}
}

// One refusal says nothing: a service has more than one server. Two at once say no
// more than one.
func TestTwoRefusalsApartInTime(t *testing.T) {
	w, value := checkWorld(t, remoteCaps())
	w.remote.endAt(value)
	for range 5 {
		if got := w.check("k"); got["result"] != "refused" || got["condition"] != "ok" || got["reason"] == "" {
			t.Fatalf("%v", got)
		}
		w.pass(10 * time.Minute)
	}
	if w.events.has("apikeys/dead") {
		t.Error("it was told of too early")
	}
	w.remote.setAlive(value, true)
	if got := w.check("k"); got["result"] != "works" {
		t.Fatalf("%v", got)
	}
	w.remote.endAt(value)
	w.pass(55 * time.Minute) // an hour after the first, and that does not count any more
	if got := w.check("k"); got["result"] != "refused" || got["condition"] != "ok" {
		t.Fatalf("%v", got)
	}
	w.pass(59 * time.Minute)
	if w.events.has("apikeys/dead") || w.events.has("apikeys/alive") {
		t.Error("it was told of too early")
	}
	w.pass(time.Minute) // by itself
	if got := w.read("check/k", nil); got["result"] != "dead" || got["condition"] != "dead" || w.events.count("dead") != 1 {
		t.Errorf("%v, %v", got, w.events.types)
	}
	// Nobody could tell in between: what was known stays.
	w.remote.setFault(failing("test", provider.KindTransient))
	if got := w.check("k"); got["condition"] != "dead" {
		t.Errorf("%v", got)
	}
}

func TestRestartBetweenTwoRefusals(t *testing.T) {
	for name, end := range map[string]func(w *world){
		"killed":   func(*world) {},
		"unloaded": func(w *world) { w.b.Cleanup(w.t.Context()) },
	} {
		t.Run(name, func(t *testing.T) {
			w, value := checkWorld(t, remoteCaps())
			w.remote.endAt(value)
			for !strings.Contains(fmt.Sprint(w.read("check/k", nil)["result"]), "refused") {
				w.pass(10 * time.Minute)
			}
			end(w)
			w.start()
			w.tick()
			if w.events.has("apikeys/dead") {
				t.Error("the restart made two of one")
			}
			w.pass(lifecycle.RefusedApart)
			if w.events.count("dead") != 1 || w.read("check/k", nil)["condition"] != "dead" {
				t.Errorf("the first was forgotten: %v", w.read("check/k", nil))
			}
			tests := w.remote.called("test")
			for range 5 {
				end(w)
				w.start()
				w.tick()
			}
			if n := w.remote.called("test") - tests; n > 5 || w.events.count("dead") != 1 || w.read("check/k", nil)["condition"] != "dead" {
				t.Errorf("%d tests after 5 restarts, %v, %v", n, w.events.types, w.read("check/k", nil))
			}
		})
	}
}

// A restart asks nobody again who was asked today, and forgets no look of a day on
// which the engine did not run.
func TestRestartKeepsTheTimesOfChecks(t *testing.T) {
	w := newWorld(t, remoteCaps())
	const n = 30
	for i := range n {
		w.remoteKey(fmt.Sprintf("k%02d", i), nil)
	}
	w.hours(40)
	tests := w.remote.called("test")
	for range 10 {
		w.b.Cleanup(t.Context())
		w.start()
		w.tick()
	}
	if got := w.remote.called("test") - tests; got != 0 {
		t.Errorf("%d tests after ten restarts", got)
	}
	w.b.Cleanup(t.Context())
	w.clock.advance(22 * time.Hour)
	w.start()
	w.hours(2)
	for i := range n {
		if got := w.read(fmt.Sprintf("check/k%02d", i), nil); got["result"] != "works" || got["next_time"].(string) <= stamp(w.clock.Wall()).(string) {
			t.Errorf("k%02d: %v", i, got)
		}
	}
	if got := w.remote.called("test") - tests; got < n || got > n+n/4 {
		t.Errorf("%d tests of %d keys on one day", got, n)
	}
}

func TestRotationReplacesADeadKey(t *testing.T) {
	for name, replace := range map[string]func(w *world){
		"rotate": func(w *world) { w.write("rotate/k", nil) },
		"import": func(w *world) {
			w.remote.mu.Lock()
			w.remote.keys["own"] = &serviceKey{id: "own", value: "brought", alive: true}
			w.remote.mu.Unlock()
			w.write("import/k", map[string]any{"key": "brought", "provider_key_id": "own"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, value := checkWorld(t, remoteCaps())
			w.remote.endAt(value)
			w.hours(24)
			if got := w.read("keys/k", nil)["condition"]; got != "dead" {
				t.Fatalf("it is %v", got)
			}
			replace(w)
			if got := w.read("keys/k", nil); got["condition"] != "ok" || strings.Contains(fmt.Sprint(got["check"]), "dead") {
				t.Errorf("%v %v", got["condition"], got["check"])
			}
			w.hours(30)
			if got := w.read("check/k", nil); got["result"] != "works" || got["condition"] != "ok" || w.events.count("dead") != 1 {
				t.Errorf("a day later: %v, %v", got, w.events.types)
			}
		})
	}
}

// A service without a test shows a key in its list; where it shows none, or never
// showed this one, nobody can tell.
func TestKeysThatNobodyCanTest(t *testing.T) {
	without := func(test, list bool) provider.Capabilities {
		c := remoteCaps()
		c.Test, c.List, c.Named = test, list, list
		return c
	}
	t.Run("seen in the list", func(t *testing.T) {
		w, value := checkWorld(t, without(false, true))
		if got := w.read("check/k", nil); got["result"] != "works" {
			t.Fatalf("%v", got)
		}
		w.remote.endAt(value)
		w.hours(24)
		if got := w.read("check/k", nil); got["result"] != "dead" || w.events.count("dead") != 1 {
			t.Errorf("%v", got)
		}
	})
	t.Run("never seen in the list", func(t *testing.T) {
		w := newWorld(t, without(false, true))
		w.remoteKey("k", nil)
		w.write("import/k", map[string]any{"key": "brought", "provider_key_id": "not so"})
		w.hours(60)
		if got := w.read("check/k", nil); got["result"] != "unknown" || got["condition"] != "ok" || !strings.Contains(fmt.Sprint(got["reason"]), "never") {
			t.Errorf("%v", got)
		}
	})
	t.Run("neither", func(t *testing.T) {
		w, value := checkWorld(t, without(false, false))
		w.remote.endAt(value)
		w.hours(48)
		for _, got := range []map[string]any{w.check("k"), w.read("check/k", nil), w.read("keys/k", nil)["check"].(map[string]any)} {
			if got["result"] != "not_looked_at" || got["since"] != "2026-03-01T12:00:00Z" || !strings.Contains(fmt.Sprint(got["reason"]), "no test") {
				t.Errorf("%v", got)
			}
		}
		if n := w.remote.called("test") + w.remote.called("list"); n != 0 || w.events.has("apikeys/dead") {
			t.Errorf("%d calls", n)
		}
	})
	t.Run("Vault's own", func(t *testing.T) {
		w := newWorld(t, remoteCaps())
		w.localKey("l", nil)
		w.hours(30)
		if got := w.check("l"); got["result"] != "not_looked_at" || !strings.Contains(fmt.Sprint(got["reason"]), "verify") {
			t.Errorf("%v", got)
		}
	})
	t.Run("no version, deleted, no key", func(t *testing.T) {
		w, _ := checkWorld(t, remoteCaps())
		w.remove("keys/k", nil)
		if got := w.check("k"); got["result"] != "not_looked_at" || got["condition"] != "deleting" {
			t.Errorf("%v", got)
		}
		if _, err := w.do(logical.UpdateOperation, "check/none", nil); err == nil {
			t.Error("there is no such key")
		}
		if resp, err := w.do(logical.ReadOperation, "check/none", nil); err != nil || resp != nil {
			t.Errorf("%v %v", resp, err)
		}
	})
	t.Run("a provider that cannot be built", func(t *testing.T) {
		w, value := checkWorld(t, remoteCaps())
		w.remote.build = func() error { return fmt.Errorf("no") }
		w.start()
		w.remote.endAt(value)
		w.hours(48)
		if got := w.check("k"); got["result"] != "not_looked_at" || got["condition"] == "dead" {
			t.Errorf("%v", got)
		}
		w.remote.build = nil
		w.write("providers/svc", map[string]any{"type": "remote"})
		w.hours(24)
		if got := w.read("check/k", nil); got["result"] != "dead" {
			t.Errorf("when it can be: %v", got)
		}
	})
}

// Hundreds of keys of one provider are asked for over the whole day, never more in a
// minute than it may be asked, and never while a rotation waits.
func TestChecksAreSpreadAndCapped(t *testing.T) {
	const n, perMinute = 420, 3
	w := newWorld(t, remoteCaps())
	w.write("providers/svc", map[string]any{"type": "remote", "max_rotations_per_minute": perMinute})
	for i := range n {
		w.write(fmt.Sprintf("keys/k%03d", i), map[string]any{"provider": "svc"})
	}
	for range 2 * 60 {
		w.pass(time.Minute) // their sweeps
	}
	most, hours := 0, map[int]int{}
	for h := range 21 {
		for range 60 {
			before := w.remote.called("test")
			w.pass(time.Minute)
			made := w.remote.called("test") - before
			most, hours[h] = max(most, made), hours[h]+made
		}
	}
	total := 0
	for h := range 20 {
		total += hours[h]
		if hours[h] == 0 || hours[h] > n/8 {
			t.Errorf("%d looks in hour %d", hours[h], h)
		}
	}
	if most > perMinute || total < n*9/10 || total > n*11/10 {
		t.Errorf("%d looks, at most %d in a minute", total, most)
	}

	// Nobody ran for two days: all are due at once.
	w.b.Cleanup(t.Context())
	w.clock.advance(2 * day)
	w.start()
	made := 0
	for range n/perMinute + 30 {
		before := w.remote.called("test")
		w.pass(time.Minute)
		if d := w.remote.called("test") - before; d > perMinute {
			t.Fatalf("%d looks in a minute", d)
		} else {
			made += d
		}
	}
	if made < n || made > n*12/10 {
		t.Errorf("%d looks after two days without an engine", made)
	}
}

func TestChecksYieldToRotations(t *testing.T) {
	const n = 60
	w := newWorld(t, remoteCaps())
	w.write("providers/svc", map[string]any{"type": "remote", "max_rotations_per_minute": 5})
	for i := range n {
		w.write(fmt.Sprintf("keys/k%02d", i), map[string]any{"provider": "svc", "rotation_period": "10d"})
	}
	w.hours(48)
	w.b.Cleanup(t.Context())
	w.clock.advance(9 * day) // all rotations are due, and all looks
	w.start()
	made := w.remote.count
	for rotated := 0; rotated < n; rotated = w.remote.count - made {
		tests, count := w.remote.called("test"), w.remote.count
		w.pass(time.Minute)
		looks := w.remote.called("test") - tests - (w.remote.count - count) // each new key is tested
		if left := n - (w.remote.count - made); left > 0 && looks > 0 {
			t.Fatalf("%d looks while %d rotations wait", looks, left)
		}
		if w.remote.count == count {
			t.Fatalf("no rotation in a minute, %d done", rotated)
		}
	}
}

// A service that asks to be left alone is left alone, and its faults at looks hold up
// no rotation.
func TestChecksKeepToPauses(t *testing.T) {
	w := newWorld(t, remoteCaps())
	for i := range 40 {
		w.remoteKey(fmt.Sprintf("k%02d", i), nil)
	}
	w.hours(20)
	w.remote.setFault(func(op string, after bool) error {
		if op == "test" && !after {
			return &provider.Error{Op: op, Kind: provider.KindRateLimited, Status: 429, RetryAfter: 50 * time.Minute, Msg: "slow down"}
		}
		return nil
	})
	before := w.remote.called("test")
	for range 20 * 12 {
		w.pass(5 * time.Minute)
	}
	if n := w.remote.called("test") - before; n == 0 || n > 20*60/50+2 {
		t.Errorf("%d tests in 20 hours, and it asks for 50 minutes without", n)
	}
	if rotate, review, check := w.b.health.pauses(w.b.providers.account("svc")); !rotate.IsZero() || !review.IsZero() || check.IsZero() {
		t.Errorf("rotations wait until %s, revocations until %s, looks until %s", rotate, review, check)
	}
}

// A service that says now this, now that.
func TestServiceThatFlaps(t *testing.T) {
	w, _ := checkWorld(t, remoteCaps())
	before := w.unmoved("k")
	n := 0
	w.remote.setFault(func(op string, after bool) error {
		if op == "test" && !after {
			if n++; n%2 == 1 {
				return &provider.Error{Op: op, Kind: provider.KindUnauthorized, Status: 401, Msg: "no"}
			}
		}
		return nil
	})
	w.hours(10 * 24)
	if w.events.has("apikeys/dead") || w.events.has("apikeys/alive") || w.read("keys/k", nil)["condition"] != "ok" {
		t.Errorf("every other time: %v", w.events.types)
	}
	// By the day: at most once dead and once alive each time.
	w.remote.setFault(func(op string, after bool) error {
		if op == "test" && !after && w.clock.Wall().Unix()/86400%2 == 0 {
			return &provider.Error{Op: op, Kind: provider.KindUnauthorized, Status: 401, Msg: "no"}
		}
		return nil
	})
	writes := len(w.storage.writes())
	w.hours(10 * 24)
	if dead, alive := w.events.count("dead"), w.events.count("alive"); dead == 0 || dead > 6 || alive < dead-1 || alive > dead {
		t.Errorf("dead %d times, alive %d times in ten days", dead, alive)
	}
	keys := slices.DeleteFunc(w.storage.writes()[writes:], func(line string) bool { return !strings.HasPrefix(line, "put key/") })
	if len(keys) > 10*4 {
		t.Errorf("%d writes of the key in ten days", len(keys))
	}
	if after := w.unmoved("k"); after != before {
		t.Errorf("something was done\n%s\n%s", before, after)
	}
}

// The end of a key that its test tells is kept, as a create's is.
func TestEndThatATestTellsLater(t *testing.T) {
	for name, inTest := range map[string]bool{"by the test": true, "in the list": false} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, remoteCaps())
			s := &tinyService{inTest: inTest, expires: "null"}
			w.serve(s)
			say := func(expires string) {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.expires = expires
			}
			w.write("keys/k", map[string]any{"provider": "tiny"})
			w.tick()
			if got := w.check("k"); got["result"] != "works" || got["expire_time"] != nil {
				t.Fatalf("%v", got)
			}
			end := w.clock.Wall().Add(20 * day).UTC().Truncate(time.Second)
			say(fmt.Sprintf("%q", end.Format(time.RFC3339)))
			w.hours(24)
			if got := w.read("check/k", nil); got["expire_time"] != stamp(end) {
				t.Errorf("%v", got)
			}
			if got := w.read("keys/k", nil); got["next_rotation_time"] != stamp(end.Add(-7*day)) || got["rotation_reason"] != "expiry" {
				t.Errorf("it is not replaced before: %v, %v", got["next_rotation_time"], got["rotation_reason"])
			}
			if got := w.read("creds/k", nil); got["cache_ttl"].(int64) > int64(20*day/time.Second) || got["version"] != 1 {
				t.Errorf("%v", got)
			}
			say(fmt.Sprintf("%q", w.clock.Wall().Add(-time.Hour).Format(time.RFC3339)))
			if got := w.check("k"); got["result"] != "works" || got["expire_time"] != stamp(end) {
				t.Errorf("an end that is over, of a key that works: %v", got)
			}
			say(`"29/11/2026"`)
			if got := w.check("k"); (got["result"] == "unknown") != inTest || got["expire_time"] != stamp(end) {
				t.Errorf("an end that nobody can read: %v", got)
			}
			say("null") // a list leaves open whether that is never
			if got := w.check("k"); got["result"] != "works" || (got["expire_time"] == nil) != inTest {
				t.Errorf("no end any more: %v", got)
			}
		})
	}
}

// A crash or a fault before or after any write, or call: nothing is made or ended, and
// the dead key is told of.
func TestCrashesOfChecks(t *testing.T) {
	for _, single := range []bool{false, true} {
		points := 0
		for n := 1; ; n++ {
			w, value := checkWorld(t, remoteCaps())
			served := w.unmoved("k")
			w.remote.endAt(value)
			served = strings.Replace(served, "[id-1]", "[]", 1)
			cr := &crasher{at: n, single: single}
			w.storage.setFault(cr.storage)
			w.remote.setFault(cr.service)
			for range 10 {
				if w.pass(3 * time.Hour); cr.isDead() {
					break
				}
			}
			if !cr.isDead() {
				w.remote.setAlive(value, true)
				for range 3 {
					if w.pass(3 * time.Hour); cr.isDead() {
						break
					}
				}
			}
			w.storage.setFault(nil)
			w.remote.setFault(nil)
			if !cr.hit() {
				break
			}
			points++
			if cr.isDead() {
				w.start()
			}
			w.remote.endAt(value)
			w.hours(26)
			if got := w.read("check/k", nil); got["condition"] != "dead" || !w.events.has("apikeys/dead") {
				t.Errorf("point %d (%s): %v, %v", n, cr.where, got, w.events.types)
			}
			if got := w.unmoved("k"); got != served {
				t.Errorf("point %d (%s): something was done\n%s\n%s", n, cr.where, served, got)
			}
			w.remote.setAlive(value, true)
			w.hours(6)
			if got := w.read("check/k", nil); got["condition"] != "ok" || !w.events.has("apikeys/alive") {
				t.Errorf("point %d (%s): %v", n, cr.where, got)
			}
		}
		if points < 12 {
			t.Errorf("single %v: only %d points were reached", single, points)
		}
		t.Logf("single %v: %d points", single, points)
	}
}

// Storage that 0.1 wrote knows nothing of looks: its keys are looked at within a day,
// not all at once.
func TestChecksAfterAnUpgrade(t *testing.T) {
	w := newWorld(t, remoteCaps())
	const n = 40
	for i := range n {
		w.remoteKey(fmt.Sprintf("k%02d", i), nil)
	}
	w.hours(24)
	w.b.Cleanup(t.Context())
	for path, entry := range w.takeSnapshot() {
		if !strings.HasPrefix(path, "index/") {
			continue
		}
		var packed []map[string]any
		if err := decodeEntry(path, entry.Value, &packed); err != nil {
			t.Fatal(err)
		}
		for _, p := range packed {
			delete(p, "k")
			delete(p, "s")
		}
		old, err := encodeEntry(path, packed)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.storage.Storage.Put(t.Context(), old); err != nil {
			t.Fatal(err)
		}
	}
	w.start()
	tests := w.remote.called("test")
	w.hours(1)
	if got := w.remote.called("test") - tests; got > n/4 {
		t.Errorf("%d looks in the first hour", got)
	}
	w.hours(20)
	if got := w.remote.called("test") - tests; got < n || got > n+n/4 {
		t.Errorf("%d looks at %d keys on the first day", got, n)
	}
	for i := range n {
		if got := w.read(fmt.Sprintf("check/k%02d", i), nil); got["result"] != "works" {
			t.Errorf("k%02d: %v", i, got)
		}
	}
}

// A fenced engine asks nobody, and says what it knows.
func TestChecksBehindTheFence(t *testing.T) {
	w, _ := checkWorld(t, remoteCaps())
	w.b.Cleanup(t.Context())
	w.setEpoch("machine-one", 1) // the storage was in use without one
	w.start()
	tests := w.remote.called("test")
	w.hours(48)
	w.refused(opWrite, "check/k", nil, "reconcile")
	if n := w.remote.called("test") - tests; n != 0 {
		t.Errorf("%d tests", n)
	}
	if got := w.read("check/k", nil); got["result"] != "works" || got["condition"] != "ok" {
		t.Errorf("%v", got)
	}
}

// A clock that was ahead leaves nothing behind.
func TestChecksAfterAClockAhead(t *testing.T) {
	w, value := checkWorld(t, remoteCaps())
	w.clock.jump(40 * day)
	w.tick()
	w.write("config", map[string]any{"accept_clock": true})
	w.tick()
	w.remote.endAt(value)
	w.check("k")
	w.clock.jump(-40 * day)
	w.write("config", map[string]any{"accept_clock": true})
	w.tick()
	w.hours(26)
	if got := w.read("keys/k", nil); got["condition"] != "dead" {
		t.Errorf("after a clock that was 40 days ahead: %v, %v", got["condition"], got["check"])
	}
}
