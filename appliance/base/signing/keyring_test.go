package signing

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
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

// When a key was in use is held against when something says that it was made.
func TestInUse(t *testing.T) {
	ring, key, next := &Keyring{}, testKey(1), testKey(2)
	ring.Use("taker", "box", public(key), day(3))
	ring.Use("taker", "box", public(next), day(5))
	ring.Use("taker", "box", public(key), day(8)) // the old one again
	for name, c := range map[string]struct {
		seed byte
		made int
		want string
	}{
		"the day it came":     {1, 3, ""},
		"while it was in use": {1, 4, ""},
		"the day it went":     {1, 5, ""},
		"before it was there": {1, 2, "made at 2026-11-02T00:00:00Z, and the key is in use from 2026-11-08"},
		"while it was not":    {1, 6, "not in use then"},
		"when it was again":   {1, 9, ""},
		"the other's":         {2, 6, ""},
		"after it was retired": {2, 9,
			"made at 2026-11-09T00:00:00Z, and the key was retired at 2026-11-08T00:00:00Z"},
	} {
		k, err := ring.Verify(parse(t, note, encode(t, note, "x", testKey(c.seed))), "taker")
		if err != nil {
			t.Fatal(err)
		}
		err = ring.InUse(k, day(c.made))
		if c.want == "" && err != nil || c.want != "" && (!errors.Is(err, ErrNotInUse) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := ring.Verify(parse(t, note, encode(t, note, "x", key)), "drill"); !errors.Is(err, ErrSignature) || errors.Is(err, ErrNoKey) || !strings.Contains(err.Error(), "is of the role taker, and it is drill that signs this") {
		t.Errorf("another job's: %v", err)
	}
}

// Nodes that share a keyring come to the same one, whoever merges first and how often.
func TestMerge(t *testing.T) {
	of := func(uses ...func(*Keyring)) *Keyring {
		r := &Keyring{}
		for _, u := range uses {
			u(r)
		}
		return r
	}
	use := func(node string, seed byte, d int) func(*Keyring) {
		return func(r *Keyring) { r.Use("taker", node, public(testKey(seed)), day(d)) }
	}
	text := func(r *Keyring) string {
		b, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	own := map[string]*Keyring{
		"one": of(use("one", 1, 1), use("one", 2, 3)),
		"two": of(use("two", 3, 2)),
	}
	shared := &Keyring{}
	merge := func(node string) {
		own[node].Merge(shared, node, day(9))
		r, err := ParseKeyring([]byte(text(own[node])))
		if err != nil {
			t.Fatal(err)
		}
		shared = r
	}
	for _, node := range []string{"two", "one", "two", "one"} {
		merge(node)
	}
	settled := text(shared)
	if text(own["one"]) != settled || text(own["two"]) != settled || len(shared.Keys) != 3 {
		t.Errorf("they differ:\n%s\n%s\n%s", text(own["one"]), text(own["two"]), settled)
	}
	for seed, signs := range map[byte]bool{1: false, 2: true, 3: true} {
		if err := shared.Signs("taker", public(testKey(seed))); (err == nil) != signs {
			t.Errorf("key %d: %v", seed, err)
		}
	}
	use("one", 4, 5)(own["one"])
	merge("one")
	merge("two")
	if own["two"].Signs("taker", public(testKey(2))) == nil || own["two"].Signs("taker", public(testKey(4))) != nil {
		t.Errorf("the other's new key is not known:\n%s", text(own["two"]))
	}
	// A machine that was rebuilt knows its own new key, and of the lost one by the others.
	rebuilt := of(use("one", 7, 6))
	rebuilt.Merge(shared, "one", day(9))
	if rebuilt.Signs("taker", public(testKey(7))) != nil || rebuilt.Signs("taker", public(testKey(4))) == nil || rebuilt.Signs("taker", public(testKey(3))) != nil {
		t.Errorf("rebuilt:\n%s", text(rebuilt))
	}
	if again := text(rebuilt); func() bool { rebuilt.Merge(shared, "one", day(12)); return text(rebuilt) != again }() {
		t.Errorf("merged twice it is another one:\n%s", text(rebuilt))
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
