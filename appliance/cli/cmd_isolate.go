package cli

import (
	"errors"
	"os"

	"github.com/spf13/cobra"

	"strongroom/appliance/isolate"
)

// isolateCommand is how this program starts another one cut off from the
// network; it is not for people.
func isolateCommand() *cobra.Command {
	var hide []string
	c := &cobra.Command{
		Use:    isolate.Verb + " [--hide FOLDER]... -- PROGRAM [ARGUMENT]...",
		Short:  "Run a program without a network",
		Hidden: true,
		Args:   cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			err := isolate.Exec(args, os.Environ(), hide)
			if errors.Is(err, isolate.ErrPrivileges) {
				return &Error{Code: ExitOperator, Err: err, Hint: "run it as root"}
			}
			return err
		},
	}
	c.Flags().StringArrayVar(&hide, "hide", nil, "folder that the program sees empty; repeatable")
	return c
}
