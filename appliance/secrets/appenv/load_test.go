package appenv

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/appliance/base/vaultapi/kv/kvtest"
)

// stored is a fake with one app, a/p.
func stored(t *testing.T, secrets map[string]map[string]any, notes map[string]map[string]string) *kvtest.Fake {
	t.Helper()
	s := kvtest.NewFake()
	for path, note := range notes {
		if err := s.Annotate(t.Context(), "secret", path, note); err != nil {
			t.Fatal(err)
		}
	}
	for path, data := range secrets {
		if _, err := s.Write(t.Context(), "secret", path, data, 0); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func revealed(pairs []Pair) string {
	var out []string
	for _, p := range pairs {
		out = append(out, p.Name+"="+p.Value)
	}
	return strings.Join(out, " ")
}

func TestLoad(t *testing.T) {
	type secrets = map[string]map[string]any
	for name, tt := range map[string]struct {
		secrets secrets
		notes   map[string]map[string]string
		deleted string
		want    string
		fault   string
	}{
		"derived and sorted": {
			secrets: secrets{"a/p/z": {"value": "1"}, "a/p/b/c": {"value": "2", "id": "3"}},
			want:    "B_C=2 B_C_ID=3 Z=1",
		},
		"named by its metadata": {
			secrets: secrets{"a/p/db": {"value": "1", "user": "2"}},
			notes:   map[string]map[string]string{"a/p/db": {"variable.value": "DATABASE_URL", "variable.gone": "X", "owner": "me"}},
			want:    "DATABASE_URL=1 DB_USER=2",
		},
		"of others nothing": {
			secrets: secrets{"a/p/x": {"value": "1"}, "a/pq/y": {"value": "2"}, "a/q/y": {"value": "2"}, "b/p/y": {"value": "2"}, "a/p": {"value": "2"}},
			want:    "X=1",
		},
		"one is deleted":            {secrets: secrets{"a/p/x": {"value": "1"}, "a/p/y": {"value": "2"}}, deleted: "a/p/y", want: "X=1"},
		"only noted, never written": {notes: map[string]map[string]string{"a/p/x": {"variable.value": "X"}}, fault: "no secret below secret/a/p/ has a value"},
		"other types":               {secrets: secrets{"a/p/x": {"value": json.Number("1e3"), "on": true, "tree": map[string]any{"b": "<", "a": nil}}}, want: `X=1e3 X_ON=true X_TREE={"a":null,"b":"<"}`},
		"all are deleted":           {secrets: secrets{"a/p/y": {"value": "2"}}, deleted: "a/p/y", fault: "no secret below secret/a/p/ has a value"},
		"none":                      {secrets: secrets{"a/q/x": {"value": "1"}}, fault: "no secret is below secret/a/p/"},
		"two of one name":           {secrets: secrets{"a/p/x-y": {"value": "s3cret"}, "a/p/x": {"y": "s3cret"}}, fault: "are both X_Y"},
		"no name":                   {secrets: secrets{"a/p/1": {"value": "s3cret"}}, fault: `a/p/1:value: "1" is no name`},
		"a note that is no name":    {secrets: secrets{"a/p/x": {"value": "s3cret"}}, notes: map[string]map[string]string{"a/p/x": {"variable.value": "A=B"}}, fault: `"A=B" is no name`},
		"NUL":                       {secrets: secrets{"a/p/x": {"value": "s3cret\x00"}}, fault: "a/p/x:value: holds a NUL byte"},
		"no text":                   {secrets: secrets{"a/p/x": {"value": func() {}}}, fault: `secret/a/p/x: field "value" cannot be written as text`},
	} {
		t.Run(name, func(t *testing.T) {
			s := stored(t, tt.secrets, tt.notes)
			if tt.deleted != "" {
				if err := s.DeleteVersion(t.Context(), "secret", tt.deleted, 1); err != nil {
					t.Fatal(err)
				}
			}
			pairs, err := Load(t.Context(), s, "secret", "a", "p")
			switch {
			case tt.fault == "" && (err != nil || revealed(pairs) != tt.want):
				t.Errorf("got %s, %v", revealed(pairs), err)
			case tt.fault != "" && (err == nil || !strings.Contains(err.Error(), tt.fault) || strings.Contains(err.Error(), "s3cret")):
				t.Errorf("got %v", err)
			}
		})
	}
}

// Half an environment is none: a program must not start with it.
func TestLoadFails(t *testing.T) {
	s := stored(t, map[string]map[string]any{"a/p/x": {"value": "1"}, "a/p/d/y": {"value": "2"}}, nil)
	before := s.Calls()
	if _, err := Load(t.Context(), s, "secret", "a", "p"); err != nil {
		t.Fatal(err)
	}
	calls := s.Calls() - before
	for n := range calls {
		start := s.Calls()
		s.Fail = func(call int, _ string) (bool, bool) { return call == start+n+1, false }
		if pairs, err := Load(t.Context(), s, "secret", "a", "p"); !errors.Is(err, kvtest.ErrInjected) || pairs != nil {
			t.Errorf("call %d of %d: %v, %v", n+1, calls, pairs, err)
		}
	}
}

// Everything that a mapping misses is told at once, and nothing is given.
func TestLoadMappingFaults(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1/secret/data/x":
			_, _ = w.Write([]byte(`{"data":{"data":{"a":"s3cret","b":"s3cret\u0000"},"metadata":{"version":1}}}`))
		case "/v1/apikeys/creds/denied":
			w.WriteHeader(http.StatusForbidden)
			_, _ = w.Write([]byte(`{"errors":["permission denied"]}`))
		case "/v1/apikeys/creds/odd":
			_, _ = w.Write([]byte(`{"data":{"values":"s3cret"}}`))
		default:
			w.WriteHeader(http.StatusNotFound)
			_, _ = w.Write([]byte(`{"errors":[]}`))
		}
	}))
	defer server.Close()
	c, err := vaultapi.New(vaultapi.Options{Address: server.URL, Token: "t"})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "m.toml")
	text := "format = 1\n"
	for name, entry := range map[string]string{
		"GOOD": "path='x'\nfield='a'", "NO_FIELD": "path='x'\nfield='c'", "NO_PRIMARY": "path='x'", "NUL": "path='x'\nfield='b'",
		"NO_SECRET": "path='none'", "NO_KEY": "path='none'\nengine='apikeys'", "DENIED": "path='denied'\nengine='apikeys'", "ODD": "path='odd'\nengine='apikeys'",
	} {
		text += fmt.Sprintf("[variables.%s]\n%s\n", name, entry)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := ReadMapping(file)
	if err != nil {
		t.Fatal(err)
	}
	pairs, err := m.Load(t.Context(), c)
	if err == nil || pairs != nil {
		t.Fatalf("got %v, %v", pairs, err)
	}
	for _, want := range []string{
		`NO_FIELD: secret/x has no field "c"`, `NO_PRIMARY: secret/x has no field "value"`, "NUL: x: holds a NUL byte",
		"NO_SECRET: nothing is at secret/none", "NO_KEY: nothing is at apikeys/none", "DENIED: read apikeys/denied: ", `ODD: "values" in Vault's answer is not an object`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %q", want, err)
		}
	}
	if n := strings.Count(err.Error(), "\n") + 1; n != 7 || strings.Contains(err.Error(), "s3cret") || !vaultapi.IsDenied(err) {
		t.Errorf("%d faults: %v", n, err)
	}
	if _, err := ReadMapping(file + "none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}
