package conformance

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"strongroom.example/plugin/provider"
)

// call prepares one operation that would succeed, and gives what performs it.
func (f *fixture) call(t *testing.T, op string) func(ctx context.Context) error {
	t.Helper()
	if op == "create" {
		req := f.request(fmt.Sprintf("sr-call-%d", f.Faults().Total()))
		return func(ctx context.Context) error { _, err := f.Create(ctx, req); return err }
	}
	key := f.standing(t)
	switch op {
	case "list":
		return func(ctx context.Context) error { _, err := f.List(ctx, f.params, ""); return err }
	case "test":
		return func(ctx context.Context) error { return f.Test(ctx, f.params, key) }
	case "revoke":
		return func(ctx context.Context) error { return f.Revoke(ctx, f.params, key.ID) }
	case "last_used":
		return func(ctx context.Context) error { _, err := f.LastUsed(ctx, f.params, key.ID); return err }
	}
	t.Fatalf("no operation %q", op)
	return nil
}

// standing is a key that is alive now: a new one, or one that is there where
// the service has few.
func (f *fixture) standing(t *testing.T) provider.Key {
	t.Helper()
	if f.caps.MaxKeys > 0 && len(f.Alive()) >= f.caps.MaxKeys-1 && f.caps.Revoke {
		for _, k := range f.Alive() {
			if err := f.Revoke(t.Context(), f.params, k.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	return f.Seed(fmt.Sprintf("standing-%d", f.Faults().Total()))
}

type otherOp struct {
	name string
	has  func(c provider.Capabilities) bool
}

var otherOps = []otherOp{
	{"list", func(c provider.Capabilities) bool { return c.List }},
	{"test", func(c provider.Capabilities) bool { return c.Test }},
	{"revoke", func(c provider.Capabilities) bool { return c.Revoke }},
	{"last_used", func(c provider.Capabilities) bool { return c.LastUsed }},
}

// wireOp is the operation that the service sees: the last use may be read out
// of the list.
func (f *fixture) wireOp(t *testing.T, op string) string {
	t.Helper()
	before := f.Faults().Count("last_used")
	if op != "last_used" {
		return op
	}
	if err := f.call(t, op)(t.Context()); err != nil {
		t.Fatal(err)
	}
	if f.Faults().Count("last_used") > before {
		return op
	}
	return "list"
}

func otherFaultCases() []testCase {
	var out []testCase
	for _, op := range otherOps {
		needs := func(c provider.Capabilities) bool { return op.has(c) && !c.Local }
		add := func(name string, run func(t *testing.T, f *fixture)) {
			out = append(out, testCase{op.name + ": " + name, needs, run})
		}
		for _, of := range []struct {
			name   string
			fault  Fault
			stalls bool
			// reads tells that it shows only to who reads the body.
			reads bool
		}{
			{"timeout", Hang(true), true, false},
			{"connection lost", Drop(true), false, false},
			{"500", Status(500, "oops"), false, false},
			{"502", Status(502, "oops"), false, false},
			{"body stops half-way", SlowBody(), true, op.name == "revoke"}, // 204 has none
			{"body is cut off", CutBody(), false, op.name == "revoke"},
			{"body never ends", Huge(), false, op.name == "revoke"},
			{"body is shortened", Truncate(), false, true},
			{"body is of another shape", Replace(`{"nothing":["of","this"]}`), false, true},
			{"body is no document", Replace("<html>\x00"), false, true},
		} {
			add(of.name, func(t *testing.T, f *fixture) {
				wire := f.wireOp(t, op.name)
				call := f.call(t, op.name)
				before := f.Faults().Count(wire)
				f.Faults().Next(wire, of.fault)
				ctx := newExpiring(t.Context())
				if of.stalls {
					reached := f.Faults().Reached(wire)
					go func() { <-reached; close(ctx.done) }()
				}
				err := call(ctx)
				if !(err == nil && of.reads && mayIgnoreBody(op.name)) {
					wantKind(t, op.name, err, provider.KindTransient)
				}
				if n := f.Faults().Count(wire) - before; n != 1 {
					t.Fatalf("%d requests were sent, want 1", n)
				}
			})
		}
		add("429 with seconds", func(t *testing.T, f *fixture) {
			if f.wireOp(t, op.name) != op.name {
				t.Skip("it is read out of the list")
			}
			rateLimit(op.name, func(time.Time) string { return "11" }, 11*time.Second, 11*time.Second)(t, f)
		})
		add("cancelled beforehand", func(t *testing.T, f *fixture) {
			call := f.call(t, op.name)
			before := f.Faults().Total()
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			wantKind(t, op.name, call(ctx), provider.KindTransient)
			if f.Faults().Total() != before {
				t.Fatal("a request was sent")
			}
		})
		add("the answer echoes the secrets", func(t *testing.T, f *fixture) {
			if f.wireOp(t, op.name) != op.name {
				t.Skip("it is read out of the list")
			}
			echoes(op.name)(t, f)
		})
		if op.name != "test" { // a test shows the key, not the credential
			add("the credential is refused", func(t *testing.T, f *fixture) {
				call := f.call(t, op.name)
				f.Deny()
				wantKind(t, op.name, call(t.Context()), denied...)
			})
		}
	}
	return append(out,
		testCase{"revoke: lost answer, then again", func(c provider.Capabilities) bool { return c.Revoke && !c.Local }, revokeAgain},
		testCase{"test: a failure is no refusal", func(c provider.Capabilities) bool { return c.Test && !c.Local }, testFailure},
	)
}

// mayIgnoreBody: revoking and most tests need nothing of a success's body,
// except that it must end.
func mayIgnoreBody(op string) bool { return op == "revoke" || op == "test" }

func revokeAgain(t *testing.T, f *fixture) {
	key := f.standing(t)
	f.Faults().Next("revoke", Drop(true))
	wantKind(t, "revoke", f.Revoke(t.Context(), f.params, key.ID), provider.KindTransient)
	if f.alive(key.ID) {
		t.Fatal("the service did not act")
	}
	if err := f.Revoke(t.Context(), f.params, key.ID); err != nil {
		t.Fatalf("revoking again: %v", err)
	}
}

func testFailure(t *testing.T, f *fixture) {
	for _, code := range []int{http.StatusInternalServerError, http.StatusBadGateway, http.StatusTooManyRequests, http.StatusTeapot} {
		key := f.standing(t)
		f.Faults().Next("test", Status(code, f.ErrorBody("later")))
		err := f.Test(t.Context(), f.params, key)
		if err == nil || provider.KindOf(err) == provider.KindUnauthorized {
			t.Fatalf("%d: %v; want an error that says nothing about the key", code, err)
		}
	}
}
