package kvexport

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"strongroom.example/appliance/base/vaultapi/kv"
	"strongroom.example/appliance/base/vaultapi/kv/kvtest"
)

// put writes values as the next versions of a secret.
func put(t *testing.T, s kv.Store, path string, values ...any) {
	t.Helper()
	m, err := s.Metadata(t.Context(), "secret", path)
	if err != nil {
		t.Fatal(err)
	}
	cas := 0
	if m != nil {
		cas = m.CurrentVersion
	}
	for i, v := range values {
		if _, err := s.Write(t.Context(), "secret", path, map[string]any{"x": v}, cas+i); err != nil {
			t.Fatal(err)
		}
	}
}

// filled has secrets in every state that a version can be in.
func filled(t *testing.T) *kvtest.Fake {
	t.Helper()
	s := kvtest.NewFake()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(s.PutSettings(t.Context(), "secret", "a", kv.Settings{CASRequired: true, DeleteVersionAfter: "1h0m0s", CustomMetadata: map[string]string{"owner": "me"}}))
	put(t, s, "a", "s3cret-1", json.Number("12345678901234567890"))
	put(t, s, "b/gaps", "s3cret-1", "s3cret-2", "s3cret-3")
	must(s.Destroy(t.Context(), "secret", "b/gaps", []int{1}))
	must(s.DeleteVersion(t.Context(), "secret", "b/gaps", 2))
	must(s.PutSettings(t.Context(), "secret", "b/few", kv.Settings{MaxVersions: 2}))
	put(t, s, "b/few", "1", "2", "3", "s3cret-4")
	// The limit was lowered after these were written: Vault drops at the next.
	put(t, s, "many", "1", "2", "s3cret-3")
	must(s.PutSettings(t.Context(), "secret", "many", kv.Settings{MaxVersions: 1}))
	return s
}

// state is everything that a store holds at a mount.
func state(t *testing.T, s kv.Store, mount string) map[string]string {
	t.Helper()
	out := map[string]string{}
	paths, err := kv.Walk(t.Context(), s, mount, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range paths {
		m, err := s.Metadata(t.Context(), mount, p)
		if err != nil {
			t.Fatal(err)
		}
		text := fmt.Sprintf("%+v current %d", m.Settings, m.CurrentVersion)
		for _, n := range slices.Sorted(maps.Keys(m.Versions)) {
			got, err := s.ReadVersion(t.Context(), mount, p, n)
			if err != nil {
				t.Fatal(err)
			}
			if got.Data == nil {
				text += fmt.Sprintf("; %d: none", n) // which an empty one is not
				continue
			}
			text += fmt.Sprintf("; %d: %v", n, got.Data)
		}
		out[p] = text
	}
	return out
}

func newest(t *testing.T, s kv.Store, path string) string {
	t.Helper()
	got, err := s.Read(t.Context(), "secret", path)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(got.Data["x"])
}

func identity(t *testing.T) *age.X25519Identity {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func exportOf(s kv.Store, id *age.X25519Identity, paths ...string) ExportOptions {
	return ExportOptions{Store: s, Mount: "secret/", Paths: paths, Recipients: []age.Recipient{id.Recipient()}, Now: func() time.Time { return time.Unix(0, 0) }}
}

func export(t *testing.T, o ExportOptions) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := Export(t.Context(), &b, o); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func bring(t *testing.T, file []byte, o ImportOptions) ([]Imported, error) {
	t.Helper()
	return Import(t.Context(), func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(file)), nil }, o)
}

func TestRoundTrip(t *testing.T) {
	from, to, id := filled(t), kvtest.NewFake(), identity(t)
	file := export(t, exportOf(from, id, ""))
	o := ImportOptions{Store: to, Identities: []age.Identity{id}}
	dry := o
	dry.DryRun = true
	if got, err := bring(t, file, dry); err != nil || fmt.Sprint(got) != "[{a created 0} {b/few created 0} {b/gaps created 0} {many created 0}]" {
		t.Fatalf("dry: %v, %v", got, err)
	}
	if got := state(t, to, "secret"); len(got) != 0 {
		t.Fatalf("a dry run wrote %v", got)
	}
	got, err := bring(t, file, o)
	if err != nil || fmt.Sprint(got) != "[{a created 2} {b/few created 2} {b/gaps created 1} {many created 3}]" {
		t.Fatalf("%v, %v", got, err)
	}
	want := state(t, from, "secret")
	if have := state(t, to, "secret"); !maps.Equal(have, want) {
		t.Fatalf("after the import\n%v\nwas\n%v", have, want)
	}
	if got, err = bring(t, file, o); err != nil || fmt.Sprint(got) != "[{a unchanged 0} {b/few unchanged 0} {b/gaps unchanged 0} {many unchanged 0}]" {
		t.Errorf("a second time: %v, %v", got, err)
	}
	if have := state(t, to, "secret"); !maps.Equal(have, want) {
		t.Errorf("the second time wrote: %v", have)
	}
	o.Mount = "other"
	if _, err = bring(t, file, o); err != nil || !maps.Equal(state(t, to, "other"), want) {
		t.Errorf("at another mount: %v", err)
	}
}

// What is there with another value stays, and so does everything else, unless
// force is used; then it is one more version.
func TestConflict(t *testing.T) {
	id := identity(t)
	file := export(t, exportOf(filled(t), id, ""))
	for name, spoil := range map[string]func(s *kvtest.Fake) error{
		"another value": func(s *kvtest.Fake) error { put(t, s, "a", "theirs"); return nil },
		"deleted": func(s *kvtest.Fake) error {
			put(t, s, "a", "theirs")
			return s.DeleteVersion(t.Context(), "secret", "a", 1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			to := kvtest.NewFake()
			if err := spoil(to); err != nil {
				t.Fatal(err)
			}
			before := state(t, to, "secret")
			o := ImportOptions{Store: to, Identities: []age.Identity{id}}
			got, err := bring(t, file, o)
			if !errors.Is(err, ErrConflict) || len(got) != 4 || got[0].State != Conflict {
				t.Fatalf("%v, %v", got, err)
			}
			if have := state(t, to, "secret"); !maps.Equal(have, before) {
				t.Fatalf("a conflict wrote %v", have)
			}
			o.Force = true
			if got, err = bring(t, file, o); err != nil || got[0] != (Imported{"a", Updated, 1}) {
				t.Fatalf("by force: %v, %v", got, err)
			}
			m, err := to.Metadata(t.Context(), "secret", "a")
			if err != nil || m.CurrentVersion != 2 || newest(t, to, "a") != "12345678901234567890" {
				t.Errorf("%+v, %v", m, err)
			}
		})
	}
}

// An import that ends at any call can be run again; by force it is then whole.
func TestImportInterrupted(t *testing.T) {
	from, id := filled(t), identity(t)
	file := export(t, exportOf(from, id, ""))
	for n := 1; ; n++ {
		for _, after := range []bool{false, true} {
			to := kvtest.NewFake()
			to.Fail = func(call int, _ string) (bool, bool) { return call == n, after }
			o := ImportOptions{Store: to, Identities: []age.Identity{id}}
			_, err := bring(t, file, o)
			if err == nil {
				if n < 20 {
					t.Fatalf("the import is of %d calls", n-1)
				}
				return
			}
			if !errors.Is(err, kvtest.ErrInjected) || strings.Contains(err.Error(), "s3cret") {
				t.Fatalf("call %d: %v", n, err)
			}
			_, err = bring(t, file, o)
			if err != nil && !errors.Is(err, ErrConflict) {
				t.Fatalf("call %d: again: %v", n, err)
			}
			// What needs no force is whole by then: each version, the gaps between
			// them, and the settings.
			if want, have := state(t, from, "secret"), state(t, to, "secret"); err == nil && !maps.Equal(want, have) {
				t.Errorf("call %d (%t): again\n%v\nwas\n%v", n, after, have, want)
			}
			o.Force = true
			if _, err = bring(t, file, o); err != nil {
				t.Fatalf("call %d: by force: %v", n, err)
			}
			for _, p := range []string{"a", "b/few", "b/gaps", "many"} {
				if got, want := newest(t, to, p), newest(t, from, p); got != want {
					t.Errorf("call %d (%t): %s is %q, want %q", n, after, p, got, want)
				}
				if got := state(t, to, "secret")[p]; strings.Contains(got, ": map[]") {
					t.Errorf("call %d (%t): an empty version is left in %s: %s", n, after, p, got)
				}
			}
		}
	}
}

// Beyond maxRebuilt the versions that are left are numbered from 1.
func TestManyVersions(t *testing.T) {
	from, to, id := kvtest.NewFake(), kvtest.NewFake(), identity(t)
	for i := range maxRebuilt + 5 {
		put(t, from, "a", fmt.Sprint("v", i+1))
	}
	if err := from.DeleteVersion(t.Context(), "secret", "a", maxRebuilt); err != nil {
		t.Fatal(err)
	}
	if _, err := bring(t, export(t, exportOf(from, id, "a")), ImportOptions{Store: to, Identities: []age.Identity{id}}); err != nil {
		t.Fatal(err)
	}
	want := "current 10; 1: map[x:v196]; 2: map[x:v197]; 3: map[x:v198]; 4: map[x:v199]; 5: none; 6: map[x:v201]"
	if got := state(t, to, "secret")["a"]; !strings.Contains(got, want) {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestExport(t *testing.T) {
	s, id := filled(t), identity(t)
	for name, tt := range map[string]struct {
		paths  []string
		latest bool
		want   string // what an import makes of it
		fault  string
	}{
		"one":          {paths: []string{"b/few"}, want: "[{b/few created 2}]"},
		"a folder":     {paths: []string{"b/"}, want: "[{b/few created 2} {b/gaps created 1}]"},
		"overlapping":  {paths: []string{"b/", "a", "b/few"}, want: "[{a created 2} {b/few created 2} {b/gaps created 1}]"},
		"latest":       {paths: []string{"a"}, latest: true, want: "[{a created 1}]"},
		"no secret":    {paths: []string{"a", "none"}, fault: "there is no secret secret/none"},
		"empty folder": {paths: []string{"a", "none/"}, fault: "nothing is below secret/none/"},
	} {
		t.Run(name, func(t *testing.T) {
			o := exportOf(s, id, tt.paths...)
			o.Latest = tt.latest
			var b bytes.Buffer
			n, err := Export(t.Context(), &b, o)
			if tt.fault != "" {
				if err == nil || !strings.Contains(err.Error(), tt.fault) {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			to := kvtest.NewFake()
			got, err := bring(t, b.Bytes(), ImportOptions{Store: to, Identities: []age.Identity{id}})
			if err != nil || fmt.Sprint(got) != tt.want || len(got) != n {
				t.Errorf("%d were exported, %v, %v", n, got, err)
			}
			for _, one := range got {
				if newest(t, to, one.Path) != newest(t, s, one.Path) {
					t.Errorf("%s has another value", one.Path)
				}
			}
		})
	}
	if _, err := Export(t.Context(), io.Discard, ExportOptions{Store: s, Mount: "secret", Paths: []string{""}}); err == nil {
		t.Error("an export for nobody")
	}
}

// full takes so many bytes.
type full int

func (f *full) Write(p []byte) (int, error) {
	if *f -= full(len(p)); *f < 0 {
		return 0, io.ErrShortWrite
	}
	return len(p), nil
}

// An export that could not read or write all is never told as done.
func TestExportFails(t *testing.T) {
	s, id := filled(t), identity(t)
	before := s.Calls()
	whole := full(len(export(t, exportOf(s, id, ""))))
	calls := s.Calls() - before
	for n := range calls {
		start := s.Calls()
		s.Fail = func(call int, _ string) (bool, bool) { return call == start+n+1, false }
		if _, err := Export(t.Context(), io.Discard, exportOf(s, id, "")); !errors.Is(err, kvtest.ErrInjected) {
			t.Errorf("call %d: %v", n+1, err)
		}
	}
	s.Fail = nil
	for room := full(0); room < whole; room += 7 {
		left := room
		if _, err := Export(t.Context(), &left, exportOf(s, id, "")); !errors.Is(err, io.ErrShortWrite) {
			t.Errorf("%d bytes of %d: %v", room, whole, err)
		}
	}
}

func TestImportUnreadable(t *testing.T) {
	id := identity(t)
	if _, err := Import(t.Context(), func() (io.ReadCloser, error) { return nil, io.ErrClosedPipe }, ImportOptions{}); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("no file: %v", err)
	}
	to := kvtest.NewFake()
	file := sealed(t, id, strings.Replace(good, `{"x":"s3cret"}`, `["s3cret"]`, 1))
	if _, err := bring(t, file, ImportOptions{Store: to, Identities: []age.Identity{id}}); err == nil || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("a version that is no object: %v", err)
	}
	if got, err := to.Read(t.Context(), "secret", "a"); err != nil || got.Version != 0 {
		t.Errorf("it was written as version %d, %v", got.Version, err)
	}
}

func TestRollback(t *testing.T) {
	for name, tt := range map[string]struct {
		path  string
		to    int
		want  string // fields
		fault string
	}{
		"earlier":     {path: "a", to: 1, want: "[changed x]"},
		"current":     {path: "a", to: 2, fault: "not earlier than the current one, 2"},
		"later":       {path: "a", to: 3, fault: "not earlier"},
		"zero":        {path: "a", to: 0, fault: "not earlier"},
		"destroyed":   {path: "b/gaps", to: 1, fault: "deleted, destroyed or gone"},
		"deleted":     {path: "b/gaps", to: 2, fault: "deleted, destroyed or gone"},
		"dropped":     {path: "b/few", to: 2, fault: "deleted, destroyed or gone"},
		"none":        {path: "none", to: 1, fault: "there is no secret secret/none"},
		"of nothing":  {path: "gone", to: 1, want: "[added x]"},
		"of the same": {path: "same", to: 1, want: "[same x]"},
	} {
		t.Run(name, func(t *testing.T) {
			s := filled(t)
			put(t, s, "gone", "s3cret-1", "s3cret-2")
			if err := s.DeleteVersion(t.Context(), "secret", "gone", 2); err != nil {
				t.Fatal(err)
			}
			put(t, s, "same", "s3cret-1", "s3cret-1")
			before := state(t, s, "secret")
			p, err := PlanRollback(t.Context(), s, "/secret/", tt.path, tt.to)
			if !maps.Equal(state(t, s, "secret"), before) {
				t.Fatal("a plan wrote")
			}
			if tt.fault != "" {
				if err == nil || !strings.Contains(err.Error(), tt.fault) {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil || fmt.Sprint(p.Fields) != tt.want {
				t.Fatalf("%v, %v", p, err)
			}
			n, err := p.Apply(t.Context())
			if err != nil || n != 3 || newest(t, s, tt.path) != "s3cret-1" {
				t.Errorf("version %d, %q, %v", n, newest(t, s, tt.path), err)
			}
			if _, err := p.Apply(t.Context()); !errors.Is(err, kv.ErrChanged) {
				t.Errorf("once more, over what is there now: %v", err)
			}
		})
	}
	s := filled(t)
	s.Fail = func(int, string) (bool, bool) { return true, false }
	if _, err := PlanRollback(t.Context(), s, "secret", "a", 1); !errors.Is(err, kvtest.ErrInjected) {
		t.Errorf("unreadable: %v", err)
	}
}
