package signing

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func day(n int) time.Time { return time.Date(2026, 11, n, 0, 0, 0, 0, time.UTC) }

func TestKeyring(t *testing.T) {
	ring := &Keyring{}
	old, next := testKey(1), testKey(2)
	if !ring.Use("taker", "box", public(old), day(1)) || ring.Use("taker", "box", public(old), day(2)) {
		t.Error("a key is added once")
	}
	ring.Use("drill", "box", public(testKey(3)), day(1))
	ring.Use("taker", "other", public(testKey(4)), day(1))
	ring.Use("taker", "box", public(next), day(3))

	file := filepath.Join(t.TempDir(), "keyring.json")
	text, err := ring.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if ring, err = LoadKeyring(file); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		seed     byte
		verifies error
		signs    bool
	}{
		"the one in use": {2, nil, true}, "another node's": {4, nil, true},
		"a retired one": {1, nil, false}, "another job's": {3, ErrSignature, false}, "nobody's": {9, ErrSignature, false},
	} {
		key := testKey(c.seed)
		if _, err := ring.Verify(parse(t, note, encode(t, note, "x", key)), "taker"); !errors.Is(err, c.verifies) {
			t.Errorf("%s: verify: %v", what, err)
		}
		if err := ring.Signs("taker", public(key)); (err == nil) != c.signs {
			t.Errorf("%s: sign: %v", what, err)
		}
	}
	if ring.Use("taker", "box", public(old), day(4)); ring.Signs("taker", public(old)) != nil || ring.Signs("taker", public(next)) == nil {
		t.Error("of one job and node one key signs")
	}
	ring.Use("taker", "box", public(next), day(5))

	mine := &Keyring{}
	mine.Use("taker", "new", public(testKey(8)), day(5))
	if !mine.Add(ring, day(5)) || mine.Add(ring, day(6)) {
		t.Error("another keyring is taken over once")
	}
	if err := mine.Signs("taker", public(next)); err == nil {
		t.Error("another machine's key signs here")
	}
	if _, err := mine.Verify(parse(t, note, encode(t, note, "x", next)), "taker"); err != nil {
		t.Errorf("another machine's key: %v", err)
	}
}

func TestBadKeyring(t *testing.T) {
	if r, err := LoadKeyring(filepath.Join(t.TempDir(), "none")); r != nil || err != nil {
		t.Errorf("none: %v, %v", r, err)
	}
	for _, bad := range []string{"", "[]", "{}", `{"format": 2}`, `{"format": 1, "keys": [{"role": "taker", "key": "x"}]}`, `{"format": 1, "keys": [{"key": "ed25519 ` + testPublic + `"}]}`} {
		if r, err := ParseKeyring([]byte(bad)); err == nil {
			t.Errorf("%q is taken: %+v", bad, r)
		}
	}
}

const testPublic = "iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w="
