package cli

import (
	"errors"
	"os"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/backup/isolate"
)

// isolateCommand is how this program starts another one cut off from the
// network; it is not for people.
func isolateCommand() *cobra.Command {
	var o isolate.Options
	c := &cobra.Command{
		Use:    isolate.Verb + " [--hide FOLDER]... [--keep-sockets FOLDER]... -- PROGRAM [ARGUMENT]...",
		Short:  "Run a program without a network",
		Hidden: true,
		Args:   cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			err := isolate.Exec(args, os.Environ(), o)
			if errors.Is(err, isolate.ErrPrivileges) {
				return &Error{Code: ExitOperator, Err: err, Hint: "run it as root"}
			}
			return err
		},
	}
	c.Flags().StringArrayVar(&o.Hide, "hide", nil, "folder that what is started must not see; repeatable")
	c.Flags().StringArrayVar(&o.Keep, "keep-sockets", nil, "hide all sockets that are listened on but those below this folder; repeatable")
	return c
}
