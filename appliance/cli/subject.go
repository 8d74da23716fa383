package cli

import (
	"github.com/spf13/cobra"

	"strongroom.example/appliance/base/argument"
)

// subject takes the folder or file that a command is about from its argument.
func subject(c *cobra.Command, args []string, flag string, to *string) error {
	return argument.Take(c, args, flag, to)
}
