package lifecycle

import "time"

// Why says where a due time comes from, or what puts it off.
type Why string

// What wants a rotation.
const (
	WhyNever      Why = ""           // nothing does
	WhyFirst      Why = "first"      // there is no version yet
	WhyPolicy     Why = "policy"     // its period is over, or its scheduled time has come
	WhyRequest    Why = "request"    // somebody asked for it
	WhyExpiry     Why = "expiry"     // the provider ends the current version by itself
	WhyCompromise Why = "compromise" // others know the current version
)

// What puts it off.
const (
	WhyRetry   Why = "retry"   // the last try failed
	WhyAsked   Why = "asked"   // the provider asked for a pause
	WhyList    Why = "list"    // the answer of a mint was lost, and the provider's list may lag
	WhyTest    Why = "test"    // the provider does not accept the new version yet
	WhySpread  Why = "spread"  // another key of the spread group has just rotated
	WhyLimit   Why = "limit"   // as many versions are alive as may be
	WhyPromise Why = "promise" // readers were promised the current version for longer
	WhyCap     Why = "cap"     // as many rotations as may be have begun at the account in this minute
	WhyPause   Why = "pause"   // the account is left alone
)

// Wait is what the next try of a rotation waits for.
type Wait struct {
	Why   Why       `json:"why"`
	Until time.Time `json:"until"`
}

// Over tells whether nothing is waited for, or no longer.
func (w *Wait) Over(now time.Time) bool { return w == nil || !now.Before(w.Until) }

// For tells whether it is for this that w waits.
func (w *Wait) For(why Why) bool { return w != nil && w.Why == why }

// Subject is what of a key decides when it is rotated.
type Subject struct {
	*Key
	UID       string
	Created   time.Time
	From      time.Time // what the policy counts from: mostly the last rotation
	Requested time.Time // asked for, not before then; zero: not
	Deleting  bool
	Wait      *Wait
	Free      time.Time // when the next version that is alive ends; zero: none does
	Limit     int       // how many versions may be alive
	// Promised is until when readers of the current version were promised it,
	// where its successor's birth kills it; zero: it does not.
	Promised time.Time
}

// Due is when a key is to be rotated, and why.
type Due struct {
	// Wanted is when the rotation should be; zero: never. Where a window was
	// missed it is the next one's.
	Wanted time.Time
	Source Why
	// At is when it may start: Wanted, put off by Held.
	At   time.Time
	Held Why // WhyNever: nothing
	// Missed: the window of the time before has closed, and nothing was done.
	Missed bool
}

// Late is how long after its time a rotation is overdue: whoever looks at a key does so
// in whole seconds.
const Late = time.Second

// Overdue tells whether the rotation should have been there by now.
func (d Due) Overdue(now time.Time) bool {
	return d.Held != WhyPromise && (d.Missed || !d.Wanted.IsZero() && !now.Before(d.Wanted.Add(Late)))
}

// RotationDue is when a key is to be rotated under a policy, as seen at now.
// Without a policy only what does not need one counts.
func RotationDue(s Subject, p *Policy, now time.Time) Due {
	d := s.wanted(p, now)
	d.At = d.Wanted
	if d.At.IsZero() {
		return d
	}
	if s.Wait != nil && s.Wait.Until.After(d.At) {
		d.At, d.Held = s.Wait.Until, s.Wait.Why
	}
	if s.Limit > 0 && s.Alive() >= s.Limit && s.Free.After(d.At) {
		d.At, d.Held = s.Free, WhyLimit
	}
	if s.Promised.After(d.At) && d.Source != WhyCompromise {
		d.At, d.Held = s.Promised, WhyPromise
	}
	return d
}

func (s Subject) wanted(p *Policy, now time.Time) Due {
	cur := s.Current()
	switch {
	case s.Deleting || p == nil:
		return Due{}
	case cur == nil:
		d := Due{Wanted: s.Created, Source: WhyFirst}
		if n := len(s.Versions); n > 0 && s.Versions[n-1].Compromised {
			d.Source = WhyCompromise // it was ended without a successor
		}
		return d
	case cur.Compromised:
		wanted := cur.RevokeAt
		if wanted.After(now) {
			wanted = now // it may yet be used, and is replaced at once
		}
		return Due{Wanted: wanted, Source: WhyCompromise}
	}
	var d Due
	seed := Seed(s.UID, cur.Number)
	if d.Wanted, d.Missed = p.NextOpen(s.From, now, seed); !d.Wanted.IsZero() {
		d.Source = WhyPolicy
	}
	if d.Missed { // not by a window that closed while readers were promised the version
		open, _ := p.NextOpen(s.From, s.Promised, seed)
		d.Missed = now.After(open.Add(p.window))
	}
	if !s.Requested.IsZero() && (d.Wanted.IsZero() || s.Requested.Before(d.Wanted)) {
		d = Due{Wanted: s.Requested, Source: WhyRequest}
	}
	if by := cur.replaceBy(); !by.IsZero() && !p.Disabled() && (d.Wanted.IsZero() || by.Before(d.Wanted)) {
		d = Due{Wanted: by, Source: WhyExpiry}
	}
	return d
}

// replaceBy is when the successor of a version that ends by itself must be
// there: a grace period before, so that readers can keep to what they were
// promised. The end comes from outside, so it has a floor: half of the life that
// is left to the version when it becomes current, and MinPeriod. A service that
// gives keys short lives, or lies, cannot make a storm of it.
func (v *Version) replaceBy() time.Time {
	if v.Expires.IsZero() {
		return v.Expires
	}
	start := v.Promoted
	if start.IsZero() {
		start = v.Created
	}
	by := v.Expires.Add(-v.Grace)
	if floor := start.Add(max(v.Expires.Sub(start)/2, MinPeriod)); by.Before(floor) {
		return floor
	}
	return by
}
