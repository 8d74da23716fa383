package lifecycle

import (
	"math/rand/v2"
	"testing"
	"time"
)

func dueSubject(v Version) Subject {
	return Subject{Key: &Key{Versions: []Version{v}, Last: v.Number}, UID: "u", Created: t0, From: v.Promoted}
}

func TestRotationDue(t *testing.T) {
	const day = 24 * time.Hour
	period := mustPolicy(t, PolicySpec{Period: 90 * day})
	window := mustPolicy(t, PolicySpec{Cron: "0 3 * * *", Window: time.Hour})
	off := mustPolicy(t, PolicySpec{Period: 90 * day, Disabled: true})
	current := Version{Number: 1, State: Current, Created: t0, Promoted: t0, Grace: 7 * day}
	ending := func(d time.Duration) Version { v := current; v.Expires = t0.Add(d); return v }
	full := func(s Subject) Subject {
		s.Versions = append([]Version{{Number: 0, State: Grace, RevokeAt: t0.Add(100 * day)}}, s.Versions...)
		s.Limit, s.Free = 2, t0.Add(100*day)
		return s
	}
	with := func(s Subject, change func(*Subject)) Subject { change(&s); return s }
	for name, c := range map[string]struct {
		s       Subject
		p       *Policy
		now     time.Time
		wanted  time.Time
		source  Why
		at      time.Time
		held    Why
		overdue bool
	}{
		"no version": {s: Subject{Key: &Key{}, Created: t0}, p: period, wanted: t0, source: WhyFirst, at: t0},
		"by policy":  {s: dueSubject(current), p: period, wanted: t0.Add(90 * day), source: WhyPolicy, at: t0.Add(90 * day)},
		"off":        {s: dueSubject(current), p: off},
		"deleted":    {s: with(dueSubject(current), func(s *Subject) { s.Deleting = true }), p: period},
		"asked for":  {s: with(dueSubject(current), func(s *Subject) { s.Requested = t0.Add(day) }), p: off, wanted: t0.Add(day), source: WhyRequest, at: t0.Add(day)},
		"ends by itself, a grace before": {
			s: dueSubject(ending(30 * day)), p: period, wanted: t0.Add(23 * day), source: WhyExpiry, at: t0.Add(23 * day)},
		"ends within its grace: half its life, not at birth": {
			s: dueSubject(ending(day)), p: period, wanted: t0.Add(12 * time.Hour), source: WhyExpiry, at: t0.Add(12 * time.Hour)},
		"ends after exactly its grace": {
			s: dueSubject(ending(7 * day)), p: period, wanted: t0.Add(84 * time.Hour), source: WhyExpiry, at: t0.Add(84 * time.Hour)},
		"ends before it was made": {
			s: dueSubject(ending(-day)), p: period, wanted: t0.Add(MinPeriod), source: WhyExpiry, at: t0.Add(MinPeriod)},
		"ends by itself and is not rotated": {s: dueSubject(ending(30 * day)), p: off},
		"ends by itself, with a window: no window applies": {
			s: dueSubject(ending(26 * time.Hour)), p: window, now: t0.Add(20 * time.Hour),
			wanted: t0.Add(13 * time.Hour), source: WhyExpiry, at: t0.Add(13 * time.Hour), overdue: true},
		"a window that is missed": {
			s: dueSubject(current), p: window, now: window.Next(t0, Seed("u", 1)).Add(2 * time.Hour),
			wanted: window.Next(t0, Seed("u", 1)).Add(day), source: WhyPolicy, at: window.Next(t0, Seed("u", 1)).Add(day), overdue: true},
		"a window that is missed, because readers were promised the key": {
			s: with(dueSubject(current), func(s *Subject) { s.Promised = t0.Add(90 * day) }), p: window, now: window.Next(t0, Seed("u", 1)).Add(2 * time.Hour),
			wanted: window.Next(t0, Seed("u", 1)).Add(day), source: WhyPolicy, at: t0.Add(90 * day), held: WhyPromise},
		"a window that closed while readers were promised the key, once that is over": {
			s: with(dueSubject(current), func(s *Subject) { s.Promised = window.Next(t0, Seed("u", 1)).Add(2 * time.Hour) }), p: window, now: window.Next(t0, Seed("u", 1)).Add(3 * time.Hour),
			wanted: window.Next(t0, Seed("u", 1)).Add(day), source: WhyPolicy, at: window.Next(t0, Seed("u", 1)).Add(day)},
		"a window that closed when what readers were promised was over": {
			s: with(dueSubject(current), func(s *Subject) { s.Promised = window.Next(t0, Seed("u", 1)).Add(time.Minute) }), p: window, now: window.Next(t0, Seed("u", 1)).Add(3 * time.Hour),
			wanted: window.Next(t0, Seed("u", 1)).Add(day), source: WhyPolicy, at: window.Next(t0, Seed("u", 1)).Add(day), overdue: true},
		"a failed try": {
			s: with(dueSubject(current), func(s *Subject) { s.Wait = &Wait{WhyRetry, t0.Add(91 * day)} }), p: period, now: t0.Add(90*day + time.Hour),
			wanted: t0.Add(90 * day), source: WhyPolicy, at: t0.Add(91 * day), held: WhyRetry, overdue: true},
		"a failed try by hand, long before": {
			s: with(dueSubject(current), func(s *Subject) { s.Wait = &Wait{WhyRetry, t0.Add(day)} }), p: period, now: t0.Add(time.Hour),
			wanted: t0.Add(90 * day), source: WhyPolicy, at: t0.Add(90 * day)},
		"no room": {s: full(dueSubject(current)), p: period, wanted: t0.Add(90 * day), source: WhyPolicy, at: t0.Add(100 * day), held: WhyLimit},
		"promised for longer": {
			s: with(dueSubject(current), func(s *Subject) { s.Promised = t0.Add(95 * day) }), p: period,
			wanted: t0.Add(90 * day), source: WhyPolicy, at: t0.Add(95 * day), held: WhyPromise},
		"known to others": {
			s: dueSubject(Version{Number: 1, State: Current, Promoted: t0, Compromised: true, RevokeAt: t0.Add(time.Hour)}), p: off,
			wanted: t0, source: WhyCompromise, at: t0},
	} {
		t.Run(name, func(t *testing.T) {
			if c.now.IsZero() {
				c.now = t0
			}
			d := RotationDue(c.s, c.p, c.now)
			if !d.Wanted.Equal(c.wanted) || d.Source != c.source || !d.At.Equal(c.at) || d.Held != c.held || d.Overdue(c.now) != c.overdue {
				t.Errorf("%+v, overdue %v", d, d.Overdue(c.now))
			}
		})
	}
}

// Whatever comes from outside, a version that has become current is not due for
// MinPeriod, and what is due is never before what is wanted.
func TestRotationDueHasAFloor(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	span := func(d time.Duration) time.Duration { return time.Duration(rng.Int64N(int64(2*d))) - d }
	policies := []*Policy{
		mustPolicy(t, PolicySpec{Period: MinPeriod}),
		mustPolicy(t, PolicySpec{Period: 90 * 24 * time.Hour, Jitter: time.Hour}),
		mustPolicy(t, PolicySpec{Cron: "0 3 * * SUN", Window: time.Hour, Jitter: time.Hour}),
	}
	for range 20_000 {
		p := policies[rng.IntN(len(policies))]
		v := Version{Number: 1, State: Current, Created: t0.Add(-span(time.Hour)), Promoted: t0, Grace: MinGrace + time.Duration(rng.Int64N(int64(MaxGrace)))}
		if rng.IntN(3) > 0 {
			v.Expires = t0.Add(span(MaxGrace))
		}
		s := dueSubject(v)
		if rng.IntN(2) == 0 {
			s.Wait = &Wait{WhyRetry, t0.Add(span(time.Hour))}
		}
		now := t0.Add(time.Duration(rng.Int64N(int64(MaxGrace))))
		d := RotationDue(s, p, now)
		if d.At.Before(d.Wanted) || d.Wanted.IsZero() != d.At.IsZero() || (d.Held != WhyNever) != d.At.After(d.Wanted) {
			t.Fatalf("%+v", d)
		}
		if d.Source != WhyPolicy && d.Wanted.Before(t0.Add(MinPeriod)) {
			t.Fatalf("due %s after it became current: %+v", d.Wanted.Sub(t0), v)
		}
		if again := RotationDue(s, p, now); again != d {
			t.Fatal("not the same twice")
		}
	}
}
