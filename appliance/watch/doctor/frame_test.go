package doctor

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"strongroom.example/appliance/watch/evidence"
)

// The frame says what an item is, by the answers to its questions.
func TestFrame(t *testing.T) {
	type ask = func(context.Context, *exam)
	why := errors.New("hidden")
	var (
		yes      ask = func(_ context.Context, e *exam) { e.yes("x", "well") }
		two      ask = func(_ context.Context, e *exam) { e.found(1, "x", "one"); e.found(1, "y", "another") }
		none     ask = func(_ context.Context, e *exam) { e.found(0, "x", "none") }
		silent   ask = func(_ context.Context, e *exam) { e.saw("x", "something") }
		unseen   ask = func(_ context.Context, e *exam) { e.unseen("x", why) }
		partly   ask = func(_ context.Context, e *exam) { e.found(1, "x", "one"); e.unseen("y", why) }
		notAsked ask = func(_ context.Context, e *exam) { e.notAsked("x", why) }
		moot     ask = func(_ context.Context, e *exam) { e.moot("x", "of no meaning here") }
		warn     ask = func(_ context.Context, e *exam) { e.yes("x", "seen"); e.warn("do", "think") }
		fail     ask = func(_ context.Context, e *exam) { e.yes("x", "seen"); e.fail("do", "wrong") }
	)
	for name, c := range map[string]struct {
		asks    []ask
		least   int
		answers []string
		verdict string
		blind   bool
		says    string
	}{
		"yes":                  {asks: []ask{yes, yes}, answers: []string{Yes, Yes}, verdict: evidence.Pass},
		"found enough":         {asks: []ask{two}, least: 2, answers: []string{Yes}, verdict: evidence.Pass},
		"found too little":     {asks: []ask{two}, least: 3, answers: []string{No}, verdict: evidence.Fail, says: "all is well: found 2 things, and 3 at least must be there"},
		"found nothing":        {asks: []ask{none}, least: 1, answers: []string{No}, verdict: evidence.Fail, says: "found 0 things"},
		"nothing is well":      {asks: []ask{none}, answers: []string{Yes}, verdict: evidence.Pass},
		"says nothing":         {asks: []ask{silent}, answers: []string{Nothing}, verdict: evidence.Skip, blind: true, says: "nothing came of the question whether all is well"},
		"nothing came":         {asks: []ask{unseen}, answers: []string{Nothing}, verdict: evidence.Skip, blind: true, says: "not seen: x: hidden"},
		"seen in part":         {asks: []ask{partly}, least: 2, answers: []string{Nothing}, verdict: evidence.Skip, blind: true, says: "not seen: y: hidden"},
		"one answered":         {asks: []ask{yes, unseen}, answers: []string{Yes, Nothing}, verdict: evidence.Skip},
		"not asked":            {asks: []ask{notAsked}, answers: []string{NotAsked}, verdict: evidence.Skip, blind: true, says: "not asked: x: hidden"},
		"one does not arise":   {asks: []ask{yes, moot}, answers: []string{Yes, Moot}, verdict: evidence.Pass},
		"none arises":          {asks: []ask{moot}, answers: []string{Moot}, verdict: evidence.Skip, blind: true},
		"a warning":            {asks: []ask{yes, warn}, answers: []string{Yes, No}, verdict: evidence.Warn},
		"a fault":              {asks: []ask{warn, fail, unseen}, answers: []string{No, No, Nothing}, verdict: evidence.Fail},
		"a fault and a gap":    {asks: []ask{fail, notAsked}, answers: []string{No, NotAsked}, verdict: evidence.Fail},
		"a check without any":  {verdict: evidence.Skip, blind: true},
		"asked after answered": {asks: []ask{two, none}, least: 1, answers: []string{Yes, No}, verdict: evidence.Fail},
	} {
		t.Run(name, func(t *testing.T) {
			for _, operation := range []bool{false, true} {
				k := check{id: "x", title: "X", operation: operation}
				for _, a := range c.asks {
					k.questions = append(k.questions, question{asks: "all is well", least: c.least, of: "thing", ask: a})
				}
				i := (&exam{}).check(t.Context(), 1, k)
				var answers []string
				for _, q := range i.Questions {
					answers = append(answers, q.Answer)
				}
				if i.Verdict != c.verdict || !slices.Equal(answers, c.answers) || i.Blind != (c.blind && !operation) || !hasReason(i, c.says) && c.says != "" {
					t.Errorf("%s, blind %t, %q, %+v", i.Verdict, i.Blind, answers, i.Reasons)
				}
			}
		})
	}
}

// Each question says what it asks, and what it counts where it counts.
func TestQuestions(t *testing.T) {
	ids := map[string]bool{}
	for _, c := range checks() {
		if ids[c.id] || c.title == "" || len(c.questions) == 0 {
			t.Errorf("%q is there twice, or asks nothing", c.id)
		}
		ids[c.id] = true
		asks := map[string]bool{}
		for _, q := range c.questions {
			if asks[q.asks] || q.asks == "" || q.ask == nil || strings.HasSuffix(q.asks, ".") {
				t.Errorf("%s asks %q", c.id, q.asks)
			}
			asks[q.asks] = true
			if (q.least > 0) != (q.of != "") {
				t.Errorf("%s: %q counts %d of %q", c.id, q.asks, q.least, q.of)
			}
		}
	}
}

// What counts on a healthy machine says the least that it must find.
func TestWhatCountsHasALeast(t *testing.T) {
	_, s := healthy(t)
	r := Examine(t.Context(), *s)
	for n, c := range checks() {
		for m, q := range c.questions {
			if found := r.Items[n].Questions[m].Found; found > 0 && q.least == 0 && q.asks != "the escrow and systemd's own key are closed" {
				t.Errorf("%s: %q finds %d, and would pass with none", c.id, q.asks, found)
			}
		}
	}
}
