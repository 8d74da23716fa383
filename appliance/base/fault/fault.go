// Package fault is how both programs end: their exit codes, and an error that
// keeps what to do about it apart from the fault.
package fault

import (
	"errors"
	"fmt"
	"io"
)

// The exit codes.
const (
	OK       = 0 // done, or nothing to do
	Failed   = 1 // failed
	Usage    = 2 // the command line or the configuration is wrong
	Drift    = 3 // a check failed, or something differs from what it should be
	Operator = 4 // a person must act first
)

// Codes are the exit codes for a program's help.
const Codes = "Exit codes: 0 done, 1 failed, 2 usage, 3 drift or check failed, 4 needs the operator."

// Error is a failure with what to do about it kept apart from the fault.
type Error struct {
	Code int
	Err  error
	Hint string // what to do; may be empty
}

// Error is the fault without what to do about it.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap gives the fault.
func (e *Error) Unwrap() error { return e.Err }

// Report prints err for a person and returns the exit code for it.
func Report(w io.Writer, program string, err error) int {
	if err == nil {
		return OK
	}
	fmt.Fprintf(w, "%s: %v\n", program, err)
	var e *Error
	if !errors.As(err, &e) {
		return Failed
	}
	if e.Hint != "" {
		fmt.Fprintln(w, "  →", e.Hint)
	}
	return e.Code
}
