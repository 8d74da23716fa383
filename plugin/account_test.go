package apikeys

import (
	"fmt"
	"testing"
	"time"

	"strongroom.example/plugin/provider"
)

// twoProviders are "one" and "two" of one service, and what the second has
// otherwise than the first.
func twoProviders(t *testing.T, caps provider.Capabilities, second map[string]any) *world {
	t.Helper()
	w := newWorld(t, caps)
	for _, name := range []string{"one", "two"} {
		data := map[string]any{"type": "remote", "credential": map[string]any{"key": "secret"}, "max_rotations_per_minute": 5}
		if name == "two" {
			for field, v := range second {
				data[field] = v
			}
		}
		w.write("providers/"+name, data)
	}
	return w
}

// accounts are second providers, and whether they are of the first one's account.
func accounts() map[string]struct {
	second map[string]any
	same   bool
} {
	return map[string]struct {
		second map[string]any
		same   bool
	}{
		"the same credential":                 {nil, true},
		"another credential":                  {map[string]any{"credential": map[string]any{"key": "other"}}, false},
		"another place":                       {map[string]any{"settings": map[string]any{"base_url": "https://b.example.com"}}, false},
		"another setting that is no place":    {map[string]any{"settings": map[string]any{"timeout": "3s"}}, true},
		"no credential":                       {map[string]any{"credential": map[string]any{}}, false},
		"a name that the other does not have": {map[string]any{"account": "acme"}, false},
	}
}

// engine 22: a service that asks one provider to slow down is left alone by all of
// its account, and each key's state says until when: the first time, and also where
// the service does not say for how long.
func TestAnAccountIsPausedAsAWhole(t *testing.T) {
	for name, c := range accounts() {
		for _, after := range []time.Duration{0, time.Hour} {
			t.Run(fmt.Sprintf("%s, retry after %s", name, after), func(t *testing.T) {
				w := twoProviders(t, remoteCaps(), c.second)
				w.write("keys/a", map[string]any{"provider": "one", "rotation_period": "30d"})
				w.write("keys/b", map[string]any{"provider": "two", "rotation_period": "30d"})
				w.remote.setFault(func(op string, after1 bool) error {
					if op == "create" && !after1 {
						return &provider.Error{Op: op, Kind: provider.KindRateLimited, Status: 429, RetryAfter: after, Msg: "slow down"}
					}
					return nil
				})
				if _, err := w.do(opWrite, "rotate/a", nil); err == nil {
					t.Fatal("it was rotated")
				}
				for key, want := range map[string]bool{"a": true, "b": c.same} {
					if until := w.read("keys/"+key, nil)["provider_paused_until"]; (until != nil) != want {
						t.Errorf("%s: paused until %v, want a time: %v", key, until, want)
					}
				}
				// Nobody asks for b meanwhile.
				w.remote.setFault(nil)
				w.clock.advance(32 * day)
				w.b.health.note(w.b.providers.account("one"), "create", &provider.Error{Op: "create", Kind: provider.KindRateLimited, RetryAfter: after}, w.b.clock.now(), w.b.config.get())
				w.tick()
				if v := w.version("b"); (v == 1) != c.same {
					t.Errorf("b has version %d while the account of a is paused", v)
				}
				w.pass(61 * time.Minute)
				w.pass(61 * time.Minute)
				if a, b := w.version("a"), w.version("b"); a != 2 || b != 2 {
					t.Errorf("after the pause: versions %d and %d", a, b)
				}
				if w.read("keys/b", nil)["provider_paused_until"] != nil {
					t.Error("it still says paused")
				}
			})
		}
	}
}

// engine 22: the cap on rotations is one for all providers of an account.
func TestTheCapIsTheAccounts(t *testing.T) {
	for name, c := range accounts() {
		t.Run(name, func(t *testing.T) {
			w := twoProviders(t, remoteCaps(), c.second)
			for i := range 8 {
				w.write(fmt.Sprintf("keys/a%d", i), map[string]any{"provider": "one", "rotation_period": "1d"})
				w.write(fmt.Sprintf("keys/b%d", i), map[string]any{"provider": "two", "rotation_period": "1d"})
			}
			w.pass(20 * day)
			if got, want := w.remote.count-16, 10-5*boolInt(c.same); got != want {
				t.Errorf("%d rotations in a minute, want %d", got, want)
			}
		})
	}
	w := twoProviders(t, remoteCaps(), map[string]any{"credential": map[string]any{"key": "other"}, "account": "acme"})
	w.write("providers/one", map[string]any{"account": "acme"})
	w.write("keys/a", map[string]any{"provider": "one"})
	w.write("keys/b", map[string]any{"provider": "two"})
	if a, b := w.b.providers.account("one"), w.b.providers.account("two"); a != b {
		t.Errorf("called the same, and %q is not %q", a, b)
	}
	if got := w.read("providers/two", nil)["account"]; got != "acme" {
		t.Errorf("account %v", got)
	}
	w.refused(opWrite, "providers/one", map[string]any{"account": "a b"}, "account")
}

// engine 22: what a service counts by account is counted by account: a key waits
// until a place is free, and says so.
func TestMaxKeysAreTheAccounts(t *testing.T) {
	for _, freed := range []string{"by its time", "by hand", "max_keys"} {
		maxKeysAreTheAccounts(t, freed)
	}
}

func maxKeysAreTheAccounts(t *testing.T, freed string) {
	for name, c := range accounts() {
		t.Run(name+", a place is freed "+freed, func(t *testing.T) {
			caps := remoteCaps()
			caps.MaxKeys = 3
			w := twoProviders(t, caps, c.second)
			w.write("keys/a", map[string]any{"provider": "one", "rotation_period": "90d", "grace_period": "4d"})
			w.write("keys/b", map[string]any{"provider": "two", "rotation_period": "30d", "grace_period": "1d"})
			w.pass(32*day - time.Hour)
			if v := w.version("b"); v != 2 {
				t.Fatalf("b has version %d", v)
			}
			w.pass(2 * day) // its first is ended
			w.write("keys/b", map[string]any{"rotation_period": "1d"})
			w.write("rotate/a", nil)
			w.remote.caps.MaxKeys = 9 * boolInt(!c.same) // the engine counts, not the service
			w.pass(2 * time.Hour)
			before := w.version("b")
			w.pass(30 * time.Hour)
			if v := w.version("b"); (v == before) != c.same {
				t.Fatalf("the account is full, and b went from version %d to %d", before, v)
			}
			if !c.same {
				return
			}
			if got := w.read("keys/b", nil); got["rotation_waits_for"] != "limit" {
				t.Errorf("it waits for %v until %v", got["rotation_waits_for"], got["rotation_waits_until"])
			}
			w.refused(opWrite, "rotate/b", nil, "takes 3 keys", "3 versions of 2 keys", "force=true")
			switch freed {
			case "by its time":
				for range 20 { // a's first is ended
					w.pass(6 * time.Hour)
				}
			case "by hand":
				_, _ = w.do(opDelete, "versions/a", map[string]any{"version": 1, "force": true})
				w.pass(time.Second)
			case "max_keys":
				w.remote.caps.MaxKeys = 4
				w.write("providers/two", map[string]any{"settings": map[string]any{"timeout": "9s"}})
				w.pass(time.Second)
			}
			if v := w.version("b"); v == before {
				t.Errorf("there is a place, and b has version %d", v)
			}
		})
	}
}

// pooled is a service that counts keys by what a parameter names.
type pooled struct{ provider.Provider }

func (pooled) Pool(params map[string]any) string { return fmt.Sprint(params["scope"]) }

func TestMaxKeysOfAPool(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.others = map[string]provider.Factory{"pooled": func(cfg provider.Config) (provider.Provider, error) {
		p, err := w.remote.factory(cfg)
		p.(*serviceClient).caps.MaxKeys = 2
		return pooled{p}, err
	}}
	w.start()
	w.write("providers/p", map[string]any{"type": "pooled", "credential": map[string]any{"key": "secret"}})
	for _, user := range []string{"ann", "bob"} {
		w.write("keys/"+user, map[string]any{"provider": "p", "parameters": map[string]any{"scope": user}})
		w.write("rotate/"+user, nil)
	}
	w.write("keys/bob2", map[string]any{"provider": "p", "parameters": map[string]any{"scope": "bob"}})
	w.refused(opWrite, "rotate/bob2", nil, "takes 2 keys", "3 versions of 2 keys")
	w.write("rotate/bob2", map[string]any{"force": true}) // the service is asked all the same
	w.write("keys/eve", map[string]any{"provider": "p", "parameters": map[string]any{"scope": "eve"}})
	w.write("rotate/eve", nil)
}
