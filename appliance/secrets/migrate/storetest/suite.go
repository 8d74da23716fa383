package storetest

import (
	"errors"
	"testing"

	"strongroom.example/appliance/secrets/migrate"
)

// Suite is what every Store must do beside what kvtest asks of its KV. s has the
// API key apikeys/defined without a version, and no database role.
func Suite(t *testing.T, s migrate.Store) {
	ctx := t.Context()
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
