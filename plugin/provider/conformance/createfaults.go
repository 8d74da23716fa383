package conformance

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"strongroom.example/plugin/provider"
)

// expiring is a context whose deadline passes when the test says so.
type expiring struct {
	context.Context
	done chan struct{}
}

func newExpiring(parent context.Context) *expiring {
	return &expiring{Context: parent, done: make(chan struct{})}
}

func (e *expiring) Done() <-chan struct{} { return e.done }

func (e *expiring) Err() error {
	select {
	case <-e.done:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

// A createFault is a failure of create, what it must be taken for, and whether
// a key is alive afterwards that nobody has seen the value of.
type createFault struct {
	name  string
	fault func(f *fixture) Fault
	kinds []provider.Kind
	// stalls tells that the answer never comes: the call's deadline passes
	// once the service has acted.
	stalls bool
	made   bool
}

func createFaultCases() []testCase {
	var out []testCase
	for _, cf := range []createFault{
		{name: "timeout after the key was made", fault: fixed(Hang(true)), kinds: unsure, stalls: true, made: true},
		{name: "timeout before the key was made", fault: fixed(Hang(false)), kinds: unsure, stalls: true},
		{name: "connection lost after the key was made", fault: fixed(Drop(true)), kinds: unsure, made: true},
		{name: "connection lost before", fault: fixed(Drop(false)), kinds: unsure},
		{name: "body stops half-way", fault: fixed(SlowBody()), kinds: unsure, stalls: true, made: true},
		{name: "body is cut off", fault: fixed(CutBody()), kinds: unsure, made: true},
		{name: "body is shortened", fault: fixed(Truncate()), kinds: unsure, made: true},
		{name: "body is empty", fault: fixed(Replace("")), kinds: unsure, made: true},
		{name: "body is of another shape", fault: fixed(Replace(`{"nothing":["of","this"]}`)), kinds: unsure, made: true},
		{name: "body is no document", fault: fixed(Replace("<html>down for \x00 maintenance")), kinds: unsure, made: true},
		{name: "body never ends", fault: fixed(Huge()), kinds: unsure, made: true},
		{name: "500 after the key was made", fault: fixed(StatusAfter(500, "oops")), kinds: unsure, made: true},
		{name: "502 after the key was made", fault: fixed(StatusAfter(502, "oops")), kinds: unsure, made: true},
		{name: "504 after the key was made", fault: fixed(StatusAfter(504, "oops")), kinds: unsure, made: true},
		{name: "500 before", fault: fixed(Status(500, "oops")), kinds: unsure},
		{name: "303 after the key was made", fault: fixed(StatusAfter(303, "", "Location", "https://127.0.0.1/")), kinds: unsure, made: true},
		{name: "400", fault: own(400), kinds: []provider.Kind{provider.KindRejected}},
		{name: "409", fault: own(409), kinds: []provider.Kind{provider.KindRejected}},
		{name: "a redirect to elsewhere", fault: fixed(Status(307, "", "Location", "https://169.254.169.254/")), kinds: unsure},
		{name: "307 after the key was made", fault: fixed(StatusAfter(307, "", "Location", "https://127.0.0.1/")), kinds: unsure, made: true},
	} {
		out = append(out, testCase{"create: " + cf.name, remoteMint, cf.run})
	}
	return append(out,
		testCase{"create: 429 with seconds", remoteMint, rateLimit("create", func(time.Time) string { return "37" }, 37*time.Second, 37*time.Second)},
		testCase{"create: 429 with a date", remoteMint, rateLimit("create", func(now time.Time) string {
			return now.Add(2 * time.Minute).UTC().Format(http.TimeFormat)
		}, 60*time.Second, 121*time.Second)},
		testCase{"create: 429 with nonsense", remoteMint, rateLimit("create", func(time.Time) string { return "soon, -5" }, 0, 0)},
		testCase{"create: cancelled beforehand", mints, cancelledBefore},
		testCase{"create: cancelled after the key was made", remoteMint, cancelledAfter},
		testCase{"create: the answer echoes the secrets", remoteMint, echoes("create")},
		testCase{"create: the credential is refused", remoteMint, func(t *testing.T, f *fixture) {
			req := f.request("sr-denied-1")
			f.Deny()
			_, err := f.Create(t.Context(), req)
			wantKind(t, "create", err, denied...)
			if f.named(t, "sr-denied-1") > 0 {
				t.Fatal("a key was made")
			}
		}},
	)
}

// denied is what a refused credential may be taken for: services do not always
// say whether they know it.
var denied = []provider.Kind{provider.KindUnauthorized, provider.KindForbidden}

var unsure = []provider.Kind{provider.KindUncertain}

func fixed(fault Fault) func(*fixture) Fault { return func(*fixture) Fault { return fault } }

// own is a refusal in the service's own shape.
func own(code int) func(*fixture) Fault {
	return func(f *fixture) Fault { return Status(code, f.ErrorBody("the request was not to our liking")) }
}

func (cf createFault) run(t *testing.T, f *fixture) {
	req := f.request("sr-lost-1")
	before := len(f.Alive())
	ctx := newExpiring(t.Context())
	f.Faults().Next("create", cf.fault(f))
	if cf.stalls {
		reached := f.Faults().Reached("create")
		go func() { <-reached; close(ctx.done) }()
	}
	key, err := f.Create(ctx, req)
	wantKind(t, "create", err, cf.kinds...)
	if key.ID != "" || len(key.Values) > 0 {
		t.Fatalf("a key comes with the error: %v", key)
	}
	if n := f.Faults().Count("create"); n != 1 {
		t.Fatalf("%d requests were sent, want 1: a lost create is never repeated", n)
	}
	want := before
	if cf.made && f.caps.Overlap {
		want++
	}
	if n := len(f.Alive()); n != want {
		t.Fatalf("%d keys are alive, want %d", n, want)
	}
	if cf.made {
		f.reap(t, "sr-lost-1")
	}
}

// reap is what the engine does after an uncertain create, where names allow.
func (f *fixture) reap(t *testing.T, name string) {
	t.Helper()
	if !f.caps.Named || !f.caps.Revoke {
		return
	}
	keys, err := f.List(t.Context(), f.params, name)
	if err != nil || len(keys) != 1 {
		t.Fatalf("the lost key is not found by its name: %d keys, %v", len(keys), err)
	}
	if err := f.Revoke(t.Context(), f.params, keys[0].ID); err != nil {
		t.Fatal(err)
	}
	if f.named(t, name) > 0 {
		t.Fatal("the lost key is still alive")
	}
}

// named counts the keys alive whose name the service shows as this.
func (f *fixture) named(t *testing.T, name string) int {
	t.Helper()
	n := 0
	for _, k := range f.Alive() {
		if k.Name == name {
			n++
		}
	}
	return n
}

func cancelledBefore(t *testing.T, f *fixture) {
	req := f.request("sr-early-1")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := f.Create(ctx, req)
	wantKind(t, "create", err, provider.KindTransient)
	if f.named(t, "sr-early-1") > 0 {
		t.Fatal("a key was made")
	}
}

func cancelledAfter(t *testing.T, f *fixture) {
	req := f.request("sr-late-1")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	f.Faults().Next("create", Hang(true))
	reached := f.Faults().Reached("create")
	go func() { <-reached; cancel() }()
	_, err := f.Create(ctx, req)
	wantKind(t, "create", err, provider.KindUncertain)
	f.reap(t, "sr-late-1")
}

func rateLimit(op string, header func(now time.Time) string, least, most time.Duration) func(t *testing.T, f *fixture) {
	return func(t *testing.T, f *fixture) {
		call := f.call(t, op)
		f.Faults().Next(op, Status(429, f.ErrorBody("rate limit exceeded"), "Retry-After", header(time.Now())))
		err := call(t.Context())
		wantKind(t, op, err, provider.KindRateLimited)
		if got := err.(*provider.Error).RetryAfter; got < least || got > most {
			t.Fatalf("try again after %v, want %v to %v", got, least, most)
		}
		if err := f.call(t, op)(t.Context()); err != nil {
			t.Fatalf("the next time: %v", err)
		}
	}
}

// echoes: services quote requests in their refusals, and proxies do in theirs.
func echoes(op string) func(t *testing.T, f *fixture) {
	return func(t *testing.T, f *fixture) {
		for _, code := range []int{400, 401, 403, 404, 409, 422, 429, 500, 503} {
			call := f.call(t, op)
			before := f.Faults().Count(op)
			f.Faults().Next(op, Echo(code, func(s string) string { return f.ErrorBody(s) }))
			if err := call(t.Context()); err == nil && op != "revoke" && op != "test" && f.Faults().Count(op) == before+1 {
				t.Errorf("%d is taken for success", code)
			}
			call = f.call(t, op)
			f.Faults().Next(op, Echo(code, strings.ToUpper))
			call(t.Context()) // the watched provider fails the test on a leak
		}
	}
}
