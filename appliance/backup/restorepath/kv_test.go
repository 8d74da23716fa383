package restorepath

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"sync"
	"testing"

	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/appliance/base/vaultapi/kv"
)

// kvVault is a Vault with one KV engine that answers from a table, and notes what
// was written.
type kvVault struct {
	*vaultapi.Client
	mu     sync.Mutex
	writes []string
}

// answer of a kvVault; without a status it is 200.
type answer struct {
	status int
	body   string
}

var (
	nothing   = answer{404, `{"errors":[]}`}
	unmounted = answer{404, `{"errors":["no handler for route \"secret/\". route entry not found."]}`}
	foreign   = answer{404, `404 page not found`}
	deleted   = answer{404, `{"data":{"data":null,"metadata":{"version":5,"deletion_time":"2026-11-24T15:15:00Z"}}}`}
	lost      = answer{500, `{"errors":["internal"]}`}
)

func newKVVault(t *testing.T, answers map[string]answer) *kvVault {
	t.Helper()
	v := &kvVault{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		call := r.Method + " " + r.URL.Path
		if r.URL.Query().Has("list") {
			call = "LIST " + r.URL.Path
		}
		if r.Method == http.MethodPut {
			v.mu.Lock()
			v.writes = append(v.writes, r.URL.Path)
			v.mu.Unlock()
		}
		w.Header().Set("Content-Type", "application/json")
		a, ok := answers[call]
		if !ok {
			a = answer{403, `{"errors":["permission denied"]}`}
		}
		if a.status != 0 {
			w.WriteHeader(a.status)
		}
		_, _ = io.WriteString(w, a.body)
	}))
	t.Cleanup(srv.Close)
	c, err := vaultapi.New(vaultapi.Options{Address: srv.URL, Token: "operator"})
	if err != nil {
		t.Fatal(err)
	}
	v.Client = c.Once(0)
	return v
}

const (
	engine  = "GET /v1/sys/internal/ui/mounts/secret/app/name"
	at      = " /v1/secret/data/app/name"
	atMeta  = "PUT /v1/secret/metadata/app/name"
	atOne   = " /v1/secret/app/name" // of version 1
	version = `{"data":{"data":{"k":"v"},"metadata":{"version":3,"custom_metadata":{"owner":"anna"}}}}`
)

var (
	kv1 = answer{0, `{"data":{"path":"secret/","type":"kv","options":null}}`}
	kv2 = answer{0, `{"data":{"path":"secret/","type":"kv","options":{"version":"2"}}}`}
)

// A secret that was wholly gone comes back, whatever becomes of its metadata; and
// nothing is written where Vault has not said what is there.
func TestCopySecret(t *testing.T) {
	done := answer{0, `{"data":{"version":6}}`}
	denied := vaultapi.IsDenied
	is := func(want error) func(error) bool { return func(err error) bool { return errors.Is(err, want) } }
	for name, tt := range map[string]struct {
		from, live map[string]answer
		is         func(error) bool // nil: there is no error
		copied     Copied
		writes     int
	}{
		"whole": {map[string]answer{engine: kv2, "GET" + at: {0, version}}, map[string]answer{engine: kv2, "GET" + at: nothing, "PUT" + at: done, atMeta: {204, ""}},
			nil, Copied{From: 3, To: 6}, 2},
		"metadata refused": {map[string]answer{engine: kv2, "GET" + at: {0, version}}, map[string]answer{engine: kv2, "GET" + at: nothing, "PUT" + at: done},
			is(ErrNoMetadata), Copied{From: 3, To: 6, NoMetadata: true}, 2},
		"secret refused": {map[string]answer{engine: kv2, "GET" + at: {0, version}}, map[string]answer{engine: kv2, "GET" + at: nothing, atMeta: {204, ""}},
			denied, Copied{From: 3}, 1},
		"over a deleted version": {map[string]answer{engine: kv2, "GET" + at: {0, version}}, map[string]answer{engine: kv2, "GET" + at: deleted, "PUT" + at: done},
			nil, Copied{From: 3, Over: 5, To: 6}, 1},
		"the same already": {map[string]answer{engine: kv2, "GET" + at: {0, version}}, map[string]answer{engine: kv2, "GET" + at: {0, version}},
			nil, Copied{From: 3, Over: 3, Unchanged: true}, 0},
		"somebody else was faster": {map[string]answer{engine: kv2, "GET" + at: {0, version}},
			map[string]answer{engine: kv2, "GET" + at: nothing, "PUT" + at: {400, `{"errors":["check-and-set parameter did not match the current version"]}`}},
			is(kv.ErrChanged), Copied{From: 3}, 1},
		"its answer is lost": {map[string]answer{engine: kv2, "GET" + at: {0, version}}, map[string]answer{engine: kv2, "GET" + at: nothing, "PUT" + at: lost},
			vaultapi.IsUncertain, Copied{From: 3}, 1},
		"no version comes back": {map[string]answer{engine: kv2, "GET" + at: {0, version}}, map[string]answer{engine: kv2, "GET" + at: nothing, "PUT" + at: {0, `{"data":{}}`}},
			isOther, Copied{From: 3}, 1},
		"not in the snapshot":     {map[string]answer{engine: kv2, "GET" + at: nothing}, map[string]answer{engine: kv2}, is(ErrNoSecret), Copied{}, 0},
		"deleted in the snapshot": {map[string]answer{engine: kv2, "GET" + at: deleted}, map[string]answer{engine: kv2, "GET" + at: nothing}, is(ErrNoSecret), Copied{}, 0},
		"the snapshot's engine does not answer": {map[string]answer{engine: kv2, "GET" + at: unmounted}, map[string]answer{engine: kv2, "GET" + at: nothing, "PUT" + at: done, atMeta: {204, ""}},
			vaultapi.IsUnmounted, Copied{}, 0},
		"the live engine does not answer": {map[string]answer{engine: kv2, "GET" + at: {0, version}}, map[string]answer{engine: kv2, "GET" + at: unmounted, "PUT" + at: done, atMeta: {204, ""}},
			vaultapi.IsUnmounted, Copied{}, 0},
		"another server answers": {map[string]answer{engine: kv2, "GET" + at: {0, version}}, map[string]answer{engine: kv2, "GET" + at: foreign, "PUT" + at: done, atMeta: {204, ""}},
			is(vaultapi.ErrNotVault), Copied{}, 0},
		"a version without a number": {map[string]answer{engine: kv2, "GET" + at: {0, version}},
			map[string]answer{engine: kv2, "GET" + at: {0, `{"data":{"data":{"k":"w"},"metadata":{}}}`}, "PUT" + at: done}, isOther, Copied{}, 0},
		"no word of the engine": {map[string]answer{engine: kv2, "GET" + at: {0, version}}, map[string]answer{engine: {0, `{"data":{}}`}}, isOther, Copied{}, 0},
		"another engine": {map[string]answer{engine: kv2, "GET" + at: {0, version}}, map[string]answer{engine: {0, `{"data":{"path":"secret/","type":"cubbyhole"}}`}},
			isOther, Copied{}, 0},
		"of version 1": {map[string]answer{engine: kv1, "GET" + atOne: {0, `{"data":{"k":"v"}}`}}, map[string]answer{engine: kv1, "GET" + atOne: nothing, "PUT" + atOne: {204, ""}},
			nil, Copied{}, 1},
		"of version 1, the same already": {map[string]answer{engine: kv1, "GET" + atOne: {0, `{"data":{"k":"v"}}`}}, map[string]answer{engine: kv1, "GET" + atOne: {0, `{"data":{"k":"v"}}`}},
			nil, Copied{Unchanged: true}, 0},
		"of version 1, gone": {map[string]answer{engine: kv1, "GET" + atOne: nothing}, map[string]answer{engine: kv1}, is(ErrNoSecret), Copied{}, 0},
		"of version 1, its engine does not answer": {map[string]answer{engine: kv1, "GET" + atOne: {0, `{"data":{"k":"v"}}`}}, map[string]answer{engine: kv1, "GET" + atOne: unmounted, "PUT" + atOne: {204, ""}},
			vaultapi.IsUnmounted, Copied{}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			live := newKVVault(t, tt.live)
			got, err := copySecret(t.Context(), newKVVault(t, tt.from).Client, live.Client, "secret/app/name")
			tt.copied.Path = "secret/app/name"
			if got != tt.copied {
				t.Errorf("got %+v, want %+v", got, tt.copied)
			}
			if tt.is == nil && err != nil || tt.is != nil && !tt.is(err) {
				t.Errorf("error: %v", err)
			}
			if len(live.writes) != tt.writes {
				t.Errorf("wrote to %q", live.writes)
			}
		})
	}
}

func isOther(err error) bool { return err != nil && !vaultapi.IsRefusal(err) }

// All secrets below a folder, of both versions of the engine; a folder that nobody
// has looked into is not an empty one.
func TestExpand(t *testing.T) {
	const mount, folder = "GET /v1/sys/internal/ui/mounts/secret/app", "LIST /v1/secret/app"
	const folder2 = "LIST /v1/secret/metadata/app"
	one, two := answer{0, `{"data":{"keys":["b","deep/"]}}`}, answer{0, `{"data":{"keys":["a"]}}`}
	want := []string{"secret/app/b", "secret/app/deep/a"}
	for name, tt := range map[string]struct {
		answers map[string]answer
		want    []string
		is      func(error) bool
	}{
		"version 2":      {map[string]answer{mount: kv2, folder2: one, folder2 + "/deep": two}, want, nil},
		"version 1":      {map[string]answer{mount: kv1, folder: one, folder + "/deep": two}, want, nil},
		"empty":          {map[string]answer{mount: kv2, folder2: nothing}, nil, func(err error) bool { return errors.Is(err, ErrNoSecret) }},
		"empty, 1":       {map[string]answer{mount: kv1, folder: nothing}, nil, func(err error) bool { return errors.Is(err, ErrNoSecret) }},
		"unmounted":      {map[string]answer{mount: kv2, folder2: unmounted}, nil, vaultapi.IsUnmounted},
		"unmounted, 1":   {map[string]answer{mount: kv1, folder: unmounted}, nil, vaultapi.IsUnmounted},
		"denied below":   {map[string]answer{mount: kv2, folder2: one}, nil, vaultapi.IsDenied},
		"no word on it":  {map[string]answer{mount: kv2, folder2: {0, `{"data":{}}`}}, nil, isOther},
		"names of other": {map[string]answer{mount: kv2, folder2: {0, `{"data":{"keys":["a",1]}}`}}, nil, isOther},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := expand(t.Context(), newKVVault(t, tt.answers).Client, "secret/app/")
			slices.Sort(got)
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if tt.is == nil && err != nil || tt.is != nil && !tt.is(err) {
				t.Errorf("error: %v", err)
			}
		})
	}
}
