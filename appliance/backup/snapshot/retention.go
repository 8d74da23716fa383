package snapshot

import (
	"errors"
	"fmt"
	"time"
)

// Policy says which snapshots are kept: for each of the last Hourly hours,
// Daily days, Weekly weeks (from Monday) and Monthly calendar months, in UTC
// and the present one included, the newest verified snapshot taken in it; where
// none of that period was verified, the newest.
type Policy struct {
	Hourly, Daily, Weekly, Monthly int
}

// DefaultPolicy keeps two days by the hour, a month by the day, a quarter by
// the week and two years by the month: about a hundred snapshots.
var DefaultPolicy = Policy{Hourly: 48, Daily: 31, Weekly: 13, Monthly: 24}

// Validate refuses a policy that keeps nothing.
func (p Policy) Validate() error {
	if p.Hourly < 0 || p.Daily < 0 || p.Weekly < 0 || p.Monthly < 0 {
		return fmt.Errorf("retention: a number below 0 in %+v", p)
	}
	if p == (Policy{}) {
		return errors.New("retention: it would keep nothing")
	}
	return nil
}

// incompleteAfter is when a snapshot without a manifest counts as the remains
// of a failed run.
const incompleteAfter = 24 * time.Hour

// Why a snapshot is kept or goes.
const (
	KeepNewestVerified = "newest verified"
	KeepUnverified     = "newer than the newest verified"
	KeepNoneVerified   = "nothing is verified yet"
	KeepFuture         = "from the future"
	KeepUnderWay       = "may be under way"
	KeepHourly         = "hourly"
	KeepDaily          = "daily"
	KeepWeekly         = "weekly"
	KeepMonthly        = "monthly"
	KeepLocked         = "locked"
	DropExpired        = "expired"
	DropIncomplete     = "incomplete"
)

// Decision is what is to become of one snapshot.
type Decision struct {
	Entry Entry
	Keep  bool
	Why   string
}

// decide applies the policy to the snapshots of one cluster, oldest first.
// anchor is the newest verified one, whose proof was looked at; it and whatever
// came after it stay, and without one nothing complete goes.
func (p Policy) decide(entries []Entry, anchor ID, now time.Time) []Decision {
	why := map[ID]string{}
	for _, e := range entries {
		if w := alwaysKept(e, anchor, now); w != "" {
			why[e.ID] = w
		}
	}
	periods := []struct {
		name  string
		count int
		start func(t time.Time, back int) time.Time
	}{
		{KeepHourly, p.Hourly, func(t time.Time, n int) time.Time { return t.Truncate(time.Hour).Add(-time.Duration(n) * time.Hour) }},
		{KeepDaily, p.Daily, func(t time.Time, n int) time.Time { return day(t).AddDate(0, 0, -n) }},
		{KeepWeekly, p.Weekly, func(t time.Time, n int) time.Time {
			return day(t).AddDate(0, 0, -int(t.Weekday()+6)%7-7*n)
		}},
		{KeepMonthly, p.Monthly, func(t time.Time, n int) time.Time {
			return time.Date(t.Year(), t.Month()-time.Month(n), 1, 0, 0, 0, 0, time.UTC)
		}},
	}
	times := make([]time.Time, len(entries))
	for i, e := range entries {
		times[i] = e.ID.Time()
	}
	now = now.UTC()
	for _, period := range periods {
		for n := range period.count {
			from := period.start(now, n)
			to := period.start(now, n-1)
			if best, ok := bestOf(entries, times, from, to); ok && why[best] == "" {
				why[best] = period.name
			}
		}
	}
	out := make([]Decision, len(entries))
	for i, e := range entries {
		out[i] = Decision{Entry: e, Keep: why[e.ID] != "", Why: why[e.ID]}
		switch {
		case out[i].Keep:
		case e.Complete:
			out[i].Why = DropExpired
		default:
			out[i].Why = DropIncomplete
		}
	}
	return out
}

func alwaysKept(e Entry, anchor ID, now time.Time) string {
	age := now.Sub(e.ID.Time())
	switch {
	case age < 0:
		// Some clock is wrong; deleting on the word of one is not safe.
		return KeepFuture
	case !e.Complete:
		// A slow upload has an old name but fresh objects.
		if age < incompleteAfter || now.Sub(e.ModTime) < incompleteAfter {
			return KeepUnderWay
		}
		return ""
	case anchor == (ID{}):
		return KeepNoneVerified
	case e.ID == anchor:
		return KeepNewestVerified
	case e.ID.Base > anchor.Base:
		return KeepUnverified
	}
	return ""
}

// bestOf picks the newest verified snapshot of [from, to), else the newest
// complete one. entries are oldest first, and times are theirs.
func bestOf(entries []Entry, times []time.Time, from, to time.Time) (best ID, ok bool) {
	verified := false
	for i, e := range entries {
		t := times[i]
		if !e.Complete || t.Before(from) || !t.Before(to) {
			continue
		}
		if e.Verified || !verified {
			best, ok = e.ID, true
			verified = verified || e.Verified
		}
	}
	return best, ok
}

func day(t time.Time) time.Time { return time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, time.UTC) }
