package apikeys

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"strongroom.example/plugin/provider"
)

// Readers that others wrote: what they hold, ask and compare is in their
// sources, and docs/read-keys-with-others.md says which of our answers suits which.

// status of a read: 304, or 200.
func (w *world) status(path string, data map[string]any, headers map[string][]string) int {
	w.t.Helper()
	resp, err := w.doWith(opRead, path, data, headers)
	if err != nil || resp == nil {
		w.t.Fatalf("read %s: %v, %v", path, resp, err)
	}
	if s, ok := resp.Data[logical.HTTPStatusCode]; ok {
		return s.(int)
	}
	return 200
}

func (w *world) remove(path string, data map[string]any) {
	w.t.Helper()
	if _, err := w.do(opDelete, path, data); err != nil {
		w.t.Fatalf("delete %s: %v", path, err)
	}
}

// A reader with number 1 is never told "unchanged" of another key, nor of a
// promise that is shorter than the one it counts from.
func TestANumberNeverStandsForAnotherKeyOrALongerPromise(t *testing.T) {
	rolledBack := func(w *world) {
		w.write("rotate/k", nil)
		w.clock.advance(6 * day)
		w.write("keys/k", map[string]any{"grace_period": "10s"})
		w.write("rollback/k", map[string]any{"version": 1})
	}
	for name, change := range map[string]func(w *world){
		"deleted and made anew": func(w *world) { w.remove("keys/k", map[string]any{"revoke_now": true}); w.remoteKey("k", nil) },
		"deleted, kept at the service, made anew": func(w *world) {
			w.remove("keys/k", map[string]any{"revoke": false})
			w.remoteKey("k", nil)
		},
		"made anew while the old one runs out": func(w *world) { w.remove("keys/k", nil); w.remoteKey("k", nil) },
		"made anew after its grace":            func(w *world) { w.remove("keys/k", nil); w.pass(8 * day); w.remoteKey("k", nil) },
		"made anew after a restart": func(w *world) {
			w.remove("keys/k", map[string]any{"revoke_now": true})
			w.start()
			w.remoteKey("k", nil)
		},
		"made anew twice, the first without a version": func(w *world) {
			w.remove("keys/k", map[string]any{"revoke_now": true})
			w.write("providers/console", map[string]any{"type": "remote"})
			w.remote.caps.Mint = false
			w.start()
			w.remoteKey("k", nil)
			w.remove("keys/k", map[string]any{"revoke_now": true})
			w.remote.caps.Mint = true
			w.start()
			w.remoteKey("k", nil)
		},
		"made anew by another provider": func(w *world) { w.remove("keys/k", map[string]any{"revoke_now": true}); w.localKey("k", nil) },
		"the grace cut by force":        func(w *world) { w.write("keys/k", map[string]any{"grace_period": "10s", "force": true}) },
		"the grace cut by force, then raised a bit": func(w *world) {
			w.write("keys/k", map[string]any{"grace_period": "10s", "force": true})
			w.write("keys/k", map[string]any{"grace_period": "1h"})
		},
		"cut, and a restart": func(w *world) {
			w.write("keys/k", map[string]any{"grace_period": "10s", "force": true})
			w.start()
		},
		"rolled back to with less grace left": rolledBack,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, remoteCaps())
			w.remoteKey("k", nil)
			first := w.read("creds/k", nil)
			asked := map[string]any{"if_version": first["version"]}
			if got := w.status("creds/k", asked, nil); got != 304 {
				t.Fatalf("unchanged: %d", got)
			}
			change(w)
			if got := w.status("creds/k", asked, nil); got != 200 {
				t.Errorf("if_version=%v answers %d", first["version"], got)
			}
			if got := w.status("creds/k", nil, map[string][]string{"If-None-Match": {first["etag"].(string)}}); got != 200 {
				t.Errorf("the etag answers %d", got)
			}
			now := w.read("creds/k", nil)
			if now["key"] != first["key"] && now["version"] == first["version"] {
				t.Errorf("two keys have number %v", now["version"])
			}
		})
	}
	t.Run("a longer grace, or the old one again, is one to count anew from", func(t *testing.T) {
		w := newWorld(t, remoteCaps())
		w.remoteKey("k", nil)
		w.write("keys/k", map[string]any{"grace_period": "10s", "force": true})
		w.write("keys/k", map[string]any{"grace_period": "7d"})
		if got := w.status("creds/k", map[string]any{"if_version": 1}, nil); got != 304 {
			t.Errorf("the old grace again: %d", got)
		}
		w.write("keys/k", map[string]any{"grace_period": "8d"})
		if got := w.status("creds/k", map[string]any{"if_version": 1}, nil); got != 304 {
			t.Errorf("a longer one: %d", got)
		}
	})
}

// A wait for number 1 ends when the key is made anew, too.
func TestAWaitEndsWhenTheKeyIsMadeAnew(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.localKey("k", nil)
	w.remove("keys/k", map[string]any{"revoke_now": true})
	w.localKey("k", nil)
	if got := w.read("creds/k", map[string]any{"if_version": 1, "wait": 55})["version"]; got != 2 {
		t.Errorf("version %v", got)
	}
}

func TestIfNoneMatch(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.localKey("k", nil)
	tag := w.read("creds/k", nil)["etag"].(string)
	for name, c := range map[string]struct {
		lines []string
		want  int
	}{
		"a star":                         {[]string{"*"}, 304},
		"a star with spaces":             {[]string{"  * "}, 304},
		"weak":                           {[]string{"W/" + tag}, 304},
		"last of a list":                 {[]string{`"a", W/"b",` + tag}, 304},
		"in the second line":             {[]string{`"a"`, tag}, 304},
		"without spaces, empty elements": {[]string{`,,"a",` + tag + ",,"}, 304},
		"foreign tags":                   {[]string{`"a", W/"b"`}, 200},
		"a star inside of a tag":         {[]string{`"a,*,b"`}, 200},
		"a star in a list is no star":    {[]string{`"a", *`}, 200},
		"half of it":                     {[]string{tag[:len(tag)-2] + `"`}, 200},
		"nothing":                        {[]string{""}, 200},
	} {
		t.Run(name, func(t *testing.T) {
			for _, header := range []string{"If-None-Match", "if-none-match"} {
				if got := w.status("creds/k", nil, map[string][]string{header: c.lines}); got != c.want {
					t.Errorf("%s: %d, want %d", header, got, c.want)
				}
			}
		})
	}
	t.Run("a star tells no wait what to wait for", func(t *testing.T) {
		resp, err := w.doWith(opRead, "creds/k", map[string]any{"wait": 5}, map[string][]string{"If-None-Match": {"*"}})
		if err == nil || !strings.Contains(err.Error(), "if_version=N") {
			t.Errorf("%v %v", resp, err)
		}
	})
	t.Run("a promise with a fixed end is not renewed by a star", func(t *testing.T) {
		w := newWorld(t, consoleCaps())
		w.remoteKey("k", nil)
		w.write("import/k", map[string]any{"key": "x", "expire_time": w.clock.Wall().Add(100 * day).Format(time.RFC3339)})
		if got := w.status("creds/k", nil, map[string][]string{"If-None-Match": {"*"}}); got != 200 {
			t.Errorf("%d", got)
		}
	})
}

// consoleCaps is a service where people make keys and nobody can test them.
func consoleCaps() provider.Capabilities { return provider.Capabilities{Overlap: true} }

// sameBytes reads twice, with time in between, and tells whether anything differs.
func (w *world) sameBytes(path string, between func()) (string, bool) {
	w.t.Helper()
	raw := func() string {
		out, err := json.Marshal(w.read(path, nil))
		if err != nil {
			w.t.Fatal(err)
		}
		return string(out)
	}
	before := raw()
	between()
	after := raw()
	return before + "\n" + after, before == after
}

func TestStableAnswersChangeWithTheKeyAlone(t *testing.T) {
	noOverlap := remoteCaps()
	noOverlap.Overlap = false
	expiring := func(w *world) map[string]any {
		return map[string]any{"key": "x", "expire_time": w.clock.Wall().Add(30 * day).Format(time.RFC3339)}
	}
	for name, c := range map[string]struct {
		caps    provider.Capabilities
		imports func(w *world) map[string]any
		between func(w *world)
	}{
		"an hour later":             {remoteCaps(), nil, func(w *world) { w.clock.advance(time.Hour) }},
		"in its last days":          {remoteCaps(), nil, func(w *world) { w.clock.advance(88 * day) }},
		"overdue":                   {remoteCaps(), nil, func(w *world) { w.clock.advance(95 * day) }},
		"without overlap":           {noOverlap, nil, func(w *world) { w.clock.advance(time.Hour) }},
		"without overlap, overdue":  {noOverlap, nil, func(w *world) { w.clock.advance(95 * day) }},
		"a key that expires":        {consoleCaps(), expiring, func(w *world) { w.clock.advance(29 * day) }},
		"a manual key, overdue":     {consoleCaps(), func(*world) map[string]any { return map[string]any{"key": "x"} }, func(w *world) { w.clock.advance(200 * day) }},
		"another definition":        {remoteCaps(), nil, func(w *world) { w.write("keys/k", map[string]any{"rotation_period": "1d", "grace_period": "8d"}) }},
		"other metadata":            {remoteCaps(), nil, func(w *world) { w.write("keys/k", map[string]any{"custom_metadata": map[string]any{"a": "b"}}) }},
		"a grace cut by force":      {remoteCaps(), nil, func(w *world) { w.write("keys/k", map[string]any{"grace_period": "10s", "force": true}) }},
		"other defaults":            {remoteCaps(), nil, func(w *world) { w.write("config", map[string]any{"rotation_period": "5d"}) }},
		"a failed rotation":         {remoteCaps(), nil, func(w *world) { w.failCreate(); _, _ = w.do(opWrite, "rotate/k", nil) }},
		"a restart":                 {remoteCaps(), nil, func(w *world) { w.start() }},
		"rotated and rolled back":   {remoteCaps(), nil, func(w *world) { w.write("rotate/k", nil); w.write("rollback/k", map[string]any{"version": 1}) }},
		"warnings about its import": {consoleCaps(), expiring, func(w *world) { w.clock.advance(25 * day) }},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, c.caps)
			w.remoteKey("k", nil)
			if c.imports != nil {
				w.write("import/k", c.imports(w))
			}
			if answers, same := w.sameBytes("stable-creds/k", func() { c.between(w) }); !same {
				t.Errorf("the key is the same, the answer is not:\n%s", answers)
			}
		})
	}
	t.Run("it changes with the key", func(t *testing.T) {
		w := newWorld(t, remoteCaps())
		w.remoteKey("k", nil)
		if answers, same := w.sameBytes("stable-creds/k", func() { w.write("rotate/k", nil) }); same {
			t.Errorf("another key, the same answer:\n%s", answers)
		}
		if got, want := w.read("stable-creds/k", nil)["key"], w.read("creds/k", nil)["key"]; got != want {
			t.Error("the two paths give two keys")
		}
	})
	t.Run("it is conditional, waits, and knows versions as the other is", func(t *testing.T) {
		w := newWorld(t, remoteCaps())
		w.remoteKey("a/b", nil)
		w.write("rotate/a/b", nil)
		if got := w.status("stable-creds/a/b", map[string]any{"if_version": 2}, nil); got != 304 {
			t.Errorf("if_version: %d", got)
		}
		if got := w.read("stable-creds/a/b", map[string]any{"version": 1})["version"]; got != 1 {
			t.Errorf("version 1 in grace: %v", got)
		}
		w.refused(opRead, "stable-creds/a/b", map[string]any{"version": 7}, "no version 7")
		if resp, err := w.do(opRead, "stable-creds/none", nil); resp != nil || err != nil {
			t.Errorf("no such key: %v %v", resp, err)
		}
	})
	t.Run("a dead key is not read", func(t *testing.T) {
		w := newWorld(t, consoleCaps())
		w.remoteKey("k", nil)
		w.write("import/k", expiring(w))
		w.clock.advance(31 * day)
		if resp, err := w.do(opRead, "stable-creds/k", nil); err == nil {
			t.Errorf("an expired key is given out: %v", resp.Data["version"])
		}
	})
}

func (w *world) failCreate() {
	w.remote.setFault(func(op string, after bool) error {
		if op == "create" && !after {
			return &provider.Error{Op: op, Kind: provider.KindRejected, Status: 403, Msg: "no"}
		}
		return nil
	})
}

// terraformPlan is what the provider's vault_generic_endpoint does after an
// apply: it lays what it reads over the fields that were written, and plans a
// change where the text differs. Source: vault/resource_generic_endpoint.go of
// hashicorp/terraform-provider-vault, genericEndpointResourceRead.
func (w *world) terraformPlan(path, dataJSON string) (before, after string) {
	w.t.Helper()
	var supplied map[string]any
	if err := json.Unmarshal([]byte(dataJSON), &supplied); err != nil {
		w.t.Fatal(err)
	}
	normal := func(m map[string]any) string {
		out, err := json.Marshal(m)
		if err != nil {
			w.t.Fatal(err)
		}
		return string(out)
	}
	before = normal(supplied)
	w.write(path, maps.Clone(supplied))
	// Over the wire numbers are json.Number, which keep their digits.
	raw, err := json.Marshal(w.read(path, nil))
	if err != nil {
		w.t.Fatal(err)
	}
	dec := json.NewDecoder(strings.NewReader(string(raw)))
	dec.UseNumber()
	var got map[string]any
	if err := dec.Decode(&got); err != nil {
		w.t.Fatal(err)
	}
	for k, v := range got {
		if _, ok := supplied[k]; ok {
			supplied[k] = v
		}
	}
	return before, normal(supplied)
}

func TestTerraformSeesNoEndlessDifference(t *testing.T) {
	for name, data := range map[string]string{
		"as it comes":             `{"provider":"svc"}`,
		"text with units":         `{"provider":"svc","rotation_period":"90d","grace_period":"36h"}`,
		"other than the default":  `{"provider":"svc","rotation_period":"36h30m","grace_period":"90m"}`,
		"numbers":                 `{"provider":"svc","rotation_period":7776000,"grace_period":604800}`,
		"numbers as text":         `{"provider":"svc","rotation_period":"7776000","max_versions":"7"}`,
		"the mount's defaults":    `{"provider":"svc","rotation_period":0,"grace_period":"0","max_versions":0,"spread_distance":0}`,
		"null":                    `{"provider":"svc","rotation_period":null,"rotation_schedule":null,"custom_metadata":null,"max_versions":null,"disable_automated_rotation":null,"parameters":null}`,
		"a schedule":              `{"provider":"svc","rotation_schedule":"0 3 1 * *","time_zone":"Europe/Berlin","rotation_window":"2h","rotation_period":0}`,
		"truth as text":           `{"provider":"svc","disable_automated_rotation":"true"}`,
		"metadata":                `{"provider":"svc","custom_metadata":{"team":"data","since":2024,"on":true}}`,
		"metadata, none":          `{"provider":"svc","custom_metadata":{}}`,
		"parameters":              `{"provider":"svc","parameters":{"scope":["a",{"b":1.5}]}}`,
		"parameters, none":        `{"provider":"svc","parameters":{}}`,
		"a spread":                `{"provider":"svc","spread_group":"pair","spread_distance":"2d"}`,
		"a verb among the fields": `{"provider":"svc","grace_period":"1h","force":true}`,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, remoteCaps())
			w.write("providers/svc", map[string]any{"type": "remote"})
			for _, round := range []string{"created", "written again", "after a restart"} {
				before, after := w.terraformPlan("keys/k", data)
				if before != after {
					t.Errorf("%s: written %s, read %s", round, before, after)
				}
				if round == "written again" {
					w.start()
				}
			}
		})
	}
	t.Run("a new value takes the old one's form away", func(t *testing.T) {
		w := newWorld(t, remoteCaps())
		w.remoteKey("k", map[string]any{"rotation_period": "30d", "grace_period": "1h"})
		w.write("keys/k", map[string]any{"rotation_period": 3600})
		got := w.read("keys/k", nil)
		if fmt.Sprintf("%v %v %v %v", got["rotation_period"], got["effective_rotation_period"], got["grace_period"], got["effective_grace_period"]) != "3600 3600 1h 3600" {
			t.Errorf("%v", got)
		}
	})
	t.Run("what holds has names of its own", func(t *testing.T) {
		w := newWorld(t, remoteCaps())
		w.remoteKey("k", map[string]any{"rotation_period": 0, "grace_period": "2d"})
		w.write("config", map[string]any{"rotation_period": "40d"})
		got := w.read("keys/k", nil)
		for field, want := range map[string]any{
			"rotation_period": float64(0), "effective_rotation_period": int64(40 * 86400), "grace_period": "2d",
			"effective_grace_period": int64(2 * 86400), "effective_max_versions": 10, "effective_spread_distance": int64(86400),
		} {
			if fmt.Sprint(got[field]) != fmt.Sprint(want) {
				t.Errorf("%s is %v, want %v", field, got[field], want)
			}
		}
	})
	t.Run("what was refused is not kept", func(t *testing.T) {
		w := newWorld(t, remoteCaps())
		w.remoteKey("k", map[string]any{"rotation_period": "30d"})
		w.refused(opWrite, "keys/k", map[string]any{"rotation_period": "30d", "grace_period": "1s"}, "grace_period")
		if got := w.read("keys/k", nil)["grace_period"]; fmt.Sprint(got) != "604800" {
			t.Errorf("grace_period %v", got)
		}
	})
}

// Terraform's replace, and an apply after a destroy.
func TestAKeyThatIsBeingDeletedCanBeDefinedAnew(t *testing.T) {
	t.Run("its old version lives out its grace", func(t *testing.T) {
		w := newWorld(t, remoteCaps())
		w.remoteKey("k", map[string]any{"grace_period": "1d", "custom_metadata": map[string]any{"a": "b"}})
		c := &clients{}
		c.read(w, "k")
		old := w.read("creds/k", nil)
		w.remove("keys/k", nil)
		w.clock.advance(time.Hour)
		w.write("keys/k", map[string]any{"provider": "svc", "rotation_period": "30d"})
		fresh := w.read("creds/k", nil)
		if fresh["version"] != 2 || fresh["key"] == old["key"] || fresh["custom_metadata"] != nil {
			t.Errorf("the new key: %v", fresh)
		}
		if got := w.read("keys/k", nil); got["condition"] != "ok" || got["rotation_period"] != "30d" {
			t.Errorf("%v", got)
		}
		w.pass(22 * time.Hour)
		if err := c.check(w); err != nil {
			t.Error(err)
		}
		w.pass(2 * time.Hour)
		if n := len(w.remote.alive()); n != 1 {
			t.Errorf("%d keys are alive", n)
		}
		if err := settled(w, remoteCaps()); err != nil {
			t.Error(err)
		}
	})
	t.Run("after a restart", func(t *testing.T) {
		w := newWorld(t, remoteCaps())
		w.remoteKey("k", nil)
		w.remove("keys/k", nil)
		w.start()
		w.remoteKey("k", nil)
		w.start()
		if got := w.version("k"); got != 2 {
			t.Errorf("version %d", got)
		}
	})
	t.Run("a key that people bring waits for its import", func(t *testing.T) {
		w := newWorld(t, consoleCaps())
		w.remoteKey("k", nil)
		w.write("import/k", map[string]any{"key": "one"})
		w.remove("keys/k", nil)
		w.remoteKey("k", nil)
		w.write("import/k", map[string]any{"key": "two"})
		if got := w.read("creds/k", nil); got["version"] != 2 || got["key"] != "two" {
			t.Errorf("%v", got["version"])
		}
	})
	t.Run("no room at the service yet", func(t *testing.T) {
		caps := remoteCaps()
		caps.MaxKeys = 1
		w := newWorld(t, caps)
		w.remoteKey("k", map[string]any{"grace_period": "1d"})
		w.remove("keys/k", nil)
		w.remoteKey("k", nil)
		w.pass(25 * time.Hour)
		if got := w.version("k"); got != 2 {
			t.Errorf("version %d", got)
		}
	})
	t.Run("refused, with the way out", func(t *testing.T) {
		caps := remoteCaps()
		caps.Overlap = false
		w := newWorld(t, caps)
		w.remoteKey("k", nil)
		w.remove("keys/k", nil)
		w.refused(opWrite, "keys/k", map[string]any{"provider": "svc"}, "no two keys live", "revoke_now=true", "2026-05-30")
		w.remove("keys/k", map[string]any{"revoke_now": true})
		w.remoteKey("k", nil)

		w = newWorld(t, remoteCaps())
		w.remoteKey("k", nil)
		w.remove("keys/k", nil)
		w.write("providers/gen", map[string]any{"type": "generated"})
		w.refused(opWrite, "keys/k", map[string]any{"provider": "gen"}, `provider "svc"`, "revoke_now=true")
		w.refused(opWrite, "keys/k", map[string]any{"provider": "svc", "grace_period": "1s"}, "grace_period")
		if got := w.read("keys/k", nil)["condition"]; got != "deleting" {
			t.Errorf("condition %v after refusals", got)
		}
	})
}

// No stock client waits as long as it is told to: Go's give up after 60 s.
func TestWaitsEndBeforeStockClientsGiveUp(t *testing.T) {
	for name, c := range map[string]struct {
		wait, most int
		want       int64
	}{
		"60":                  {60, 60, 55},
		"a minute by default": {56, 60, 55},
		"less":                {30, 60, 30},
		"less by config":      {60, 20, 20},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, remoteCaps())
			w.localKey("k", nil)
			w.write("config", map[string]any{"max_wait": c.most})
			resp, err := w.do(opRead, "creds/k", map[string]any{"if_version": 7, "wait": c.wait})
			if err != nil || resp.Data["wait"] != c.want || fmt.Sprint(resp.Headers["Preference-Applied"]) != fmt.Sprintf("[wait=%d]", c.want) {
				t.Errorf("%v, wait %v, %v", err, resp.Data["wait"], resp.Headers)
			}
			ch := w.startWait(map[string]any{"if_version": 1, "wait": c.wait})
			w.clock.advance(time.Duration(c.want)*time.Second - time.Millisecond)
			w.b.waiters.notify("k")
			for w.b.stats.waits.Load() < 2 {
				select {
				case <-ch:
					t.Fatal("it ended early")
				default:
				}
			}
			w.clock.advance(2 * time.Millisecond)
			w.b.waiters.notify("k")
			resp = answer(t, ch)
			if resp.Data[logical.HTTPStatusCode] != 304 || fmt.Sprint(resp.Headers["Preference-Applied"]) != fmt.Sprintf("[wait=%d]", c.want) {
				t.Errorf("the end of the wait: %v %v", resp.Data, resp.Headers)
			}
		})
	}
	t.Run("who does not wait is told nothing of it", func(t *testing.T) {
		w := newWorld(t, remoteCaps())
		w.localKey("k", nil)
		if got := w.read("creds/k", nil)["wait"]; got != nil {
			t.Errorf("wait %v", got)
		}
	})
	w := newWorld(t, remoteCaps())
	w.localKey("k", nil)
	w.refused(opRead, "creds/k", map[string]any{"if_version": 1, "wait": 61}, "from 0 to 60")
}

func (w *world) wrapped(path string, ttl time.Duration, data map[string]any) (*logical.Response, error) {
	resp, err := w.b.HandleRequest(context.Background(), &logical.Request{Operation: opRead, Path: path, Data: data,
		Storage: w.storage, WrapInfo: &logical.RequestWrapInfo{TTL: ttl}})
	if err == nil && resp != nil && resp.IsError() {
		err = &badRequest{resp.Error().Error()}
	}
	return resp, err
}

// An answer that lies in a wrapping token promises what is left of the promise
// at the token's end.
func TestAWrappedAnswerPromisesWhatIsLeftWhenItIsUnwrapped(t *testing.T) {
	noOverlap := remoteCaps()
	noOverlap.Overlap = false
	for name, c := range map[string]struct {
		caps  provider.Capabilities
		wrap  time.Duration
		data  map[string]any
		cache int64 // 0: refused
	}{
		"a minute of an hour":         {remoteCaps(), time.Minute, nil, 59 * 60},
		"nothing is left":             {remoteCaps(), time.Hour, nil, 0},
		"more than the promise":       {remoteCaps(), 2 * time.Hour, nil, 0},
		"a version in grace":          {remoteCaps(), time.Minute, map[string]any{"version": 1}, 59 * 60},
		"the version that one has":    {remoteCaps(), time.Minute, map[string]any{"if_version": 2}, 59 * 60},
		"without overlap":             {noOverlap, time.Hour, nil, 89*86400 + 23*3600},
		"without overlap, for longer": {noOverlap, 100 * day, nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, c.caps)
			w.write("config", map[string]any{"jitter": 0})
			w.remoteKey("k", map[string]any{"grace_period": "1h"})
			if c.caps.Overlap {
				w.write("rotate/k", nil)
			}
			for _, path := range []string{"creds/k", "stable-creds/k"} {
				resp, err := w.wrapped(path, c.wrap, maps.Clone(c.data))
				if c.cache == 0 {
					if err == nil || !strings.Contains(err.Error(), "wrap") {
						t.Errorf("%s: %v %v, want a refusal", path, resp, err)
					}
					continue
				}
				if err != nil || resp.Data["key"] == nil {
					t.Fatalf("%s: %v %v", path, resp, err)
				}
				if path == "creds/k" && (resp.Data["cache_ttl"] != c.cache || resp.Data["ttl"].(int64) > c.cache) {
					t.Errorf("cache_ttl %v, ttl %v; want %d", resp.Data["cache_ttl"], resp.Data["ttl"], c.cache)
				}
			}
		})
	}
}

// An expired key is called expired, by every answer.
func TestAnExpiredManualKeyIsCalledExpired(t *testing.T) {
	w := newWorld(t, consoleCaps())
	w.remoteKey("k", nil)
	end := w.clock.Wall().Add(30 * day)
	w.write("import/k", map[string]any{"key": "x", "expire_time": end.Format(time.RFC3339)})
	w.clock.advance(30 * day)
	_, err := w.do(opRead, "creds/k", nil)
	if err == nil || strings.Contains(err.Error(), "revoked") {
		t.Fatalf("read: %v", err)
	}
	for _, want := range []string{"version 1", "expired", "2026-03-31", "import/k"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error lacks %q: %v", want, err)
		}
	}
	v := w.read("versions/k", nil)["versions"].(map[string]any)["1"].(map[string]any)
	if v["state"] != "expired" || v["readable"] != false || v["revoked_time"] != nil {
		t.Errorf("versions: %v, readable %v", v["state"], v["readable"])
	}
	if got := w.read("keys/k", nil)["condition"]; got != "down" {
		t.Errorf("condition %v", got)
	}
	w.write("import/k", map[string]any{"key": "y"})
	if got := w.read("creds/k", nil)["key"]; got != "y" {
		t.Errorf("after the import: %v", got)
	}
}

func TestNoAnswerCallsAKeyWhatItIsNot(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(w *world)
		want string
	}{
		"compromised, no new one": {func(w *world) { w.failCreate(); _, _ = w.do(opWrite, "rotate/k", map[string]any{"compromised": true}) }, "compromised"},
		"expired, no new one": {func(w *world) {
			w.write("import/k", map[string]any{"key": "value-1-of-x", "expire_time": w.clock.Wall().Add(day).Format(time.RFC3339)})
			w.failCreate()
			w.clock.advance(2 * day)
		}, "expired"},
	} {
		t.Run(name, func(t *testing.T) {
			caps := remoteCaps()
			caps.Test = false
			w := newWorld(t, caps)
			w.remoteKey("k", nil)
			c.do(w)
			if _, err := w.do(opRead, "creds/k", nil); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// A person cannot have replaced a key before it was there.
func TestANearExpiryIsNotDueBeforeItsImport(t *testing.T) {
	for _, life := range []time.Duration{time.Minute, time.Hour, 6 * day, 7 * day, 8 * day, 80 * day} {
		w := newWorld(t, consoleCaps())
		w.remoteKey("k", nil)
		imported := w.clock.Wall()
		w.write("import/k", map[string]any{"key": "x", "expire_time": imported.Add(life).Format(time.RFC3339)})
		got := w.read("creds/k", nil)
		next, err := time.Parse(time.RFC3339, fmt.Sprint(got["next_rotation_time"]))
		if err != nil || next.Before(imported) || next.After(imported.Add(life)) {
			t.Errorf("a key that lives for %s is due at %v, it was imported at %s", life, got["next_rotation_time"], imported)
		}
	}
}
