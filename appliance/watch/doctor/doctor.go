// Package doctor examines the machine against the hardening checklist: for each
// item what was looked at, what was seen, a verdict, and what to do. It also
// finds what has drifted from what the installer wrote.
//
// A pass means that everything the item asks for was seen: what could not be
// looked at makes it a skip, with the reason. It changes nothing, unless a
// caller applies the fixes that it offers. It is not the installer, which brings
// a whole machine to its wanted state.
package doctor

import (
	"context"
	"fmt"
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

// Item is one line of the checklist.
type Item struct {
	ID     string `json:"id"`
	Number int    `json:"number"` // in the checklist, docs/status.md
	Title  string `json:"title"`
	// Verdict is pass, warn, fail or skip.
	Verdict  string     `json:"verdict"`
	Evidence []Evidence `json:"evidence"`
	// Reasons are why it did not pass.
	Reasons []Reason `json:"reasons,omitempty"`
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
	for _, c := range checks() {
		e.item = Item{ID: c.id, Number: c.number, Title: c.title, Evidence: []Evidence{}}
		c.run(ctx, e)
		r.Items = append(r.Items, e.verdict())
	}
	return r
}

// exam is an examination under way: the subject, the item in hand, and what
// several items look at.
type exam struct {
	Subject
	item Item

	accounts *accounts
	procs    []process
	procsErr error
	hcl      *vaultFile
	tokens   *tokens
}

// saw notes evidence.
func (e *exam) saw(looked, format string, args ...any) {
	e.item.Evidence = append(e.item.Evidence, Evidence{looked, oneLine(fmt.Sprintf(format, args...))})
}

// fail notes what is wrong, with its remedy.
func (e *exam) fail(remedy, format string, args ...any) *Reason {
	return e.reason(evidence.Fail, remedy, format, args...)
}

// warn notes what somebody should think about.
func (e *exam) warn(remedy, format string, args ...any) *Reason {
	return e.reason(evidence.Warn, remedy, format, args...)
}

// unseen notes what could not be looked at.
func (e *exam) unseen(looked string, err error) {
	e.reason(evidence.Skip, "", "not seen: %s: %s", looked, plain(err))
}

func (e *exam) reason(verdict, remedy, format string, args ...any) *Reason {
	e.item.Reasons = append(e.item.Reasons, Reason{Verdict: verdict, Text: oneLine(fmt.Sprintf(format, args...)), Remedy: remedy})
	return &e.item.Reasons[len(e.item.Reasons)-1]
}

// fix offers to put it right; what says what will be done.
func (r *Reason) fix(do fix, format string, args ...any) {
	r.Fix, r.do = fmt.Sprintf(format, args...), do
}

// verdict is the gravest of the reasons'. What was not seen is no pass.
func (e *exam) verdict() Item {
	i := e.item
	rank := map[string]int{evidence.Pass: 0, evidence.Skip: 1, evidence.Warn: 2, evidence.Fail: 3}
	i.Verdict = evidence.Pass
	for _, r := range i.Reasons {
		if rank[r.Verdict] > rank[i.Verdict] {
			i.Verdict = r.Verdict
		}
	}
	if i.Verdict == evidence.Pass && len(i.Evidence) == 0 {
		// A check that has looked at nothing has proved nothing.
		i.Verdict = evidence.Skip
		i.Reasons = append(i.Reasons, Reason{Verdict: evidence.Skip, Text: "nothing was looked at"})
	}
	return i
}
