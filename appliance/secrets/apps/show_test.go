package apps

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"strongroom.example/appliance/base/vaultapi"
)

// refusing is a Vault that refuses to read and to list one path.
type refusing struct {
	*memory
	path   string
	status int
}

func (v refusing) fault(path string) error {
	if path == v.path {
		return &vaultapi.Error{Method: "GET", Path: path, Status: v.status, Errors: []string{"permission denied"}}
	}
	return nil
}

func (v refusing) Read(ctx context.Context, path string) (map[string]any, error) {
	if err := v.fault(path); err != nil {
		return nil, err
	}
	return v.memory.Read(ctx, path)
}

func (v refusing) List(ctx context.Context, path string) ([]string, error) {
	if err := v.fault(path); err != nil {
		return nil, err
	}
	return v.memory.List(ctx, path)
}

// countingIDs says of secret ids when they end.
type countingIDs struct {
	*memory
	ends map[string]string
}

func (v countingIDs) Write(ctx context.Context, path string, data map[string]any) (map[string]any, error) {
	if strings.HasSuffix(path, "/secret-id-accessor/lookup") {
		return map[string]any{"expiration_time": v.ends[text(data, "secret_id_accessor")]}, nil
	}
	return v.memory.Write(ctx, path, data)
}

func TestShow(t *testing.T) {
	conf := parse(t, everything)
	m := newMemory()
	show := func(v Vault) string {
		t.Helper()
		states, err := Show(t.Context(), v, conf.Targets())
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, s := range states {
			out = append(out, fmt.Sprintf("%s %s in Vault: %t, secret ids %d, %v %v %v %v", s.Path, s.Login, s.InVault, s.SecretIDs, s.Secrets, s.Keys, s.Databases, s.Grants))
		}
		return strings.Join(out, "\n")
	}
	const before = "secret/a/e a-e in Vault: false, secret ids 0, [{x 0} {n/y 0}] [{k 0 not in Vault yet }] [a-e-rw a-e-static] []\n" +
		"secret/b b in Vault: false, secret ids 0, [] [] [] [a/e]"
	if got := show(m); got != before {
		t.Errorf("before the apply:\n%s", got)
	}
	apply(t, options(conf, m))
	m.data["auth/approle/role/a-e/secret-id/one"] = map[string]any{}
	m.data["auth/approle/role/a-e/secret-id/two"] = map[string]any{}
	m.data["secret/metadata/a/e/x"]["current_version"] = json.Number("3")
	for field, v := range map[string]any{"version": json.Number("2"), "condition": "ok", "next_rotation_time": "2026-01-02T03:04:05Z"} {
		m.data["apikeys/keys/a/e/k"][field] = v
	}
	after := "secret/a/e a-e in Vault: true, secret ids 2, [{x 3} {n/y 0}] [{k 2 ok 2026-01-02T03:04:05Z}] [a-e-rw a-e-static] []\n" +
		"secret/b b in Vault: true, secret ids 0, [] [] [] [a/e]"
	if got := show(m); got != after {
		t.Errorf("after it:\n%s", got)
	}
	// One that has ended is none, though Vault still has it, and a version that is
	// deleted is not there.
	ended := countingIDs{m, map[string]string{"one": "2001-01-01T00:00:00Z", "two": "2999-01-01T00:00:00Z"}}
	states, err := Show(t.Context(), ended, conf.Targets())
	if err != nil || states[0].SecretIDs != 1 || states[0].SecretIDEnds.Year() != 2999 {
		t.Errorf("%+v, %v", states[0], err)
	}
	for at, gone := range map[string]int{"2001-01-01T00:00:00Z": 1, "2999-01-01T00:00:00Z": 0, "": 0} {
		m.data["secret/metadata/a/e/x"]["versions"] = map[string]any{"3": map[string]any{"deletion_time": at, "destroyed": false}}
		if states, err := Show(t.Context(), m, conf.Targets()); err != nil || len(states[0].Deleted) != gone {
			t.Errorf("deleted at %q: %+v, %v", at, states[0], err)
		}
	}
	// Who may not list them is not told that there are none.
	denied := refusing{m, "auth/approle/role/a-e/secret-id", 403}
	if got := show(denied); got != strings.Replace(after, "secret ids 2", "secret ids -1", 1) {
		t.Errorf("denied:\n%s", got)
	}
	for _, path := range []string{"auth/approle/role/a-e", "secret/metadata/a/e/x", "apikeys/keys/a/e/k"} {
		if _, err := Show(t.Context(), refusing{m, path, 403}, conf.Targets()); !vaultapi.IsDenied(err) {
			t.Errorf("%s: %v", path, err)
		}
	}
	denied.status = 503
	if _, err := Show(t.Context(), denied, conf.Targets()); !vaultapi.IsUnavailable(err) {
		t.Errorf("sealed: %v", err)
	}
}

// A plan of somebody who may not see the engine's defaults compares what may be
// seen; any other fault is not taken for that.
func TestPlanWithoutDefaults(t *testing.T) {
	m := newMemory()
	o := options(parse(t, everything), m)
	apply(t, o)
	for _, path := range []string{"apikeys/config", "apikeys/providers"} {
		o.Vault = refusing{m, path, 403}
		if p := plan(t, o); p.Changed() {
			t.Errorf("%s denied: %s", path, summary(p))
		}
		o.Vault = refusing{m, path, 503}
		if _, err := MakePlan(t.Context(), o); !vaultapi.IsUnavailable(err) {
			t.Errorf("%s: %v", path, err)
		}
	}
	for _, path := range []string{"sys/mounts", "sys/auth", "secret/metadata/" + ledgerFolder, "secret/metadata/a/e", "auth/approle/role/b"} {
		o.Vault = refusing{m, path, 403}
		if _, err := MakePlan(t.Context(), o); !vaultapi.IsDenied(err) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// What is mounted as something else is in the way, and the engine for API keys
// is not this program's to mount.
func TestMountsInTheWay(t *testing.T) {
	for name, tt := range map[string]struct {
		table, mount string
		of           any // nil: it is not mounted
		note         string
	}{
		"KV":        {"sys/mounts", "secret/", map[string]any{"type": "generic"}, `is of type "generic", not "kv"`},
		"databases": {"sys/mounts", "database/", map[string]any{"type": "kv"}, `is of type "kv", not "database"`},
		"API keys":  {"sys/mounts", "apikeys/", nil, "the installer does that"},
		"a login":   {"sys/auth", "ldap/", map[string]any{"type": "oidc"}, `is of type "oidc", not "ldap"`},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMemory()
			m.data[tt.table][tt.mount] = tt.of
			if tt.of == nil {
				delete(m.data[tt.table], tt.mount)
			}
			p, err := Apply(t.Context(), options(parse(t, everything), m), quiet)
			if !errors.Is(err, ErrConflict) || m.writes != 0 || p.Count(Blocked) != 1 || !strings.Contains(summary(p), tt.note) {
				t.Errorf("%d writes, %v: %s", m.writes, err, summary(p))
			}
		})
	}
}

// Each change is told as it is made, and a second run tells nothing.
func TestOutput(t *testing.T) {
	m := newMemory()
	o := options(parse(t, everything), m)
	var out strings.Builder
	o.Out = &out
	apply(t, o)
	for _, line := range []string{"created mount database\n", "created approle a-e\n", "created login userpass/alice\n", "created secret a/e/x\n"} {
		if strings.Count(out.String(), line) != 1 {
			t.Errorf("%q is not told once:\n%s", line, out.String())
		}
	}
	if strings.Contains(out.String(), "the first password") {
		t.Error("a password is printed")
	}
	out.Reset()
	m.data["auth/approle/role/b"]["token_ttl"] = json.Number("1")
	apply(t, o)
	if out.String() != "updated approle b\n" {
		t.Errorf("then: %s", out.String())
	}
	out.Reset()
	if apply(t, o); out.Len() != 0 {
		t.Errorf("a second time: %s", out.String())
	}
}

// What JSON, and what does not come as JSON, is read as.
func TestReadings(t *testing.T) {
	for _, tt := range []struct {
		v    any
		want int
	}{{json.Number("3"), 3}, {json.Number("1.5"), 0}, {"3", 0}, {nil, 0}} {
		if got := asInt(tt.v); got != tt.want {
			t.Errorf("%v is %d", tt.v, got)
		}
	}
	for _, tt := range []struct {
		field string
		v     any
		want  string
	}{
		{"", nil, ""}, {"", "a", "a"}, {"", false, ""}, {"", true, "true"}, {"", time.Minute, "60"}, {"", time.Duration(0), ""}, {"", json.Number("0"), ""}, {"", json.Number("60"), "60"},
		{"", 60, "60"}, {"", int64(60), "60"}, {"", float64(60), "60"}, {"", map[string]any{}, ""}, {"", map[string]any{"b": 1, "a": "x"}, `{"a":"x","b":1}`},
		{"", []string{"b", "a"}, "a\nb"}, {"", []any{"b", json.Number("1")}, "1\nb"}, {"", []string{}, ""},
		{"token_bound_cidrs", []any{"10.0.0.1/32", "::1/128", "10.0.0.0/8"}, "10.0.0.0/8\n10.0.0.1\n::1"},
		{"creation_statements", []string{"b", "a"}, "b\na"},
	} {
		if got := canonical(tt.field, tt.v); got != tt.want {
			t.Errorf("%s %#v is %q, want %q", tt.field, tt.v, got, tt.want)
		}
	}
}

// A mount of which the answer says no type is there all the same: a plan would make it
// anew, or call another's its own.
func TestMountWithoutType(t *testing.T) {
	for name, entry := range map[string]any{
		"no type": map[string]any{"accessor": "x"}, "an empty one": map[string]any{"type": ""},
		"no text": map[string]any{"type": 7}, "no object": "kv", "nothing": nil,
	} {
		for _, table := range []string{"sys/mounts", "sys/auth"} {
			m := newMemory()
			m.data[table]["odd/"] = entry
			p, err := MakePlan(t.Context(), Options{Vault: m})
			if err == nil || !strings.Contains(err.Error(), table) || !strings.Contains(err.Error(), `"odd/"`) {
				t.Errorf("%s in %s: %+v, %v", name, table, p, err)
			}
		}
	}
}
