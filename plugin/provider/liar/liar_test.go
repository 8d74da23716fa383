package liar

import (
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"strongroom.example/plugin/provider"
	"strongroom.example/plugin/provider/httpprov"
)

// told is what the engine is told of a call.
func told(err error) string {
	var e *provider.Error
	if errors.As(err, &e) {
		return e.Op + " " + e.Kind.String()
	}
	return fmt.Sprint(err)
}

// life is what the engine is told by a service at which three keys are made, listed,
// tested and ended.
func life(t *testing.T, p provider.Provider) (out []string) {
	t.Helper()
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	var current *provider.Key
	for n := range 3 {
		name := fmt.Sprintf("sr-00000000-aaaaaaaaaaaa-local-%d-bbbbbb", n+1)
		key, err := p.Create(t.Context(), provider.CreateRequest{Name: name, Current: current})
		say("create: %s, id %q, value %q, ends %t", told(err), key.ID, key.Values[provider.PrimaryValue], !key.Expires.IsZero())
		if err == nil {
			if p.Capabilities().Test {
				say("test: %s", told(p.Test(t.Context(), nil, key)))
			}
			current = &key
		}
		if p.Capabilities().List {
			keys, err := p.List(t.Context(), nil, "sr-00000000-")
			say("list: %s", told(err))
			slices.SortStableFunc(keys, func(a, b provider.RemoteKey) int { return strings.Compare(a.ID, b.ID) })
			keys = slices.CompactFunc(keys, func(a, b provider.RemoteKey) bool { return a.ID == b.ID }) // one id, one key
			for _, k := range keys {
				say("  %q %q %s", k.ID, k.Name, k.Created.UTC().Format(time.RFC3339))
			}
		}
	}
	if current != nil {
		say("revoke: %s", told(p.Revoke(t.Context(), nil, current.ID)))
		if p.Capabilities().Test {
			say("test: %s", told(p.Test(t.Context(), nil, *current)))
		}
	}
	return out
}

// Over HTTP, as the engine's own provider for it reads it, a service lies as it does
// to the engine's tests.
func TestLiesOverHTTP(t *testing.T) {
	now := func() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }
	for svc, caps := range Services() {
		for _, lie := range slices.Sorted(maps.Keys(Table())) {
			direct := New(caps, Table()[lie], now)
			remote := New(caps, Table()[lie], now)
			srv := httptest.NewUnstartedServer(remote.Handler())
			srv.Config.ErrorLog = log.New(io.Discard, "", 0)
			srv.Start()
			p, err := httpprov.New(provider.Config{Name: "liar", Settings: remote.Settings(srv.URL), Credential: map[string]string{"token": Credential}, Now: now})
			if err != nil {
				t.Fatalf("%s: %v", svc, err)
			}
			if got := p.Capabilities(); got != caps {
				t.Errorf("%s: the settings say %+v", svc, got)
			}
			want, got := life(t, direct), life(t, p)
			srv.Close()
			if caps.List && !caps.Named || !caps.Overlap {
				continue // all keys are listed, whoever is asked; over HTTP all keys before end without being named
			}
			for i := range want { // a 503 that says when to come again
				want[i] = strings.ReplaceAll(want[i], "create transient", "create rate_limited")
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s, %s: over HTTP the engine is told\n%s\nand else\n%s", svc, lie, strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			if a, b := len(direct.Keys()), len(remote.Keys()); a != b {
				t.Errorf("%s, %s: %d keys over HTTP, else %d", svc, lie, b, a)
			}
		}
	}
}

func TestMintsAnHour(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	s := New(Services()["test"], Lies{}, func() time.Time { return at })
	for i, minutes := range []int{0, 10, 10, 45} {
		at = at.Add(time.Duration(minutes) * time.Minute)
		name := fmt.Sprintf("sr-00000000-aaaaaaaaaaa%d-local-1-bbbbbb", i%2)
		if _, err := s.Create(t.Context(), provider.CreateRequest{Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	if all, one := s.MintsAnHour(); all != 3 || one != 2 {
		t.Errorf("%d in an hour, %d of one key, want 3 and 2", all, one)
	}
}

// Both lies at once, and sooner.
func TestLiesTogether(t *testing.T) {
	got := Table()["a new key is listed after ten minutes"].And(Lies{NoAnswer: true, ClockOff: time.Hour}).Faster(60)
	if want := (Lies{ListLag: 10 * time.Second, NoAnswer: true, ClockOff: time.Hour}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// A value that is refused for another reason than the revocation before, which had no
// effect, cannot be told from that of a service that lists what it has revoked.
func TestTellableOfRevocationsWithoutEffect(t *testing.T) {
	for svc, caps := range Services() {
		named := caps.List && caps.Named
		for l, want := range map[Lies]bool{
			{InPlace: true}: named, {NoEffect: true}: named, {InPlace: true, NoRevoke: true}: named, {InPlace: true, Late: time.Hour}: named,
			{Spread: time.Minute}: named, {InPlace: true, Spread: time.Minute}: named, {Spread: time.Minute, Late: time.Hour}: named,
			{InPlace: true, NoEffect: true}: named && !caps.Test, {Spread: time.Minute, NoEffect: true}: named && !caps.Test,
		} {
			if got := Tellable(caps, l); got != want {
				t.Errorf("%s, %+v: %v", svc, l, got)
			}
		}
	}
}
