package doctor

import (
	"context"
	"errors"
	"fmt"

	"strongroom.example/appliance/base/words"
	"strongroom.example/appliance/watch/evidence"
)

// reinstall is what brings a whole machine back.
const reinstall = "strongroom-installer plan, then strongroom-installer install"

// check is one line of the checklist: a list of questions. It passes when each of
// them was answered with yes, and the frame says so, not the check.
type check struct {
	id, title string
	// operation marks what is about the appliance's work. Every other check is
	// about security, and one of these that saw nothing is a fault of the
	// examination: see Report.Blind.
	operation bool
	questions []question
}

// question is asked of the machine. Its answers are yes (yes, found), no (fail,
// warn), nothing came (unseen, or a function that says none of these) and not
// asked (notAsked); where it does not arise, it is moot.
type question struct {
	// asks is the question in words, such that yes is well.
	asks string
	// least is how many of what it counts it must find, lest nothing pass for
	// well; of names them.
	least int
	of    string
	// remedy is for when it finds fewer; "": reinstall.
	remedy string
	ask    func(context.Context, *exam)
}

// Answers to a question.
const (
	Yes      = "yes"
	No       = "no"
	Nothing  = "nothing came"
	NotAsked = "not asked"
	Moot     = "does not arise"
)

// Asked is a question and its answer.
type Asked struct {
	Question string `json:"question"`
	Answer   string `json:"answer"`
	// Found is how many of what it counts were found.
	Found int `json:"found,omitempty"`
}

// answers is what a question has brought up.
type answers struct {
	yes, no, nothing, notAsked, moot bool
	found                            int
}

// exam is an examination under way: the subject, the item in hand, and what
// several items look at.
type exam struct {
	Subject
	item Item
	got  answers // of the question in hand

	accounts *accounts
	procs    []process
	procsErr error
	hcl      *vaultFile
	tokens   *tokens
}

// check asks all of c's questions.
func (e *exam) check(ctx context.Context, number int, c check) Item {
	e.item = Item{ID: c.id, Number: number, Title: c.title, Evidence: []Evidence{}}
	seen := false
	for _, q := range c.questions {
		e.got = answers{}
		q.ask(ctx, e)
		a := e.answer(q)
		e.item.Questions = append(e.item.Questions, Asked{q.asks, a, e.got.found})
		seen = seen || a == Yes || a == No
	}
	e.item.Verdict = verdict(e.item)
	e.item.Blind = !seen && !c.operation
	return e.item
}

// answer weighs what a question has brought up. Whoever saw a part only has not
// seen that all is well; whoever saw all and found too little has found a fault.
func (e *exam) answer(q question) string {
	got := &e.got
	switch {
	case got.no:
		return No
	case got.notAsked:
		return NotAsked
	case got.nothing:
		return Nothing
	case got.moot && !got.yes:
		return Moot
	case !got.yes:
		e.reason(evidence.Skip, "", "nothing came of the question whether %s", q.asks)
		return Nothing
	case got.found < q.least:
		remedy := q.remedy
		if remedy == "" {
			remedy = reinstall
		}
		e.fail(remedy, "%s: found %s, and %d at least must be there", q.asks, words.Count(got.found, q.of), q.least)
		return No
	}
	return Yes
}

// verdict is the gravest of the reasons'. Only what was answered with yes passes.
func verdict(i Item) string {
	rank := map[string]int{evidence.Pass: 0, evidence.Skip: 1, evidence.Warn: 2, evidence.Fail: 3}
	v := evidence.Skip
	for _, a := range i.Questions {
		if a.Answer == Yes {
			v = evidence.Pass
		}
	}
	for _, r := range i.Reasons {
		if rank[r.Verdict] > rank[v] {
			v = r.Verdict
		}
	}
	return v
}

// saw notes evidence, and answers nothing.
func (e *exam) saw(looked, format string, args ...any) {
	e.item.Evidence = append(e.item.Evidence, Evidence{looked, words.Line(fmt.Sprintf(format, args...), maxText)})
}

// yes answers the question, with the evidence.
func (e *exam) yes(looked, format string, args ...any) {
	e.saw(looked, format, args...)
	e.got.yes = true
}

// found answers a question that counts things, with so many of them.
func (e *exam) found(n int, looked, format string, args ...any) {
	e.yes(looked, format, args...)
	e.got.found += n
}

// fail answers no: what is wrong, with its remedy.
func (e *exam) fail(remedy, format string, args ...any) *Reason {
	e.got.no = true
	return e.reason(evidence.Fail, remedy, format, args...)
}

// warn answers no, with what somebody should think about.
func (e *exam) warn(remedy, format string, args ...any) *Reason {
	e.got.no = true
	return e.reason(evidence.Warn, remedy, format, args...)
}

// unseen notes what was asked for and did not come.
func (e *exam) unseen(looked string, err error) {
	e.got.nothing = true
	e.reason(evidence.Skip, "", "not seen: %s: %s", looked, plain(err))
}

// notAsked notes what could not be asked, and why.
func (e *exam) notAsked(what string, why error) {
	e.got.notAsked = true
	e.reason(evidence.Skip, "", "not asked: %s: %s", what, plain(why))
}

// moot notes why the question does not arise on this machine.
func (e *exam) moot(looked, format string, args ...any) {
	e.saw(looked, format, args...)
	e.got.moot = true
}

func (e *exam) reason(verdict, remedy, format string, args ...any) *Reason {
	e.item.Reasons = append(e.item.Reasons, Reason{Verdict: verdict, Text: words.Line(fmt.Sprintf(format, args...), maxText), Remedy: remedy})
	return &e.item.Reasons[len(e.item.Reasons)-1]
}

// errNothing is an answer that holds nothing.
var errNothing = errors.New("the answer holds nothing")
