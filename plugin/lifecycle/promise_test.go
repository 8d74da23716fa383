package lifecycle

import (
	"testing"
	"time"
)

func TestPromise(t *testing.T) {
	now := t0.Add(time.Hour)
	current := Version{Number: 2, State: Current, Grace: grace}
	with := func(change func(*Version)) Version { v := current; change(&v); return v }
	inGrace := with(func(v *Version) { v.State, v.RevokeAt = Grace, now.Add(10*time.Minute) })
	cases := map[string]struct {
		v       Version
		overlap bool
		next    time.Time
		want    time.Duration
	}{
		"current":                             {current, true, now.Add(time.Minute), grace},
		"current, overdue":                    {current, true, now.Add(-time.Minute), grace},
		"in grace":                            {inGrace, true, now.Add(time.Hour), 10 * time.Minute},
		"without overlap":                     {current, false, now.Add(time.Minute), time.Minute},
		"without overlap, overdue":            {current, false, now.Add(-time.Minute), 0},
		"without overlap, never rotated":      {current, false, time.Time{}, grace},
		"ends by itself":                      {with(func(v *Version) { v.Expires = now.Add(time.Second) }), true, time.Time{}, time.Second},
		"past its grace":                      {with(func(v *Version) { v.State, v.RevokeAt = Grace, now }), true, time.Time{}, 0},
		"compromised":                         {with(func(v *Version) { v.Compromised = true }), true, time.Time{}, 0},
		"pending":                             {with(func(v *Version) { v.State = Pending }), true, time.Time{}, 0},
		"found at the provider":               {with(func(v *Version) { v.State, v.RevokeAt, v.Found = Grace, now.Add(grace), true }), true, time.Time{}, 0},
		"current with an end that was forced": {with(func(v *Version) { v.RevokeAt = now.Add(time.Minute) }), true, time.Time{}, time.Minute},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := Promise(&c.v, now, c.overlap, c.next); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestTTLIsNeverLongerThanThePromise(t *testing.T) {
	cases := map[string]struct {
		promise, left, retry, want time.Duration
	}{
		"rotation far away":                {grace, 90 * grace, 0, grace - MaxMargin},
		"rotation soon":                    {grace, time.Minute, 0, time.Minute},
		"overdue":                          {grace, -time.Minute, 0, MinOverdueTTL},
		"overdue, next try in an hour":     {grace, -time.Minute, time.Hour, time.Hour},
		"overdue, promise shorter than it": {40 * time.Second, -time.Minute, time.Hour, 35 * time.Second},
		"a promise of seconds":             {10 * time.Second, -time.Minute, time.Hour, 5 * time.Second},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := TTL(c.promise, t0.Add(c.left), t0, c.retry); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
	if got := TTL(grace, time.Time{}, t0, 0); got != grace-MaxMargin {
		t.Errorf("a key that never rotates: %s", got)
	}
}

// Who sleeps ttl and a second more, asks, and has a few seconds' work with what
// comes is never late, however long the promise is; and nobody asks much too often.
func TestTheMarginGrowsWithThePromise(t *testing.T) {
	for promise := time.Second; promise <= MaxGrace; promise += max(promise/7, time.Second) {
		ttl := TTL(promise, time.Time{}, t0, 0)
		left := promise - ttl
		switch {
		case left > promise/2 || left > MaxMargin:
			t.Errorf("promise %s: the margin is %s", promise, left)
		case promise >= 2*MinMargin && (left < MinMargin || left < min(promise/10, MaxMargin)):
			t.Errorf("promise %s: the margin is only %s", promise, left)
		}
	}
	if ttl := TTL(0, time.Time{}, t0, 0); ttl != 0 {
		t.Errorf("no promise: ttl %s", ttl)
	}
}
