package front

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mholt/acmez/v3/acme"
)

type budgetTest struct {
	*budget
	t    *testing.T
	time time.Time
}

func newBudgetTest(t *testing.T) *budgetTest {
	x := &budgetTest{t: t, time: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)}
	x.budget = &budget{file: filepath.Join(t.TempDir(), "budget.json"), now: func() time.Time { return x.time }}
	return x
}

func (x *budgetTest) must(err error) {
	x.t.Helper()
	if err != nil {
		x.t.Fatal(err)
	}
}

func TestBudget(t *testing.T) {
	names := []string{"a.example.org", "b.example.org"}
	t.Run("failures in an hour", func(t *testing.T) {
		x := newBudgetTest(t)
		for range maxFailures {
			x.must(x.check("ca", names))
			x.must(x.begin("ca", names))
			x.time = x.time.Add(time.Minute)
		}
		err := x.check("ca", []string{names[1], names[0]})
		if !errors.Is(err, ErrBudget) || !strings.Contains(err.Error(), "2026-11-24T13:00:00Z") {
			t.Fatalf("got %v, want no order before 13:00", err)
		}
		x.must(x.check("another CA", names))
		x.must(x.check("ca", names[:1]))
		// A process that starts anew reads the same.
		again := &budget{file: x.file, now: x.now}
		if err := again.check("ca", names); !errors.Is(err, ErrBudget) {
			t.Fatalf("after a restart: %v", err)
		}
		x.time = time.Date(2026, 11, 24, 13, 0, 1, 0, time.UTC)
		x.must(x.check("ca", names))
	})
	t.Run("a clock set back frees nothing", func(t *testing.T) {
		x := newBudgetTest(t)
		for range maxFailures {
			x.must(x.begin("ca", names))
		}
		x.time = x.time.Add(-24 * time.Hour)
		if err := x.check("ca", names); !errors.Is(err, ErrBudget) {
			t.Fatalf("got %v", err)
		}
	})
	t.Run("a clock that was ahead stops nothing for longer than the window", func(t *testing.T) {
		x := newBudgetTest(t)
		right := x.time
		x.time = right.AddDate(4, 0, 0)
		for range maxFailures {
			x.must(x.begin("ca", names))
		}
		for range maxIssued {
			x.must(x.begin("ca", names[:1]))
			x.must(x.succeed("ca", names[:1]))
		}
		x.time = right
		for _, which := range [][]string{names, names[:1]} {
			if err := x.check("ca", which); !errors.Is(err, ErrBudget) {
				t.Fatalf("%s: got %v", which, err)
			}
		}
		x.time = right.Add(failureWindow + time.Second)
		x.must(x.check("ca", names))
		x.time = right.Add(issuedWindow + time.Second)
		x.must(x.check("ca", names[:1]))
	})
	t.Run("certificates in a week", func(t *testing.T) {
		x := newBudgetTest(t)
		for range maxIssued {
			x.must(x.check("ca", names))
			x.must(x.begin("ca", names))
			x.must(x.succeed("ca", names))
			x.time = x.time.Add(time.Hour)
		}
		if err := x.check("ca", names); !errors.Is(err, ErrBudget) || !strings.Contains(err.Error(), "certificates") {
			t.Fatalf("got %v", err)
		}
		x.time = x.time.Add(issuedWindow)
		x.must(x.check("ca", names))
	})
	t.Run("a success clears the last error", func(t *testing.T) {
		x := newBudgetTest(t)
		fault := errors.New("no route, token hvs.aaaaaaaaaaaaaaaaaaaaaaaa")
		if err := x.note("ca", names, fault); !errors.Is(err, fault) {
			t.Fatal(err)
		}
		l, err := x.load()
		if err != nil || !strings.Contains(l.LastError, "no route") || strings.Contains(l.LastError, "hvs.") {
			t.Fatalf("noted %+v, %v", l, err)
		}
		x.must(x.begin("ca", names))
		x.must(x.succeed("ca", names))
		if l, _ := x.load(); l.LastError != "" || len(l.Failures) != 0 {
			t.Fatalf("after a success: %+v", l)
		}
	})
	t.Run("a damaged file stops all orders", func(t *testing.T) {
		x := newBudgetTest(t)
		x.must(os.WriteFile(x.file, []byte(`{"failures":`), 0o600))
		if err := x.check("ca", names); err == nil || !strings.Contains(err.Error(), x.file) {
			t.Fatalf("got %v", err)
		}
		if err := x.begin("ca", names); err == nil {
			t.Fatal("an attempt was counted over a file that cannot be read")
		}
	})
	t.Run("a folder that is gone stops all orders", func(t *testing.T) {
		x := newBudgetTest(t)
		x.file = filepath.Join(t.TempDir(), "gone", "budget.json")
		if err := x.begin("ca", names); err == nil {
			t.Fatal("an attempt that is not written down may be placed")
		}
	})
}

// A CA that is away, or has a fault of its own, has counted nothing: what it has
// refused it has.
func TestWhatCountsAsAFailedOrder(t *testing.T) {
	problem := func(status int) error {
		return fmt.Errorf("creating order: %w", acme.Problem{Type: "urn:ietf:params:acme:error:x", Status: status})
	}
	for name, tt := range map[string]struct {
		err    error
		counts bool
	}{
		"no route":                {errors.New("performing request: connect: no route to host"), false},
		"503 at newNonce":         {errors.New("HTTP 503: busy"), false},
		"500 with a problem":      {problem(500), false},
		"503 with a problem":      {problem(503), false},
		"a conflict":              {problem(409), false},
		"its rate limit":          {problem(429), true},
		"a challenge that failed": {problem(403), true},
		"a name that it refuses":  {problem(400), true},
	} {
		t.Run(name, func(t *testing.T) {
			x := newBudgetTest(t)
			g := &guardedACME{state: &state{budget: x.budget}}
			names := []string{"a.example.org"}
			if err := g.counted("ca", names, func() error { return tt.err }); !errors.Is(err, tt.err) {
				t.Fatal(err)
			}
			l, err := x.load()
			x.must(err)
			if got := len(l.Failures) > 0; got != tt.counts || l.LastError == "" {
				t.Errorf("counted: %t, %+v", got, l)
			}
		})
	}
}
