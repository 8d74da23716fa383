package lifecycle

import "time"

// Bounds of what a clock may do before it is no longer believed.
const (
	// ClockSlack is how far the wall clock may drift from the monotonic one
	// between two looks, as a correction by NTP does.
	ClockSlack = 2 * time.Minute
	// MaxDowntime is the longest gap between two runs that is taken for a
	// pause. A longer one may be a clock that jumped while nothing ran.
	MaxDowntime = 30 * 24 * time.Hour
)

// ClockState says whether the wall clock is believed.
type ClockState string

// The states of the clock.
const (
	ClockOK     ClockState = "ok"
	ClockAhead  ClockState = "ahead"  // it jumped forward: the engine keeps its own time
	ClockBehind ClockState = "behind" // it jumped back: the engine keeps its own time
)

// Timeline gives the engine a time that a jump of the wall clock cannot
// mislead: it advances with the monotonic clock and follows the wall clock
// only as long as the two agree within ClockSlack. A jump therefore neither
// rotates nor revokes anything early; it lasts until the wall clock comes back
// or a person accepts it.
type Timeline struct {
	base  time.Time     // engine time at mono
	mono  time.Duration // reading of the monotonic clock at base
	state ClockState
	skew  time.Duration // wall clock minus engine time at the last look
	// loose: base is what an earlier run has stored, so any time up to
	// MaxDowntime may have passed since.
	loose bool
}

// StartTimeline begins after a start of the process. last is the engine time
// that the run before has stored; zero where there was none.
func StartTimeline(last, wall time.Time, mono time.Duration) Timeline {
	t := Timeline{base: wall, mono: mono, state: ClockOK}
	if last.IsZero() {
		return t
	}
	switch gap := wall.Sub(last); {
	case gap < -ClockSlack:
		t.base, t.state, t.skew, t.loose = last, ClockBehind, gap, true
	case gap > MaxDowntime:
		t.base, t.state, t.skew, t.loose = last, ClockAhead, gap, true
	}
	return t
}

// Observe looks at both clocks and gives the engine's time, which never goes
// back.
func (t *Timeline) Observe(wall time.Time, mono time.Duration) time.Time {
	expected := t.base.Add(max(mono-t.mono, 0))
	t.skew = wall.Sub(expected)
	limit := ClockSlack
	if t.loose {
		limit = MaxDowntime
	}
	switch {
	case t.skew > limit:
		t.state = ClockAhead
	case t.skew < -ClockSlack:
		t.state = ClockBehind
	default:
		t.state, t.loose = ClockOK, false
		if wall.After(expected) {
			expected = wall
		}
	}
	t.base, t.mono = expected, mono
	return expected
}

// Accept believes the wall clock as it is now, even where that takes the
// engine's time back.
func (t *Timeline) Accept(wall time.Time, mono time.Duration) {
	*t = Timeline{base: wall, mono: mono, state: ClockOK}
}

// State is the verdict of the last look and the wall clock's distance from the
// engine's time.
func (t *Timeline) State() (ClockState, time.Duration) { return t.state, t.skew }
