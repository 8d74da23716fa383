package lifecycle

import (
	"strings"
	"testing"
	"time"
)

const year = 365 * 24 * time.Hour

func TestJumpsOfTheClockMoveNothing(t *testing.T) {
	for name, c := range map[string]struct {
		jump  time.Duration
		state ClockState
	}{
		"a correction":   {time.Minute, ClockOK},
		"a year forward": {year, ClockAhead},
		"a year back":    {-year, ClockBehind},
		"an hour back":   {-time.Hour, ClockBehind},
	} {
		t.Run(name, func(t *testing.T) {
			line := StartTimeline(time.Time{}, t0, 0)
			wall, mono := t0, time.Duration(0)
			step := func(d time.Duration) time.Time {
				wall, mono = wall.Add(d), mono+d
				return line.Observe(wall, mono)
			}
			before := step(time.Hour)
			wall = wall.Add(c.jump)
			after := step(time.Hour)
			if got := after.Sub(before); got < time.Hour || got > time.Hour+ClockSlack {
				t.Errorf("an hour took %s", got)
			}
			if state, _ := line.State(); state != c.state {
				t.Errorf("the clock is %s, want %s", state, c.state)
			}
			if again := step(time.Second); again.Before(after) {
				t.Error("time went back")
			}
			wall = wall.Add(-c.jump)
			step(time.Hour)
			if state, _ := line.State(); state != ClockOK {
				t.Errorf("the clock is right again and %s", state)
			}
		})
	}
}

func TestAcceptBelievesTheClock(t *testing.T) {
	line := StartTimeline(time.Time{}, t0, 0)
	line.Observe(t0.Add(year), time.Second)
	if state, skew := line.State(); state != ClockAhead || skew != year-time.Second {
		t.Fatalf("%s, %s", state, skew)
	}
	line.Accept(t0.Add(year), time.Second)
	if got := line.Observe(t0.Add(year), time.Second); !got.Equal(t0.Add(year)) {
		t.Errorf("it is %s", got)
	}
}

func TestClockAcrossARestart(t *testing.T) {
	for name, c := range map[string]struct {
		gap   time.Duration
		state ClockState
		now   time.Time
	}{
		"a pause of a day":    {24 * time.Hour, ClockOK, t0.Add(24 * time.Hour)},
		"a pause of a second": {time.Second, ClockOK, t0.Add(time.Second)},
		"back by an hour":     {-time.Hour, ClockBehind, t0},
		"forward by a year":   {year, ClockAhead, t0},
	} {
		t.Run(name, func(t *testing.T) {
			line := StartTimeline(t0, t0.Add(c.gap), 0)
			if state, _ := line.State(); state != c.state {
				t.Errorf("%s, want %s", state, c.state)
			}
			if got := line.Observe(t0.Add(c.gap), 0); !got.Equal(c.now) {
				t.Errorf("it is %s, want %s", got, c.now)
			}
		})
	}
}

func TestClockThatComesBackAfterARestart(t *testing.T) {
	line := StartTimeline(t0, t0.Add(year), 0)
	line.Observe(t0.Add(year+time.Hour), time.Hour)
	// The stored time was ten minutes old, and the machine was off for a day.
	right := t0.Add(25*time.Hour + 10*time.Minute)
	if got := line.Observe(right, time.Hour); !got.Equal(right) {
		t.Errorf("it is %s, want %s", got, right)
	}
	if state, _ := line.State(); state != ClockOK {
		t.Errorf("the clock is right again and %s", state)
	}
	line.Observe(right.Add(day), time.Hour+time.Second)
	if state, _ := line.State(); state != ClockAhead {
		t.Error("it is still as loose as after the start")
	}
}

const day = 24 * time.Hour

func TestMintNames(t *testing.T) {
	m := MintName{Mount: "0011aabb", Key: "0123456789ab", Installation: InstallationTag("6F1B-22cc-9"), Version: 12, Attempt: "a1b2c3"}
	if got, want := m.String(), "sr-0011aabb-0123456789ab-6f1b22cc-12-a1b2c3"; got != want {
		t.Fatalf("got %s, want %s", got, want)
	}
	if got, err := ParseMintName(m.String()); err != nil || got != m {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, bad := range []string{"", "sr", "xx-0011aabb-0123456789ab-6f1b22cc-12-a1b2c3", "sr-a-b-c-0-d", "sr-a-b-c-012-d", "sr-a-b-c-x-d", "sr-a--c-1-d", "sr-a-b-c-1-d-", "sr-a-b-c-1-d-" + strings.Repeat("e", 52)} {
		if _, err := ParseMintName(bad); err == nil {
			t.Errorf("%q was taken for a name", bad)
		}
	}
	if got := InstallationTag("--"); got != "local" {
		t.Errorf("no installation gives %q", got)
	}
}

// A person reads in a service's console whose key it is, and nothing depends on it.
func TestMintNameLabels(t *testing.T) {
	base := MintName{Mount: "0011aabb", Key: "0123456789ab", Installation: "6f1b22cc", Version: 12, Attempt: "a1b2c3"}
	const bare = "sr-0011aabb-0123456789ab-6f1b22cc-12-a1b2c3"
	for key, label := range map[string]string{
		"b":                                "-b",
		"app/production/billing":           "-production-billing",
		"App/Staging/Mail_Out.2":           "-staging-mail-out-2",
		"bike-data-flow/production/maps":   "-production-maps",
		"x/averyveryveryverylongname":      "-veryveryverylongname",
		"größe/München":                    "-gr-e-m-nchen",
		"__":                               "",
		strings.Repeat("a/", 100) + "mail": "-a-a-a-a-a-a-a-mail",
	} {
		m := base
		m.Label = Label(key)
		name := m.String()
		if name != bare+label || len(name) > MaxMintName {
			t.Errorf("%s is called %s (%d), want the label %q", key, name, len(name), label)
		}
		got, err := ParseMintName(name)
		if got.Label = ""; err != nil || got != base {
			t.Errorf("%s is read as %+v, %v", name, got, err)
		}
		if WithoutLabel(name) != bare {
			t.Errorf("%s without its label: %s", name, WithoutLabel(name))
		}
		for listed, want := range map[string]bool{name: true, bare: true, name[:max(len(name)-3, len(bare))]: true,
			name + "-copy": false, bare + "-other": false, bare[:40]: false, "": false, strings.ToUpper(name): false} {
			if ListedAs(name, listed) != want {
				t.Errorf("%s may be listed as %q: %v", name, listed, !want)
			}
		}
	}
	for _, other := range []string{"", "theirs", "a-b-c-d-e-f-g-h", "sr-1-2"} {
		if WithoutLabel(other) != other {
			t.Errorf("%q became %q", other, WithoutLabel(other))
		}
	}
}

func FuzzParseMintName(f *testing.F) {
	f.Add("sr-0011aabb-0123456789ab-6f1b22cc-12-a1b2c3")
	f.Add("sr-----")
	f.Fuzz(func(t *testing.T, s string) {
		if m, err := ParseMintName(s); err == nil && m.String() != s {
			t.Errorf("%q became %q", s, m.String())
		}
	})
}
