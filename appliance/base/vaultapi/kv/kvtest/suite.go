package kvtest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"strongroom.example/appliance/base/vaultapi/kv"
)

// Suite is what every kv.Store must do. s has an empty engine at secret/.
func Suite(t *testing.T, s kv.Store) {
	ctx := t.Context()
	must := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	read := func(path string, version int) kv.Stored {
		t.Helper()
		var got kv.Stored
		var err error
		if version == 0 {
			got, err = s.Read(ctx, "secret", path)
		} else {
			got, err = s.ReadVersion(ctx, "secret", path, version)
		}
		must("read "+path, err)
		return got
	}
	is := func(what string, got kv.Stored, version int, value any) {
		t.Helper()
		if got.Version != version || got.Data["x"] != value || (got.Data != nil) != (value != nil) {
			t.Fatalf("%s: version %d, data there: %t; want version %d", what, got.Version, got.Data != nil, version)
		}
	}
	write := func(path, value string, cas int) {
		t.Helper()
		n, err := s.Write(ctx, "secret", path, map[string]any{"x": value}, cas)
		must(fmt.Sprintf("write %s over %d", path, cas), err)
		if n != cas+1 {
			t.Fatalf("write %s over %d gives %d", path, cas, n)
		}
	}

	is("never written", read("a/b", 0), 0, nil)
	is("a version of what was never written", read("a/b", 3), 0, nil)
	if m, err := s.Metadata(ctx, "secret", "a/b"); m != nil || err != nil {
		t.Fatalf("metadata of what was never written: %v, %v", m, err)
	}
	if names, err := s.List(ctx, "secret", ""); len(names) != 0 || err != nil {
		t.Fatalf("an empty mount lists %q, %v", names, err)
	}
	must("annotate", s.Annotate(ctx, "secret", "a/b", map[string]string{"k": "v"}))
	is("annotated only", read("a/b", 0), 0, nil)
	write("a/b", "1", 0)
	if _, err := s.Write(ctx, "secret", "a/b", map[string]any{"x": "2"}, 0); !errors.Is(err, kv.ErrChanged) {
		t.Fatalf("a write that must not be the first: %v", err)
	}
	if _, err := s.Write(ctx, "secret", "none", map[string]any{"x": "2"}, 7); !errors.Is(err, kv.ErrChanged) {
		t.Fatalf("a write over what is not there: %v", err)
	}
	write("a/b", "2", 1)
	must("annotate again", s.Annotate(ctx, "secret", "a/b", map[string]string{"l": "w"}))
	got := read("a/b", 0)
	is("after two writes", got, 2, "2")
	if !maps.Equal(got.Notes, map[string]string{"k": "v", "l": "w"}) {
		t.Fatalf("notes %v", got.Notes)
	}
	is("version 1", read("a/b", 1), 1, "1")
	is("a version that never was", read("a/b", 3), 0, nil)

	must("delete", s.DeleteVersion(ctx, "secret", "a/b", 2))
	is("deleted", read("a/b", 0), 2, nil)
	write("a/b", "3", 2)
	must("destroy", s.Destroy(ctx, "secret", "a/b", []int{1}))
	is("destroyed", read("a/b", 1), 1, nil)
	is("beside it", read("a/b", 0), 3, "3")
	m, err := s.Metadata(ctx, "secret", "a/b")
	must("metadata", err)
	if m == nil || m.CurrentVersion != 3 || len(m.Versions) != 3 || !m.Versions[1].Destroyed || m.Versions[2].Deleted == "" || m.Versions[3].Deleted != "" || m.Versions[3].Destroyed || m.Versions[3].Created == "" || m.CustomMetadata["l"] != "w" {
		t.Fatalf("metadata %+v", m)
	}

	must("settings", s.PutSettings(ctx, "secret", "c", kv.Settings{MaxVersions: 2, CASRequired: true, DeleteVersionAfter: "1h0m0s", CustomMetadata: map[string]string{"n": "o"}}))
	for i := range 4 {
		write("c", fmt.Sprint(i), i)
	}
	is("dropped", read("c", 2), 0, nil)
	is("kept", read("c", 3), 3, "2")
	if m, err = s.Metadata(ctx, "secret", "c"); err != nil || m.CurrentVersion != 4 || len(m.Versions) != 2 || m.MaxVersions != 2 || !m.CASRequired || m.DeleteVersionAfter != "1h0m0s" || m.CustomMetadata["n"] != "o" {
		t.Fatalf("metadata of few versions: %+v, %v", m, err)
	}

	write("a/d/e", "1", 0)
	write("a", "1", 0)
	for folder, want := range map[string][]string{"": {"a", "a/", "c"}, "a/": {"b", "d/"}, "a/d/": {"e"}, "nowhere/": nil} {
		if names, err := s.List(ctx, "secret", folder); err != nil || !slices.Equal(names, want) {
			t.Fatalf("list %q: %q, %v; want %q", folder, names, err, want)
		}
	}
	for from, want := range map[string][]string{"": {"a", "a/b", "a/d/e", "c"}, "a/": {"a/b", "a/d/e"}, "a": {"a"}, "nowhere/": nil} {
		if paths, err := kv.Walk(ctx, s, "secret", from); err != nil || !slices.Equal(paths, want) {
			t.Fatalf("walk %q: %q, %v; want %q", from, paths, err, want)
		}
	}
}
