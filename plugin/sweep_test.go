package apikeys

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"strongroom.example/plugin/lifecycle"
	"strongroom.example/plugin/provider"
	"strongroom.example/plugin/provider/liar"
)

// leave makes a key at the service behind the engine's back and gives its id.
func (s *service) leave(name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count++
	id := "left-" + itoa(s.count)
	s.keys[id] = &serviceKey{id: id, name: name, value: "left", created: s.clock.Wall(), alive: true}
	return id
}

func (w *world) nameOf(key, version string) string {
	return w.read("versions/"+key, nil)["versions"].(map[string]any)[version].(map[string]any)["name"].(string)
}

// What is ended as a leftover was certainly made by a try of this key: whatever
// else a service lists under a name like ours lives on.
func TestSweepEndsWhatOnlyATryCanHaveMade(t *testing.T) {
	for name, c := range map[string]struct {
		of   func(own string) string // the name of what is left, from that of version 1
		ends bool
	}{
		"a second key of one request":      {func(own string) string { return own }, true},
		"a name that is cut":               {func(own string) string { return own[:32] }, false},
		"somebody else's":                  {func(string) string { return "billing" }, false},
		"without a name":                   {func(string) string { return "" }, false},
		"of another mount":                 {func(own string) string { return "sr-ffffffff" + own[11:] }, false},
		"of another key":                   {func(own string) string { return own[:12] + "ffffffffffff" + own[24:] }, false},
		"of a time line that is abandoned": {func(own string) string { return strings.Replace(own, "-1-", "-2-", 1) }, false},
		"of another machine":               {func(own string) string { return strings.Replace(own, "-local-", "-twin-", 1) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, remoteCaps())
			w.remoteKey("k", nil)
			id := w.remote.leave(c.of(w.nameOf("k", "1")))
			w.start()
			for range 30 {
				w.pass(time.Hour)
			}
			if ended := !slices.Contains(w.remote.alive(), id); ended != c.ends {
				t.Errorf("ended: %v, want %v", ended, c.ends)
			}
			if got := w.read("keys/k", nil)["condition"]; got != "ok" {
				t.Errorf("condition %v", got)
			}
			if !w.remote.works(w.read("creds/k", nil)["key"].(string)) {
				t.Error("the current key is dead")
			}
		})
	}
}

// A list that shows ids in another form than a create tells would have the engine
// take its own current key for a leftover.
func TestSweepTouchesNothingWhereIdsDoNotAgree(t *testing.T) {
	h := newHostile(t, liar.Services()["list and test"], liar.Lies{OtherIDs: true})
	h.write("keys/app/key", map[string]any{"provider": "svc"})
	h.go_(5*day, time.Hour)
	if len(h.faults) > 0 || slices.ContainsFunc(h.liar.Calls(), func(c string) bool { return strings.HasPrefix(c, "revoke") }) {
		t.Errorf("%v, calls %v", h.faults, h.liar.Calls())
	}
}

// Where names are cut to what all versions of a key share, and the list shows ids in
// another form than a create tells, the current version looks like what a lost answer
// has left.
func TestRecoveryTouchesNothingWhereNeitherNamesNorIDsAgree(t *testing.T) {
	for _, svc := range []string{"list", "list and test"} {
		h := newHostile(t, liar.Services()[svc], liar.Lies{OtherIDs: true, NameCut: 28})
		h.write("keys/app/key", map[string]any{"provider": "svc", "grace_period": "1h"})
		h.watch()
		h.liar.SetLies(liar.Lies{OtherIDs: true, NameCut: 28, NoAnswer: true})
		_, _ = h.do(opWrite, "rotate/app/key", nil)
		h.go_(10*time.Minute, 10*time.Second)
		if len(h.faults) > 0 {
			t.Errorf("%s: %v, calls %v", svc, h.faults, h.liar.Calls())
		}
		if got := h.read("keys/app/key", nil); got["uncertain"] == nil {
			t.Errorf("%s: nobody is told to look: %v", svc, got["condition"])
		}
	}
}

// A sweep that finds nothing costs a list and a write a day, one that fails no more
// than one an hour.
func TestSweepIsBounded(t *testing.T) {
	for name, c := range map[string]struct {
		fails bool
		most  int // in ten days
	}{"nothing is found": {false, 15}, "the list fails": {true, 250}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, remoteCaps())
			w.remoteKey("k", nil)
			w.pass(25 * time.Hour)
			w.remote.setFault(func(op string, _ bool) error {
				if c.fails && op == "list" {
					return &provider.Error{Op: op, Kind: provider.KindTransient, Msg: "down"}
				}
				return nil
			})
			calls, writes := len(w.remote.calls), len(w.storage.writes())
			for range 10 * 24 {
				w.pass(time.Hour)
			}
			n := 0
			for _, call := range w.remote.calls[calls:] {
				if strings.HasPrefix(call, "list") {
					n++
				}
			}
			if n > c.most {
				t.Errorf("%d lists", n)
			}
			n = 0
			for _, line := range w.storage.writes()[writes:] {
				if strings.Contains(line, "key/k") {
					n++
				}
			}
			if n > c.most {
				t.Errorf("%d writes", n)
			}
		})
	}
}

// A list that fails is asked for again, and what it then shows is ended.
func TestSweepGoesOnAfterFailures(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.remoteKey("k", nil)
	id := w.remote.leave(w.nameOf("k", "1"))
	w.remote.setFault(func(op string, _ bool) error {
		if op == "list" {
			return &provider.Error{Op: op, Kind: provider.KindTransient, Msg: "down"}
		}
		return nil
	})
	for range 60 {
		w.pass(time.Hour)
	}
	w.remote.setFault(nil)
	w.pass(day)
	w.pass(day)
	if slices.Contains(w.remote.alive(), id) {
		t.Error("it is still there")
	}
}

// revoke=false leaves every version alive, those too that the record has forgotten.
func TestSweepLeavesWhatWasToLiveOn(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.write("config", map[string]any{"max_versions": 2})
	w.remoteKey("k", nil)
	for range 3 {
		w.pass(time.Hour)
		w.write("rotate/k", nil)
	}
	before := len(w.remote.alive())
	if _, err := w.do(opDelete, "keys/k", map[string]any{"revoke": false}); err != nil {
		t.Fatal(err)
	}
	w.pass(2 * day)
	if got := len(w.remote.alive()); got != before || before != 4 {
		t.Errorf("%d keys are alive, %d were", got, before)
	}
}

// A second key of the only request is ended with a deletion at once, too.
func TestSweepBeforeADeletionAtOnce(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.remoteKey("k", nil)
	w.remote.leave(w.nameOf("k", "1"))
	if _, err := w.do(opDelete, "keys/k", map[string]any{"revoke_now": true}); err != nil {
		t.Fatal(err)
	}
	w.tick()
	if alive := w.remote.alive(); len(alive) != 0 {
		t.Errorf("alive: %v", alive)
	}
	if w.pass(lateList); w.b.index.has("k") {
		t.Error("the record is there")
	}
}

// A leftover whose revocation has no effect, and one that turns up only when every
// version is dead, keep the record until it is seen to be gone.
func TestADeletionWaitsForWhatItHasLeft(t *testing.T) {
	for name, late := range map[string]bool{"no effect": false, "listed late, no effect": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, remoteCaps())
			w.remoteKey("k", nil)
			own := w.nameOf("k", "1")
			left := &serviceKey{id: "left", name: own, value: "left", created: w.clock.Wall(), alive: true}
			if !late {
				w.remote.keys[left.id] = left
			}
			w.remote.setFault(func(op string, after bool) error {
				if op == "revoke" { // the service is locked
					w.remote.keys[left.id], left.alive = left, true
				}
				return nil
			})
			if _, err := w.do(opDelete, "keys/k", map[string]any{"revoke_now": true}); err != nil {
				t.Fatal(err)
			}
			w.pass(time.Hour)
			if !w.b.index.has("k") {
				t.Fatal("the record is gone, and what it has left lives")
			}
			w.remote.setFault(nil)
			for range 3 {
				w.pass(2 * time.Hour)
			}
			if alive := w.remote.alive(); len(alive) != 0 || w.b.index.has("k") {
				t.Errorf("alive: %v; the record is there: %v", alive, w.b.index.has("k"))
			}
		})
	}
}

// What is forgotten counts as left alive where it was not seen to end, and in
// records of before, which do not say how it ended.
func TestSweepFrom(t *testing.T) {
	for name, c := range map[string]struct {
		from int
		how  []lifecycle.Evidence // of versions 1, 2 …, of which one is kept
		want int
	}{
		"seen to end":         {1, []lifecycle.Evidence{lifecycle.ByList, lifecycle.ByTest, lifecycle.ByAnswer, ""}, 1},
		"given up":            {1, []lifecycle.Evidence{lifecycle.ByList, lifecycle.ByNobody, lifecycle.ByList, ""}, 3},
		"somebody has said":   {1, []lifecycle.Evidence{lifecycle.ByPerson, lifecycle.ByList, ""}, 2},
		"nobody knows":        {1, []lifecycle.Evidence{"", lifecycle.ByList, ""}, 2},
		"a record of before":  {0, []lifecycle.Evidence{lifecycle.ByNobody, ""}, 2},
		"that had none":       {0, nil, 1},
		"nothing was dropped": {1, []lifecycle.Evidence{lifecycle.ByNobody}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			rec := &keyRecord{SweepFrom: c.from}
			for i, how := range c.how {
				if err := rec.Life.Add(lifecycle.Version{Number: i + 1, State: lifecycle.Revoked, Evidence: how}); err != nil {
					t.Fatal(err)
				}
			}
			rec.adopt()
			rec.tidy(1)
			if rec.SweepFrom != c.want {
				t.Errorf("from %d, want %d", rec.SweepFrom, c.want)
			}
		})
	}
}

// A list that lags shows what a key has left when the key is gone already: the record
// stays until the list has had its time, and gives way to whoever wants its name or
// its provider.
func TestLeftoverThatIsListedLate(t *testing.T) {
	for name, c := range map[string]struct {
		lies   liar.Lies
		delete map[string]any // nil: the create failed
		then   func(h *hostile)
	}{
		"a twin, and deleted at once":           {lies: liar.Lies{Twin: true, ListLag: 10 * time.Minute}, delete: map[string]any{"revoke_now": true}},
		"a twin, and deleted":                   {lies: liar.Lies{Twin: true, ListLag: 10 * time.Minute}, delete: map[string]any{}},
		"429 after it was made, and no key":     {lies: liar.Lies{AfterMade: provider.KindRateLimited, ListLag: 10 * time.Minute}},
		"an answer lost, and deleted":           {lies: liar.Lies{NoAnswer: true, ListLag: 10 * time.Minute}, delete: map[string]any{"revoke_now": true}},
		"deleted, and made again meanwhile":     {lies: liar.Lies{Twin: true, ListLag: 10 * time.Minute}, delete: map[string]any{"revoke_now": true}, then: func(h *hostile) { h.write("keys/k", map[string]any{"provider": "svc"}) }},
		"deleted, and the engine starts anew":   {lies: liar.Lies{Twin: true, ListLag: 10 * time.Minute}, delete: map[string]any{"revoke_now": true}, then: func(h *hostile) { h.start() }},
		"nothing is left, and nobody looks on ": {delete: map[string]any{"revoke_now": true}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHostile(t, liar.Services()["list and test"], c.lies)
			_, err := h.do(opWrite, "keys/k", map[string]any{"provider": "svc", "grace_period": "1m"})
			if (err != nil) != (c.delete == nil) {
				t.Fatal(err)
			}
			if c.delete != nil {
				_, _ = h.do(opDelete, "keys/k", c.delete)
			}
			h.liar.SetLies(liar.Lies{ListLag: c.lies.ListLag})
			if resp, err := h.do(logical.ListOperation, "keys/", nil); err != nil || resp.Data["keys"] != nil {
				t.Errorf("it is listed: %v, %v", resp, err)
			}
			if resp, err := h.do(opRead, "keys/k", nil); err != nil || resp != nil && !c.lies.NoAnswer && c.delete["revoke_now"] == true {
				t.Errorf("it is there: %v, %v", resp, err)
			}
			if c.then != nil {
				c.then(h)
			}
			for range 30 {
				h.pass(5 * time.Minute)
			}
			h.pass(2 * day)
			names := h.b.index.page("", 10)
			for _, k := range h.liar.Keys() {
				if k.Alive && k.Asked != "" && (len(names) == 0 || k.ID != h.shown(len(h.read("versions/k", nil)["versions"].(map[string]any)))["provider_key_id"]) {
					t.Errorf("%s is left", k.ID)
				}
			}
			if c.then == nil && len(names) != 0 {
				t.Errorf("the record is kept: %v", h.read("status", nil)["by_provider"])
			}
		})
	}
	for name, do := range map[string]func(h *hostile) error{
		"its provider is deleted": func(h *hostile) error { _, err := h.do(opDelete, "providers/svc", nil); return err },
		"another provider's": func(h *hostile) error {
			h.write("providers/gen", map[string]any{"type": "generated"})
			_, err := h.do(opWrite, "keys/k", map[string]any{"provider": "gen"})
			return err
		},
	} {
		h := newHostile(t, liar.Services()["list and test"], liar.Lies{})
		h.write("keys/k", map[string]any{"provider": "svc"})
		_, _ = h.do(opDelete, "keys/k", map[string]any{"revoke_now": true})
		if err := do(h); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A key that is down has nothing that lives: what carries the name of a dead version is
// not that version.
func TestSweepOfAKeyThatIsDown(t *testing.T) {
	caps := remoteCaps()
	caps.Test = false
	w := newWorld(t, caps)
	w.remoteKey("k", nil)
	id := w.remote.leave(w.nameOf("k", "1"))
	w.remote.setFault(func(op string, _ bool) error {
		if op == "create" {
			return &provider.Error{Op: op, Kind: provider.KindForbidden, Status: 403, Msg: "no"}
		}
		return nil
	})
	w.write("rotate/k", map[string]any{"compromised": true})
	for range 3 {
		w.pass(time.Hour)
	}
	if got := w.read("keys/k", nil)["condition"]; got != "down" || slices.Contains(w.remote.alive(), id) {
		t.Errorf("condition %v, alive: %v, calls %v", got, w.remote.alive(), w.remote.calls)
	}
}

// A version that a person has brought carries none of our names: it hides no second key
// of one request.
func TestSweepBesideAnImportedVersion(t *testing.T) {
	h := newHostile(t, liar.Services()["list and test"], liar.Lies{Twin: true})
	h.keys = h.keys[:1]
	h.write("keys/app/key", map[string]any{"provider": "svc", "grace_period": "30s"})
	h.liar.SetLies(liar.Lies{})
	mine := h.liar.ByHand()
	h.write("import/app/key", map[string]any{"key": mine.Value, "provider_key_id": mine.ID})
	h.go_(3*time.Hour, 10*time.Minute)
	if got := h.outcome(); got != "well" {
		t.Errorf("%s: %+v", got, h.liar.Keys())
	}
}

// One that was brought without its id may be what carries the name.
func TestSweepBesideAnImportedVersionWithoutItsID(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.remoteKey("k", map[string]any{"grace_period": "30s"})
	id := w.remote.leave(w.nameOf("k", "1"))
	w.write("import/k", map[string]any{"key": "left"})
	for range 4 {
		w.pass(time.Hour)
	}
	if !slices.Contains(w.remote.alive(), id) {
		t.Error("what a person has brought was ended")
	}
}

// The pause after tries that failed is for the next try. What the last one may have left
// is looked for when a list has had its minute, and that takes nothing from the pause.
func TestWhatATryHasLeftDoesNotWaitForTheNextOne(t *testing.T) {
	for service, want := range map[string]string{"list and test": "failing", "no names": "uncertain"} {
		t.Run(service, func(t *testing.T) {
			h := newHostile(t, liar.Services()[service], liar.Lies{})
			h.keys = []string{"k"}
			h.write("keys/k", map[string]any{"provider": "svc"})
			create := func(l liar.Lies) {
				h.liar.SetLies(l)
				for n := h.liar.Creates(); h.liar.Creates() == n; {
					h.pass(time.Minute)
				}
			}
			_, _ = h.do(logical.UpdateOperation, "rotate/k", nil)
			h.liar.SetLies(liar.Lies{AfterMade: provider.KindTransient})
			_, _ = h.do(logical.UpdateOperation, "rotate/k", map[string]any{"force": true}) // it fails
			for range 6 {
				create(liar.Lies{AfterMade: provider.KindTransient})
			}
			create(liar.Lies{NoAnswer: true})
			before := h.liar.Creates()
			for range 7 {
				h.pass(10 * time.Second)
			}
			if got := h.read("keys/k", nil)["condition"]; got != want {
				t.Errorf("condition %v, want %s", got, want)
			}
			if left := h.left(); want == "failing" && len(left) > 0 {
				t.Errorf("%v", left)
			}
			if h.pass(5 * time.Minute); h.liar.Creates() != before {
				t.Error("the next try has not waited")
			}
		})
	}
}

// What is made soon after a restart may be dated ahead, so that no mark of a campaign
// meets it. A list that lags is waited for by the clock all the same.
func TestALateListIsWaitedForOneMinute(t *testing.T) {
	h := newHostile(t, liar.Services()["list and test"], liar.Lies{})
	h.keys = []string{"k"}
	h.write("keys/k", map[string]any{"provider": "svc"})
	h.pass(time.Second)
	h.start()
	h.pass(150 * time.Second) // of the four minutes for which the run before may have lived
	h.write("providers/svc/rotate", map[string]any{"compromised": true})
	h.liar.SetLies(liar.Lies{NoAnswer: true, ListLag: 40 * time.Second})
	_, _ = h.do(logical.UpdateOperation, "rotate/k", map[string]any{"force": true}) // it fails
	if len(h.left()) == 0 {
		t.Fatal("the try has left nothing")
	}
	h.liar.SetLies(liar.Lies{ListLag: 40 * time.Second})
	for range 8 {
		h.pass(10 * time.Second)
	}
	if left := h.left(); len(left) > 0 {
		t.Errorf("%v", left)
	}
}

// A version that shares its id with the current one is looked at again when that has
// ended; until then nobody can be sure what the service lists.
func TestSweepBesideAVersionOfTheSameID(t *testing.T) {
	h := newHostile(t, liar.Services()["list"], liar.Lies{})
	h.keys = []string{"k"}
	h.write("keys/k", map[string]any{"provider": "svc", "grace_period": "30s"})
	h.liar.SetLies(liar.Lies{InPlace: true, Life: time.Second})
	_, _ = h.do(logical.UpdateOperation, "rotate/k", map[string]any{"force": true}) // it ends too soon
	h.liar.SetLies(liar.Lies{})
	h.write("rotate/k", map[string]any{"force": true})
	h.write("reconcile", nil)
	for range 30 {
		h.pass(10 * time.Second)
	}
	for n, v := range h.read("versions/k", nil)["versions"].(map[string]any) {
		if state := v.(map[string]any)["state"]; state != "revoked" && state != "current" {
			t.Errorf("version %s is %v", n, state)
		}
	}
	if left := h.left(); len(left) > 0 {
		t.Errorf("%v", left)
	}
}

// What is listed under an id that nobody here has is no leftover where no version is
// listed by its id either, or where another key has that id, too.
func TestSweepEndsNoVersionThatIsListedOtherwise(t *testing.T) {
	for name, second := range map[string]liar.Lies{
		"the create answers with one that it had refused to make": {OldKey: true},
		"all keys have one id": {SameID: true, AfterMade: provider.KindRejected},
	} {
		for _, answer := range []bool{true, false} {
			h := newHostile(t, liar.Services()["list and test"], liar.Lies{})
			h.keys = []string{"k"}
			h.write("keys/k", map[string]any{"provider": "svc", "grace_period": "30s"})
			rotate := func(l liar.Lies) {
				h.liar.SetLies(l)
				_, _ = h.do(logical.UpdateOperation, "rotate/k", map[string]any{"force": true}) // some fail
			}
			rotate(liar.Lies{AfterMade: provider.KindRejected})
			if second.NoAnswer = !answer; second.NoAnswer {
				second.AfterMade = 0
			}
			rotate(second)
			h.liar.SetLies(liar.Lies{OtherIDs: true})
			h.go_(3*time.Hour, 10*time.Second)
			if len(h.faults) > 0 {
				t.Errorf("%s, answered: %v: %v, calls %v", name, answer, h.faults, h.liar.Calls())
			}
		}
	}
}

// While a person has to look for one key, others that are ours for certain are ended.
func TestSweepWhileARotationIsUncertain(t *testing.T) {
	h := newHostile(t, liar.Services()["list"], liar.Lies{Twin: true})
	h.keys = []string{"k"}
	h.write("keys/k", map[string]any{"provider": "svc"})
	mine := h.liar.ByHand()
	h.write("import/k", map[string]any{"key": mine.Value, "provider_key_id": mine.ID})
	h.liar.SetLies(liar.Lies{NoAnswer: true, NameCut: 32, OtherIDs: true})
	_, _ = h.do(logical.UpdateOperation, "rotate/k", map[string]any{"force": true}) // it fails
	h.pass(2 * time.Minute)
	h.liar.SetLies(liar.Lies{})
	if got := h.read("keys/k", nil)["condition"]; got != "uncertain" {
		t.Fatalf("condition %v: the test has lost its point", got)
	}
	for range 30 {
		h.pass(time.Hour)
	}
	for _, k := range h.liar.Keys() {
		if k.Alive && k.ID == "id-5" {
			t.Errorf("the second key of one request lives: %v", h.liar.Calls())
		}
	}
}

// A version whose revocation had no effect is found again by its id, though its name is cut.
func TestSweepFindsAVersionWhoseNameIsCut(t *testing.T) {
	h := newHostile(t, liar.Services()["list"], liar.Lies{NameCut: 32})
	h.keys = []string{"k"}
	h.write("keys/k", map[string]any{"provider": "svc", "grace_period": "30s"})
	h.liar.SetLies(liar.Lies{})
	h.write("rotate/k", map[string]any{"force": true})
	h.liar.SetLies(liar.Lies{NoEffect: true, HalfLists: true})
	h.pass(time.Minute)
	h.liar.SetLies(liar.Lies{})
	for range 30 {
		h.pass(time.Hour)
	}
	if left := h.left(); len(left) > 0 {
		t.Errorf("%v, calls %v", left, h.liar.Calls())
	}
}
