// Package doctor examines the machine against the hardening checklist: for each
// item what was looked at, what was seen, a verdict, and what to do. It also
// finds what has drifted from what the installer wrote.
//
// An item is a list of questions, each with a positive answer of its own. A pass
// means that each was answered so: what could not be looked at makes it a skip,
// with the reason, and too little found is a fault. It changes nothing, unless a
// caller applies the fixes that it offers. It is not the installer, which brings
// a whole machine to its wanted state.
package doctor

import (
	"context"
	"path/filepath"
	"time"

	"strongroom.example/appliance/base/statefile"
	"strongroom.example/appliance/watch/evidence"
)

// Report is the outcome of one examination. It holds no secret.
type Report struct {
	Format  int       `json:"format"`
	At      time.Time `json:"at"`
	Host    string    `json:"host"`
	Version string    `json:"version"` // this program's
	Items   []Item    `json:"items"`
}

// Item is one line of the checklist, known by its ID.
type Item struct {
	ID string `json:"id"`
	// Number is its place in the checklist, for people: docs/status.md.
	Number int    `json:"number"`
	Title  string `json:"title"`
	// Verdict is pass, warn, fail or skip.
	Verdict  string     `json:"verdict"`
	Evidence []Evidence `json:"evidence"`
	// Reasons are why it did not pass.
	Reasons []Reason `json:"reasons,omitempty"`
	// Questions are what was asked, with the answers.
	Questions []Asked `json:"questions"`
	// Blind says that an item about security saw nothing at all: none of its
	// questions was answered.
	Blind bool `json:"blind,omitempty"`
}

// Evidence is one thing that was looked at.
type Evidence struct {
	Looked string `json:"looked"` // a file, a command, a path in Vault
	Saw    string `json:"saw"`
}

// Reason is one thing that was wrong, or could not be seen.
type Reason struct {
	Verdict string `json:"verdict"` // fail, warn or skip
	Text    string `json:"text"`
	Remedy  string `json:"remedy,omitempty"`
	// Fix is what --fix does about it; empty: a person must.
	Fix string `json:"fix,omitempty"`

	do fix
}

// fix changes one thing on the machine.
type fix func(ctx context.Context, m Machine) error

// Count gives the number of items with a verdict.
func (r Report) Count(verdict string) int {
	n := 0
	for _, i := range r.Items {
		if i.Verdict == verdict {
			n++
		}
	}
	return n
}

// Failed says whether an item failed.
func (r Report) Failed() bool { return r.Count(evidence.Fail) > 0 }

// Blind are the ids of the items about security that saw nothing. A machine of
// which that much is not known is not in order.
func (r Report) Blind() []string {
	var out []string
	for _, i := range r.Items {
		if i.Blind {
			out = append(out, i.ID)
		}
	}
	return out
}

// Item gives one by its id.
func (r Report) Item(id string) (Item, bool) {
	for _, i := range r.Items {
		if i.ID == id {
			return i, true
		}
	}
	return Item{}, false
}

// LastPath is the newest report in a state folder.
func LastPath(stateDir string) string { return filepath.Join(stateDir, "last.json") }

// Save keeps r as the newest report.
func (r Report) Save(stateDir string) error {
	// Metrics read it through the folder's group. Nothing in it is secret.
	return statefile.Save(LastPath(stateDir), r, 0o640)
}

// Examine runs all checks.
func Examine(ctx context.Context, s Subject) Report {
	e := &exam{Subject: s}
	r := Report{Format: evidence.DoctorFormat, At: s.Machine.Now().UTC(), Version: s.Version, Host: s.Machine.Hostname()}
	for n, c := range checks() {
		r.Items = append(r.Items, e.check(ctx, n+1, c))
	}
	return r
}
