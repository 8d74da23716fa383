// Package engine runs the installer's steps: it looks at the machine, says
// what differs, and makes the difference, one action at a time.
//
// It knows nothing of Vault, files or systemd; those are in the steps. What has
// been done is never taken from memory or from the journal: a step's Check
// looks at the machine again, before and after.
package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// The exit codes, as the help and docs/install.md give them.
const (
	ExitOK       = 0 // done, or nothing to do
	ExitFailed   = 1 // failed
	ExitUsage    = 2 // the command line or the configuration is wrong
	ExitDrift    = 3 // plan: there are differences
	ExitOperator = 4 // a person must act first
)

// Error is a failure with what to do about it kept apart from the fault.
type Error struct {
	Code int
	Err  error
	Hint string // what to do; may be empty
}

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap gives the fault.
func (e *Error) Unwrap() error { return e.Err }

// Step is one part of the installation. Its methods are called in order by one
// goroutine.
type Step interface {
	// ID is short, stable and unique: the journal's name for the step.
	ID() string
	// Title says what the step is about, for people.
	Title() string
	// Check looks at the machine, changes nothing, and returns what has to be
	// changed: nothing, where all is as it should be. Where an earlier step
	// has still to be applied it returns what can be foreseen.
	Check(ctx context.Context) (Diff, error)
}

// Diff is what differs between the machine and what a step wants, in the
// order in which it must be changed.
type Diff []Change

// Change is one difference and how to remove it.
type Change struct {
	// What is changed: a path, a unit, a user.
	What string
	// From and To say how. Never a secret. Empty From: it isn't there yet.
	From, To string
	// Slow: it takes so long that people want to know what they wait for.
	Slow bool
	// Apply makes the change. It must leave the old or the new state if it
	// fails or the process is killed in it, or a state from which a further
	// Check finds its way.
	Apply func(ctx context.Context) error
}

// String is the change as plan prints it.
func (c Change) String() string {
	if c.From == "" {
		return fmt.Sprintf("+ %s: %s", c.What, c.To)
	}
	if c.To == "" {
		return fmt.Sprintf("- %s: %s", c.What, c.From)
	}
	return fmt.Sprintf("~ %s: %s → %s", c.What, c.From, c.To)
}

// Report prints err for a person and returns the exit code for it.
func Report(w io.Writer, program string, err error) int {
	if err == nil {
		return ExitOK
	}
	if !errors.Is(err, ErrDiffers) {
		fmt.Fprintf(w, "%s: %v\n", program, err)
	}
	var e *Error
	if !errors.As(err, &e) {
		return ExitFailed
	}
	if e.Hint != "" {
		fmt.Fprintln(w, "  →", e.Hint)
	}
	return e.Code
}
