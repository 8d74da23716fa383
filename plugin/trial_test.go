package apikeys

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"strongroom.example/plugin/provider"
	"strongroom.example/plugin/provider/liar"
)

// trialWorld has a provider for the fake service and waits for nothing.
func trialWorld(t *testing.T, caps provider.Capabilities) *world {
	w := newWorld(t, caps)
	w.b.trials.pause = func(context.Context, time.Duration) {}
	w.write("providers/svc", map[string]any{"type": "remote", "settings": map[string]any{"held_to": "paper", "held_to_date": "2026-11-29"}})
	return w
}

func (w *world) trial(data map[string]any) map[string]any {
	w.t.Helper()
	resp, err := w.do(logical.UpdateOperation, "providers/svc/trial", data)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp.Data
}

func stepsOf(data map[string]any) string {
	var out []string
	for _, s := range data["steps"].([]map[string]any) {
		out = append(out, fmt.Sprintf("%s %v", s["step"], s["ok"]))
	}
	return strings.Join(out, ", ")
}

func TestLiveTrial(t *testing.T) {
	w := trialWorld(t, remoteCaps())
	got := w.trial(map[string]any{"live": true})
	if got["state"] != "passed" || stepsOf(got) != "create true, test true, list true, revoke true" || got["may_be_left"] != "" || got["held_to"] != "paper, 2026-11-29" {
		t.Fatalf("%v", got)
	}
	if alive := w.remote.alive(); len(alive) != 0 {
		t.Errorf("left alive: %v", alive)
	}
	for _, secret := range []string{"value-", "secret-"} {
		if strings.Contains(fmt.Sprint(got), secret) {
			t.Errorf("a value is shown: %v", got)
		}
	}
	if read := w.read("providers/svc/trial", nil); read["state"] != "passed" || stepsOf(read) != stepsOf(got) {
		t.Errorf("read afterwards: %v", read)
	}
	if again := w.trial(map[string]any{"live": true}); again["state"] != "passed" || again["key_name"] == got["key_name"] {
		t.Errorf("a second one: %v", again)
	}
	if _, err := w.do(logical.DeleteOperation, "providers/svc", nil); err != nil {
		t.Fatal(err)
	}
}

func TestLiveTrialIsRefused(t *testing.T) {
	with := func(change func(*provider.Capabilities)) provider.Capabilities {
		c := remoteCaps()
		change(&c)
		return c
	}
	for name, tc := range map[string]struct {
		caps provider.Capabilities
		want string
	}{
		"no overlap":            {with(func(c *provider.Capabilities) { c.Overlap = false }), "a new key ends the current one"},
		"made of the current":   {with(func(c *provider.Capabilities) { c.FromCurrent = true }), "a new key ends the current one"},
		"nothing is minted":     {with(func(c *provider.Capabilities) { c.Mint = false }), "makes no keys"},
		"cannot revoke":         {with(func(c *provider.Capabilities) { c.Revoke = false }), "would stay"},
		"unknown free places":   {with(func(c *provider.Capabilities) { c.MaxKeys, c.List, c.Named = 5, false, false }), "nobody knows whether there is a free place"},
		"no free place":         {with(func(c *provider.Capabilities) { c.MaxKeys = 2 }), "no free place: 2 keys of 2"},
		"issued by Vault alone": {with(func(c *provider.Capabilities) { c.Local = true }), "issues its keys itself"},
	} {
		t.Run(name, func(t *testing.T) {
			w := trialWorld(t, tc.caps)
			for i := range 2 {
				w.remote.keys[fmt.Sprint("theirs", i)] = &serviceKey{id: fmt.Sprint("theirs", i), name: "by hand", value: fmt.Sprint("v", i), alive: true}
			}
			w.refused(logical.UpdateOperation, "providers/svc/trial", map[string]any{"live": true}, tc.want)
			for _, call := range w.remote.calls {
				if strings.HasPrefix(call, "create") || strings.HasPrefix(call, "revoke") {
					t.Errorf("%s", call)
				}
			}
			w.refused(logical.UpdateOperation, "providers/svc/trial", map[string]any{"parameters": map[string]any{"zz": 1}}, "zz")
		})
	}
	w := trialWorld(t, remoteCaps())
	w.refused(logical.UpdateOperation, "providers/svc/trial", map[string]any{"live": true, "key": "x"}, "do not go together")
	w.refused(logical.UpdateOperation, "providers/none/trial", nil, `no provider "none"`)
	w.refused(logical.UpdateOperation, "providers/svc/trial", map[string]any{"key": "none"}, `key "none"`)
}

// A trial that reads changes nothing at the service.
func TestReadOnlyTrial(t *testing.T) {
	w := trialWorld(t, remoteCaps())
	w.remoteKey("k", nil)
	w.tick()
	before := len(w.remote.calls)
	got := w.trial(map[string]any{"key": "k"})
	if got["state"] != "read_only" || stepsOf(got) != "list true, test true" {
		t.Errorf("%v", got)
	}
	for _, call := range w.remote.calls[before:] {
		if !strings.HasPrefix(call, "list") && !strings.HasPrefix(call, "test") {
			t.Errorf("%s", call)
		}
	}
	s := &tinyService{expires: `"29/11/2026"`}
	w.serve(s)
	s.names["7"] = "by hand"
	resp := w.write("providers/tiny/trial", nil)
	if text := fmt.Sprint(resp.Data); !strings.Contains(text, "no time that can be read") || !strings.Contains(text, "a list of 1") {
		t.Errorf("what the paths select is not shown: %s", text)
	}
}

// What the service lies about is found, and nothing of it stays.
func TestLiveTrialFindsFaults(t *testing.T) {
	lost := func(op string) error {
		return &provider.Error{Op: op, Kind: provider.KindUncertain, Msg: "no answer"}
	}
	for name, tc := range map[string]struct {
		caps  func(*provider.Capabilities)
		fault func(s *service) func(op string, after bool) error
		steps string // those that failed
		left  bool
	}{
		"the answer to create is lost": {nil, func(*service) func(string, bool) error {
			return func(op string, after bool) error {
				if op == "create" && after {
					return lost(op)
				}
				return nil
			}
		}, "create", false},
		"and nobody can look": {func(c *provider.Capabilities) { c.List, c.Named = false, false }, func(*service) func(string, bool) error {
			return func(op string, after bool) error {
				if op == "create" && after {
					return lost(op)
				}
				return nil
			}
		}, "create", true},
		"the key is made, and 503 is answered": {nil, func(*service) func(string, bool) error {
			return func(op string, after bool) error {
				if op == "create" && after {
					return &provider.Error{Op: op, Kind: provider.KindTransient, Status: 503, Msg: "not made, it says"}
				}
				return nil
			}
		}, "create", false},
		"create is refused": {nil, func(*service) func(string, bool) error {
			return func(op string, after bool) error {
				if op == "create" && !after {
					return &provider.Error{Op: op, Kind: provider.KindForbidden, Msg: "no right"}
				}
				return nil
			}
		}, "create", false},
		"the test does not work": {nil, func(*service) func(string, bool) error {
			return func(op string, after bool) error {
				if op == "test" && !after {
					return &provider.Error{Op: op, Kind: provider.KindRejected, Msg: "404"}
				}
				return nil
			}
		}, "test", false},
	} {
		t.Run(name, func(t *testing.T) {
			caps := remoteCaps()
			if tc.caps != nil {
				tc.caps(&caps)
			}
			w := trialWorld(t, caps)
			w.remote.setFault(tc.fault(w.remote))
			w.do(logical.UpdateOperation, "providers/svc/trial", map[string]any{"live": true})
			for range 30 {
				w.pass(time.Hour)
			}
			got := w.read("providers/svc/trial", nil)
			var failed []string
			for _, s := range got["steps"].([]map[string]any) {
				if s["ok"] == false {
					failed = append([]string{s["step"].(string)}, failed...)
				}
			}
			if got["state"] != "failed" || strings.Join(failed, ", ") != tc.steps || (got["may_be_left"] != "") != tc.left {
				t.Errorf("%v", got)
			}
			if alive := w.remote.alive(); (len(alive) != 0) != (name == "and nobody can look") {
				t.Errorf("alive: %v", alive)
			}
			if strings.Contains(name, "nobody") && !strings.Contains(fmt.Sprint(got["may_be_left"]), fmt.Sprint(got["key_name"])) {
				t.Errorf("what may be left is not named: %v", got)
			}
		})
	}
}

// An end that has passed already is no end to trust.
func TestLiveTrialLooksAtTheEnd(t *testing.T) {
	w := trialWorld(t, remoteCaps())
	w.remote.answer = func(k *provider.Key) { k.Expires = w.clock.Wall().Add(-time.Hour) }
	got := w.trial(map[string]any{"live": true})
	if got["state"] != "failed" || !strings.Contains(stepsOf(got), "expires false") || len(w.remote.alive()) != 0 {
		t.Errorf("%v, alive %v", got, w.remote.alive())
	}
}

// The service answers with a key that was there before: it is not ended.
func TestLiveTrialEndsNoOtherKey(t *testing.T) {
	w := trialWorld(t, remoteCaps())
	w.remoteKey("k", nil)
	w.tick()
	old := w.remote.alive()[0]
	w.remote.answer = func(k *provider.Key) { k.ID = old }
	got := w.trial(map[string]any{"live": true})
	if got["state"] == "passed" || !strings.Contains(fmt.Sprint(got["steps"]), "was there before") {
		t.Errorf("%v", got)
	}
	for _, call := range w.remote.calls {
		if call == "revoke "+old {
			t.Error("the current key was ended")
		}
	}
}

// Wherever the process ends, or a write fails, no key of a trial stays alive, and
// the trial comes to an end that says so.
func TestLiveTrialSurvivesCrashes(t *testing.T) {
	for _, single := range []bool{false, true} {
		for at := 1; ; at++ {
			w := trialWorld(t, remoteCaps())
			c := &crasher{at: at, single: single}
			w.storage.setFault(c.storage)
			w.remote.setFault(c.service)
			_, err := w.do(logical.UpdateOperation, "providers/svc/trial", map[string]any{"live": true})
			if !c.hit() {
				if err != nil {
					t.Fatal(err)
				}
				break
			}
			if !single {
				w.b.running.Wait()
			}
			w.storage.setFault(nil)
			w.remote.setFault(nil)
			if !single {
				w.start()
				w.b.trials.pause = func(context.Context, time.Duration) {}
			}
			for range 10 {
				w.pass(10 * time.Minute)
			}
			where := fmt.Sprintf("point %d (%s), once %v", at, c.where, single)
			if alive := w.remote.alive(); len(alive) != 0 {
				t.Errorf("%s: alive %v", where, alive)
			}
			resp, err := w.do(logical.ReadOperation, "providers/svc/trial", nil)
			if err != nil {
				t.Fatal(err)
			}
			if resp != nil && (resp.Data["state"] == "unfinished" || resp.Data["may_be_left"] != "") {
				t.Errorf("%s: %v", where, resp.Data)
			}
			if w.b.trials.unfinished("svc") {
				t.Errorf("%s: it does not come to an end", where)
			}
			if got := w.trial(map[string]any{"live": true}); got["state"] != "passed" {
				t.Errorf("%s: the next one: %v", where, got)
			}
		}
	}
}

// Whatever a service lies about, a trial touches no key of others, and leaves none where
// what it made can be told; elsewhere it does not say that it has passed.
func TestLiveTrialOfLiars(t *testing.T) {
	for svc, caps := range liar.Services() {
		for name, lies := range liar.Table() {
			h := newHostile(t, caps, lies)
			h.b.trials.pause = func(context.Context, time.Duration) {}
			unseen := !caps.List && (lies.Twin || !caps.Test && lies.NoEffect)
			if _, err := h.do(logical.UpdateOperation, "providers/svc/trial", map[string]any{"live": true}); err != nil {
				continue // it is refused
			}
			for range 40 {
				h.pass(30 * time.Minute)
			}
			got := h.read("providers/svc/trial", nil)
			if touched := h.liar.Touched(); len(touched) > 0 || got["state"] == "unfinished" {
				t.Errorf("%s, %s: touched %v, %v", svc, name, touched, got)
			}
			for _, k := range h.liar.Keys() {
				if k.Alive && k.Asked != "" && (liar.Tellable(caps, lies) && !lies.NoEffect && !lies.NoRevoke || got["state"] == "passed" && !unseen) {
					t.Errorf("%s, %s: %s is left, %v", svc, name, k.ID, got)
				}
			}
		}
	}
}
