package apikeys

import (
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"strongroom.example/plugin/provider"
)

// shown is what versions/k says of one.
func (w *world) shown(n int) map[string]any {
	w.t.Helper()
	return w.read("versions/k", nil)["versions"].(map[string]any)[itoa(n)].(map[string]any)
}

// A version whose successor's birth should have ended it is looked at, as every other
// one whose end has come: by test, else list, else the service's word must do.
func TestBirthEndsTheOneBeforeAndIsSeenTo(t *testing.T) {
	full := remoteCaps()
	full.Overlap, full.LastUsed = false, false
	with := func(change func(*provider.Capabilities)) provider.Capabilities { c := full; change(&c); return c }
	noList := func(c *provider.Capabilities) { c.List, c.Named = false, false }
	for name, c := range map[string]struct {
		caps     provider.Capabilities
		lives    bool // the service does not end it
		sameID   bool // the new one has its id
		evidence string
		revoked  bool // the engine has asked for its end
	}{
		"test, dead":                   {caps: full, evidence: "test"},
		"list, dead":                   {caps: with(func(c *provider.Capabilities) { c.Test = false }), evidence: "list"},
		"neither":                      {caps: with(func(c *provider.Capabilities) { noList(c); c.Test = false }), evidence: "answer"},
		"neither, nor a revocation":    {caps: with(func(c *provider.Capabilities) { noList(c); c.Test, c.Revoke = false, false }), evidence: "answer"},
		"its id lives on, test":        {caps: full, sameID: true, evidence: "test"},
		"its id lives on, list":        {caps: with(func(c *provider.Capabilities) { c.Test = false }), sameID: true, evidence: "answer"},
		"test, alive":                  {caps: with(noList), lives: true, revoked: true, evidence: "test"},
		"list, alive":                  {caps: with(func(c *provider.Capabilities) { c.Test = false }), lives: true, revoked: true, evidence: "list"},
		"test, alive, no revocation":   {caps: with(func(c *provider.Capabilities) { noList(c); c.Revoke = false }), lives: true},
		"test, alive, its id lives on": {caps: with(noList), lives: true, sameID: true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, c.caps)
			w.remoteKey("k", map[string]any{"grace_period": "1d"})
			w.remote.setFault(func(op string, after bool) error {
				if op == "create" && after {
					w.remote.keys["id-1"].alive = c.lives
				}
				return nil
			})
			w.remote.answer = func(k *provider.Key) {
				if c.sameID {
					w.remote.keys["id-1"].id, k.ID = "old", "id-1"
					w.remote.keys["id-2"].id = "id-1"
				}
			}
			w.write("rotate/k", map[string]any{"force": true})
			if v := w.shown(1); c.lives && (v["state"] == "revoked" || v["readable"] == true) {
				t.Errorf("it lives: %v", v)
			}
			if c.evidence == "" {
				for range 24 * 12 {
					w.pass(time.Hour)
				}
				state := w.read("keys/k", nil)
				if state["condition"] != "revoked_unverified" || calls(w, "revoke") != 0 || len(w.remote.killed) != 0 {
					t.Errorf("%v, revoked: %v", state["condition"], w.remote.killed)
				}
				looks := len(w.remote.calls)
				w.pass(10 * time.Minute)
				if n := len(w.remote.calls) - looks; n > 0 {
					t.Errorf("%d more calls although it waits for a person", n)
				}
				w.write("resolve/k", map[string]any{"action": "absent", "version": 1})
				if v := w.shown(1); v["evidence"] != "person" || w.read("keys/k", nil)["condition"] != "ok" {
					t.Errorf("%v", v)
				}
				return
			}
			for range 15 {
				w.pass(time.Minute)
			}
			if v := w.shown(1); v["state"] != "revoked" || v["evidence"] != c.evidence || w.read("keys/k", nil)["condition"] != "ok" {
				t.Errorf("%v", v)
			}
			if (calls(w, "revoke") > 0) != c.revoked {
				t.Errorf("calls: %v", w.remote.calls)
			}
			if w.read("creds/k", nil)["version"] != 2 || !w.remote.works(w.read("creds/k", nil)["key"].(string)) {
				t.Error("the current version is dead")
			}
		})
	}
}

// A key that nobody will ever see was made in place of the current one, or beside it.
func TestReplacedInVainIsSeenTo(t *testing.T) {
	for _, lives := range []bool{false, true} {
		caps := remoteCaps()
		caps.Overlap = false
		w := newWorld(t, caps)
		w.remoteKey("k", nil)
		w.remote.setFault(func(op string, after bool) error {
			if op == "create" && after && w.remote.count == 2 {
				w.remote.keys["id-1"].alive = lives
				return &provider.Error{Op: op, Kind: provider.KindUncertain, Msg: "no answer"}
			}
			return nil
		})
		_, _ = w.do(logical.UpdateOperation, "rotate/k", map[string]any{"force": true})
		want := map[bool]string{false: "revoked", true: "current"}[lives]
		if v := w.shown(1); v["state"] != want || !lives && v["evidence"] != "test" {
			t.Errorf("alive %v: %v", lives, v)
		}
		for range 30 {
			w.pass(time.Minute)
		}
		if got := w.read("creds/k", nil); !w.remote.works(got["key"].(string)) || got["cache_ttl"].(int64) == 0 {
			t.Errorf("alive %v: %v", lives, got)
		}
	}
}

// What the engine cannot end is looked at where it can be seen, and said to be given
// up, not ended, where it cannot.
func TestVersionThatCannotBeEnded(t *testing.T) {
	for name, c := range map[string]struct {
		caps                        provider.Capabilities
		lives                       bool
		state, evidence, conditionn string
	}{
		"nothing can be seen": {provider.Capabilities{}, true, "given_up", "none", "ok"},
		"test, dead":          {provider.Capabilities{Test: true}, false, "revoked", "test", "ok"},
		"test, alive":         {provider.Capabilities{Test: true}, true, "grace", "", "revoked_unverified"},
		"list, dead":          {provider.Capabilities{List: true}, false, "revoked", "list", "ok"},
		"list, alive":         {provider.Capabilities{List: true}, true, "grace", "", "revoked_unverified"},
	} {
		t.Run(name, func(t *testing.T) {
			c.caps.Overlap = true
			w := newWorld(t, c.caps)
			w.remoteKey("k", map[string]any{"grace_period": "1h"})
			for i := range 2 {
				id := fmt.Sprintf("hand-%d", i)
				w.remote.keys[id] = &serviceKey{id: id, value: id, alive: true, created: w.clock.Wall(), scope: "<nil><nil>"}
				w.write("import/k", map[string]any{"key": id, "provider_key_id": id})
			}
			w.remote.keys["hand-0"].alive = c.lives
			for range 24 {
				w.pass(time.Hour)
			}
			if v, got := w.shown(1), w.read("keys/k", nil)["condition"]; v["state"] != c.state || v["evidence"] != c.evidence || got != c.conditionn {
				t.Errorf("%v: %v", got, v)
			}
			if w.remote.keys["hand-0"].alive = false; !c.lives || c.state == "given_up" {
				return
			}
			w.pass(25 * time.Hour)
			if v := w.shown(1); v["state"] != "revoked" || v["evidence"] != name[:4] {
				t.Errorf("somebody has ended it: %v", v)
			}
		})
	}
}

// A refusal that may be of the account is no evidence, and neither is a list that
// does not show what must be there.
func TestWhatIsNoEvidence(t *testing.T) {
	stay := func(w *world) func(string, bool) error {
		return func(op string, after bool) error {
			if op == "revoke" && after {
				w.remote.keys["id-1"].alive = true
			}
			return nil
		}
	}
	for name, c := range map[string]struct {
		caps  provider.Capabilities
		fault func(*world) func(string, bool) error
		list  func([]provider.RemoteKey) []provider.RemoteKey
	}{
		"the account is suspended": {caps: provider.Capabilities{Mint: true, Test: true, Revoke: true, Overlap: true},
			fault: func(w *world) func(string, bool) error {
				revive := stay(w)
				return func(op string, after bool) error {
					if op == "test" && w.remote.count == 2 && w.clock.Wall().Sub(w.remote.keys["id-2"].created) > time.Hour {
						return &provider.Error{Op: op, Kind: provider.KindUnauthorized, Status: 403, Unsure: true, Msg: "no"}
					}
					return revive(op, after)
				}
			}},
		"an empty list": {caps: provider.Capabilities{Mint: true, List: true, Named: true, Revoke: true, Overlap: true}, fault: stay,
			list: func([]provider.RemoteKey) []provider.RemoteKey { return nil }},
		"ids of another form": {caps: provider.Capabilities{Mint: true, List: true, Named: true, Revoke: true, Overlap: true}, fault: stay,
			list: func(keys []provider.RemoteKey) []provider.RemoteKey {
				for i := range keys {
					keys[i].ID = "keys/" + keys[i].ID
				}
				return keys
			}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, c.caps)
			w.remote.listed = c.list
			w.remoteKey("k", map[string]any{"grace_period": "1d"})
			w.write("rotate/k", nil)
			w.remote.setFault(c.fault(w))
			for range 36 {
				w.pass(time.Hour)
			}
			if v, got := w.shown(1), w.read("keys/k", nil)["condition"]; v["state"] == "revoked" || got != "revoked_unverified" {
				t.Errorf("%v: %v", got, v)
			}
		})
	}
}

// What refuses the old key and takes the new one is not of their account.
func TestRefusalOfTheOldKeyAlone(t *testing.T) {
	w := newWorld(t, provider.Capabilities{Mint: true, Test: true, Revoke: true, Overlap: true})
	w.remoteKey("k", map[string]any{"grace_period": "1h"})
	w.write("rotate/k", nil)
	w.remote.setFault(func(op string, after bool) error {
		if call := w.remote.calls[len(w.remote.calls)-1]; op == "test" && call == "test id-1" && !w.remote.keys["id-1"].alive {
			return &provider.Error{Op: op, Kind: provider.KindUnauthorized, Status: 403, Unsure: true, Msg: "no"}
		}
		return nil
	})
	w.pass(2 * time.Hour)
	if v := w.shown(1); v["state"] != "revoked" || v["evidence"] != "test" {
		t.Errorf("%v", v)
	}
}

// A version that was seen to be missing from a list, and is there again, lives: it is
// ended again. So is one that an older release has ended without looking.
func TestListedAgain(t *testing.T) {
	caps := remoteCaps()
	caps.Test = false
	w := newWorld(t, caps)
	w.remoteKey("k", map[string]any{"grace_period": "1h"})
	w.write("rotate/k", nil)
	w.pass(2 * time.Hour)
	if v := w.shown(1); v["state"] != "revoked" || v["evidence"] != "list" {
		t.Fatalf("%v", v)
	}
	w.remote.keys["id-1"].alive = true
	for range 30 {
		w.pass(time.Hour)
	}
	if w.remote.keys["id-1"].alive || w.shown(1)["state"] != "revoked" {
		t.Errorf("it lives on: %v", w.shown(1))
	}
	w.remote.keys["id-1"].alive = true
	w.remote.setFault(func(op string, after bool) error {
		if op == "revoke" && after {
			w.remote.keys["id-1"].alive = true
		}
		return nil
	})
	for range 30 {
		w.pass(time.Hour)
	}
	if got := w.read("keys/k", nil)["condition"]; got != "revoked_unverified" {
		t.Errorf("condition %v, %v", got, w.shown(1))
	}
}
