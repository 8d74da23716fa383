package apikeys

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"strongroom.example/plugin/provider"
)

func failing(op string, kind provider.Kind) func(string, bool) error {
	return func(o string, _ bool) error {
		if o == op {
			return &provider.Error{Op: op, Kind: kind, Msg: "the service says no"}
		}
		return nil
	}
}

func TestCompromisedKeyIsReplacedAndRevokedAtOnce(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.remoteKey("k", nil)
	w.write("rotate/k", nil)
	grace := w.read("creds/k", map[string]any{"version": 1})["key"].(string)
	current := w.read("creds/k", nil)["key"].(string)
	resp := w.write("rotate/k", map[string]any{"compromised": true})
	if got := fmt.Sprint(resp.Data["revoked_versions"]); got != "[1 2]" {
		t.Errorf("revoked are %s", got)
	}
	if w.remote.works(grace) || w.remote.works(current) {
		t.Error("an old one still works")
	}
	if got := w.read("creds/k", nil); got["version"] != 3 || !w.remote.works(got["key"].(string)) {
		t.Errorf("version %v", got["version"])
	}
	for _, n := range []int{1, 2} {
		w.refused(opWrite, "rollback/k", map[string]any{"version": n}, "compromised")
	}
	if !w.events.has("apikeys/compromised") {
		t.Error("no event")
	}
}

func TestCompromisedKeyIsRevokedEvenIfNoNewOneCanBeMade(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.remoteKey("k", nil)
	old := w.read("creds/k", nil)["key"].(string)
	w.remote.setFault(failing("create", provider.KindTransient))
	resp := w.write("rotate/k", map[string]any{"compromised": true})
	if w.remote.works(old) {
		t.Error("the old one still works")
	}
	if len(resp.Warnings) != 1 || !strings.Contains(resp.Warnings[0], "down") || !strings.Contains(resp.Warnings[0], "the engine goes on trying") || resp.Data["rotated"] != false {
		t.Errorf("the operator is not told: %v %v", resp.Warnings, resp.Data)
	}
	if got := w.read("keys/k", nil)["condition"]; got != "down" {
		t.Errorf("condition %v", got)
	}
	_, err := w.do(opRead, "creds/k", nil)
	if coded, ok := err.(logical.HTTPCodedError); !ok || coded.Code() != 503 {
		t.Errorf("reading it: %v, want a 503", err)
	}
	w.remote.setFault(nil)
	w.pass(5 * time.Minute)
	if got := w.read("creds/k", nil); got["version"] != 2 {
		t.Errorf("version %v", got["version"])
	}
}

func TestCompromisedKeyWhoseRevocationFailsIsTriedAgain(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.remoteKey("k", nil)
	old := w.read("creds/k", nil)["key"].(string)
	w.remote.setFault(failing("revoke", provider.KindTransient))
	resp := w.write("rotate/k", map[string]any{"compromised": true})
	if got := w.read("keys/k", nil)["condition"]; got != "revocation_failing" {
		t.Errorf("condition %v", got)
	}
	if len(resp.Warnings) != 1 || !strings.Contains(resp.Warnings[0], "not every version is revoked") {
		t.Errorf("warnings: %v", resp.Warnings)
	}
	w.remote.setFault(nil)
	w.pass(time.Minute)
	if w.remote.works(old) {
		t.Error("it was not tried again")
	}
}

func TestRevokedKeyThatStillWorksIsNotTakenForDead(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.remoteKey("k", map[string]any{"grace_period": "1d"})
	w.write("rotate/k", nil)
	stubborn := w.remote.keys["id-1"]
	w.clock.advance(25 * time.Hour)
	w.remote.setFault(func(op string, after bool) error { // the service says yes and does nothing
		if op == "revoke" && after {
			stubborn.alive = true
		}
		return nil
	})
	w.tick()
	if got := w.read("keys/k", nil)["condition"]; got != "ok" {
		t.Errorf("services take a while to tell all their servers: %v", got)
	}
	for range 12 {
		w.pass(time.Minute)
	}
	state := w.read("keys/k", nil)
	if got := state["condition"]; got != "revoked_unverified" || !strings.Contains(fmt.Sprint(state["revocation_failure"]), "still works") {
		t.Errorf("state: %v", state)
	}
	w.refused(opRead, "creds/k", map[string]any{"version": 1}, "past its grace")
	w.remote.setFault(nil)
	w.pass(time.Hour)
	if got := w.read("keys/k", nil)["condition"]; got != "ok" || len(w.remote.alive()) != 1 {
		t.Errorf("condition %v, %d alive", got, len(w.remote.alive()))
	}
}

func TestProviderWithoutOverlapWaitsForThePromise(t *testing.T) {
	caps := remoteCaps()
	caps.Overlap = false
	w := newWorld(t, caps)
	w.remoteKey("k", map[string]any{"rotation_period": "10d"})
	first := w.read("creds/k", nil)
	left := first["cache_ttl"].(int64)
	if left <= 9*86400 || left > 10*86400 {
		t.Errorf("cache_ttl is %d, want the time to the next rotation", left)
	}
	if resp, err := w.do(opRead, "creds/k", map[string]any{"if_version": 1}); err != nil || resp.Data["key"] != first["key"] {
		t.Error("a 304 would renew a promise that runs out at a fixed time")
	}
	resp := w.write("rotate/k", nil)
	if resp.Data["rotated"] != false || resp.Data["scheduled_time"] == nil || len(resp.Warnings) != 1 {
		t.Errorf("rotate: %v", resp.Data)
	}
	w.pass(time.Duration(left)*time.Second - time.Minute)
	if !w.remote.works(first["key"].(string)) {
		t.Fatal("the promise was broken")
	}
	w.pass(time.Hour)
	if v := w.version("k"); v != 2 {
		t.Fatalf("version %d", v)
	}
	if got := w.write("rotate/k", map[string]any{"force": true}).Data; got["version"] != 3 {
		t.Errorf("force: %v", got)
	}
}

func TestProviderWithoutOverlapAndWithoutAutomation(t *testing.T) {
	caps := remoteCaps()
	caps.Overlap = false
	w := newWorld(t, caps)
	w.remoteKey("k", map[string]any{"disable_automated_rotation": true, "grace_period": "2h"})
	if got := w.read("creds/k", nil)["cache_ttl"]; got != int64(7200) {
		t.Errorf("cache_ttl %v", got)
	}
	w.write("rotate/k", nil)
	w.clock.advance(time.Hour)
	if got := w.read("creds/k", nil)["cache_ttl"]; got != int64(3600) {
		t.Errorf("cache_ttl %v an hour before the rotation that was asked for", got)
	}
	w.pass(time.Hour + time.Second)
	if v := w.version("k"); v != 2 {
		t.Errorf("version %d", v)
	}
}

func TestThirdKeyAtATwoKeyProvider(t *testing.T) {
	caps := remoteCaps()
	caps.MaxKeys = 2
	w := newWorld(t, caps)
	w.remoteKey("k", map[string]any{"rotation_period": "10d", "grace_period": "7d"})
	w.write("rotate/k", nil)
	w.refused(opWrite, "rotate/k", nil, "at most 2 versions", "version 1", "force=true")
	if got := w.write("rotate/k", map[string]any{"force": true}).Data; got["version"] != 3 {
		t.Fatalf("force: %v", got)
	}
	if n := len(w.remote.alive()); n != 2 {
		t.Errorf("%d keys alive", n)
	}
	w.write("keys/k", map[string]any{"rotation_period": "1d"})
	w.pass(6 * day)
	if v := w.version("k"); v != 3 {
		t.Errorf("version %d: a rotation that is due waits for room", v)
	}
	w.pass(day + time.Minute)
	if v := w.version("k"); v != 4 {
		t.Errorf("version %d after there was room", v)
	}
	w.write("rotate/k", map[string]any{"compromised": true})
	if n := len(w.remote.alive()); n != 1 {
		t.Errorf("%d keys alive after a compromise", n)
	}
	w.remote.setFault(failing("revoke", provider.KindTransient))
	w.write("rotate/k", nil)
	if _, err := w.do(opWrite, "rotate/k", map[string]any{"force": true}); err == nil || !strings.Contains(err.Error(), "could not be revoked") {
		t.Errorf("force while revoking fails: %v", err)
	}
}

func TestUncertainRotationNeedsAPerson(t *testing.T) {
	caps := remoteCaps()
	caps.List, caps.Named = false, false
	start := func(t *testing.T) *world {
		w := newWorld(t, caps)
		w.remoteKey("k", map[string]any{"rotation_period": "10d"})
		once := true
		w.remote.setFault(func(op string, after bool) error {
			if op == "create" && after && once {
				once = false
				return &provider.Error{Op: op, Kind: provider.KindUncertain, Msg: "no answer"}
			}
			return nil
		})
		w.pass(11 * day)
		w.pass(30 * day)
		return w
	}
	t.Run("never retried blindly", func(t *testing.T) {
		w := start(t)
		if w.remote.count != 2 {
			t.Fatalf("%d keys were made, want 2", w.remote.count)
		}
		state := w.read("keys/k", nil)
		if state["condition"] != "uncertain" || state["uncertain"].(map[string]any)["name"] == "" {
			t.Errorf("state: %v", state)
		}
		w.refused(opWrite, "rotate/k", nil, "uncertain", "resolve/k")
		resp, err := w.do(opRead, "creds/k", nil)
		if err != nil || resp.Data["version"] != 1 || len(resp.Warnings) != 1 {
			t.Errorf("reading: %v %v", err, resp)
		}
		w.start() // nor after a restart
		w.pass(day)
		if w.remote.count != 2 {
			t.Fatalf("%d keys were made after a restart", w.remote.count)
		}
	})
	t.Run("revoked by resolve", func(t *testing.T) {
		w := start(t)
		w.refused(opWrite, "resolve/k", map[string]any{"action": "revoke", "provider_key_id": "id-1"}, "version 1")
		w.remote.setFault(failing("revoke", provider.KindTransient))
		if _, err := w.do(opWrite, "resolve/k", map[string]any{"action": "revoke", "provider_key_id": "id-2"}); err == nil {
			t.Error("a failed revocation resolves nothing")
		}
		w.remote.setFault(nil)
		w.write("resolve/k", map[string]any{"action": "revoke", "provider_key_id": "id-2"})
		w.tick()
		if v := w.version("k"); v != 2 {
			t.Errorf("version %d: the overdue rotation goes on", v)
		}
		if got := w.remote.alive(); len(got) != 2 || got[0] != "id-1" || got[1] != "id-3" {
			t.Errorf("alive are %v", got)
		}
		w.refused(opWrite, "resolve/k", map[string]any{"action": "absent"}, "nothing", "uncertain")
	})
	t.Run("compromised meanwhile", func(t *testing.T) {
		w := start(t)
		resp := w.write("rotate/k", map[string]any{"compromised": true})
		if len(resp.Warnings) != 1 || !strings.Contains(resp.Warnings[0], "is down") || !strings.Contains(resp.Warnings[0], "resolve/k") {
			t.Errorf("warnings: %v", resp.Warnings)
		}
	})
	t.Run("ended by hand", func(t *testing.T) {
		w := start(t)
		w.write("resolve/k", map[string]any{"action": "absent"})
		if n := w.read("status", nil)["open_intents"]; n != 0 {
			t.Errorf("%v intents", n)
		}
	})
}

func TestCompromisedWhileARotationIsClearedUp(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.remoteKey("k", nil)
	w.remote.setFault(failing("create", provider.KindUncertain))
	if _, err := w.do(opWrite, "rotate/k", nil); err == nil {
		t.Fatal("an answer that is lost is no success")
	}
	w.remote.setFault(nil)
	resp := w.write("rotate/k", map[string]any{"compromised": true})
	if resp.Data["rotated"] != false || len(resp.Warnings) != 1 || !strings.Contains(resp.Warnings[0], "still being cleared up") {
		t.Fatalf("%v, warnings: %v", resp.Data, resp.Warnings)
	}
	w.pass(day)
	if v := w.version("k"); v != 2 {
		t.Errorf("version %d: the engine makes one as soon as it may", v)
	}
}

func TestRotateAnswersWithTheProvidersReason(t *testing.T) {
	for kind, code := range map[provider.Kind]int{provider.KindTransient: 424, provider.KindUnauthorized: 424, provider.KindRejected: 400} {
		t.Run(kind.String(), func(t *testing.T) {
			w := newWorld(t, remoteCaps())
			w.remoteKey("k", nil)
			w.remote.setFault(failing("create", kind))
			_, err := w.do(opWrite, "rotate/k", nil)
			got := 400
			if coded, ok := err.(logical.HTTPCodedError); ok {
				got = coded.Code()
			}
			if err == nil || got != code || !strings.Contains(err.Error(), "the service says no") || !strings.Contains(err.Error(), "version 1 stays") {
				t.Errorf("%d: %v", got, err)
			}
		})
	}
	t.Run("an error of unknown type is not quoted", func(t *testing.T) {
		w := newWorld(t, remoteCaps())
		w.remoteKey("k", nil)
		w.remote.setFault(func(op string, _ bool) error { return fmt.Errorf("secret-in-an-answer") })
		_, err := w.do(opWrite, "rotate/k", nil)
		if err == nil || strings.Contains(err.Error(), "secret-in-an-answer") || strings.Contains(fmt.Sprint(w.read("keys/k", nil)), "secret-in-an-answer") {
			t.Errorf("%v", err)
		}
	})
}

func TestTestOfANewKeyThatTakesLong(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.remoteKey("k", nil)
	w.remote.setFault(failing("test", provider.KindTransient))
	resp := w.write("rotate/k", nil)
	if resp.Data["rotated"] != false || resp.Data["version"] != 1 || len(resp.Warnings) != 1 {
		t.Errorf("%v %v", resp.Data, resp.Warnings)
	}
	w.refused(opWrite, "import/k", map[string]any{"key": "x"}, "version 2", "brought in")
	w.remote.setFault(nil)
	w.clock.advance(time.Minute)
	if got := w.write("rotate/k", nil).Data; got["version"] != 2 || w.remote.count != 2 {
		t.Errorf("%v, %d made: the pending one is taken up, not a third made", got, w.remote.count)
	}
}

func TestEarlyRevocationNeedsForce(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.remoteKey("k", nil)
	w.write("rotate/k", nil)
	w.refused(opDelete, "versions/k", map[string]any{"version": 1}, "promised version 1", "force=true")
	resp, err := w.do(opDelete, "versions/k", map[string]any{"version": 1, "force": true})
	if err != nil || len(resp.Warnings) != 1 || len(w.remote.alive()) != 1 {
		t.Errorf("%v %v, %d alive", err, resp, len(w.remote.alive()))
	}
	w.refused(opDelete, "versions/k", map[string]any{"version": 1, "force": true}, "revoked already")
	w.write("rotate/k", nil)
	w.remote.setFault(failing("revoke", provider.KindTransient))
	resp, err = w.do(opDelete, "versions/k", map[string]any{"version": 2, "force": true})
	if err != nil || len(resp.Warnings) != 2 {
		t.Errorf("while revoking fails: %v %v", err, resp)
	}
}

func TestRollback(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.remoteKey("k", map[string]any{"grace_period": "2d"})
	w.write("rotate/k", nil)
	w.clock.advance(day)
	w.write("rollback/k", map[string]any{"version": 1})
	creds := w.read("creds/k", nil)
	if creds["version"] != 1 || creds["cache_ttl"] != int64(2*86400) {
		t.Errorf("version %v, cache_ttl %v", creds["version"], creds["cache_ttl"])
	}
	if got := w.read("creds/k", map[string]any{"version": 2})["state"]; got != "grace" {
		t.Errorf("version 2 is %v", got)
	}
	w.refused(opWrite, "rollback/k", map[string]any{"version": 1}, "current")
	w.refused(opWrite, "rollback/k", map[string]any{"version": 9}, "no version 9")
	w.remote.setFault(failing("test", provider.KindTransient))
	if _, err := w.do(opWrite, "rollback/k", map[string]any{"version": 2}); err == nil || !strings.Contains(err.Error(), "nothing was changed") {
		t.Errorf("%v", err)
	}
	w.remote.setFault(failing("test", provider.KindUnauthorized))
	w.refused(opWrite, "rollback/k", map[string]any{"version": 2}, "no longer accepts")
	w.remote.setFault(nil)
	w.pass(3 * day)
	w.refused(opWrite, "rollback/k", map[string]any{"version": 2}, "not alive")
	w.write("rotate/k", nil)
	if v := w.version("k"); v != 3 {
		t.Errorf("after a rollback the next version is %d, want 3: numbers are never used twice", v)
	}
}
