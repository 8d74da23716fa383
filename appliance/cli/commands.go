package cli

import "github.com/spf13/cobra"

// commands is the explicit table of verbs.
func commands() []*cobra.Command {
	return []*cobra.Command{
		kmsCommand(),
	}
}
