package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"strongroom.example/config"
	"strongroom.example/installer/steps"
)

func fetchVaultCommand() *cobra.Command {
	var within time.Duration
	c := &cobra.Command{
		Use:   "fetch-vault VERSION FILE",
		Short: "Download HashiCorp's Vault and verify it",
		Long: `Downloads a release of Vault for this kind of machine from HashiCorp, verifies its
checksum and the checksums' PGP signature, and writes the program to FILE. For a
machine that reaches no host outside: install --vault-binary FILE.`,
		Example: "  " + program + " fetch-vault " + config.VaultFloor + " ./vault",
		Args:    args(cobra.ExactArgs(2)),
		RunE: func(c *cobra.Command, a []string) error {
			if err := steps.FetchVaultTo(c.Context(), config.Vault{Version: a[0]}, a[1], within); err != nil {
				return err
			}
			_, err := fmt.Fprintf(c.OutOrStdout(), "%s: Vault %s, signature verified\n", a[1], a[0])
			return err
		},
	}
	c.Flags().DurationVar(&within, "within", 10*time.Second, "how long the host may take to answer at all")
	return c
}
