package cli

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"
)

// printJSON writes what --json promises.
func printJSON(c *cobra.Command, v any) error {
	enc := json.NewEncoder(c.OutOrStdout())
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// size is for people: three digits at least, binary units.
func size(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	f, i := float64(n), 0
	for f >= 1024 && i < len(units)-1 {
		f /= 1024
		i++
	}
	if i == 0 || f >= 100 {
		return fmt.Sprintf("%.0f %s", f, units[i])
	}
	return fmt.Sprintf("%.1f %s", f, units[i])
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
