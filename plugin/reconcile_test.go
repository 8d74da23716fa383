package apikeys

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"strongroom.example/plugin/provider"
	"strongroom.example/plugin/provider/liar"
)

// setEpoch writes the appliance's file.
func (w *world) setEpoch(installation string, n int) {
	w.t.Helper()
	if w.epoch == "" {
		w.epoch = filepath.Join(w.t.TempDir(), "epoch.json")
	}
	if err := os.WriteFile(w.epoch, fmt.Appendf(nil, `{"installation_id":%q,"epoch":%d}`, installation, n), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// snapshotOf copies the storage; restore puts the copy back.
func (w *world) takeSnapshot() map[string]*logical.StorageEntry {
	w.t.Helper()
	out := map[string]*logical.StorageEntry{}
	err := logical.ScanView(context.Background(), w.storage, func(path string) {
		entry, err := w.storage.Get(context.Background(), path)
		if err != nil {
			w.t.Fatal(err)
		}
		out[path] = entry
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

func (w *world) restore(snapshot map[string]*logical.StorageEntry) {
	w.t.Helper()
	fresh := &logical.InmemStorage{}
	for _, entry := range snapshot {
		if err := fresh.Put(context.Background(), entry); err != nil {
			w.t.Fatal(err)
		}
	}
	w.storage.Storage = fresh
	w.start()
}

func epochWorld(t *testing.T, caps provider.Capabilities) *world {
	w := newWorld(t, caps)
	w.storage.Storage = &logical.InmemStorage{}
	w.setEpoch("machine-one", 1)
	w.start()
	return w
}

func TestRestoredEngineIsFencedUntilReconcile(t *testing.T) {
	w := epochWorld(t, remoteCaps())
	w.remoteKey("k", map[string]any{"rotation_period": "30d", "grace_period": "2d"})
	w.remoteKey("untouched", map[string]any{"rotation_period": "30d", "grace_period": "2d"})
	snapshot := w.takeSnapshot()
	w.write("rotate/k", nil) // after the snapshot: version 2, which clients use
	later := w.read("creds/k", nil)
	w.setEpoch("machine-one", 2)
	w.restore(snapshot)
	calls := len(w.remote.calls)

	w.pass(40 * day) // everything is due
	if len(w.remote.calls) != calls {
		t.Fatalf("a fenced engine called the provider: %v", w.remote.calls[calls:])
	}
	if got := w.read("creds/k", nil)["version"]; got != 1 {
		t.Errorf("a fenced engine serves version %v, want 1", got)
	}
	for _, path := range []string{"rotate/k", "rollback/k", "import/k", "resolve/k", "providers/svc/rotate", "keys/new"} {
		data := map[string]map[string]any{"rollback/k": {"version": 1}, "import/k": {"key": "x"}, "resolve/k": {"action": "absent"},
			"providers/svc/rotate": {"compromised": true}, "keys/new": {"provider": "svc"}}
		w.refused(logical.UpdateOperation, path, data[path], "fenced", "reconcile")
	}
	w.refused(logical.DeleteOperation, "keys/k", nil, "fenced")
	w.refused(logical.DeleteOperation, "versions/k", map[string]any{"version": 1}, "fenced")
	if fence := w.read("status", nil)["fence"].(map[string]any); fence["closed"] != true || !strings.Contains(fence["reason"].(string), "restored") {
		t.Errorf("status: %v", fence)
	}

	dry := w.write("reconcile", map[string]any{"dry_run": true}).Data
	if dry["found_later"] != 1 || dry["fenced"] != true || w.remote.count != 3 {
		t.Fatalf("dry run: %v, %d keys made", dry, w.remote.count)
	}
	report := w.write("reconcile", nil).Data
	if report["done"] != true || report["found_later"] != 1 || report["renewed"] != 1 || report["checked"] != 2 {
		t.Fatalf("report: %v", report)
	}
	now := w.read("creds/k", nil)
	if now["version"].(int) <= 1000 || !w.remote.works(now["key"].(string)) {
		t.Errorf("version %v after reconcile: it must be beyond every number ever used", now["version"])
	}
	if got := w.read("keys/untouched", nil)["version"]; got != 1 {
		t.Errorf("a key without a later version became version %v", got)
	}
	if !w.remote.works(later["key"].(string)) {
		t.Fatal("the version that clients use was ended")
	}
	w.pass(2*day - time.Minute)
	if !w.remote.works(later["key"].(string)) {
		t.Error("it must live for a full grace period")
	}
	w.pass(2 * time.Minute)
	if w.remote.works(later["key"].(string)) {
		t.Error("this installation made it and must end it after its grace")
	}
	w.start() // the epoch is taken over
	if w.read("reconcile", nil)["fence_reason"] != "" {
		t.Error("fenced again after a restart")
	}
}

func TestKeysOfAnotherInstallationAreNeverEnded(t *testing.T) {
	w := epochWorld(t, remoteCaps())
	w.remoteKey("k", map[string]any{"grace_period": "2d"})
	snapshot := w.takeSnapshot()
	w.write("rotate/k", nil)
	later := w.read("creds/k", nil)["key"].(string)
	w.setEpoch("machine-two", 1) // a drill, or a clone
	w.restore(snapshot)
	w.write("reconcile", nil)
	w.pass(10 * day)
	if !w.remote.works(later) {
		t.Error("a clone ended a key of the machine that is still in use")
	}
	if v := w.read("versions/k", nil)["versions"].(map[string]any)["2"].(map[string]any); v["kept_at_provider"] != true || v["state"] != "given_up" {
		t.Errorf("version 2: %v", v)
	}
}

func TestRestoredIntentIsNotReaped(t *testing.T) {
	w := epochWorld(t, remoteCaps())
	w.remoteKey("k", map[string]any{"grace_period": "2d"})
	var snapshot map[string]*logical.StorageEntry
	w.remote.setFault(func(op string, after bool) error {
		if op == "create" && after && snapshot == nil {
			snapshot = w.takeSnapshot() // taken between intent and answer
		}
		return nil
	})
	w.write("rotate/k", nil)
	used := w.read("creds/k", nil)["key"].(string)
	w.setEpoch("machine-one", 2)
	w.restore(snapshot)
	w.write("reconcile", nil)
	w.pass(day)
	if !w.remote.works(used) {
		t.Fatal("the key of a restored intent became current later on, and was reaped")
	}
	if n := w.read("status", nil)["open_intents"]; n != 0 {
		t.Errorf("%v intents are open", n)
	}
	w.pass(2 * day)
	if w.remote.works(used) {
		t.Error("it lives on after its grace")
	}
}

func TestReconcileReplacesAKeyThatIsDead(t *testing.T) {
	w := epochWorld(t, remoteCaps())
	w.remoteKey("k", map[string]any{"grace_period": "2d"})
	snapshot := w.takeSnapshot()
	w.write("rotate/k", nil)
	w.write("rotate/k", map[string]any{"compromised": true}) // 1 and 2 are dead, 3 is in use
	used := w.read("creds/k", nil)["key"].(string)
	w.setEpoch("machine-one", 2)
	w.restore(snapshot)
	w.pass(testPatience)
	report := w.write("reconcile", nil).Data
	if report["found_dead"] != 1 || report["found_later"] != 1 {
		t.Errorf("report: %v", report)
	}
	creds := w.read("creds/k", nil)
	if !w.remote.works(creds["key"].(string)) || !w.remote.works(used) {
		t.Error("the new one and the one in use must both work")
	}
}

// A refusal that may be of the account makes no key dead: a comparison that ran while
// the account was locked would replace, and write off, every key there is.
func TestReconcileTakesNoBareRefusalForADeadKey(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.remoteKey("k", nil)
	before := w.read("creds/k", nil)["key"]
	w.remote.setFault(func(op string, after bool) error {
		if op == "test" && !after {
			return &provider.Error{Op: "test", Kind: provider.KindUnauthorized, Status: 403, Unsure: true, Msg: "the service refuses the key"}
		}
		return nil
	})
	got := w.write("reconcile", nil).Data
	if got["done"] != true || got["found_dead"] != 0 || got["renewed"] != 0 {
		t.Errorf("%v", got)
	}
	if problems := fmt.Sprint(got["problems"]); !strings.Contains(problems, "is not known") {
		t.Errorf("problems: %s", problems)
	}
	if w.read("creds/k", nil)["key"] != before {
		t.Error("it was replaced")
	}
}

// A service that refuses a new key for its first minutes makes none dead: the key was
// promised, and where two do not live side by side its successor would have ended it.
func TestReconcileTakesANewKeyForNoDeadOne(t *testing.T) {
	caps := remoteCaps()
	caps.Overlap = false
	w := epochWorld(t, caps)
	w.remoteKey("k", nil)
	before := w.read("creds/k", nil)["key"].(string)
	w.remote.setFault(func(op string, after bool) error {
		if op == "test" && !after {
			return &provider.Error{Op: "test", Kind: provider.KindUnauthorized, Status: 401, Msg: "the service refuses the key"}
		}
		return nil
	})
	report := w.write("reconcile", nil).Data
	if problem := report["problems"].(map[string]string)["k"]; report["found_dead"] != 0 || !strings.Contains(problem, "ask again in") {
		t.Errorf("at once: %v", report)
	}
	w.remote.setFault(nil)
	w.pass(testPatience)
	if report = w.write("reconcile", nil).Data; report["done"] != true || report["renewed"] != 0 {
		t.Errorf("later: %v", report)
	}
	if got := w.read("creds/k", nil)["key"]; got != before || !w.remote.works(before) {
		t.Error("it was replaced")
	}
}

func TestUncheckedKeysKeepTheFenceClosed(t *testing.T) {
	w := epochWorld(t, remoteCaps())
	w.remoteKey("k", nil)
	snapshot := w.takeSnapshot()
	w.setEpoch("machine-one", 2)
	w.restore(snapshot)
	w.remote.setFault(func(op string, _ bool) error {
		return &provider.Error{Op: op, Kind: provider.KindTransient, Msg: "the service is down"}
	})
	report := w.write("reconcile", nil).Data
	if report["done"] != false || !strings.Contains(report["problems"].(map[string]string)["k"], "the service is down") {
		t.Fatalf("report: %v", report)
	}
	w.refused(logical.UpdateOperation, "rotate/k", nil, "fenced")
	if report := w.write("reconcile", map[string]any{"accept_problems": true}).Data; report["done"] != true {
		t.Fatalf("report: %v", report)
	}
	w.remote.setFault(nil)
	w.write("rotate/k", nil)
}

func TestReconcileGoesOnAfterACrash(t *testing.T) {
	for n := 1; ; n += stride() {
		w := epochWorld(t, remoteCaps())
		for i := range 3 {
			w.remoteKey(fmt.Sprintf("k%d", i), map[string]any{"grace_period": "2d"})
		}
		snapshot := w.takeSnapshot()
		var used []string
		for i := range 3 {
			name := fmt.Sprintf("k%d", i)
			w.write("rotate/"+name, nil)
			used = append(used, w.read("creds/"+name, nil)["key"].(string))
		}
		w.setEpoch("machine-one", 2)
		w.restore(snapshot)
		cr := &crasher{at: n}
		w.storage.setFault(cr.storage)
		w.remote.setFault(cr.service)
		_, _ = w.do(logical.UpdateOperation, "reconcile", nil)
		w.storage.setFault(nil)
		w.remote.setFault(nil)
		if !cr.hit() {
			if n < 20 {
				t.Errorf("only %d points were reached", n)
			}
			return
		}
		w.start()
		for range 3 {
			if w.write("reconcile", map[string]any{}).Data["done"] == true {
				break
			}
		}
		for range 12 {
			w.pass(10 * time.Minute)
			for _, value := range used {
				if !w.remote.works(value) {
					t.Fatalf("point %d (%s): a key that clients use was ended", n, cr.where)
				}
			}
		}
		if err := settled(w, remoteCaps()); err != nil {
			t.Errorf("point %d (%s): %v", n, cr.where, err)
		}
	}
}

func TestReconcileWithoutNamesOrLists(t *testing.T) {
	t.Run("without names", func(t *testing.T) {
		caps := remoteCaps()
		caps.Named = false
		w := epochWorld(t, caps)
		w.remoteKey("k", map[string]any{"grace_period": "2d"})
		snapshot := w.takeSnapshot()
		w.clock.advance(time.Hour)
		w.write("rotate/k", nil)
		used := w.read("creds/k", nil)["key"].(string)
		w.setEpoch("machine-one", 2)
		w.restore(snapshot)
		if r := w.write("reconcile", nil).Data; r["found_later"] != 1 {
			t.Errorf("report: %v", r)
		}
		w.pass(10 * day)
		if !w.remote.works(used) {
			t.Error("without a name nothing says that it was ours to end")
		}
	})
	t.Run("without lists", func(t *testing.T) {
		caps := remoteCaps()
		caps.List, caps.Named = false, false
		w := epochWorld(t, caps)
		w.remoteKey("k", nil)
		var snapshot map[string]*logical.StorageEntry
		w.remote.setFault(func(op string, after bool) error {
			if op == "create" && snapshot == nil {
				snapshot = w.takeSnapshot()
			}
			return nil
		})
		w.write("rotate/k", nil)
		w.setEpoch("machine-one", 2)
		w.restore(snapshot)
		w.write("reconcile", nil)
		if got := w.read("keys/k", nil)["condition"]; got != "uncertain" {
			t.Errorf("condition %v", got)
		}
	})
	t.Run("local", func(t *testing.T) {
		w := epochWorld(t, remoteCaps())
		w.localKey("k", nil)
		snapshot := w.takeSnapshot()
		w.write("rotate/k", nil)
		lost := w.read("creds/k", nil)["version"].(int)
		w.setEpoch("machine-one", 2)
		w.restore(snapshot)
		w.write("reconcile", nil)
		w.write("rotate/k", nil)
		if got := w.read("creds/k", nil)["version"].(int); got <= lost {
			t.Errorf("version %d comes a second time with another value", got)
		}
	})
}

func TestEpochs(t *testing.T) {
	cases := map[string]struct {
		file   string
		closed string // part of the reason; empty: open
	}{
		"same":           {`{"installation_id":"machine-one","epoch":1}`, ""},
		"later":          {`{"installation_id":"machine-one","epoch":2}`, "restored"},
		"earlier":        {`{"installation_id":"machine-one","epoch":0}`, "restored"},
		"another":        {`{"installation_id":"machine-two","epoch":1}`, "restored"},
		"not JSON":       {`epoch=1`, "epoch file"},
		"empty id":       {`{"installation_id":"","epoch":1}`, "must not be empty"},
		"negative epoch": {`{"installation_id":"a","epoch":-1}`, "not negative"},
		"far too long":   {strings.Repeat(" ", maxEpochBytes+1), "more than"},
		"missing":        {"", "epoch file"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			w := epochWorld(t, remoteCaps())
			w.localKey("k", nil)
			if err := os.WriteFile(w.epoch, []byte(c.file), 0o600); err != nil {
				t.Fatal(err)
			}
			if c.file == "" {
				if err := os.Remove(w.epoch); err != nil {
					t.Fatal(err)
				}
			}
			w.start()
			reason := w.b.fence.closed()
			if (c.closed == "") != (reason == "") || !strings.Contains(reason, c.closed) {
				t.Errorf("reason %q, want %q", reason, c.closed)
			}
		})
	}
	t.Run("storage that had none", func(t *testing.T) {
		w := newWorld(t, remoteCaps())
		w.localKey("k", nil)
		w.setEpoch("machine-one", 1)
		w.start()
		if w.b.fence.closed() == "" {
			t.Error("storage of unknown origin is acted on")
		}
	})
	t.Run("no appliance", func(t *testing.T) {
		w := epochWorld(t, remoteCaps())
		w.localKey("k", nil)
		w.epoch = ""
		w.start()
		if reason := w.b.fence.closed(); reason != "" {
			t.Errorf("fenced: %s", reason)
		}
		w.write("reconcile", nil) // by hand
	})
}

func TestReconcileIsBounded(t *testing.T) {
	w := epochWorld(t, remoteCaps())
	w.refused(logical.UpdateOperation, "reconcile", map[string]any{"max_seconds": 0}, "max_seconds 0")
	w.refused(logical.UpdateOperation, "reconcile", map[string]any{"max_seconds": 100}, "max_seconds 100")
	w.sys.ReplicationStateVal = 0
	for i := range 250 {
		w.localKey(fmt.Sprintf("k%03d", i), nil)
	}
	steps := 0
	w.remoteKey("zz", nil)
	w.remote.setFault(func(op string, _ bool) error { steps++; w.clock.advance(30 * time.Second); return nil })
	for i := range 3 {
		w.remoteKey(fmt.Sprintf("zz%d", i), nil)
	}
	done := 0
	for range 20 {
		done++
		if w.write("reconcile", map[string]any{"max_seconds": 60}).Data["done"] == true {
			break
		}
	}
	if done < 2 || done == 20 {
		t.Errorf("it took %d calls, want a few", done)
	}
	var problems []string
	for name := range w.read("reconcile", nil)["problems"].(map[string]string) {
		problems = append(problems, name)
	}
	if len(problems) > 0 {
		t.Errorf("problems: %v", slices.Sorted(slices.Values(problems)))
	}
}

func FuzzEpoch(f *testing.F) {
	f.Add([]byte(`{"installation_id":"a","epoch":1}`))
	f.Add([]byte(`{"installation_id":1}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		e, err := parseEpoch("f", raw)
		if err == nil && (e.Installation == "" || e.Number < 0) {
			t.Errorf("%q was taken: %+v", raw, e)
		}
	})
}

// A comparison tells which versions are dead: what a sweep could not tell from them
// before, it looks at again.
func TestReconcileSweeps(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.remoteKey("k", map[string]any{"grace_period": "30d"})
	one := w.remote.alive()[0]
	w.write("rotate/k", nil)
	id := w.remote.leave(w.nameOf("k", "2"))
	w.remote.mu.Lock()
	w.remote.keys[one].alive = false
	w.remote.mu.Unlock()
	for range 4 {
		w.pass(time.Hour)
	}
	if !slices.Contains(w.remote.alive(), id) {
		t.Fatal("a list that lacks a living version is believed")
	}
	w.write("reconcile", nil)
	w.pass(time.Minute)
	if slices.Contains(w.remote.alive(), id) {
		t.Error("a second key of one request lives on")
	}
}

// A create has changed a key in place, and its answer was lost: the value that storage
// has is dead, and what is listed under its id is not.
func TestReconcileEndsAKeyThatWasChangedInPlace(t *testing.T) {
	for i := range 4 {
		settled, otherIDs := i%2 == 1, i/2 == 1
		h := newHostile(t, liar.Services()["list and test"], liar.Lies{})
		h.keys = h.keys[:1]
		h.write("keys/app/key", map[string]any{"provider": "svc", "grace_period": "1h"})
		h.go_(testPatience, time.Minute) // a refusal is believed from here on
		h.liar.SetLies(liar.Lies{InPlace: true, NoAnswer: true})
		if _, err := h.do(logical.UpdateOperation, "rotate/app/key", nil); err == nil {
			t.Fatal("no answer, and no error")
		}
		h.liar.SetLies(liar.Lies{})
		if settled {
			h.go_(5*time.Minute, time.Minute)
		}
		h.liar.SetLies(liar.Lies{OtherIDs: otherIDs})
		if got := h.write("reconcile", nil).Data; got["found_dead"] != 1 {
			t.Errorf("%v", got)
		}
		alive := func() (n int) {
			for _, k := range h.liar.Keys() {
				n += boolInt(k.Alive && k.Asked != "")
			}
			return n
		}
		h.go_(30*time.Minute, 5*time.Minute)
		if n := alive(); n != 2 {
			t.Errorf("%d keys live in its grace, want 2", n)
		}
		h.go_(2*time.Hour, 5*time.Minute)
		if got := h.outcome(); got != "well" || alive() != 1 {
			t.Errorf("settled %v, other ids %v: %s: %+v", settled, otherIDs, got, h.liar.Keys())
		}
	}
}

// A list without names, with ids in another form than creates tell, shows the very
// versions that are here: what was made while they were asked for is no later key.
func TestReconcileWhereIDsAreListedInAnotherForm(t *testing.T) {
	for _, rotated := range []bool{false, true} {
		h := newHostile(t, liar.Services()["no names"], liar.Lies{OtherIDs: true, ClockOff: 2 * time.Second})
		h.setEpoch("machine-one", 1)
		h.start()
		h.write("reconcile", nil)
		h.write("keys/k", map[string]any{"provider": "svc", "grace_period": "1h"})
		snapshot := h.takeSnapshot()
		h.pass(time.Hour)
		if rotated {
			h.write("rotate/k", nil)
		}
		h.setEpoch("machine-one", 2)
		h.restore(snapshot)
		want := boolInt(rotated)
		if got := h.write("reconcile", nil).Data; got["done"] != true || got["found_later"] != want || got["renewed"] != want || got["found_dead"] != 0 {
			t.Errorf("rotated %v: %v", rotated, got)
		}
	}
}
