package cli

import (
	"fmt"

	"github.com/spf13/cobra"
)

// subject takes the folder or file that a command is about from its argument;
// the flag that says the same stays for what was written before.
func subject(c *cobra.Command, args []string, flag string, to *string) error {
	if len(args) == 0 {
		return nil
	}
	if c.Flags().Changed(flag) {
		return &Error{Code: ExitUsage, Err: fmt.Errorf("--%s, and %q as the argument", flag, args[0]), Hint: "one of them"}
	}
	*to = args[0]
	return nil
}
