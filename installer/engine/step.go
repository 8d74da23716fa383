// Package engine runs the installer's steps: it looks at the machine, says
// what differs, and makes the difference, one action at a time.
//
// It knows nothing of Vault, files or systemd; those are in the steps. What has
// been done is never taken from memory or from the journal: a step's Check
// looks at the machine again, before and after.
package engine

import (
	"context"
	"fmt"
)

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
	// Detail is more of what differs, a line each. Never a secret.
	Detail []string
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
