package alert

import (
	"cmp"
	"slices"
	"time"
)

// Fault is something that is wrong, as a job that looks every minute has found it.
type Fault struct {
	ID    string    `json:"id"`
	Text  string    `json:"text"`
	Hint  string    `json:"hint"` // what to do
	Since time.Time `json:"since"`
	// Told is when it was last told; zero: never.
	Told time.Time `json:"told,omitzero"`
}

// Remember gives what is wrong now, with since when it is and when it was told.
func Remember(before, now []Fault, at time.Time) []Fault {
	for n, f := range now {
		now[n].Since = at
		if b := slices.IndexFunc(before, func(b Fault) bool { return b.ID == f.ID }); b >= 0 {
			now[n].Since, now[n].Told = before[b].Since, before[b].Told
		}
	}
	slices.SortFunc(now, func(a, b Fault) int { return cmp.Compare(a.ID, b.ID) })
	return now
}

// Due marks those that must be told at a time as told, and gives them: the new ones, and
// those of which the last telling is as long ago as repeat says.
func Due(faults []Fault, at time.Time, repeat time.Duration) []Fault {
	var due []Fault
	for n := range faults {
		// A clock that was set back must not silence it for years.
		if f := &faults[n]; f.Told.IsZero() || at.Sub(f.Told) >= repeat || f.Told.After(at) {
			due = append(due, *f)
			f.Told = at
		}
	}
	return due
}
