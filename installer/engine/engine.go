package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"strongroom.example/appliance/base/fault"
	"strongroom.example/appliance/base/words"
)

// ErrDiffers is what Plan returns, with ExitDrift, when the machine is not as
// it should be.
var ErrDiffers = errors.New("there are differences")

// Engine runs steps in order.
type Engine struct {
	Steps   []Step
	Out     io.Writer
	Journal *Journal // nil: none, as for Plan
	Now     func() time.Time
}

// Result counts what a run did.
type Result struct {
	Steps   int // checked
	Changed int // steps that changed something
	Changes int // changes made; for Plan, changes to be made
	Took    time.Duration
}

// Plan prints every difference and changes nothing. Steps that can't be
// checked yet are reported as what they are, and the rest goes on. It returns
// ErrDiffers (ExitDrift) where there are differences.
func (e *Engine) Plan(ctx context.Context) (Result, error) {
	start := e.Now()
	var res Result
	var foreseen Diff
	for _, s := range e.Steps {
		if err := ctx.Err(); err != nil {
			return res, err
		}
		diff, err := s.Check(context.WithValue(ctx, foreseenKey{}, foreseen))
		if err != nil {
			return res, stepError(s, "check", err)
		}
		foreseen = append(foreseen, diff...)
		res.Steps++
		if len(diff) == 0 {
			fmt.Fprintf(e.Out, "= %s\n", s.Title())
			continue
		}
		res.Changed++
		res.Changes += len(diff)
		fmt.Fprintf(e.Out, "~ %s\n", s.Title())
		for _, c := range diff {
			fmt.Fprintf(e.Out, "    %s\n", c)
			for _, line := range c.Detail {
				fmt.Fprintf(e.Out, "        %s\n", line)
			}
		}
	}
	res.Took = e.Now().Sub(start)
	if res.Changes == 0 {
		fmt.Fprintf(e.Out, "Nothing to change: all %d steps are as they should be.\n", res.Steps)
		return res, nil
	}
	fmt.Fprintf(e.Out, "%d of %d steps have %s. Nothing has been changed.\n", res.Changed, res.Steps, words.Count(res.Changes, "change"))
	return res, &fault.Error{Code: fault.Drift, Err: ErrDiffers}
}

type foreseenKey struct{}

// Foreseen are the changes that the steps before would make, where nothing is changed:
// what a later step would find only then, it tells by them.
func Foreseen(ctx context.Context) Diff {
	d, _ := ctx.Value(foreseenKey{}).(Diff)
	return d
}

// Planning says that nothing will be changed by who asks.
func Planning(ctx context.Context) bool {
	_, ok := ctx.Value(foreseenKey{}).(Diff)
	return ok
}

// Install brings every step to its wanted state, in order, and stops at the
// first that fails. It may be killed at any moment and run again.
func (e *Engine) Install(ctx context.Context) (Result, error) {
	start := e.Now()
	var res Result
	if err := e.Journal.add(Entry{Event: EventRun}); err != nil {
		return res, err
	}
	for i, s := range e.Steps {
		begin := e.Now()
		n, err := e.apply(ctx, i, s)
		res.Steps++
		res.Changes += n
		if n > 0 {
			res.Changed++
		}
		took := e.Now().Sub(begin)
		if err != nil {
			e.progress(i, "✗", s, took, "failed")
			// The fault is the operator's to see; one of the journal, on a
			// full disk say, would only hide it.
			_ = e.Journal.add(Entry{Event: EventFailed, Step: s.ID(), Note: err.Error()})
			return res, err
		}
		if n == 0 {
			e.progress(i, "=", s, took, "no change")
			continue
		}
		e.progress(i, "✓", s, took, words.Count(n, "change"))
	}
	if err := e.Journal.add(Entry{Event: EventDone}); err != nil {
		return res, err
	}
	res.Took = e.Now().Sub(start)
	if res.Changes == 0 {
		fmt.Fprintf(e.Out, "Nothing to change: all %d steps are as they should be (%s).\n", res.Steps, seconds(res.Took))
	} else {
		fmt.Fprintf(e.Out, "Done: %s in %d of %d steps (%s).\n", words.Count(res.Changes, "change"), res.Changed, res.Steps, seconds(res.Took))
	}
	return res, nil
}

// Only makes the changes of the steps with these ids. The others are only looked at,
// since those may go by what they have seen.
func (e *Engine) Only(ctx context.Context, ids ...string) error {
	for i, s := range e.Steps {
		if !slices.Contains(ids, s.ID()) {
			if _, err := s.Check(ctx); err != nil {
				return stepError(s, "check", err)
			}
			continue
		}
		begin := e.Now()
		n, err := e.apply(ctx, i, s)
		if err != nil {
			return err
		}
		if n > 0 {
			e.progress(i, "✓", s, e.Now().Sub(begin), words.Count(n, "change"))
		}
	}
	return nil
}

// apply makes the changes of step i and returns how many were made.
func (e *Engine) apply(ctx context.Context, i int, s Step) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, stopped(err)
	}
	diff, err := s.Check(ctx)
	if err != nil {
		return 0, stepError(s, "check", err)
	}
	for n, c := range diff {
		if err := ctx.Err(); err != nil {
			return n, stopped(err)
		}
		if err := e.Journal.add(Entry{Event: EventBegin, Step: s.ID(), What: c.What, Note: c.To}); err != nil {
			return n, err
		}
		if c.Slow {
			fmt.Fprintf(e.Out, "… [%2d/%d] %s\n", i+1, len(e.Steps), s.Title())
		}
		for _, line := range c.Detail {
			fmt.Fprintf(e.Out, "    %s\n", line)
		}
		if err := c.Apply(ctx); err != nil {
			return n, stepError(s, c.What, err)
		}
		if err := e.Journal.add(Entry{Event: EventApplied, Step: s.ID(), What: c.What}); err != nil {
			return n + 1, err
		}
	}
	if len(diff) == 0 {
		return 0, nil
	}
	// A step that believes itself is not believed: look again.
	left, err := s.Check(ctx)
	if err != nil {
		return len(diff), stepError(s, "check after the changes", err)
	}
	if len(left) > 0 {
		return len(diff), stepError(s, left[0].What, fmt.Errorf("still differs after the change (%s)", left[0]))
	}
	return len(diff), nil
}

func (e *Engine) progress(i int, mark string, s Step, took time.Duration, what string) {
	fmt.Fprintf(e.Out, "%s [%2d/%d] %-44s %7s  %s\n", mark, i+1, len(e.Steps), s.Title(), seconds(took), what)
}

func stopped(err error) error {
	return &fault.Error{Code: fault.Failed, Err: fmt.Errorf("stopped: %w", err), Hint: "run the same command again to go on"}
}

// stepError keeps code and hint of an *Error below it.
func stepError(s Step, what string, err error) error {
	wrapped := fmt.Errorf("step %q: %s: %w", s.ID(), what, err)
	var e *fault.Error
	if errors.As(err, &e) {
		return &fault.Error{Code: e.Code, Err: wrapped, Hint: e.Hint}
	}
	return &fault.Error{Code: fault.Failed, Err: wrapped, Hint: "remove the cause and run the same command again; it goes on where it stopped"}
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2fs", d.Seconds()) }
