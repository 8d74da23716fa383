package apikeys

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"strongroom.example/plugin/provider"
)

// engine-core 10: one provider never takes all workers, with a cap or without.
func TestNoProviderTakesAllWorkers(t *testing.T) {
	x := newKeyIndex()
	for _, p := range []string{"slow", "other"} {
		for i := range 100 {
			x.apply(indexUpdate{name: fmt.Sprintf("%s%d", p, i), provider: p, reviewAt: 1})
		}
	}
	of := func(name string) shares { return shares{account: name} }
	taken := map[string]int{}
	slow := func(name string) shares {
		if name == "other" {
			return shares{account: name, reviewFrom: 1 << 60, rotateFrom: 1 << 60}
		}
		return of(name)
	}
	for name := x.take(10, slow); name != ""; name = x.take(10, slow) {
		taken[strings.TrimRight(name, "0123456789")]++
	}
	if taken["slow"] == 0 || taken["slow"] > maxWorkers/2 {
		t.Fatalf("%v", taken)
	}
	for name := x.take(10, of); name != ""; name = x.take(10, of) {
		taken[strings.TrimRight(name, "0123456789")]++
	}
	if taken["other"] < 4 || taken["slow"]+taken["other"] > maxWorkers {
		t.Errorf("%v", taken)
	}
}

// engine-core 11: the scheduler does not wait for the lock of a key.
func TestSchedulerWaitsForNoKey(t *testing.T) {
	w, _ := selfMade(t)
	if err := (store{w.storage}).putCampaign(t.Context(), &campaign{Provider: "svc", Started: w.clock.Wall(), Credential: "ops/svc"}); err != nil {
		t.Fatal(err)
	}
	w.start()
	unlock, err := w.b.locks.lock(t.Context(), "ops/svc")
	if err != nil {
		t.Fatal(err)
	}
	ticked := make(chan struct{})
	go func() { w.b.tick(context.Background()); close(ticked) }()
	select {
	case <-ticked:
	case <-time.After(10 * time.Second):
		t.Error("the scheduler stands still")
	}
	unlock()
	<-ticked
	w.b.running.Wait()
	for range 10 {
		w.pass(time.Second)
	}
	if left, err := (store{w.storage}).campaigns(t.Context()); err != nil || len(left) > 0 {
		t.Errorf("campaigns left: %v %v", left, err)
	}
}

// engine-core 12: what is built from an old credential is not kept.
func TestProviderBuiltFromAnOldCredentialIsNotKept(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.remoteKey("k", nil)
	w.b.providers.reset("svc")
	w.remote.build = func() error {
		w.remote.build = nil
		next := *w.b.providers.record("svc")
		next.Credential = map[string]string{"key": "new"}
		w.b.providers.set("svc", &next)
		return nil
	}
	if _, err := w.b.provider(t.Context(), "svc"); err != nil {
		t.Fatal(err)
	}
	p, err := w.b.provider(t.Context(), "svc")
	if err != nil || p.(*serviceClient).credential["key"] != "new" {
		t.Errorf("%v %v", p, err)
	}
}

// engine-core 13: what is not current yet is not called rotated.
func TestRotationThatIsNotCurrentIsNotCalledRotated(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.remoteKey("k", nil)
	w.remote.setFault(failing("test", provider.KindUnauthorized))
	for range 2 {
		resp := w.write("rotate/k", nil)
		if resp.Data["rotated"] != false || resp.Data["version"] != 1 || len(resp.Warnings) != 1 {
			t.Errorf("%v %v", resp.Data, resp.Warnings)
		}
	}
}

// engine-core 14: a version that waits for its test does not undo a rollback.
func TestRollbackIsNotUndoneByAPendingVersion(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.remoteKey("k", nil)
	w.write("rotate/k", nil)
	tests := 0
	w.remote.setFault(func(op string, _ bool) error {
		if op == "test" {
			if tests++; tests == 1 {
				return &provider.Error{Op: op, Kind: provider.KindUnauthorized, Status: 401, Msg: "no"}
			}
		}
		return nil
	})
	w.write("rotate/k", nil)
	w.write("rollback/k", map[string]any{"version": 1})
	w.remote.setFault(nil)
	for range 30 {
		w.pass(time.Minute)
	}
	if v := w.version("k"); v != 1 {
		t.Errorf("version %d is current", v)
	}
	if n := len(w.remote.alive()); n != 2 {
		t.Errorf("%d keys are alive", n)
	}
}

// engine-core 15: an unload ends every wait, those that come meanwhile too.
func TestUnloadLeavesNoWait(t *testing.T) {
	x := newWaiters()
	left := make(chan struct{})
	for range 4 {
		go func() {
			for {
				told, leave, ok := x.join("k", 1<<20)
				if !ok {
					left <- struct{}{}
					return
				}
				<-told
				leave()
			}
		}()
	}
	x.closeAll()
	for range 4 {
		select {
		case <-left:
		case <-time.After(10 * time.Second):
			t.Fatal("a wait is left")
		}
	}
}

// engine-core 16: who raises warn_before or max_keys makes the engine look.
func TestRaisedLimitsAreLookedAt(t *testing.T) {
	caps := provider.Capabilities{Overlap: true}
	w := newWorld(t, caps)
	w.remoteKey("k", map[string]any{"rotation_period": "90d"})
	w.write("import/k", map[string]any{"key": "brought"})
	w.pass(60 * day)
	if w.events.has("apikeys/due") {
		t.Fatal("told a month before")
	}
	w.write("config", map[string]any{"warn_before": "40d"})
	w.tick()
	if !w.events.has("apikeys/due") {
		t.Error("warn_before was raised and nobody looked")
	}

	caps = remoteCaps()
	caps.MaxKeys = 2
	w = newWorld(t, caps)
	w.remoteKey("k", map[string]any{"rotation_period": "1d", "grace_period": "300d"})
	w.pass(day)
	w.pass(2 * day)
	if v := w.version("k"); v != 2 {
		t.Fatalf("version %d", v)
	}
	w.remote.caps.MaxKeys = 10
	w.write("providers/svc", map[string]any{"max_rotations_per_minute": 0})
	w.tick()
	if v := w.version("k"); v != 3 {
		t.Errorf("version %d: max_keys was raised and nobody looked", v)
	}
}

// engine-core 17: what readers were promised outlives the loss of overlap.
func TestLossOfOverlapKeepsPromises(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.remoteKey("k", map[string]any{"rotation_period": "10d", "grace_period": "7d"})
	w.pass(9*day + 20*time.Hour)
	got := w.read("creds/k", nil)
	until := w.clock.Wall().Add(time.Duration(got["cache_ttl"].(int64)) * time.Second)
	w.remote.caps.Overlap = false
	w.write("providers/svc", map[string]any{"max_rotations_per_minute": 0})
	w.write("rotate/k", nil) // waits, too
	for w.clock.Wall().Before(until) {
		if !w.remote.works(got["key"].(string)) {
			t.Fatalf("promised until %s and dead at %s", until, w.clock.Wall())
		}
		w.pass(time.Hour)
	}
	w.pass(day)
	if v := w.version("k"); v != 2 {
		t.Errorf("version %d", v)
	}
}

// engine-core 18: after a suspension, in which a monotonic clock may stand still,
// a write comes first.
func TestSuspendedMachineWritesFirst(t *testing.T) {
	caps := remoteCaps()
	caps.LastUsed = false
	w := newWorld(t, caps)
	w.remoteKey("k", map[string]any{"grace_period": "5s"})
	w.write("rotate/k", nil)
	w.tick()
	w.clock.jump(time.Minute) // NTP, or the hypervisor, has put the wall clock right
	w.storage.setFault(func(op, _ string, _ bool) error {
		if op == "put" || op == "delete" {
			return errors.New("node is not the leader")
		}
		return nil
	})
	w.b.tick(t.Context())
	w.b.running.Wait()
	if n := len(w.remote.alive()); n != 2 {
		t.Errorf("%d keys are alive: it revoked without a word from storage", n)
	}
}

// engine-core 19: a fresh intent is not closed by a leader whose clock is ahead,
// nor by a reconcile.
func TestFreshIntentIsWaitedFor(t *testing.T) {
	for name, do := range map[string]func(w *world){
		"clock ahead": func(w *world) { w.clock.jump(90 * time.Second); w.start(); w.tick() },
		"reconcile":   func(w *world) { w.start(); w.write("reconcile", nil); w.tick() },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, remoteCaps())
			w.remoteKey("k", nil)
			var late *serviceKey
			w.remote.setFault(func(op string, after bool) error {
				if op == "create" && after && late == nil {
					late = w.remote.keys["id-2"]
					late.alive = false // the list lags
					return &provider.Error{Op: op, Kind: provider.KindUncertain, Msg: "no answer"}
				}
				return nil
			})
			_, _ = w.do(opWrite, "rotate/k", nil)
			w.remote.setFault(nil)
			do(w)
			late.alive = true
			for range 10 {
				w.pass(time.Minute)
			}
			if late.alive {
				t.Error("its key is alive for ever")
			}
		})
	}
}

// engine-core 20: a clock that is set back holds up nothing.
func TestClockThatIsSetBackHoldsUpNothing(t *testing.T) {
	for _, done := range []bool{true, false} {
		t.Run(fmt.Sprintf("campaign done %v", done), func(t *testing.T) { clockSetBack(t, done) })
	}
}

func clockSetBack(t *testing.T, done bool) {
	w := newWorld(t, remoteCaps())
	w.clock.jump(200 * day)
	w.start()
	w.write("config", map[string]any{"accept_clock": true})
	w.remoteKey("k", map[string]any{"rotation_period": "30d", "grace_period": "7d"})
	w.write("rotate/k", nil)
	w.remoteKey("m", nil)
	w.write("providers/svc/rotate", map[string]any{"compromised": true}) // a date in the future
	if w.tick(); done {
		w.b.tick(t.Context())
	}
	w.write("rotate/k", nil)
	w.clock.jump(-200 * day)
	w.write("config", map[string]any{"accept_clock": true})
	w.tick()
	made := creates(w)
	w.pass(8 * day)
	if n := len(w.remote.alive()); n != 2 || creates(w) != made {
		t.Errorf("%d keys are alive after the grace, %d were made", n, creates(w)-made)
	}
	v := w.version("k")
	w.pass(23 * day)
	if w.version("k") != v+1 {
		t.Errorf("not rotated after 31 days: %v", w.read("keys/k", nil))
	}
	// What is made now and is known to others is marked, though a campaign lies ahead.
	w.write("providers/svc/rotate", map[string]any{"compromised": true})
	if _, err := w.do(opRead, "creds/k", nil); err == nil {
		t.Error("a compromised key is given to readers")
	}
}

// engine-core 21: a foreign name stops nothing; a problem that blocks is not
// crowded out by harmless ones.
func TestImpossibleNumbersAtTheService(t *testing.T) {
	w := epochWorld(t, remoteCaps())
	w.remoteKey("k", nil)
	snap, err := w.b.snapshot(t.Context(), w.storage, "k")
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(snap.rec.Life.Current().Name, "-")
	for i, number := range []string{"9223372036854775807", "9223372036854774807", "1000000001"} {
		parts[4] = number
		id := fmt.Sprintf("odd-%d", i)
		w.remote.keys[id] = &serviceKey{id: id, name: strings.Join(parts, "-"), value: id, alive: true}
	}
	w.setEpoch("machine-one", 2)
	w.start()
	if got := w.write("reconcile", nil).Data; got["done"] != true {
		t.Fatalf("%v", got)
	}
	w.write("rotate/k", nil)

	var p reconcileRecord
	for i := range 2000 {
		p.problem(fmt.Sprint("harmless", i), "no new version could be made")
	}
	p.Blocked++
	p.problem("k", "not checked: no answer")
	if p.Blocked != 1 || len(p.Problems) > maxReported {
		t.Errorf("%d blocked, %d noted", p.Blocked, len(p.Problems))
	}
}

// engine-core 22: a webhook that no longer validates keeps no key from its readers.
func TestWebhookThatNoLongerValidates(t *testing.T) {
	for name, entry := range map[string]string{
		"a rule of today": `{"format":1,"data":{"name":"h","url":"https://example.org/","secret":"0123456789abcdef","ca_pem":"none"}}`,
		"an address":      `{"format":1,"data":{"name":"h","url":"https://example.org/","secret":"0123456789abcdef","allow_addresses":["x"]}}`,
		"damaged":         `{"format":1,"data":{"name":["h"]}}`,
		"newer":           `{"format":9,"data":{"name":"h"}}`,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, remoteCaps())
			w.localKey("k", nil)
			if err := w.storage.Storage.Put(t.Context(), &logical.StorageEntry{Key: "webhook/h", Value: []byte(entry)}); err != nil {
				t.Fatal(err)
			}
			w.start()
			w.read("creds/k", nil)
			hooks := w.read("status", nil)["webhooks"].(map[string]any)
			if fmt.Sprint(hooks["h"]) == "map[]" || hooks["h"].(map[string]any)["last_error"] == "" {
				t.Errorf("status says nothing: %v", hooks)
			}
			w.write("webhooks/h", map[string]any{"url": "https://example.org/", "secret": "0123456789abcdef", "ca_pem": "", "allow_addresses": "", "events": "never"})
			if got := w.read("webhooks/h", nil)["deliveries"].(map[string]any)["last_error"]; got != "" {
				t.Errorf("after it was written anew: %v", got)
			}
		})
	}
}

// engine-core 23: nothing is pulled away between a look and what follows from it.
func TestWhatIsCheckedStaysUntilItIsUsed(t *testing.T) {
	t.Run("a provider while its first key is created", func(t *testing.T) {
		w := newWorld(t, remoteCaps())
		w.write("providers/svc", map[string]any{"type": "remote"})
		deleted := make(chan error, 1)
		w.storage.setFault(once("put", "index/", false, func() {
			go func() { _, err := w.do(opDelete, "providers/svc", nil); deleted <- err }()
		}))
		_, created := w.do(opWrite, "keys/k", map[string]any{"provider": "svc"})
		err := <-deleted
		w.storage.setFault(nil)
		if created != nil || err == nil {
			t.Errorf("created: %v, deleted: %v", created, err)
		}
	})
	t.Run("a key while it becomes a credential", func(t *testing.T) {
		w := newWorld(t, remoteCaps())
		w.localKey("cred", nil)
		deleted := make(chan error, 1)
		w.storage.setFault(once("put", "provider/svc", false, func() {
			go func() {
				_, err := w.do(opDelete, "keys/cred", map[string]any{"revoke_now": true})
				deleted <- err
			}()
		}))
		_, written := w.do(opWrite, "providers/svc", map[string]any{"type": "remote", "credential_key": "cred"})
		err := <-deleted
		w.storage.setFault(nil)
		if written != nil || err == nil {
			t.Errorf("written: %v, deleted: %v", written, err)
		}
	})
}

// engine-core 24: an import beside an open intent is not taken for its key.
func TestImportBesideAnOpenIntentLives(t *testing.T) {
	for _, id := range []string{"brought", ""} {
		for _, named := range []bool{true, false} {
			t.Run(fmt.Sprint(id, named), func(t *testing.T) {
				caps := remoteCaps()
				caps.Named = named
				w := newWorld(t, caps)
				w.remoteKey("k", nil)
				w.remote.setFault(func(op string, after bool) error {
					if op == "create" && !after {
						return &provider.Error{Op: op, Kind: provider.KindUncertain, Msg: "no answer"}
					}
					return nil
				})
				_, _ = w.do(opWrite, "rotate/k", nil)
				w.remote.setFault(nil)
				w.remote.keys["brought"] = &serviceKey{id: "brought", value: "brought", alive: true, created: w.clock.Wall()}
				w.write("import/k", map[string]any{"key": "brought", "provider_key_id": id})
				for range 10 {
					w.pass(time.Minute)
				}
				if !w.remote.works("brought") {
					t.Error("the imported key was ended")
				}
			})
		}
	}
}

// engine-core 25: an intent that could not be written is not uncertain.
func TestIntentThatCouldNotBeWrittenIsNotUncertain(t *testing.T) {
	for _, list := range []bool{true, false} {
		caps := remoteCaps()
		caps.List, caps.Named = list, list
		w := newWorld(t, caps)
		w.remoteKey("k", nil)
		made := creates(w)
		w.storage.setFault(func(op, key string, after bool) error {
			if op == "put" && strings.HasPrefix(key, "wal/") && after {
				return errCrash // it is there all the same
			}
			return nil
		})
		if _, err := w.do(opWrite, "rotate/k", nil); err == nil {
			t.Fatal("the write did not fail")
		}
		w.storage.setFault(nil)
		for range 3 {
			w.pass(time.Minute)
		}
		if state := w.read("keys/k", nil); state["uncertain"] != nil || creates(w) != made {
			t.Errorf("list %v: %v, %d creates", list, state["uncertain"], creates(w)-made)
		}
		w.write("rotate/k", nil)
	}
}

// engine-core 26: what the engine cannot end is not called ended.
func TestCompromisedVersionThatCannotBeEnded(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.remoteKey("k", nil)
	w.remote.keys["x"] = &serviceKey{id: "x", value: "brought", alive: true}
	w.write("import/k", map[string]any{"key": "brought"}) // without an id
	resp := w.write("rotate/k", map[string]any{"compromised": true})
	if fmt.Sprint(resp.Data["revoked_versions"]) != "[1]" || len(resp.Warnings) == 0 {
		t.Errorf("%v %v", resp.Data, resp.Warnings)
	}
	if got := w.read("keys/k", nil)["condition"]; got != "revoked_unverified" {
		t.Errorf("condition %v", got)
	}
	writes := len(w.storage.writes())
	for range 48 {
		w.pass(time.Hour)
	}
	if n := len(w.storage.writes()) - writes; n > 2*160 {
		t.Errorf("%d writes in two days", n)
	}
	w.remote.keys["x"].alive = false
	w.write("resolve/k", map[string]any{"action": "absent", "version": 2})
	if state := w.read("versions/k", nil); state["condition"] != "ok" || state["versions"].(map[string]any)["2"].(map[string]any)["evidence"] != "person" {
		t.Errorf("%v", state)
	}
}
