package apikeys

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"strongroom.example/plugin/lifecycle"
	"strongroom.example/plugin/provider"
)

func calls(w *world, op string) (n int) {
	w.remote.mu.Lock()
	defer w.remote.mu.Unlock()
	for _, c := range w.remote.calls {
		n += boolInt(strings.HasPrefix(c, op+" "))
	}
	return n
}

// engine 3: a service that answers with the old key has made none.
func TestOldKeyInPlaceOfANewOne(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.remoteKey("k", map[string]any{"rotation_period": "30d", "grace_period": "1d"})
	first := *w.remote.keys["id-1"]
	w.remote.answer = func(k *provider.Key) {
		delete(w.remote.keys, k.ID)
		k.ID, k.Values = first.id, map[string]string{"key": first.value}
	}
	w.pass(30 * day)
	for range 48 {
		w.pass(time.Hour)
	}
	if !w.remote.works(first.value) || w.version("k") != 1 {
		t.Errorf("version %d", w.version("k"))
	}
	if got := w.read("keys/k", nil); got["condition"] != "failing" || !strings.Contains(fmt.Sprint(got["rotation_failure"]), "in place of a new key") {
		t.Errorf("%v", got)
	}
	if n := creates(w); n > 100 {
		t.Errorf("%d creates", n)
	}
	w.remote.answer = nil
	w.pass(2 * time.Hour)
	if v := w.version("k"); v != 2 {
		t.Errorf("version %d", v)
	}
}

// engine 3: a roll in place, by the service or by a person, gives the id to a new
// value; what ends the old one must not end the new one.
func TestIdentifierThatLivesOnIsNotEnded(t *testing.T) {
	for _, test := range []bool{true, false} {
		for _, imported := range []bool{true, false} {
			for how, end := range map[string]func(w *world){
				"grace":     func(w *world) { w.pass(2 * day) },
				"by hand":   func(w *world) { _, _ = w.do(opDelete, "versions/k", map[string]any{"version": 1, "force": true}) },
				"next ends": nil,
			} {
				t.Run(fmt.Sprint(test, imported, how), func(t *testing.T) {
					caps := remoteCaps()
					caps.Test = test
					w := newWorld(t, caps)
					w.remoteKey("k", map[string]any{"grace_period": "1d"})
					roll := func() { k := w.remote.keys["id-1"]; k.value, k.alive = "rolled", true }
					if imported {
						roll()
						w.write("import/k", map[string]any{"key": "rolled", "provider_key_id": "id-1"})
					} else {
						w.remote.answer = func(k *provider.Key) {
							delete(w.remote.keys, k.ID)
							roll()
							k.ID, k.Values = "id-1", map[string]string{"key": "rolled"}
						}
						w.write("rotate/k", nil)
						w.remote.answer = nil
					}
					if end != nil {
						end(w)
						w.start()
						w.pass(2 * day)
						if got := w.read("creds/k", nil); got["key"] != "rolled" || !w.remote.works("rolled") {
							t.Fatal("the current key was ended by the id of an old one")
						}
						return
					}
					w.write("rotate/k", nil)
					for range 5 {
						w.pass(day)
					}
					if w.remote.works("rolled") {
						t.Error("it lives on after its grace")
					}
					if got := w.read("creds/k", nil); !w.remote.works(got["key"].(string)) {
						t.Error("the current key does not work")
					}
				})
			}
		}
	}
	t.Run("of another key of the mount", func(t *testing.T) {
		w := newWorld(t, remoteCaps())
		w.remoteKey("a", nil)
		w.remoteKey("b", nil)
		w.remote.keys["x"] = &serviceKey{id: "x", value: "x", alive: true}
		w.refused(opWrite, "import/b", map[string]any{"key": "x", "provider_key_id": "id-1"}, "another key of this mount")
	})
}

// engine 4: a version that cannot be ended keeps no other alive.
func TestVersionThatCannotBeEndedKeepsNoOtherAlive(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.remoteKey("k", map[string]any{"grace_period": "1d"})
	w.write("rotate/k", nil)
	w.pass(time.Minute)
	stuck := w.remote.keys["id-1"]
	w.remote.setFault(func(op string, after bool) error {
		if calls := w.remote.calls; op == "revoke" && calls[len(calls)-1] == "revoke id-1" {
			return &provider.Error{Op: op, Kind: provider.KindTransient, Status: 500, Msg: "no"}
		}
		return nil
	})
	w.pass(day)
	if got := w.read("keys/k", nil)["condition"]; got != "revocation_failing" {
		t.Fatalf("condition %v", got)
	}
	w.write("rotate/k", map[string]any{"compromised": true})
	if w.remote.keys["id-2"].alive {
		t.Error("the leaked version is alive")
	}
	w.remote.setFault(nil)
	w.pass(2 * time.Hour)
	if stuck.alive {
		t.Error("the first is not tried again")
	}
	if got := w.read("keys/k", nil)["condition"]; got != "ok" {
		t.Errorf("condition %v", got)
	}
}

// engine 9: a revocation without effect is not called one; it is tried a bounded
// number of times, and then waits for a person.
func TestRevocationWithoutEffect(t *testing.T) {
	for name, caps := range map[string]provider.Capabilities{
		"list":          {Mint: true, List: true, Named: true, Revoke: true, Overlap: true},
		"list, unnamed": {Mint: true, List: true, Revoke: true, Overlap: true},
		"test":          {Mint: true, Test: true, Revoke: true, Overlap: true},
		"both":          remoteCaps(),
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, caps)
			w.remoteKey("k", map[string]any{"grace_period": "1d"})
			w.write("rotate/k", nil)
			k := w.remote.keys["id-1"]
			w.remote.setFault(func(op string, after bool) error {
				if op == "revoke" && after {
					k.alive = true
				}
				return nil
			})
			w.pass(day)
			for range 7 * 24 {
				w.pass(time.Hour)
			}
			versions := w.read("versions/k", nil)
			v1 := versions["versions"].(map[string]any)["1"].(map[string]any)
			if got := versions["condition"]; got != "revoked_unverified" || v1["state"] == "revoked" {
				t.Errorf("condition %v, version 1: %v", got, v1)
			}
			asked := calls(w, "revoke")
			if asked < 3 || asked > 20 {
				t.Errorf("it was revoked %d times", asked)
			}
			writes := len(w.storage.writes())
			for range 48 {
				w.pass(time.Hour)
			}
			if n := calls(w, "revoke") - asked; n != 0 {
				t.Errorf("%d more tries although it waits for a person", n)
			}
			if n := len(w.storage.writes()) - writes; n > 2*160 {
				t.Errorf("%d writes in two days", n)
			}
			w.refused(opWrite, "resolve/k", map[string]any{"action": "absent", "version": 2}, "does not wait")
			w.remote.setFault(nil)
			w.write("resolve/k", map[string]any{"action": "revoke", "version": 1})
			if k.alive {
				t.Error("it was not tried again")
			}
			if got := w.read("keys/k", nil)["condition"]; got != "ok" {
				t.Errorf("condition %v", got)
			}
		})
	}
}

// Where nothing can be seen the service's word is the evidence, and no failure.
func TestEvidence(t *testing.T) {
	for want, caps := range map[string]provider.Capabilities{
		"answer": {Mint: true, Revoke: true, Overlap: true},
		"list":   {Mint: true, List: true, Revoke: true, Overlap: true},
		"test":   remoteCaps(),
		"none":   {Mint: true, Overlap: true},
	} {
		w := newWorld(t, caps)
		w.remoteKey("k", map[string]any{"grace_period": "1d"})
		w.write("rotate/k", nil)
		w.pass(day + time.Second)
		state := w.read("versions/k", nil)
		v1 := state["versions"].(map[string]any)["1"].(map[string]any)
		ended := map[bool]string{true: "given_up", false: "revoked"}[want == "none"]
		if v1["evidence"] != want || v1["state"] != ended || state["condition"] != "ok" {
			t.Errorf("want %s: %v, %v", want, v1, state["condition"])
		}
	}
}

// engine 9: an orphan that was revoked without effect is not taken for ended.
func TestReapedOrphanIsLookedFor(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.remoteKey("k", nil)
	stubborn := true
	w.remote.setFault(func(op string, after bool) error {
		switch {
		case op == "create" && after && w.remote.count == 2:
			return &provider.Error{Op: op, Kind: provider.KindUncertain, Msg: "no answer"}
		case op == "revoke" && after && stubborn:
			w.remote.keys["id-2"].alive = true
		}
		return nil
	})
	_, _ = w.do(opWrite, "rotate/k", nil)
	for range 5 {
		w.pass(time.Minute)
	}
	if got := w.read("keys/k", nil); got["condition"] == "ok" {
		t.Errorf("%v", got)
	}
	stubborn = false
	for range 70 {
		w.pass(time.Minute)
	}
	if w.remote.keys["id-2"].alive || w.read("status", nil)["open_intents"] != 0 {
		t.Error("the orphan is alive")
	}
}

// engine 10: orphans that carry our name are found, however they came about.
func TestOrphansWithOurNameAreFound(t *testing.T) {
	twin := func(w *world, late time.Duration) {
		k := *w.remote.keys["id-2"]
		k.id, k.value, k.created = "twin", "twin", w.clock.Wall()
		w.clock.advance(late)
		w.remote.keys["twin"] = &k
	}
	for name, c := range map[string]struct {
		answer provider.Kind // of the create that had an effect; 0: it is told
		late   time.Duration
	}{
		"a proxy that sends twice":                    {0, 0},
		"the same, and the list lags":                 {0, 45 * time.Second},
		"a day later":                                 {0, 20 * time.Hour},
		"made and then rate limited":                  {provider.KindRateLimited, 0},
		"made and then unauthorized":                  {provider.KindUnauthorized, 0},
		"made and then rejected":                      {provider.KindRejected, 0},
		"made and then transient, and the list lags":  {provider.KindTransient, 45 * time.Second},
		"made and no answer, and a twin":              {provider.KindUncertain, 0},
		"made and no answer, the list lags for hours": {provider.KindUncertain, 3 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, remoteCaps())
			w.remoteKey("k", nil)
			var hidden *serviceKey
			w.remote.setFault(func(op string, after bool) error {
				if op != "create" || !after || w.remote.count != 2 || c.answer == 0 {
					return nil
				}
				if c.late > 0 {
					hidden = w.remote.keys["id-2"]
					hidden.alive = false
				}
				return &provider.Error{Op: op, Kind: c.answer, Msg: "no"}
			})
			_, _ = w.do(opWrite, "rotate/k", nil)
			if c.answer == 0 || c.answer == provider.KindUncertain && c.late == 0 {
				twin(w, c.late)
			}
			for range 10 {
				w.pass(c.late / 10)
			}
			if hidden != nil {
				hidden.alive = true
			}
			for range 3 * 24 {
				w.pass(time.Hour)
			}
			if err := settledExcept(w); err != nil {
				t.Error(err)
			}
			if got := w.read("creds/k", nil); !w.remote.works(got["key"].(string)) {
				t.Error("the current key is dead")
			}
		})
	}
}

// Nothing is swept that another has made, nor a version whose id is not known.
func TestSweepTouchesNothingElse(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.remoteKey("k", nil)
	name, err := lifecycle.ParseMintName(w.remote.keys["id-1"].name)
	if err != nil {
		t.Fatal(err)
	}
	foreign := map[string]string{
		"another installation": name.KeyPrefix() + "other-1-abcdef",
		"one to come":          name.KeyPrefix() + name.Installation + "-2-abcdef",
		"another key":          strings.Replace(name.String(), name.Key, "0123456789ab", 1),
		"another mount":        strings.Replace(name.String(), name.Mount, "01234567", 1),
		"no name of ours":      name.KeyPrefix() + "by-hand",
		"a prefix":             name.KeyPrefix(),
	}
	for id, n := range foreign {
		w.remote.keys[id] = &serviceKey{id: id, name: n, value: id, alive: true}
	}
	for range 3 {
		w.pass(day)
	}
	for id := range foreign {
		if !w.remote.keys[id].alive {
			t.Errorf("%s was ended", id)
		}
	}
}

// A name that the service has cut off is found by what is left of it.
func TestOrphanWhoseNameWasCutOff(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.remoteKey("k", nil)
	w.remote.setFault(func(op string, after bool) error {
		if op == "create" && after && w.remote.count == 2 {
			w.remote.keys["id-2"].name = w.remote.keys["id-2"].name[:32]
			return &provider.Error{Op: op, Kind: provider.KindUncertain, Msg: "no answer"}
		}
		return nil
	})
	_, _ = w.do(opWrite, "rotate/k", nil)
	w.pass(5 * time.Minute)
	if w.remote.keys["id-2"].alive {
		t.Error("it is alive")
	}
}

// engine 12: a rotation by hand that fails once is no condition for 90 days.
func TestRotationByHandThatFailsOnce(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.remoteKey("k", nil)
	w.remote.setFault(failing("create", provider.KindTransient))
	if _, err := w.do(opWrite, "rotate/k", nil); err == nil {
		t.Fatal("it did not fail")
	}
	w.remote.setFault(nil)
	w.pass(time.Hour)
	if got := w.read("keys/k", nil)["condition"]; got != "ok" {
		t.Errorf("condition %v", got)
	}
	if v := w.version("k"); v != 1 {
		t.Errorf("version %d", v)
	}
}

// engine 13: a test that never answers holds no version for ever, and makes no storm.
func TestTestThatNeverAnswers(t *testing.T) {
	for _, kind := range []provider.Kind{provider.KindTransient, provider.KindRejected, provider.KindNotFound, provider.KindRateLimited, provider.KindUncertain} {
		t.Run(kind.String(), func(t *testing.T) {
			w := newWorld(t, remoteCaps())
			w.remoteKey("k", map[string]any{"rotation_period": "30d"})
			w.remote.setFault(failing("test", kind))
			w.pass(30 * day)
			for range 48 {
				w.pass(30 * time.Minute)
			}
			if n := calls(w, "test"); n > 60 {
				t.Errorf("%d tests in a day", n)
			}
			if n := creates(w); n > 6 {
				t.Errorf("%d keys were made in a day", n)
			}
			w.remote.setFault(nil)
			for range 24 {
				w.pass(time.Hour)
			}
			if got := w.read("keys/k", nil); got["condition"] != "ok" || got["version"].(int) < 2 {
				t.Errorf("%v", got)
			}
			if n := len(w.remote.alive()); n != 2 {
				t.Errorf("%d keys are alive", n)
			}
		})
	}
}

// engine 14: a provider may take as long for a request as its timeout allows.
func TestTimeoutOfARequestIsTheProviders(t *testing.T) {
	w := newWorld(t, remoteCaps())
	var left []time.Duration
	w.others = map[string]provider.Factory{"slow": func(cfg provider.Config) (provider.Provider, error) {
		p, err := w.remote.factory(cfg)
		return slow{p, &left}, err
	}}
	w.start()
	w.write("providers/p", map[string]any{"type": "slow"})
	w.write("keys/k", map[string]any{"provider": "p"})
	w.write("rotate/k", nil)
	if len(left) < 4 || slices.Min(left) < 80*time.Second {
		t.Errorf("the calls had %v", left)
	}
}

// slow notes how much time each call is given.
type slow struct {
	provider.Provider
	left *[]time.Duration
}

func (s slow) note(ctx context.Context) {
	if at, ok := ctx.Deadline(); ok {
		*s.left = append(*s.left, time.Until(at))
	}
}

func (s slow) Create(ctx context.Context, req provider.CreateRequest) (provider.Key, error) {
	s.note(ctx)
	return s.Provider.Create(ctx, req)
}

func (s slow) Test(ctx context.Context, params map[string]any, key provider.Key) error {
	s.note(ctx)
	return s.Provider.Test(ctx, params, key)
}

// engine 15: a rotation that has failed is answered by nothing that a client repeats,
// and the service's wish to be left alone holds for people, too.
func TestFailedRotationIsNotRepeatedByClients(t *testing.T) {
	for _, kind := range []provider.Kind{provider.KindTransient, provider.KindRateLimited, provider.KindUnauthorized, provider.KindRejected,
		provider.KindNotFound, provider.KindUnsupported, provider.KindUncertain} {
		for path, op := range map[string]string{"rotate/k": "create", "keys/new": "create", "import/k": "test", "rollback/k": "test"} {
			w := newWorld(t, remoteCaps())
			w.remoteKey("k", nil)
			w.write("rotate/k", nil)
			w.remote.setFault(func(o string, _ bool) error {
				if o == op {
					return &provider.Error{Op: o, Kind: kind, RetryAfter: time.Hour, Msg: "the service says no"}
				}
				return nil
			})
			w.remote.keys["x"] = &serviceKey{id: "x", value: "x", alive: true}
			_, err := w.do(opWrite, path, map[string]map[string]any{
				"rotate/k": nil, "keys/new": {"provider": "svc"}, "import/k": {"key": "x"}, "rollback/k": {"version": 1},
			}[path])
			if err == nil {
				continue
			}
			code := 400
			if coded, ok := err.(logical.HTTPCodedError); ok {
				code = coded.Code()
			} else if _, bad := err.(*badRequest); !bad {
				code = 500
			}
			if code < 400 || code > 499 || code == 429 || code == 412 {
				t.Errorf("%s, %s: %d, %v", path, kind, code, err)
			}
		}
	}
	w := newWorld(t, remoteCaps())
	w.remoteKey("k", nil)
	w.remote.setFault(func(op string, _ bool) error {
		if op == "create" {
			return &provider.Error{Op: op, Kind: provider.KindRateLimited, RetryAfter: time.Hour, Msg: "slow down"}
		}
		return nil
	})
	_, _ = w.do(opWrite, "rotate/k", nil)
	made := creates(w)
	for range 5 {
		w.refused(opWrite, "rotate/k", nil, "left alone until")
		w.refused(opWrite, "rotate/k", map[string]any{"force": true}, "left alone until")
		w.pass(time.Minute)
	}
	if creates(w) != made {
		t.Error("it was asked all the same")
	}
	w.remote.setFault(nil)
	w.pass(time.Hour)
	w.write("rotate/k", nil)
}

// engine 16: no error quotes a value of a wrong type.
func TestSecretsOfAWrongTypeAreNotQuoted(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.remoteKey("k", nil)
	const secret = "hunter2-hunter2-hunter2"
	shapes := []any{
		[]any{secret, secret}, []string{secret, secret}, []any{secret}, []any{map[string]any{"a": secret}}, map[string]any{"key": []any{secret}},
		map[string]any{"key": map[string]any{"a": secret}}, secret, []any{[]any{secret}}, json.Number("12345678901234567890"), "{" + secret, []any{"{" + secret}, nil,
	}
	fields := map[string][]string{
		"import/k": {"key", "values", "provider_key_id", "expire_time"}, "providers/p": {"type", "credential", "settings", "max_rotations_per_minute", "credential_key"},
		"webhooks/h": {"secret", "events", "allow_http", "url"}, "verify/k": {"key"}, "keys/n": {"provider", "parameters", "custom_metadata", "rotation_period", "max_versions"},
		"config": {"max_wait", "accept_clock"}, "resolve/k": {"action", "version"}, "rotate/k": {"force"},
	}
	for path, names := range fields {
		for _, field := range names {
			for _, shape := range shapes {
				for _, op := range []logical.Operation{logical.UpdateOperation, logical.CreateOperation} {
					data := map[string]any{field: shape}
					req := &logical.Request{Operation: op, Path: path, Data: data, Storage: w.storage}
					_, _, existence := w.b.HandleExistenceCheck(t.Context(), req)
					resp, err := w.do(op, path, map[string]any{field: shape})
					said := fmt.Sprint(existence, err)
					if resp != nil {
						said += fmt.Sprint(resp.Warnings)
					}
					if strings.Contains(said, "hunter2") && field != "provider" && field != "type" && field != "action" && field != "credential_key" && field != "url" && field != "events" && field != "provider_key_id" {
						t.Errorf("%s %s=%T: %s", path, field, shape, said)
					}
				}
			}
		}
	}
}

// engine 18: a service that refuses every revocation is asked now and then, and
// somebody is told once.
func TestServiceThatRefusesEveryRevocation(t *testing.T) {
	w := newWorld(t, remoteCaps())
	const n = 200
	for i := range n {
		w.remoteKey(fmt.Sprintf("k%d", i), map[string]any{"grace_period": "1d"})
		w.write(fmt.Sprintf("rotate/k%d", i), nil)
	}
	w.remote.setFault(failing("revoke", provider.KindRejected))
	w.pass(25 * time.Hour)
	told := len(w.events.types)
	for range 60 {
		w.pass(time.Minute)
	}
	if got := calls(w, "revoke"); got > 60 {
		t.Errorf("%d revocations in an hour", got)
	}
	if got := len(w.events.types) - told; got > n {
		t.Errorf("%d events", got)
	}
	w.remote.setFault(nil)
	for range 3 * 60 {
		w.pass(time.Minute)
	}
	if got := len(w.remote.alive()); got != n {
		t.Errorf("%d keys are alive, want %d", got, n)
	}
}

// engine 19: a revocation that takes a while is asked once, and no alarm.
func TestRevocationThatTakesAWhile(t *testing.T) {
	for _, while := range []time.Duration{20 * time.Second, 2 * time.Minute, 9 * time.Minute} {
		w := newWorld(t, remoteCaps())
		w.remoteKey("k", map[string]any{"grace_period": "1d"})
		w.write("rotate/k", nil)
		k := w.remote.keys["id-1"]
		var asked time.Time
		w.remote.setFault(func(op string, after bool) error {
			if op == "revoke" && after {
				k.alive, asked = true, w.clock.Wall()
			} else if !asked.IsZero() && w.clock.Wall().Sub(asked) >= while {
				k.alive = false
			}
			return nil
		})
		w.pass(day)
		for range 130 {
			w.pass(5 * time.Second)
			if got := w.read("keys/k", nil)["condition"]; got != "ok" {
				t.Fatalf("condition %v", got)
			}
		}
		if k.alive || calls(w, "revoke") != 1 || w.events.has("apikeys/revoke-fail") {
			t.Errorf("%s: alive %v, asked %d times", while, k.alive, calls(w, "revoke"))
		}
		if v1 := w.read("versions/k", nil)["versions"].(map[string]any)["1"].(map[string]any); v1["state"] != "revoked" || v1["evidence"] != "test" {
			t.Errorf("%s: %v", while, v1)
		}
	}
}

// engine 20: a service that needs a while to accept a new key leaves a gap, which is
// said and short, or none where the operator lets readers keep the old one so long.
func TestCompromiseAtASlowService(t *testing.T) {
	for name, c := range map[string]struct {
		slow  time.Duration
		first string
		gap   time.Duration // of which readers have nothing
		old   time.Duration // for which they have the old one
	}{
		"at once":               {30 * time.Second, "0", 35 * time.Second, 0},
		"new first":             {30 * time.Second, "2m", 0, 40 * time.Second},
		"new first, in vain":    {10 * time.Minute, "2m", 9 * time.Minute, 2 * time.Minute},
		"new first, not needed": {0, "2m", 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, remoteCaps())
			w.remoteKey("k", nil)
			old := w.read("creds/k", nil)["key"]
			began := w.clock.Wall()
			w.remote.setFault(func(op string, _ bool) error {
				if op == "test" && strings.HasSuffix(w.remote.calls[len(w.remote.calls)-1], "id-2") && w.clock.Wall().Sub(began) < c.slow {
					return &provider.Error{Op: op, Kind: provider.KindUnauthorized, Status: 401, Msg: "no"}
				}
				return nil
			})
			w.clock.advance(time.Second)
			began = w.clock.Wall()
			resp := w.write("rotate/k", map[string]any{"compromised": true, "new_first": c.first})
			if c.slow > 0 && (resp.Data["rotated"] != false || len(resp.Warnings) == 0 || !strings.Contains(resp.Warnings[0], "does not accept it so far")) {
				t.Errorf("%v %v", resp.Data, resp.Warnings)
			}
			var gap, had time.Duration
			for range 15 * 60 {
				got, err := w.do(opRead, "creds/k", nil)
				switch {
				case err != nil:
					gap += time.Second
				case got.Data["key"] == old:
					had += time.Second
					if left := time.Duration(got.Data["cache_ttl"].(int64)) * time.Second; w.clock.Wall().Add(left).After(began.Add(2 * time.Minute)) {
						t.Fatalf("cache_ttl %s", left)
					}
				}
				w.pass(time.Second)
			}
			if gap > c.gap || had > c.old {
				t.Errorf("nothing for %s, the old one for %s", gap, had)
			}
			if w.remote.keys["id-1"].alive || w.read("keys/k", nil)["condition"] != "ok" {
				t.Error("the old one is alive")
			}
		})
	}
	w := newWorld(t, remoteCaps())
	w.remoteKey("k", nil)
	w.refused(opWrite, "rotate/k", map[string]any{"new_first": "1m"}, "compromised=true")
	w.refused(opWrite, "rotate/k", map[string]any{"compromised": true, "new_first": "10m"}, "5m")
}

// Those who wait for a change are told of a compromise, also where there is no
// successor, by hand or with the provider.
func TestWaitersAreToldOfACompromise(t *testing.T) {
	for name, path := range map[string]string{"key": "rotate/k", "provider": "providers/svc/rotate"} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, remoteCaps())
			w.remoteKey("k", nil)
			w.clock.advance(time.Second)
			answered := make(chan error, 1)
			go func() {
				_, err := w.do(opRead, "creds/k", map[string]any{"if_version": 1, "wait": 50})
				answered <- err
			}()
			for w.b.waiters.size() == 0 {
				runtime.Gosched()
			}
			w.remote.setFault(failing("create", provider.KindTransient))
			w.write(path, map[string]any{"compromised": true})
			w.tick()
			select {
			case err := <-answered:
				if err == nil {
					t.Error("it was told that nothing has changed")
				}
			case <-time.After(20 * time.Second):
				t.Error("nobody told it")
			}
		})
	}
}
