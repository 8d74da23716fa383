package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"strongroom.example/plugin/provider"
)

func lifeCases() []testCase {
	return []testCase{
		{"capabilities are consistent", nil, capabilities},
		{"good parameters are accepted", nil, func(t *testing.T, f *fixture) {
			if err := f.ValidateParameters(f.params); err != nil {
				t.Fatal(err)
			}
		}},
		{"unknown parameters are refused", nil, func(t *testing.T, f *fixture) {
			err := f.ValidateParameters(map[string]any{"surely_unknown_7": "x"})
			if err == nil || !strings.Contains(err.Error(), "surely_unknown_7") {
				t.Fatalf("%v, want the name in it", err)
			}
		}},
		{"what is not supported says so", nil, unsupported},
		{"a key lives and dies", mints, lifeAndDeath},
		{"a key made by hand", func(c provider.Capabilities) bool { return !c.Local }, handMade},
		{"keys overlap as promised", func(c provider.Capabilities) bool { return c.Mint && !c.Local }, overlap},
		{"bad names never leave", mints, badNames},
		{"list goes by prefix", func(c provider.Capabilities) bool { return c.Named }, prefixes},
		{"the first key needs a current one", func(c provider.Capabilities) bool { return c.FromCurrent }, func(t *testing.T, f *fixture) {
			if f.caps.For(false).Mint || !f.caps.For(true).Mint {
				t.Error("what it can do for a key without, and with, a current version")
			}
			_, err := f.Create(t.Context(), provider.CreateRequest{Name: "sr-first-1", Parameters: f.params})
			wantKind(t, "create without a current key", err, provider.KindRejected)
			if f.Faults().Total() != 0 {
				t.Error("a request was sent")
			}
		}},
		{"revoking what never was", func(c provider.Capabilities) bool { return c.Revoke }, func(t *testing.T, f *fixture) {
			key := f.anyKey(t, "sr-other-1")
			if err := f.Revoke(t.Context(), f.params, unknownID(key.ID)); err != nil {
				t.Fatalf("%v, want none: the goal is reached", err)
			}
			if !f.caps.Local && !f.alive(key.ID) {
				t.Fatal("another key died")
			}
		}},
		{"last use", func(c provider.Capabilities) bool { return c.LastUsed }, lastUsed},
		{"the limit of keys", func(c provider.Capabilities) bool { return c.MaxKeys > 0 && c.Mint && !c.Local }, limit},
		{"many at once", mints, concurrency},
	}
}

func capabilities(t *testing.T, f *fixture) {
	c := f.caps
	if c != f.Capabilities() {
		t.Error("they change between two calls")
	}
	if c.Named && !c.List {
		t.Error("names are of no use without a list")
	}
	if c.Local && (c.List || c.LastUsed) {
		t.Error("a local provider has no remote state to list")
	}
	if c.FromCurrent && (!c.Mint || c.Local) {
		t.Error("what is made out of the current key is made by a service")
	}
	if c.MaxKeys == 1 && c.Overlap {
		t.Error("one key cannot overlap")
	}
}

func unsupported(t *testing.T, f *fixture) {
	before := 0
	if f.Faults() != nil {
		before = f.Faults().Total()
	}
	check := func(op string, capable bool, err error) {
		if !capable {
			wantKind(t, op, err, provider.KindUnsupported)
		}
	}
	if !f.caps.Mint {
		_, err := f.Create(t.Context(), provider.CreateRequest{Name: "sr-x-1", Parameters: f.params})
		check("create", false, err)
	}
	if !f.caps.List {
		_, err := f.List(t.Context(), f.params, "")
		check("list", false, err)
	}
	if !f.caps.Test {
		check("test", false, f.Test(t.Context(), f.params, provider.Key{ID: "x"}))
	}
	if !f.caps.Revoke {
		check("revoke", false, f.Revoke(t.Context(), f.params, "x"))
	}
	if !f.caps.LastUsed {
		_, err := f.LastUsed(t.Context(), f.params, "x")
		check("last_used", false, err)
	}
	if f.Faults() != nil && f.Faults().Total() != before {
		t.Error("requests were sent for what is not supported")
	}
}

func lifeAndDeath(t *testing.T, f *fixture) {
	ctx := t.Context()
	key := f.create(t, "sr-app_prod-1")
	if key.ID == "" || key.Name != "sr-app_prod-1" || key.Values[provider.PrimaryValue] == "" {
		t.Fatalf("incomplete: id %q, name %q, %d values", key.ID, key.Name, len(key.Values))
	}
	if !f.caps.Local && (!f.alive(key.ID) || !f.Works(key)) {
		t.Fatal("the service does not know the key")
	}
	f.checkListed(t, key, true)
	if f.caps.Test {
		if err := f.Test(ctx, f.params, key); err != nil {
			t.Fatalf("test of a good key: %v", err)
		}
		bad := provider.Key{ID: unknownID(key.ID), Name: key.Name, Values: map[string]string{}}
		for name, v := range key.Values {
			bad.Values[name] = unknownID(v)
		}
		wantKind(t, "test of a wrong key", f.Test(ctx, f.params, bad), provider.KindUnauthorized)
	}
	if !f.caps.Revoke {
		return
	}
	for i := range 2 {
		if err := f.Revoke(ctx, f.params, key.ID); err != nil {
			t.Fatalf("revoke, time %d: %v", i+1, err)
		}
	}
	if !f.caps.Local && f.Works(key) {
		t.Fatal("the key still works")
	}
	if f.caps.Test {
		wantKind(t, "test of a revoked key", f.Test(ctx, f.params, key), provider.KindUnauthorized)
	}
	f.checkListed(t, key, false)
}

func (f *fixture) checkListed(t *testing.T, key provider.Key, want bool) {
	t.Helper()
	if !f.caps.List {
		return
	}
	keys, err := f.List(t.Context(), f.params, "")
	if err != nil {
		t.Fatalf("list: %v", err)
	}
	i := slices.IndexFunc(keys, func(k provider.RemoteKey) bool { return k.ID == key.ID })
	if (i >= 0) != want {
		t.Fatalf("listed: %v, want %v", i >= 0, want)
	}
	if want && f.caps.Named && keys[i].Name != key.Name {
		t.Fatalf("listed as %q, want %q", keys[i].Name, key.Name)
	}
}

func handMade(t *testing.T, f *fixture) {
	key := f.Seed("made-by-hand")
	if f.caps.Test {
		if err := f.Test(t.Context(), f.params, key); err != nil {
			t.Fatalf("test: %v", err)
		}
	}
	f.checkListed(t, provider.Key{ID: key.ID, Name: "made-by-hand"}, true)
}

func overlap(t *testing.T, f *fixture) {
	first := f.anyKey(t, "sr-first-1")
	req := provider.CreateRequest{Name: "sr-second-1", Parameters: f.params, Current: &first}
	second, err := f.Create(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if second.Values[provider.PrimaryValue] == first.Values[provider.PrimaryValue] {
		t.Fatal("the same value twice")
	}
	if !f.Works(second) {
		t.Fatal("the new key does not work")
	}
	if f.Works(first) != f.caps.Overlap {
		t.Fatalf("the old key works: %v, promised is %v", f.Works(first), f.caps.Overlap)
	}
}

func badNames(t *testing.T, f *fixture) {
	req := f.request("sr-good-1")
	before := 0
	if f.Faults() != nil {
		before = f.Faults().Total()
	}
	for _, name := range []string{"", "a/b", "a b", "a\nb", `a"b`, "../x", "{{name}}", strings.Repeat("a", provider.MaxNameBytes+1)} {
		req.Name = name
		_, err := f.Create(t.Context(), req)
		wantKind(t, fmt.Sprintf("name %q", name), err, provider.KindRejected)
	}
	if f.Faults() != nil && f.Faults().Total() != before {
		t.Fatal("a bad name was sent")
	}
}

func prefixes(t *testing.T, f *fixture) {
	want := map[string]bool{}
	for _, name := range []string{"sr-a-1", "sr-a-2", "sr-b-1", "other-sr-a-3"} {
		key := f.create(t, name)
		if strings.HasPrefix(name, "sr-a-") {
			want[key.ID] = true
		}
	}
	f.Seed("console key")
	keys, err := f.List(t.Context(), f.params, "sr-a-")
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		if !want[k.ID] {
			t.Errorf("%q does not belong there", k.Name)
		}
		delete(want, k.ID)
	}
	if len(want) > 0 {
		t.Errorf("%d keys are missing", len(want))
	}
	if keys, err = f.List(t.Context(), f.params, "nothing-begins-so"); err != nil || len(keys) != 0 {
		t.Errorf("%d keys, %v; want none", len(keys), err)
	}
}

func lastUsed(t *testing.T, f *fixture) {
	key := f.anyKey(t, "sr-used-1")
	at, err := f.LastUsed(t.Context(), f.params, key.ID)
	if err != nil || !at.IsZero() {
		t.Fatalf("a fresh key: %v, %v; want never", at, err)
	}
	if !f.Works(key) { // uses it
		t.Fatal("the key does not work")
	}
	if at, err = f.LastUsed(t.Context(), f.params, key.ID); err != nil || at.IsZero() {
		t.Fatalf("a used key: %v, %v", at, err)
	}
	_, err = f.LastUsed(t.Context(), f.params, unknownID(key.ID))
	wantKind(t, "last use of an unknown key", err, provider.KindNotFound)
}

func limit(t *testing.T, f *fixture) {
	for i := len(f.Alive()); i < f.caps.MaxKeys; i++ {
		f.Seed(fmt.Sprintf("filler-%d", i))
	}
	_, err := f.Create(t.Context(), provider.CreateRequest{Name: "sr-over-1", Parameters: f.params})
	wantKind(t, "one key too many", err, provider.KindLimit, provider.KindRejected)
	if n := len(f.Alive()); n != f.caps.MaxKeys {
		t.Fatalf("%d keys are alive, want %d", n, f.caps.MaxKeys)
	}
	if f.caps.List {
		keys, err := f.List(t.Context(), f.params, "")
		if err != nil || len(keys) != f.caps.MaxKeys {
			t.Fatalf("%d keys listed, %v; want all %d", len(keys), err, f.caps.MaxKeys)
		}
	}
}

func concurrency(t *testing.T, f *fixture) {
	n := 16
	if f.caps.MaxKeys > 0 {
		n = min(n, f.caps.MaxKeys)
	}
	requests := make([]provider.CreateRequest, n)
	for i := range requests {
		requests[i] = f.request(fmt.Sprintf("sr-many-%d", i))
	}
	keys := make([]provider.Key, n)
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			var err error
			if keys[i], err = f.Create(t.Context(), requests[i]); err != nil {
				errs[i] = err
				return
			}
			if f.caps.Revoke && i%2 == 0 {
				errs[i] = f.Revoke(context.WithoutCancel(t.Context()), f.params, keys[i].ID)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	ids, values := map[string]bool{}, map[string]bool{}
	for i, k := range keys {
		ids[k.ID], values[k.Values[provider.PrimaryValue]] = true, true
		if f.caps.Local {
			continue
		}
		if want := !f.caps.Revoke || i%2 != 0; f.alive(k.ID) != want {
			t.Errorf("key %d alive: %v, want %v", i, !want, want)
		}
	}
	if len(ids) != n || len(values) != n {
		t.Fatalf("%d ids and %d values for %d keys", len(ids), len(values), n)
	}
}

// unknownID changes the last letter or digit, so that the shape stays.
func unknownID(id string) string {
	b := []byte(id)
	for i := len(b) - 1; i >= 0; i-- {
		switch {
		case '0' <= b[i] && b[i] <= '9':
			b[i] = '0' + (b[i]-'0'+5)%10
			return string(b)
		case 'a' <= b[i] && b[i] <= 'z', 'A' <= b[i] && b[i] <= 'Z':
			b[i] ^= 0x20
			return string(b)
		}
	}
	return id + "0"
}
