package alert

import (
	"slices"
	"testing"
	"time"
)

// A fault is told when it is new, again when it lasts, and anew when it has come back.
func TestFaultsAreTold(t *testing.T) {
	at := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	const repeat = time.Hour
	var known []Fault
	for n, step := range []struct {
		after time.Duration
		now   []string
		due   []string
	}{
		{0, []string{"b"}, []string{"b"}},
		{time.Minute, []string{"b"}, nil},
		{time.Minute, []string{"b", "a"}, []string{"a"}},
		{58 * time.Minute, []string{"a", "b"}, []string{"b"}},
		{2 * time.Minute, []string{"b", "a"}, []string{"a"}},
		{time.Minute, nil, nil},
		{time.Minute, []string{"a"}, []string{"a"}},
		{-24 * time.Hour, []string{"a"}, []string{"a"}}, // the clock was set back
	} {
		at = at.Add(step.after)
		var now []Fault
		for _, id := range step.now {
			now = append(now, Fault{ID: id})
		}
		known = Remember(known, now, at)
		var due []string
		for _, f := range Due(known, at, repeat) {
			due = append(due, f.ID)
		}
		if !slices.Equal(due, step.due) {
			t.Errorf("step %d: due are %q, want %q", n, due, step.due)
		}
	}
	if since := known[0].Since; since != at.Add(24*time.Hour) {
		t.Errorf("since %v", since)
	}
}
