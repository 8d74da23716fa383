package drill

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"strongroom.example/appliance/backup/drill/report"
	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/appliance/serve/kms"
)

// restored is a fake of the restored Vault: answers by path, as JSON; a path
// that is not there is answered with 403.
type restored map[string]any

func (v restored) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, "/v1/")
	if r.URL.Query().Get("list") == "true" || r.Method == "LIST" {
		path += "?list"
	}
	if version := r.URL.Query().Get("version"); version != "" {
		path += "?version=" + version
	}
	answer, ok := v[path]
	if !ok {
		w.WriteHeader(http.StatusForbidden)
		answer = map[string]any{"errors": []string{"permission denied"}}
	}
	_ = json.NewEncoder(w).Encode(answer)
}

const canaryValue = "the canary's value, which nobody must see"

var appliancePolicies = map[string]string{"strongroom-drill": "path one", "strongroom-canary": "path two"}

func data(kv ...any) map[string]any {
	d := map[string]any{}
	for i := 0; i < len(kv); i += 2 {
		d[kv[i].(string)] = kv[i+1]
	}
	return map[string]any{"data": d}
}

// sound is a restored Vault with nothing to find fault with.
func sound() restored {
	return restored{
		"auth/approle/login":                 map[string]any{"auth": map[string]any{"client_token": "t"}},
		"secret/data/strongroom/canary":      canaryIs(canaryValue, 4, time.Minute),
		"sys/health":                         map[string]any{"initialized": true, "cluster_id": cluster, "version": "1.21.1"},
		"sys/policies/acl?list":              data("keys", []string{"default", "root", "strongroom-drill", "strongroom-canary"}),
		"sys/policies/acl/default":           data("policy", "x"),
		"sys/policies/acl/strongroom-drill":  data("policy", "path one"),
		"sys/policies/acl/strongroom-canary": data("policy", "path two"),
		"sys/mounts": data("secret/", map[string]any{"type": "kv", "options": map[string]string{"version": "2"}},
			"apikeys/", map[string]any{"type": "vault-plugin-secrets-apikeys", "running_plugin_version": "v0.1.0"}),
		"sys/auth":               data("approle/", map[string]any{"type": "approle"}, "token/", map[string]any{"type": "token"}),
		"apikeys/status":         engineStatus(true, nil, "a/one"),
		"apikeys/versions/a/one": data("version", 3, "versions", map[string]any{"3": map[string]any{"state": "current"}}),
	}
}

const canaryPath = "secret/data/strongroom/canary"

// canaryIs is a canary that was written some time before now.
func canaryIs(value string, version int, ago time.Duration) map[string]any {
	return data("data", map[string]any{"value": value, "time": time.Now().Add(-ago).Format(time.RFC3339Nano)}, "metadata", map[string]any{"version": version})
}

func engineStatus(fenced bool, counters map[string]int, keys ...string) map[string]any {
	all := map[string]any{}
	for _, k := range keys {
		all[k] = map[string]any{"version": 3}
	}
	d := map[string]any{
		"fence": map[string]any{"closed": fenced, "reason": "it has been restored"}, "version": "v0.1.0", "keys": all,
		"rotations": 0, "revocations": 0, "reaped": 0,
	}
	for k, n := range counters {
		d[k] = n
	}
	return map[string]any{"data": d}
}

func (v restored) with(path string, answer any) restored {
	out := maps.Clone(v)
	if answer == nil {
		delete(out, path)
	} else {
		out[path] = answer
	}
	return out
}

// startFake serves v on a unix socket.
func startFake(t *testing.T, v http.Handler) *vaultapi.Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: v, ReadHeaderTimeout: time.Minute}
	go func() { _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close() })
	c, err := vaultapi.New(vaultapi.Options{Address: "unix://" + path, Token: "t"})
	if err != nil {
		t.Fatal(err)
	}
	return c.Once(0)
}

func newTestRun(t *testing.T, v restored) *run {
	t.Helper()
	o := Options{StateDir: t.TempDir(), Policies: appliancePolicies}
	o.fill()
	r := o.newRun()
	r.client = startFake(t, v)
	return r
}

func TestLook(t *testing.T) {
	canary := &snapshot.Canary{Version: 4, SHA256: snapshot.CanarySum(canaryValue), WrittenAt: noon}
	tests := []struct {
		name     string
		vault    restored
		canary   *snapshot.Canary
		rehearse bool
		want     map[string]string // check: verdict and a part of its detail
	}{
		{"sound", sound(), canary, false, map[string]string{
			"approle": "pass", "canary": "pass version 4", "cluster": "pass", "policies": "pass 3, the appliance's own 2",
			"mounts": "pass apikeys/ secret/", "auth": "pass", "engine": "pass version v0.1.0 reads 1 keys"}},
		{"no canary in the manifest", sound(), nil, false, map[string]string{"canary": "fail none was written"}},
		{"no canary, rehearsal", sound(), nil, true, map[string]string{"canary": "note"}},
		{"canary gone", sound().with("secret/data/strongroom/canary", data("data", nil, "metadata", map[string]any{"version": 4})), canary, false,
			map[string]string{"canary": "fail version 4 should be there"}},
		{"canary older", sound().with("secret/data/strongroom/canary", data("data", map[string]any{"value": "x"}, "metadata", map[string]any{"version": 3})), canary, false,
			map[string]string{"canary": "fail version 3 is there, 4 was"}},
		{"canary newer, and the manifest's in its history", sound().with(canaryPath, canaryIs("x", 5, 0)).with(canaryPath+"?version=4", canaryIs(canaryValue, 4, time.Minute)), canary, false,
			map[string]string{"canary": "pass version 4 with the right value", "age": "pass"}},
		{"canary newer, and another one in its history", sound().with(canaryPath, canaryIs("x", 5, 0)).with(canaryPath+"?version=4", canaryIs("y", 4, time.Minute)), canary, false,
			map[string]string{"canary": "fail version 4 is there with another value"}},
		{"canary newer, and its history is gone", sound().with(canaryPath, canaryIs("x", 50, 0)).with(canaryPath+"?version=4", data("data", nil, "metadata", map[string]any{"version": 4})), canary, false,
			map[string]string{"canary": "fail version 4 should be there"}},
		{"canary newer, and its history is not to be read", sound().with(canaryPath, canaryIs("x", 5, 0)), canary, false,
			map[string]string{"canary": "fail version 4, which the manifest names, can't be read"}},
		{"two years old", sound().with(canaryPath, canaryIs(canaryValue, 4, 2*365*24*time.Hour)), canary, false, map[string]string{"canary": "pass", "age": "fail the newest data was written 17520h"}},
		{"two years old, rehearsal", sound().with(canaryPath, canaryIs(canaryValue, 4, 2*365*24*time.Hour)), canary, true, map[string]string{"age": "note"}},
		{"from the future", sound().with(canaryPath, canaryIs(canaryValue, 4, -23*time.Hour)), canary, false, map[string]string{"age": "undecided nobody knows how old"}},
		{"without a time", sound().with(canaryPath, data("data", map[string]any{"value": canaryValue}, "metadata", map[string]any{"version": 4})), canary, false,
			map[string]string{"age": "fail the canary in the snapshot does not say"}},
		{"its time is a number", sound().with(canaryPath, data("data", map[string]any{"value": canaryValue, "time": 7}, "metadata", map[string]any{"version": 4})), canary, false,
			map[string]string{"age": "fail the canary in the snapshot does not say"}},
		{"another value", sound().with("secret/data/strongroom/canary", data("data", map[string]any{"value": "x"}, "metadata", map[string]any{"version": 4})), canary, false,
			map[string]string{"canary": "fail version 4 is there with another value"}},
		{"canary not to be read", sound().with("secret/data/strongroom/canary", nil), canary, false, map[string]string{"canary": "fail it can't be read"}},
		{"canary without a version", sound().with("secret/data/strongroom/canary", data("data", map[string]any{"value": "x"}, "metadata", map[string]any{})), canary, false,
			map[string]string{"canary": "fail it can't be read"}},
		{"canary in another engine", sound().with("secret/data/strongroom/canary", data("value", "x")), canary, false, map[string]string{"canary": "fail it can't be read"}},
		{"no word on the fence", sound().with("apikeys/status", data("fence", map[string]any{}, "version", "v0.1.0", "keys", map[string]any{}, "rotations", 0, "revocations", 0, "reaped", 0)),
			canary, false, map[string]string{"engine": "fail read apikeys/status"}},
		{"no word on the keys", sound().with("apikeys/status", data("fence", map[string]any{"closed": true, "reason": "x"}, "version", "v0.1.0", "rotations", 0, "revocations", 0, "reaped", 0)),
			canary, false, map[string]string{"engine": "fail read apikeys/status"}},
		{"a key without a current version", sound().with("apikeys/versions/a/one", data("versions", map[string]any{})), canary, false, map[string]string{"engine": "fail read apikeys/versions/a/one"}},
		{"a key that awaits its import", sound().with("apikeys/versions/a/one", data("version", 0, "versions", map[string]any{})), canary, false, map[string]string{"engine": "pass version v0.1.0 reads 1 keys"}},
		{"another cluster", sound().with("sys/health", map[string]any{"initialized": true, "cluster_id": "other"}), canary, false,
			map[string]string{"cluster": `fail the snapshot holds cluster "other"`}},
		{"a policy changed", sound().with("sys/policies/acl/strongroom-drill", data("policy", "path *")), canary, false, map[string]string{"policies": "fail changed: strongroom-drill"}},
		{"a policy changed, rehearsal", sound().with("sys/policies/acl/strongroom-drill", data("policy", "path *")), canary, true, map[string]string{"policies": "note the new version would write: strongroom-drill"}},
		{"a policy missing", sound().with("sys/policies/acl?list", data("keys", []string{"default", "strongroom-drill"})), canary, false, map[string]string{"policies": "fail missing: strongroom-canary"}},
		{"no list of policies", sound().with("sys/policies/acl?list", nil), canary, false, map[string]string{"policies": "fail they can't be listed"}},
		{"a mount missing", sound().with("sys/mounts", data("secret/", map[string]any{"type": "kv"})), canary, false, map[string]string{"mounts": `fail apikeys/ is ""`}},
		{"a mount of another type", sound().with("sys/mounts", data("secret/", map[string]any{"type": "cubbyhole"}, "apikeys/", map[string]any{"type": "kv"})), canary, false,
			map[string]string{"mounts": `fail apikeys/ is "kv"`}},
		{"no AppRole", sound().with("sys/auth", data("token/", map[string]any{"type": "token"})), canary, false, map[string]string{"auth": `fail approle/ is ""`}},
		{"not fenced", sound().with("apikeys/status", engineStatus(false, nil, "a/one")), canary, false, map[string]string{"engine": "fail it is not fenced"}},
		{"it has rotated", sound().with("apikeys/status", engineStatus(true, map[string]int{"rotations": 2}, "a/one")), canary, false, map[string]string{"engine": "fail it is fenced, and yet has acted: map[rotations:2]"}},
		{"a key without versions", sound().with("apikeys/versions/a/one", data("version", 3)), canary, false, map[string]string{"engine": "fail read apikeys/versions/a/one"}},
		{"another engine", sound().with("apikeys/status", data("x", "y")), canary, false, map[string]string{"engine": "fail read apikeys/status: it has no fence"}},
		{"no engine", sound().with("apikeys/status", nil), canary, false, map[string]string{"engine": "fail read apikeys/status"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newTestRun(t, tt.vault)
			if tt.rehearse {
				r.Rehearse, r.rep.Kind = &Rehearsal{}, report.KindRehearsal
			}
			if err := r.look(t.Context(), snapshot.Manifest{ClusterID: cluster, Canary: tt.canary}); err != nil {
				t.Fatal(err)
			}
			for name, want := range tt.want {
				verdict, part, _ := strings.Cut(want, " ")
				if got := checkOf(r.rep, name); got == nil || got.Verdict != verdict || !strings.Contains(got.Detail, part) {
					t.Errorf("%s: %+v, want %s", name, got, want)
				}
			}
			failed := 0
			for _, want := range tt.want {
				if strings.HasPrefix(want, "fail") || strings.HasPrefix(want, "undecided") {
					failed++
				}
			}
			if got := len(r.rep.Failed()); got != failed {
				t.Errorf("%d checks failed, want %d: %+v", got, failed, r.rep.Failed())
			}
			text, err := report.Encode(r.rep, testKey(1))
			if err != nil || strings.Contains(string(text), canaryValue) || strings.Contains(r.rep.Text(), canaryValue) {
				t.Errorf("the canary's value is in the report, or %v", err)
			}
			if r.rep.RTOSeconds <= 0 {
				t.Error("RTO is not measured")
			}
		})
	}
}

func checkOf(r *report.Report, name string) *report.Check {
	for i := range r.Checks {
		if r.Checks[i].Name == name {
			return &r.Checks[i]
		}
	}
	return nil
}

func TestLookWithoutLogin(t *testing.T) {
	r := newTestRun(t, sound().with("auth/approle/login", nil))
	err := r.look(t.Context(), snapshot.Manifest{ClusterID: cluster})
	if !errors.Is(err, ErrFailed) || len(r.rep.Checks) != 1 || r.rep.Checks[0].Verdict != report.Fail || r.rep.RTOSeconds != 0 {
		t.Errorf("%+v, %v", r.rep.Checks, err)
	}
}

// What was there at the last drill that passed and is not any more is noted.
func TestLookCompares(t *testing.T) {
	r := newTestRun(t, sound())
	before := sampleReport()
	before.Found = &report.Found{Mounts: map[string]string{"secret/": "kv 2", "database/": "database"}, Auth: map[string]string{"oidc/": "oidc"}}
	if err := store(r.StateDir, before, nil); err != nil {
		t.Fatal(err)
	}
	if err := r.look(t.Context(), snapshot.Manifest{ClusterID: cluster, Canary: &snapshot.Canary{Version: 4, SHA256: snapshot.CanarySum(canaryValue)}}); err != nil {
		t.Fatal(err)
	}
	text := r.rep.Text()
	for _, want := range []string{"gone since the last drill that passed: database/", "gone since the last drill that passed: oidc/"} {
		if !strings.Contains(text, want) {
			t.Errorf("it lacks %q:\n%s", want, text)
		}
	}
	if len(r.rep.Failed()) != 0 {
		t.Errorf("failed: %+v", r.rep.Failed())
	}
}

// Every key is counted, and only some are looked at one by one.
func TestEngineState(t *testing.T) {
	v := sound()
	var keys []string
	for i := range sampledKeys + 5 {
		name := fmt.Sprintf("k/%03d", i)
		keys = append(keys, name)
		if i < sampledKeys {
			v["apikeys/versions/"+name] = data("version", i+1, "versions", map[string]any{})
		}
	}
	v["apikeys/status"] = engineStatus(true, nil, keys...)
	r := newTestRun(t, v)
	s, err := r.engineState(t.Context())
	if err != nil || len(s.keys) != len(keys) || len(s.current) != sampledKeys || s.current["k/001"] != 2 {
		t.Errorf("%+v, %v", s, err)
	}
}

// Keys on pages that are not to be had are not none.
func TestEngineStateByPages(t *testing.T) {
	for _, tt := range []struct {
		name  string
		nexts []any // of the pages in turn; nil: it has none
		keys  int
		fails string
	}{
		{"one page", []any{nil}, 1, ""},
		{"three pages", []any{"k1", "k2", nil}, 3, ""},
		{"no text", []any{7}, 0, "next"},
		{"no text, later", []any{"k1", []any{"k2"}}, 0, "next"},
		{"an empty one", []any{""}, 0, "goes on with"},
		{"the same again", []any{"k1", "k1"}, 0, "goes on with"},
		{"back", []any{"k2", "k1"}, 0, "goes on with"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			page := 0
			r := newTestRun(t, sound())
			r.client = startFake(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body := data("version", 1, "versions", map[string]any{})
				if r.URL.Path == "/v1/apikeys/status" {
					body = engineStatus(true, nil, fmt.Sprintf("k%d", page+1))
					if tt.nexts[page] != nil {
						body["data"].(map[string]any)["next"] = tt.nexts[page]
					}
					page++
				}
				if err := json.NewEncoder(w).Encode(body); err != nil {
					t.Error(err)
				}
			}))
			s, err := r.engineState(t.Context())
			if tt.fails != "" {
				if err == nil || !strings.Contains(err.Error(), tt.fails) {
					t.Errorf("%+v, %v", s, err)
				}
				return
			}
			if err != nil || len(s.keys) != tt.keys {
				t.Errorf("%+v, %v", s, err)
			}
		})
	}
}

func TestCheckKey(t *testing.T) {
	keys := newKeyset(t)
	for recorded, want := range map[string]string{"": report.Note, keys.Fingerprint(): report.Pass, "SHA256:other": report.Fail} {
		r := &run{Options: Options{Keyset: keys, EscrowKey: recorded}, rep: &report.Report{}}
		r.checkKey()
		if got := r.rep.Checks[0].Verdict; got != want {
			t.Errorf("recorded %q: %s, want %s", recorded, got, want)
		}
	}
}

func newKeyset(t *testing.T) *kms.Keyset {
	t.Helper()
	k, err := kms.NewKeyset()
	if err != nil {
		t.Fatal(err)
	}
	return k
}
