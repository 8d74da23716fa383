package apikeys

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"

	"strongroom.example/plugin/provider"
)

const (
	opWrite  = logical.UpdateOperation
	opRead   = logical.ReadOperation
	opDelete = logical.DeleteOperation
	opList   = logical.ListOperation
)

func TestBadInputIsRefusedAndLeavesNothing(t *testing.T) {
	long := strings.Repeat("a", 300)
	cases := map[string]struct {
		path string
		data map[string]any
		want []string
	}{
		"unknown field":            {"keys/k", map[string]any{"provider": "gen", "period": "1h"}, []string{"period", "known are"}},
		"no provider":              {"keys/k", nil, []string{"needs a provider"}},
		"provider missing":         {"keys/k", map[string]any{"provider": "none"}, []string{`"none"`}},
		"empty part of a name":     {"keys/a//b", map[string]any{"provider": "gen"}, []string{"a//b"}},
		"dots as a name":           {"keys/a/../b", map[string]any{"provider": "gen"}, []string{".."}},
		"odd characters":           {"keys/a b", map[string]any{"provider": "gen"}, []string{"a b"}},
		"name too long":            {"keys/" + long, map[string]any{"provider": "gen"}, []string{"key name"}},
		"name too deep":            {"keys/" + strings.Repeat("a/", 17) + "a", map[string]any{"provider": "gen"}, []string{"16 parts"}},
		"period too short":         {"keys/k", map[string]any{"provider": "gen", "rotation_period": 1}, []string{"rotation_period 1s"}},
		"period no duration":       {"keys/k", map[string]any{"provider": "gen", "rotation_period": "soon"}, []string{"soon"}},
		"grace too short":          {"keys/k", map[string]any{"provider": "gen", "grace_period": 1}, []string{"grace_period 1s"}},
		"grace too long":           {"keys/k", map[string]any{"provider": "gen", "grace_period": "400d"}, []string{"grace_period"}},
		"versions":                 {"keys/k", map[string]any{"provider": "gen", "max_versions": 1}, []string{"max_versions 1"}},
		"two kinds of schedule":    {"keys/k", map[string]any{"provider": "gen", "rotation_period": "1d", "rotation_schedule": "0 3 * * *"}, []string{"only one"}},
		"bad schedule":             {"keys/k", map[string]any{"provider": "gen", "rotation_schedule": "0 3"}, []string{"0 3"}},
		"bad zone":                 {"keys/k", map[string]any{"provider": "gen", "rotation_schedule": "0 3 * * *", "time_zone": "Mars"}, []string{"Mars"}},
		"bad spread group":         {"keys/k", map[string]any{"provider": "gen", "spread_group": "a b"}, []string{"spread_group"}},
		"bad spread distance":      {"keys/k", map[string]any{"provider": "gen", "spread_distance": "500d"}, []string{"spread_distance"}},
		"parameter unknown":        {"keys/k", map[string]any{"provider": "gen", "parameters": map[string]any{"odd": 1}}, []string{"odd"}},
		"parameters no object":     {"keys/k", map[string]any{"provider": "gen", "parameters": "{"}, []string{"parameters"}},
		"parameters no pair":       {"keys/k", map[string]any{"provider": "gen", "parameters": "x"}, []string{"name=value"}},
		"parameters too long":      {"keys/k", map[string]any{"provider": "gen", "parameters": map[string]any{"prefix": strings.Repeat("a", 20<<10)}}, []string{"parameters"}},
		"metadata nested":          {"keys/k", map[string]any{"provider": "gen", "custom_metadata": map[string]any{"a": []any{1}}}, []string{"custom_metadata"}},
		"metadata too long":        {"keys/k", map[string]any{"provider": "gen", "custom_metadata": map[string]any{"a": strings.Repeat("x", 600)}}, []string{"custom_metadata"}},
		"hashes of remote keys":    {"keys/k", map[string]any{"provider": "svc", "hash_old_versions": true}, []string{"hash_old_versions"}},
		"several faults at once":   {"keys/k", map[string]any{"provider": "gen", "grace_period": 1, "max_versions": 1, "rotation_period": 1}, []string{"grace_period", "max_versions", "rotation_period"}},
		"provider without type":    {"providers/p", nil, []string{"needs a type", "generated"}},
		"provider of unknown type": {"providers/p", map[string]any{"type": "odd"}, []string{`"odd"`, "generated"}},
		"provider's settings":      {"providers/p", map[string]any{"type": "generated", "settings": map[string]any{"odd": 1}}, []string{"odd"}},
		"provider's name":          {"providers/a b", map[string]any{"type": "generated"}, []string{"a b"}},
		"provider's cap":           {"providers/p", map[string]any{"type": "generated", "max_rotations_per_minute": -1}, []string{"max_rotations_per_minute -1"}},
		"provider's other type":    {"providers/gen", map[string]any{"type": "remote"}, []string{"cannot become"}},
		"credential nested":        {"providers/p", map[string]any{"type": "remote", "credential": map[string]any{"a": map[string]any{}}}, []string{"credential"}},
		"credential key missing":   {"providers/p", map[string]any{"type": "remote", "credential_key": "none"}, []string{`"none"`}},
		"both credentials":         {"providers/p", map[string]any{"type": "remote", "credential_key": "a", "credential": map[string]any{"key": "x"}}, []string{"only one"}},
		"rotate none":              {"rotate/none", nil, []string{`"none"`}},
		"rollback none":            {"rollback/none", map[string]any{"version": 1}, []string{`"none"`}},
		"import none":              {"import/none", map[string]any{"key": "x"}, []string{`"none"`}},
		"import nothing":           {"import/none", nil, []string{"missing"}},
		"import too much":          {"import/none", map[string]any{"key": strings.Repeat("x", maxValueBytes+1)}, []string{"bytes"}},
		"import what is over":      {"import/none", map[string]any{"key": "x", "expire_time": "2020-01-01T00:00:00Z"}, []string{"over"}},
		"verify none":              {"verify/none", map[string]any{"key": "x"}, []string{`"none"`}},
		"verify nothing":           {"verify/none", nil, []string{"key"}},
		"resolve none":             {"resolve/none", map[string]any{"action": "absent"}, []string{`"none"`}},
		"resolve oddly":            {"resolve/none", map[string]any{"action": "forget"}, []string{"forget"}},
		"resolve without id":       {"resolve/none", map[string]any{"action": "revoke"}, []string{"provider_key_id"}},
		"config period":            {"config", map[string]any{"rotation_period": 1}, []string{"rotation_period 1s"}},
		"config waits":             {"config", map[string]any{"max_wait": 61}, []string{"max_wait"}},
		"config cache":             {"config", map[string]any{"cache_bytes": 10}, []string{"cache_bytes 10"}},
		"config all at once":       {"config", map[string]any{"max_waiters": -1, "jitter": "40d"}, []string{"max_waiters", "jitter"}},
		"config unknown":           {"config", map[string]any{"x": 1}, []string{`"x"`}},
		"rotate provider none":     {"providers/none/rotate", nil, []string{`"none"`}},
		"rotate provider by hand":  {"providers/svc/rotate", nil, []string{"written by hand"}},
		"dry run of a local one":   {"providers/gen/dry_run", nil, []string{"no requests"}},
		"webhook without secret":   {"webhooks/h", map[string]any{"url": "https://example.org/x"}, []string{"secret"}},
		"webhook to a private one": {"webhooks/h", map[string]any{"url": "https://10.0.0.1/", "secret": strings.Repeat("s", 16)}, []string{"url"}},
		"webhook over http":        {"webhooks/h", map[string]any{"url": "http://example.org/", "secret": strings.Repeat("s", 16)}, []string{"https"}},
		"webhook's events":         {"webhooks/h", map[string]any{"url": "https://example.org/", "secret": strings.Repeat("s", 16), "events": "[a"}, []string{"[a"}},
		"webhook's authorities":    {"webhooks/h", map[string]any{"url": "https://example.org/", "secret": strings.Repeat("s", 16), "ca_pem": "x"}, []string{"ca_pem"}},
		"webhook's addresses":      {"webhooks/h", map[string]any{"url": "https://example.org/", "secret": strings.Repeat("s", 16), "allow_addresses": "x"}, []string{"allow_addresses"}},
		"webhook's name":           {"webhooks/a b", map[string]any{"url": "https://example.org/"}, []string{"a b"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, remoteCaps())
			w.write("providers/gen", map[string]any{"type": "generated"})
			w.write("providers/svc", map[string]any{"type": "remote"})
			writes, calls := len(w.storage.writes()), len(w.remote.calls)
			w.refused(opWrite, c.path, c.data, c.want...)
			if n := w.storage.writes()[writes:]; len(n) > 0 {
				t.Errorf("something was written: %v", n)
			}
			if len(w.remote.calls) != calls {
				t.Errorf("the provider was called: %v", w.remote.calls)
			}
		})
	}
}

func TestBadReads(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.localKey("k", nil)
	cases := map[string]struct {
		op   logical.Operation
		path string
		data map[string]any
		want string
	}{
		"version that never was":   {opRead, "creds/k", map[string]any{"version": 7}, "no version 7"},
		"negative version":         {opRead, "creds/k", map[string]any{"version": -1}, "negative"},
		"wait too long":            {opRead, "creds/k", map[string]any{"wait": 61, "if_version": 1}, "wait 61"},
		"wait for nothing":         {opRead, "creds/k", map[string]any{"wait": 5}, "if_version"},
		"wait for an old one":      {opRead, "creds/k", map[string]any{"wait": 5, "if_version": 1, "version": 1}, "version=1"},
		"page too long":            {opList, "creds/", map[string]any{"limit": 10_001}, "limit 10001"},
		"status page":              {opRead, "status", map[string]any{"limit": 0}, "limit 0"},
		"delete which version":     {opDelete, "versions/k", nil, "version=N"},
		"delete the current":       {opDelete, "versions/k", map[string]any{"version": 1}, "current"},
		"delete what never was":    {opDelete, "versions/k", map[string]any{"version": 3}, "no version 3"},
		"delete of no key":         {opDelete, "versions/none", map[string]any{"version": 3}, `"none"`},
		"contradictory delete":     {opDelete, "keys/k", map[string]any{"revoke": false, "revoke_now": true}, "contradict"},
		"delete a provider in use": {opDelete, "providers/gen", nil, `the first is "k"`},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) { w.refused(c.op, c.path, c.data, c.want) })
	}
	for _, path := range []string{"creds/none", "keys/none", "versions/none", "providers/none", "webhooks/none"} {
		if resp, err := w.do(opRead, path, nil); resp != nil || err != nil {
			t.Errorf("%s: %v, %v; want a 404", path, resp, err)
		}
	}
	if _, err := w.do(opDelete, "keys/none", nil); err != nil {
		t.Errorf("deleting what is not there: %v", err)
	}
}

func TestDeleteRevokesAfterTheGraceByDefault(t *testing.T) {
	cases := map[string]struct {
		data  map[string]any
		after map[time.Duration]int // keys alive at the provider
		gone  time.Duration
	}{
		"after its grace": {nil, map[time.Duration]int{time.Hour: 2, 23 * time.Hour: 1, 26 * time.Hour: 0}, 26 * time.Hour},
		"at once":         {map[string]any{"revoke_now": true}, map[time.Duration]int{0: 0}, 0},
		"not at all":      {map[string]any{"revoke": false}, map[time.Duration]int{0: 2, 48 * time.Hour: 2}, 0},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, remoteCaps())
			w.remoteKey("k", map[string]any{"grace_period": "1d"})
			w.clock.advance(time.Hour)
			w.write("rotate/k", nil)
			w.clock.advance(2 * time.Hour)
			w.write("keys/k", map[string]any{"grace_period": "1d"})
			if _, err := w.do(opDelete, "keys/k", c.data); err != nil {
				t.Fatal(err)
			}
			if resp, err := w.do(opRead, "creds/k", nil); resp != nil || err != nil {
				t.Errorf("it can still be read: %v %v", resp, err)
			}
			if list, err := w.do(opList, "keys/", nil); err != nil || list.Data["keys"] != nil {
				t.Errorf("it is still listed: %v %v", list.Data, err)
			}
			passed := time.Duration(0)
			for _, at := range []time.Duration{0, time.Hour, 23 * time.Hour, 26 * time.Hour, 48 * time.Hour} {
				w.pass(at - passed)
				passed = at
				if want, ok := c.after[at]; ok && len(w.remote.alive()) != want {
					t.Errorf("after %s %d keys are alive, want %d", at, len(w.remote.alive()), want)
				}
			}
			if w.b.index.has("k") {
				t.Error("its record stays for ever")
			}
			w.remoteKey("k", nil)
			if v := w.version("k"); v != 3 {
				t.Errorf("a key of the same name begins with version %d, which readers may have had of the one before", v)
			}
		})
	}
}

func TestADeletedKeyOnlyEndsOrIsDefinedAnew(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.remoteKey("k", nil)
	if _, err := w.do(opDelete, "keys/k", nil); err != nil {
		t.Fatal(err)
	}
	for path, data := range map[string]map[string]any{"rotate/k": nil, "import/k": {"key": "x"}, "rollback/k": {"version": 1}} {
		w.refused(opWrite, path, data, "being deleted")
	}
	if got := w.read("keys/k", nil)["condition"]; got != "deleting" {
		t.Errorf("condition %v", got)
	}
}

// While the service is asked for a new version, the key says so, and its old version is read.
func TestKeyIsPendingWhileItsVersionIsMade(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.remoteKey("k", nil)
	var during any
	w.remote.setFault(func(op string, after bool) error {
		if op == "test" && !after {
			during = w.read("keys/k", nil)["condition"]
		}
		return nil
	})
	w.write("rotate/k", nil)
	if during != "pending" {
		t.Errorf("while it is made: condition %v", during)
	}
	if got := w.read("keys/k", nil)["condition"]; got != "ok" {
		t.Errorf("after: condition %v", got)
	}
}

func TestFailedFirstVersionLeavesNoKey(t *testing.T) {
	for name, c := range map[string]struct {
		kind provider.Kind
		bad  bool // a 400
	}{"rejected": {provider.KindRejected, true}, "transient": {provider.KindTransient, false}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, remoteCaps())
			w.write("providers/svc", map[string]any{"type": "remote"})
			w.remote.setFault(func(op string, _ bool) error { return &provider.Error{Op: op, Kind: c.kind, Msg: "it says why"} })
			_, err := w.do(opWrite, "keys/k", map[string]any{"provider": "svc"})
			if err == nil || !strings.Contains(err.Error(), "it says why") {
				t.Fatalf("error %v", err)
			}
			if _, bad := err.(*badRequest); bad != c.bad {
				t.Errorf("a 400: %v, want %v", bad, c.bad)
			}
			if w.b.index.has("k") {
				t.Error("a definition is left")
			}
			if w.events.has(eventPrefix+"key-create") != w.events.has(eventPrefix+"key-delete") {
				t.Errorf("one of a creation and its end is told alone: %v", w.events.types)
			}
			w.start()
			w.tick()
			if len(w.remote.alive()) != 0 || w.b.index.size() != 0 {
				t.Error("something is left")
			}
		})
	}
	t.Run("uncertain", func(t *testing.T) {
		w := newWorld(t, remoteCaps())
		w.write("providers/svc", map[string]any{"type": "remote"})
		once := true
		w.remote.setFault(func(op string, after bool) error {
			if op == "create" && after && once {
				once = false
				return &provider.Error{Op: op, Kind: provider.KindUncertain, Msg: "no answer"}
			}
			return nil
		})
		resp := w.write("keys/k", map[string]any{"provider": "svc"})
		if len(resp.Warnings) != 1 {
			t.Errorf("warnings: %v", resp.Warnings)
		}
		if _, err := w.do(opRead, "creds/k", nil); err == nil || !strings.Contains(err.Error(), "no valid version") {
			t.Errorf("reading it: %v", err)
		}
		w.pass(10 * time.Minute)
		if v := w.version("k"); v != 1 || len(w.remote.alive()) != 1 {
			t.Errorf("version %d, %d alive", v, len(w.remote.alive()))
		}
	})
}

func TestListsByFolderAndPage(t *testing.T) {
	w := newWorld(t, remoteCaps())
	for _, name := range []string{"app/prod/a", "app/prod/b", "app/prod-x/a", "app/prod.y", "app/staging/a", "solo", "app"} {
		w.localKey(name, nil)
	}
	cases := []struct {
		path, after string
		limit       int
		want        string
	}{
		{"creds/", "", 0, "app app/ solo"},
		{"keys/", "", 0, "app app/ solo"},
		{"versions/", "app", 1, "app/"},
		{"creds/app/", "", 0, "prod-x/ prod.y prod/ staging/"},
		{"creds/app/", "", 2, "prod-x/ prod.y"},
		{"creds/app/", "prod.y", 2, "prod/ staging/"},
		{"creds/app/", "prod/", 0, "staging/"},
		{"creds/app/prod/", "", 0, "a b"},
		{"creds/app/prod/", "a", 0, "b"},
		{"creds/none/", "", 0, ""},
	}
	for _, c := range cases {
		t.Run(fmt.Sprintf("%s after %q limit %d", c.path, c.after, c.limit), func(t *testing.T) {
			resp, err := w.do(opList, c.path, map[string]any{"after": c.after, "limit": c.limit})
			if err != nil {
				t.Fatal(err)
			}
			keys, _ := resp.Data["keys"].([]string)
			if got := strings.Join(keys, " "); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestDefinitionIsKeptAndShown(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.remoteKey("k", map[string]any{
		"parameters": "scope=read", "custom_metadata": []any{"team=data", `{"pager":"yes"}`}, "rotation_schedule": "0 3 1 * *",
		"time_zone": "Europe/Berlin", "rotation_window": "2h", "max_versions": 4, "disable_automated_rotation": true,
	})
	w.write("keys/k", map[string]any{"max_versions": 5})
	w.start()
	got := w.read("keys/k", nil)
	want := map[string]any{
		"provider": "svc", "rotation_schedule": "0 3 1 * *", "time_zone": "Europe/Berlin", "rotation_window": "2h",
		"max_versions": 5, "disable_automated_rotation": true, "next_rotation_time": nil, "condition": "ok", "version": 1,
	}
	for field, v := range want {
		if got[field] != v {
			t.Errorf("%s is %v, want %v", field, got[field], v)
		}
	}
	if got["parameters"].(map[string]any)["scope"] != "read" {
		t.Errorf("parameters: %v", got["parameters"])
	}
	if meta := got["custom_metadata"].(map[string]string); meta["team"] != "data" || meta["pager"] != "yes" {
		t.Errorf("custom_metadata: %v", meta)
	}
	w.refused(opWrite, "keys/k", map[string]any{"provider": "other"}, "cannot become")
	w.pass(100 * day)
	if v := w.version("k"); v != 1 {
		t.Errorf("automation is off, and version %d", v)
	}
}

func TestShorterGraceNeedsForce(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.remoteKey("k", map[string]any{"grace_period": "7d"})
	ttl := func() any { return w.read("creds/k", nil)["cache_ttl"] }
	steps := []struct {
		grace   string
		force   bool
		warning bool
		want    int64
	}{
		{"1d", false, true, 7 * 86400},
		{"10d", false, false, 10 * 86400},
		{"2d", true, true, 2 * 86400},
	}
	for _, s := range steps {
		resp := w.write("keys/k", map[string]any{"grace_period": s.grace, "force": s.force})
		if (resp != nil) != s.warning || resp != nil && len(resp.Warnings) == 0 {
			t.Errorf("grace %s: %v", s.grace, resp)
		}
		if got := ttl(); got != s.want {
			t.Errorf("grace %s, force %v: cache_ttl %v, want %d", s.grace, s.force, got, s.want)
		}
	}
}

func TestExistenceChecksAndHelp(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.localKey("k", nil)
	for path, want := range map[string]bool{"keys/k": true, "keys/x": false, "providers/gen": true, "providers/x": false, "webhooks/x": false} {
		found, exists, err := w.b.HandleExistenceCheck(t.Context(), &logical.Request{Operation: logical.CreateOperation, Path: path, Storage: w.storage, Data: map[string]any{"settings": "a=b"}})
		if err != nil || !found || exists != want {
			t.Errorf("%s: %v %v %v", path, found, exists, err)
		}
	}
	for _, p := range w.b.Paths {
		if len(p.HelpSynopsis) < 10 || len(p.HelpDescription) < 10 {
			t.Errorf("%s has no help", p.Pattern)
		}
		for name, f := range p.Fields {
			if name != "folder" && f.Description == "" {
				t.Errorf("%s: the field %s has no help", p.Pattern, name)
			}
		}
	}
}

// Who deletes a key to have it dead now is told where it is not.
func TestDeletionThatRevokesNothingSaysSo(t *testing.T) {
	for name, c := range map[string]struct {
		now, fails, warned bool
	}{
		"at once, refused":    {true, true, true},
		"at once, done":       {true, false, false},
		"after its grace":     {false, false, false},
		"after it, a refusal": {false, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, remoteCaps())
			w.remoteKey("k", nil)
			if c.fails {
				w.remote.setFault(failing("revoke", provider.KindTransient))
			}
			resp, err := w.do(opDelete, "keys/k", map[string]any{"revoke_now": c.now})
			if err != nil {
				t.Fatal(err)
			}
			if (resp != nil) != c.warned || c.warned && !strings.Contains(strings.Join(resp.Warnings, ""), "version 1 is not revoked") {
				t.Errorf("%v", resp)
			}
		})
	}
}
