package lifecycle

import (
	"strings"
	"testing"
	"time"
)

func mustPolicy(t testing.TB, spec PolicySpec) *Policy {
	t.Helper()
	p, err := NewPolicy(spec)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestSchedulesOverClockChanges(t *testing.T) {
	cases := map[string]struct {
		cron, zone, after, want string
	}{
		"plain, in UTC":                      {"0 3 * * *", "", "2026-03-01T12:00:00Z", "2026-03-02T03:00:00Z"},
		"winter in Berlin":                   {"0 3 * * *", "Europe/Berlin", "2026-01-10T12:00:00Z", "2026-01-11T02:00:00Z"},
		"summer in Berlin":                   {"0 3 * * *", "Europe/Berlin", "2026-07-10T12:00:00Z", "2026-07-11T01:00:00Z"},
		"in the gap: right after it":         {"30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-29T01:00:00Z"},
		"the day after the gap":              {"30 2 * * *", "Europe/Berlin", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"},
		"in the repeated hour: first time":   {"30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z"},
		"in the repeated hour: not again":    {"30 2 * * *", "Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"},
		"between the two":                    {"30 2 * * *", "Europe/Berlin", "2026-10-25T00:45:00Z", "2026-10-26T01:30:00Z"},
		"midnight that does not exist":       {"0 0 * * *", "America/Santiago", "2026-09-05T12:00:00Z", "2026-09-06T04:00:00Z"},
		"half an hour's change at Lord Howe": {"15 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00:00Z", "2026-10-03T15:30:00Z"},
		"first of the quarter in New York":   {"0 4 1 1,4,7,10 *", "America/New_York", "2026-02-01T00:00:00Z", "2026-04-01T08:00:00Z"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			after, err := time.Parse(time.RFC3339, c.after)
			if err != nil {
				t.Fatal(err)
			}
			p := mustPolicy(t, PolicySpec{Cron: c.cron, TimeZone: c.zone})
			if got := p.Next(after, 0).UTC().Format(time.RFC3339); got != c.want {
				t.Errorf("after %s: got %s, want %s", c.after, got, c.want)
			}
		})
	}
}

func TestJitterIsBoundedAndDeterministic(t *testing.T) {
	period := mustPolicy(t, PolicySpec{Period: 90 * 24 * time.Hour, Jitter: time.Hour})
	short := mustPolicy(t, PolicySpec{Period: 10 * time.Minute, Jitter: time.Hour})
	window := mustPolicy(t, PolicySpec{Cron: "0 3 * * *", Window: time.Hour, Jitter: 24 * time.Hour})
	different := map[time.Time]bool{}
	for i := range 1000 {
		seed := Seed("uid", i)
		at := period.Next(t0, seed)
		if early := t0.Add(90 * 24 * time.Hour).Sub(at); early < 0 || early >= time.Hour {
			t.Fatalf("a period rotates %s early", early)
		}
		if !at.Equal(period.Next(t0, Seed("uid", i))) {
			t.Fatal("the same key rotates at another time")
		}
		different[at] = true
		if at := short.Next(t0, seed); at.Sub(t0) <= 9*time.Minute || at.Sub(t0) > 10*time.Minute {
			t.Fatalf("a short period lasts %s", at.Sub(t0))
		}
		if late := window.Next(t0, seed).Sub(time.Date(2026, 3, 2, 3, 0, 0, 0, time.UTC)); late < 0 || late >= 30*time.Minute {
			t.Fatalf("a window's rotation is %s late", late)
		}
	}
	if len(different) < 800 {
		t.Errorf("1000 keys rotate at only %d different times", len(different))
	}
}

func TestWindow(t *testing.T) {
	p := mustPolicy(t, PolicySpec{Cron: "0 3 * * *", Window: time.Hour})
	due := p.Next(t0, 0)
	if at, missed := p.NextOpen(t0, due.Add(time.Hour), 0); missed || !at.Equal(due) {
		t.Error("the window closes before its time")
	}
	if at, missed := p.NextOpen(t0, due.Add(time.Hour+time.Second), 0); !missed || !at.Equal(due.Add(24*time.Hour)) {
		t.Errorf("the window does not close after an hour: %s", at)
	}
	if at, missed := p.NextOpen(t0, due.Add(30*24*time.Hour+time.Hour), 0); !missed || !at.Equal(due.Add(30*24*time.Hour)) {
		t.Errorf("within a later window: %s", at)
	}
	if _, missed := mustPolicy(t, PolicySpec{Cron: "0 3 * * *"}).NextOpen(t0, due.Add(1000*time.Hour), 0); missed {
		t.Error("without a window nothing is missed")
	}
	if !p.Scheduled() || p.Disabled() {
		t.Error("the policy does not know what it is")
	}
}

func TestDisabledNeverRotates(t *testing.T) {
	for _, spec := range []PolicySpec{{Period: time.Hour, Disabled: true}, {Cron: "0 3 * * *", Disabled: true}} {
		if got := mustPolicy(t, spec).Next(t0, 1); !got.IsZero() {
			t.Errorf("got %s", got)
		}
	}
}

func TestRefusedPolicies(t *testing.T) {
	cases := map[string]struct {
		spec PolicySpec
		want string
	}{
		"no period":            {PolicySpec{}, "rotation_period 0s"},
		"period too short":     {PolicySpec{Period: time.Second}, "rotation_period 1s"},
		"period too long":      {PolicySpec{Period: MaxPeriod + 1}, "rotation_period"},
		"zone without cron":    {PolicySpec{Period: time.Hour, TimeZone: "Europe/Berlin"}, "time_zone"},
		"window without cron":  {PolicySpec{Period: time.Hour, Window: time.Hour}, "rotation_window"},
		"negative jitter":      {PolicySpec{Period: time.Hour, Jitter: -1}, "jitter"},
		"window too short":     {PolicySpec{Cron: "0 3 * * *", Window: time.Second}, "rotation_window 1s"},
		"cron with four parts": {PolicySpec{Cron: "0 3 * *"}, "rotation_schedule"},
		"cron with a zone":     {PolicySpec{Cron: "TZ=UTC 0 3 * * *"}, "time_zone"},
		"cron as an interval":  {PolicySpec{Cron: "@every 1h"}, "rotation_period"},
		"cron that never is":   {PolicySpec{Cron: "0 0 30 2 *"}, "never"},
		"cron far too long":    {PolicySpec{Cron: strings.Repeat("0", 300)}, "300 bytes"},
		"zone unknown":         {PolicySpec{Cron: "0 3 * * *", TimeZone: "Europe/Atlantis"}, "Atlantis"},
		"zone of the machine":  {PolicySpec{Cron: "0 3 * * *", TimeZone: "Local"}, "IANA"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := NewPolicy(c.spec)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
		})
	}
	_, err := NewPolicy(PolicySpec{Cron: "x", TimeZone: "y", Window: 1, Jitter: -1})
	if got := len(strings.Split(err.Error(), "\n")); got != 4 {
		t.Errorf("%d faults are reported, want all 4: %v", got, err)
	}
}

func TestBackoffGrowsToItsLimit(t *testing.T) {
	for failures := 1; failures < 40; failures++ {
		full := min(30*time.Second<<min(failures-1, 20), time.Hour)
		for seed := range uint64(50) {
			got := Backoff(failures, 30*time.Second, time.Hour, seed)
			if got < full/2 || got > full {
				t.Fatalf("after %d failures: %s is not within [%s, %s]", failures, got, full/2, full)
			}
		}
	}
}

func FuzzCron(f *testing.F) {
	for _, s := range []string{"0 3 * * *", "*/5 1-4 1,15 * MON-FRI", "@daily", "@reboot", "60 24 32 13 8", "0 0 29 2 *", "TZ=UTC * * * * *", "* * * * * *"} {
		f.Add(s, "Europe/Berlin")
	}
	f.Fuzz(func(t *testing.T, expr, zone string) {
		p, err := NewPolicy(PolicySpec{Cron: expr, TimeZone: zone, Window: time.Hour, Jitter: time.Hour, Period: time.Hour})
		if err != nil {
			return
		}
		at := t0
		for range 5 {
			next := p.Next(at, 12345)
			if !next.IsZero() && !next.After(at) {
				t.Fatalf("%q in %q: after %s comes %s", expr, zone, at, next)
			}
			at = next
		}
	})
}
