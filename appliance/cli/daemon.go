package cli

import (
	"errors"

	"strongroom.example/appliance/base/daemon"
)

// socketFault gives the exit code for a socket that is missing or one too many,
// and what to do; give is the flag for one.
func socketFault(err error, give string) error {
	switch {
	case errors.Is(err, daemon.ErrNoSocket):
		return &Error{Code: ExitUsage, Err: err, Hint: "give " + give}
	case errors.Is(err, daemon.ErrManySockets):
		return &Error{Code: ExitUsage, Err: err, Hint: "leave the flag out of the unit, or the socket unit"}
	}
	return err
}
