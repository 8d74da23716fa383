package status

import (
	"fmt"
	"strings"
	"time"

	"strongroom.example/appliance/base/words"
	"strongroom.example/appliance/watch/evidence"
)

// The calendar: 13 weeks from this one's Monday hold the next 90 days in most
// weeks; the last row is the one that holds day 90.
const calendarDays = 90

// calendar draws the days of the next rotations, and beside it which keys come
// first.
func (s *screen) calendar(k evidence.Keys, now time.Time) {
	today := midnight(now)
	end := today.AddDate(0, 0, calendarDays)
	// The last day is one to its end.
	next := k.NextRotations(end.AddDate(0, 0, 1).Add(-time.Nanosecond))
	perDay, total := map[time.Time]int{}, 0
	for text, n := range k.Days {
		day, err := time.Parse(time.DateOnly, text)
		if err != nil || day.After(end) {
			continue
		}
		if day.Before(today) {
			day = today // overdue: as soon as may be
		}
		perDay[day] += n
		total += n
	}
	fmt.Fprintf(s, "\n  %s\n", s.paint(words.Bold, "Next rotations"))
	if total == 0 {
		s.WriteString("    none in the next 90 days\n")
		return
	}
	rows := weeks(today, end)
	names := s.upcoming(next, total, now, len(rows)+1)
	for i := range max(len(rows)+1, len(names)) {
		left := ""
		switch {
		case i == 0:
			left = s.paint(words.Dim, "             Mo  Tu  We  Th  Fr  Sa  Su")
		case i <= len(rows):
			left = s.week(rows[i-1], today, end, perDay)
		}
		line := "  " + left
		if i < len(names) {
			line += strings.Repeat(" ", max(0, 41-visible(left))) + names[i]
		}
		s.WriteString(strings.TrimRight(line, " ") + "\n")
	}
}

// weeks are the Mondays from today's to end's.
func weeks(today, end time.Time) []time.Time {
	monday := today.AddDate(0, 0, -(int(today.Weekday())+6)%7)
	var out []time.Time
	for ; !monday.After(end); monday = monday.AddDate(0, 0, 7) {
		out = append(out, monday)
	}
	return out
}

// week is one row: its Monday, and for each day how many keys rotate.
func (s *screen) week(monday, today, end time.Time, perDay map[time.Time]int) string {
	var b strings.Builder
	b.WriteString(s.paint(words.Dim, fmt.Sprintf("  %6s  ", monday.Format("2 Jan"))))
	for i := range 7 {
		day := monday.AddDate(0, 0, i)
		n := perDay[day]
		switch {
		case day.Before(today) || day.After(end):
			b.WriteString("    ")
		case n == 0 && day.Equal(today):
			b.WriteString(s.paint(words.Bold, "   ○"))
		case n == 0:
			b.WriteString(s.paint(words.Dim, "   ·"))
		case n > 999:
			b.WriteString(s.paint(words.Yellow, " >1k"))
		default:
			b.WriteString(s.paint(words.Yellow, fmt.Sprintf("%4d", n)))
		}
	}
	return b.String()
}

// upcoming are up to room lines about the keys that come first, of the total.
func (s *screen) upcoming(next []evidence.Key, total int, now time.Time, room int) []string {
	width := s.Width - 2 - 41
	if width < 30 {
		return nil
	}
	var out []string
	for i, key := range next {
		if i == room-1 && total > room {
			out = append(out, s.paint(words.Dim, fmt.Sprintf("%14s  and %d more", "", total-i)))
			break
		}
		when := key.NextRotation.In(now.Location()).Format("2 Jan 15:04")
		if key.NextRotation.Before(now) {
			when = "due"
		}
		out = append(out, fmt.Sprintf("%s  %s", s.paint(words.Dim, fmt.Sprintf("%14s", when)), fit(words.Clean(key.Name), width-16)))
	}
	return out
}

// fit shortens a name from its front: its end tells more.
func fit(name string, width int) string {
	r := []rune(name)
	if len(r) <= width {
		return name
	}
	return "…" + string(r[len(r)-width+1:])
}

// visible is how many columns a text takes, without its colours.
func visible(s string) int {
	n, escape := 0, false
	for _, r := range s {
		switch {
		case r == '\x1b':
			escape = true
		case escape:
			escape = r != 'm'
		default:
			n++
		}
	}
	return n
}

// midnight is the beginning of t's day.
func midnight(t time.Time) time.Time {
	t = t.UTC()
	return time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, time.UTC)
}
