package cli

import (
	"errors"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/base/operation"
	"strongroom.example/config/machine"
)

// doctorUnfinishedCommand is the look of every few minutes at what was killed before its
// end; it is not for people.
func doctorUnfinishedCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "unfinished",
		Short:  "Look whether an installation, upgrade or restore was stopped before its end",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return unfinished(machine.OperationLock, os.ReadFile)
		},
	}
}

func unfinished(lock string, read func(string) ([]byte, error)) error {
	found, err := operation.Unfinished(read)
	if err != nil || len(found) == 0 {
		return err
	}
	if held, err := operation.Held(lock); err != nil || held {
		return err // somebody is at it
	}
	var what, commands []string
	for _, s := range found {
		what, commands = append(what, s.What), append(commands, s.Command)
	}
	return &Error{Code: ExitOperator, Err: errors.New(strings.Join(what, "; ")), Hint: "run: " + strings.Join(commands, "; ")}
}
