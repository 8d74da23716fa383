package cli

import (
	"encoding/json"

	"github.com/spf13/cobra"
)

// printJSON writes what --json promises.
func printJSON(c *cobra.Command, v any) error {
	enc := json.NewEncoder(c.OutOrStdout())
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// printed is a verb that prints a file which the program carries.
func printed(use, short string, file func() []byte) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: cobra.NoArgs,
		Example: "  strongroom metrics " + use + " > FILE",
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := c.OutOrStdout().Write(file())
			return err
		},
	}
}
