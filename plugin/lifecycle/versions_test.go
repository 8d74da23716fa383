package lifecycle

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

var t0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const grace = 24 * time.Hour

// keyWith has n versions that followed each other by an hour.
func keyWith(t *testing.T, n int) *Key {
	t.Helper()
	k := &Key{}
	for i := 1; i <= n; i++ {
		if err := k.Add(Version{Number: i, State: Pending, Created: t0}); err != nil {
			t.Fatal(err)
		}
		if err := k.Promote(i, t0.Add(time.Duration(i)*time.Hour), grace, true); err != nil {
			t.Fatal(err)
		}
	}
	return k
}

func TestPromotionFixesThePromiseAndRetiresTheOneBefore(t *testing.T) {
	k := keyWith(t, 1)
	if err := k.Add(Version{Number: 2, State: Pending}); err != nil {
		t.Fatal(err)
	}
	at := t0.Add(5 * time.Hour)
	if err := k.Promote(2, at, time.Hour, true); err != nil {
		t.Fatal(err)
	}
	if v := k.Find(1); v.State != Grace || !v.RevokeAt.Equal(at.Add(grace)) {
		t.Errorf("version 1 keeps its own promise, not the new one: %+v", v)
	}
	if v := k.Current(); v.Number != 2 || v.Grace != time.Hour {
		t.Errorf("version 2 is not current: %+v", v)
	}
}

func TestWithoutOverlapTheEndOfTheOneBeforeHasCome(t *testing.T) {
	k := keyWith(t, 1)
	if err := k.Add(Version{Number: 2, State: Pending}); err != nil {
		t.Fatal(err)
	}
	if err := k.Promote(2, t0, grace, false); err != nil {
		t.Fatal(err)
	}
	v := k.Find(1)
	if due := k.DueRevocations(t0); v.ReadableAt(t0) || !slices.Equal(due, []int{1}) || v.Ending == nil || !v.Ending.Asked.Equal(t0) {
		t.Errorf("version 1 is %s, %v are due", v.State, due)
	}
	if k.Rollback(1, t0, grace) == nil {
		t.Error("it came back")
	}
}

func TestRefusedTransitions(t *testing.T) {
	at := t0.Add(4 * time.Hour)
	cases := map[string]struct {
		do   func(*Key) error
		want error
	}{
		"promote one that is not there":  {func(k *Key) error { return k.Promote(9, at, grace, true) }, ErrNoVersion},
		"promote one in grace":           {func(k *Key) error { return k.Promote(1, at, grace, true) }, ErrNotAlive},
		"roll back to the current":       {func(k *Key) error { return k.Rollback(3, at, grace) }, ErrCurrent},
		"roll back to none":              {func(k *Key) error { return k.Rollback(9, at, grace) }, ErrNoVersion},
		"roll back after the grace":      {func(k *Key) error { return k.Rollback(1, at.Add(grace), grace) }, ErrNotAlive},
		"roll back to a compromised one": {func(k *Key) error { k.Compromise(at, at, at); return k.Rollback(2, at, grace) }, ErrCompromised},
		"roll back to one that was never current, by a clock behind": {func(k *Key) error {
			if err := errors.Join(k.Add(Version{Number: 4, State: Pending}), k.Retire(4, at, at, true)); err != nil {
				return err
			}
			return k.Rollback(4, at.Add(-time.Minute), grace)
		}, ErrNotAlive},
		"roll back to one that its successor's birth ended, by a clock behind": {func(k *Key) error {
			if err := errors.Join(k.Add(Version{Number: 4, State: Pending}), k.Promote(4, at, grace, false)); err != nil {
				return err
			}
			return k.Rollback(3, at.Add(-time.Minute), grace)
		}, ErrNotAlive},
		"revoke the current":                 {func(k *Key) error { return k.Retire(3, at, at, true) }, ErrCurrent},
		"revoke none":                        {func(k *Key) error { return k.Retire(9, at, at, true) }, ErrNoVersion},
		"revoke one that was promised":       {func(k *Key) error { return k.Retire(2, at, at, false) }, ErrPromise},
		"mark one that is not there revoked": {func(k *Key) error { return k.MarkRevoked(9, at, ByTest) }, ErrNoVersion},
		"revoke twice": {func(k *Key) error {
			if err := k.MarkRevoked(2, at, ByTest); err != nil {
				return err
			}
			return k.Retire(2, at, at, true)
		}, ErrNotAlive},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if err := c.do(keyWith(t, 3)); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func TestNumbersAreNeverUsedTwice(t *testing.T) {
	k := keyWith(t, 3)
	for _, n := range []int{1, 3} {
		if k.Add(Version{Number: n, State: Pending}) == nil {
			t.Errorf("number %d was taken a second time", n)
		}
	}
	if err := k.Add(Version{Number: 1003, State: Pending}); err != nil {
		t.Fatal(err)
	}
	if k.Add(Version{Number: 1004, State: Pending}) == nil {
		t.Error("two versions are pending")
	}
}

func TestCompromiseEndsEverythingAtOnceAndForEver(t *testing.T) {
	k := keyWith(t, 3)
	if err := k.Add(Version{Number: 4, State: Pending}); err != nil {
		t.Fatal(err)
	}
	at := t0.Add(4 * time.Hour)
	if got := k.Compromise(at, at, at); len(got) != 4 {
		t.Errorf("compromised are %v", got)
	}
	if got := k.DueRevocations(at); len(got) != 4 {
		t.Errorf("due are %v", got)
	}
	for i := range k.Versions {
		if k.Versions[i].ReadableAt(at.Add(-time.Second)) {
			t.Errorf("version %d is given to readers", k.Versions[i].Number)
		}
	}
	if got := k.Compromise(at, at, at); got != nil {
		t.Errorf("a second time: %v", got)
	}
}

func TestPruneKeepsWhatIsAlive(t *testing.T) {
	k := keyWith(t, 5)
	for _, n := range []int{1, 2} {
		if err := k.MarkRevoked(n, t0, ByTest); err != nil {
			t.Fatal(err)
		}
	}
	if got := k.Prune(2); len(got) != 2 || len(k.Versions) != 3 {
		t.Errorf("dropped %v, %d left", got, len(k.Versions))
	}
	if got := k.Prune(1); got != nil || k.Last != 5 {
		t.Errorf("dropped %v although all are alive", got)
	}
}

// TestRandomLives lets keys live at random and checks after every step that
// there is one current version at most, and that nobody's promise is broken
// but by force.
func TestRandomLives(t *testing.T) {
	for seed := range uint64(2000) {
		rng := rand.New(rand.NewPCG(seed, 1))
		k, now := &Key{}, t0
		promised := map[int]time.Time{}
		for range 60 {
			now = now.Add(time.Duration(rng.IntN(10)) * time.Hour)
			randomStep(rng, k, now)
			if err := k.Check(); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			for n, until := range promised {
				if v := k.Find(n); v != nil && now.Before(until) && !v.ReadableAt(now) {
					t.Fatalf("seed %d: version %d was promised until %s and is %s at %s", seed, n, until, v.State, now)
				}
			}
			for i := range k.Versions {
				v := &k.Versions[i]
				if d := Promise(v, now, true, time.Time{}); d > 0 && now.Add(d).After(promised[v.Number]) {
					promised[v.Number] = now.Add(d)
				}
			}
		}
	}
}

func randomStep(rng *rand.Rand, k *Key, now time.Time) {
	n := 1 + rng.IntN(k.Last+1)
	switch rng.IntN(4) {
	case 0, 1:
		if k.Pending() == nil && k.Add(Version{Number: k.Last + 1, State: Pending, Created: now}) != nil {
			return
		}
		_ = k.Promote(k.Last, now, time.Duration(1+rng.IntN(30))*time.Hour, true) // may be refused, as in life
	case 2:
		_ = k.Rollback(n, now, grace)
	case 3:
		_ = k.Retire(n, now, now, false)
	}
	for _, due := range k.DueRevocations(now) {
		_ = k.MarkRevoked(due, now, ByTest)
	}
	k.Prune(8)
}

func TestCheckFindsWhatMustNotBe(t *testing.T) {
	cases := map[string]Key{
		"two current":       {Versions: []Version{{Number: 1, State: Current}, {Number: 2, State: Current}}, Last: 2},
		"two pending":       {Versions: []Version{{Number: 1, State: Pending}, {Number: 2, State: Pending}}, Last: 2},
		"wrong order":       {Versions: []Version{{Number: 2, State: Current}, {Number: 1, State: Revoked}}, Last: 2},
		"grace without end": {Versions: []Version{{Number: 1, State: Grace}}, Last: 1},
		"unknown state":     {Versions: []Version{{Number: 1, State: "odd"}}, Last: 1},
		"beyond the last":   {Versions: []Version{{Number: 3, State: Current}}, Last: 2},
	}
	for name, k := range cases {
		t.Run(name, func(t *testing.T) {
			if k.Check() == nil {
				t.Error("not found")
			}
		})
	}
}

// Of three versions that share an identifier, the first is not ended by it while
// the last lives, though the second's time is over as well.
func TestTwinIsWhoeverMustLiveOn(t *testing.T) {
	k := Key{Versions: []Version{
		{Number: 1, State: Grace, ProviderID: "id", RevokeAt: t0},
		{Number: 2, State: Grace, ProviderID: "id", RevokeAt: t0},
		{Number: 3, State: Current, ProviderID: "id"},
		{Number: 4, State: Grace, RevokeAt: t0},
		{Number: 5, State: Grace, RevokeAt: t0},
	}, Last: 5}
	for number, want := range map[int]int{1: 3, 2: 3, 3: 0, 4: 0} {
		got := 0
		if twin := k.Twin(k.Find(number), t0); twin != nil {
			got = twin.Number
		}
		if got != want {
			t.Errorf("version %d: twin %d, want %d", number, got, want)
		}
	}
}
