package storetest

import (
	"errors"
	"testing"

	"strongroom.example/appliance/secrets/migrate"
)

// Suite is what every Store must do. s has an empty KV version 2 engine at
// secret/, the API key apikeys/defined without a version, and no database role.
func Suite(t *testing.T, s migrate.Store) {
	ctx := t.Context()
	read := func(path string) migrate.Stored {
		t.Helper()
		got, err := s.Read(ctx, "secret", path)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := read("a/b"); got.Version != 0 || got.Data != nil {
		t.Fatalf("never written: %+v", got)
	}
	if err := s.Annotate(ctx, "secret", "a/b", map[string]string{"k": "v"}); err != nil {
		t.Fatal(err)
	}
	if got := read("a/b"); got.Version != 0 {
		t.Fatalf("annotated only: %+v", got)
	}
	n, err := s.Write(ctx, "secret", "a/b", map[string]any{"x": "1"}, 0)
	if err != nil || n != 1 {
		t.Fatalf("first write: %d, %v", n, err)
	}
	if _, err := s.Write(ctx, "secret", "a/b", map[string]any{"x": "2"}, 0); !errors.Is(err, migrate.ErrChanged) {
		t.Fatalf("a write that must not be the first: %v", err)
	}
	if n, err = s.Write(ctx, "secret", "a/b", map[string]any{"x": "2"}, 1); err != nil || n != 2 {
		t.Fatalf("second write: %d, %v", n, err)
	}
	if err := s.Annotate(ctx, "secret", "a/b", map[string]string{"l": "w"}); err != nil {
		t.Fatal(err)
	}
	if got := read("a/b"); got.Version != 2 || got.Data["x"] != "2" {
		t.Fatalf("after two writes: version %d", got.Version)
	}
	old, err := s.ReadVersion(ctx, "secret", "a/b", 1)
	if err != nil || old.Data["x"] != "1" || old.Version != 1 {
		t.Fatalf("version 1: %d, %v", old.Version, err)
	}
	if err := s.DeleteVersion(ctx, "secret", "a/b", 2); err != nil {
		t.Fatal(err)
	}
	if got := read("a/b"); got.Version != 2 || got.Data != nil {
		t.Fatalf("deleted: version %d, data there: %t", got.Version, got.Data != nil)
	}
	if n, err = s.Write(ctx, "secret", "a/b", map[string]any{"x": "3"}, 2); err != nil || n != 3 {
		t.Fatalf("write after a deletion: %d, %v", n, err)
	}

	if _, _, err := s.APIKey(ctx, "apikeys", "nowhere"); !errors.Is(err, migrate.ErrNoDefinition) {
		t.Fatalf("a key that nobody defined: %v", err)
	}
	if _, ok, err := s.APIKey(ctx, "apikeys", "defined"); ok || err != nil {
		t.Fatalf("a key without a version: %t, %v", ok, err)
	}
	if err := s.ImportAPIKey(ctx, "apikeys", "defined", "key-one-4711"); err != nil {
		t.Fatal(err)
	}
	if key, ok, err := s.APIKey(ctx, "apikeys", "defined"); key != "key-one-4711" || !ok || err != nil {
		t.Fatalf("imported key: %t, %v", ok, err)
	}
	if ok, err := s.DatabaseRole(ctx, "database", "nowhere"); ok || err != nil {
		t.Fatalf("a role that nobody defined: %t, %v", ok, err)
	}
}
