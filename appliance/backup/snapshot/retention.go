package snapshot

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Policy says which snapshots are kept: for each of the last Hourly hours, Daily
// days, Weekly weeks (from Monday) and Monthly calendar months that have any, in UTC,
// the newest verified snapshot taken in it; where none of that period was verified,
// the newest. Periods without snapshots don't count, so that neither a machine that
// was off nor a clock that is years ahead makes all the others too old.
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
	KeepDoubted        = "taken by a clock in doubt"
	KeepClock          = "this machine's clock is in doubt"
	KeepGood           = "was read back just now"
	KeepUnread         = "its manifest cannot be read"
	KeepUnderWay       = "may be under way"
	KeepHourly         = "hourly"
	KeepDaily          = "daily"
	KeepWeekly         = "weekly"
	KeepMonthly        = "monthly"
	KeepLocked         = "locked"
	KeepUnlisted       = "complete, though not listed so"
	DropExpired        = "expired"
	DropIncomplete     = "incomplete"
	DropRetired        = "retired"
)

// Decision is what is to become of one snapshot.
type Decision struct {
	Entry Entry
	Keep  bool
	Why   string
}

// decide applies the policy to the snapshots of one cluster, in order, oldest first.
// anchor is the newest verified one, whose proof was looked at; it and whatever
// came after it stay, and without one nothing complete goes.
func (p Policy) decide(entries []Entry, anchor ID, now time.Time) []Decision {
	why := map[ID]string{}
	after := false
	for _, e := range entries {
		if w := alwaysKept(e, anchor, after, now); w != "" {
			why[e.ID] = w
		}
		after = after || e.ID == anchor
	}
	// Periods are of dates, which only those have that are not in doubt.
	dated := slices.DeleteFunc(slices.Clone(entries), func(e Entry) bool { return !e.Complete || e.Retired || e.InDoubt(now) })
	slices.SortStableFunc(dated, func(a, b Entry) int { return strings.Compare(a.ID.Base, b.ID.Base) })
	// The good ones are counted by themselves, too: neither what somebody else has put
	// there, nor what is damaged, makes one of them go.
	good := slices.DeleteFunc(slices.Clone(dated), func(e Entry) bool { return !e.Counts() })
	periods := []struct {
		name  string
		count int
		start func(t time.Time) time.Time
	}{
		{KeepHourly, p.Hourly, func(t time.Time) time.Time { return t.Truncate(time.Hour) }},
		{KeepDaily, p.Daily, day},
		{KeepWeekly, p.Weekly, func(t time.Time) time.Time { return day(t).AddDate(0, 0, -int(t.Weekday()+6)%7) }},
		{KeepMonthly, p.Monthly, func(t time.Time) time.Time { return time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, time.UTC) }},
	}
	for _, period := range periods {
		for _, some := range [][]Entry{dated, good} {
			for _, best := range bestOf(some, period.count, period.start) {
				if why[best] == "" {
					why[best] = period.name
				}
			}
		}
	}
	out := make([]Decision, len(entries))
	for i, e := range entries {
		out[i] = Decision{Entry: e, Keep: why[e.ID] != "", Why: why[e.ID]}
		switch {
		case out[i].Keep:
		case e.Retired:
			out[i].Why = DropRetired
		case e.Complete:
			out[i].Why = DropExpired
		default:
			out[i].Why = DropIncomplete
		}
	}
	return out
}

func alwaysKept(e Entry, anchor ID, after bool, now time.Time) string {
	age := now.Sub(e.ID.Time())
	switch {
	case !e.Complete && age >= 0:
		// A slow upload has an old name but fresh objects.
		if age < incompleteAfter || now.Sub(e.ModTime) < incompleteAfter {
			return KeepUnderWay
		}
		return ""
	case e.ID == anchor && age >= 0:
		return KeepNewestVerified
	case e.Retired && e.Complete && anchor != (ID{}):
		return ""
	case age < 0:
		// Some clock is wrong; deleting on the word of one is not safe.
		return KeepFuture
	case e.Doubted:
		return KeepDoubted
	case e.Unread != nil && !errors.Is(e.Unread, ErrCorrupt) && !errors.Is(e.Unread, ErrMismatch):
		return KeepUnread
	case anchor == (ID{}):
		return KeepNoneVerified
	case after:
		return KeepUnverified
	}
	return ""
}

// bestOf picks, of each of the last count periods that have a complete snapshot, the
// newest verified one, else the newest. entries are complete, oldest first by date, which
// tells the period and nothing else.
func bestOf(entries []Entry, count int, start func(time.Time) time.Time) []ID {
	var ids []ID
	var best Entry
	var period time.Time
	for _, e := range slices.Backward(entries) {
		switch from := start(e.ID.Time()); {
		case len(ids) == 0 || !from.Equal(period):
			if len(ids) == count {
				return ids
			}
			ids, best, period = append(ids, e.ID), e, from
		case e.Verified && !best.Verified, e.Verified == best.Verified && compareEntries(e, best) > 0:
			ids[len(ids)-1], best = e.ID, e
		}
	}
	return ids
}

func day(t time.Time) time.Time { return time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, time.UTC) }
