package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/serve/kms"
)

// kmsImportCommand takes the lock of operations.
func kmsImportCommand(lock string) *cobra.Command {
	var key masterKeyOptions
	c := &cobra.Command{
		Use:   "import",
		Short: "Put the master key back from its escrow",
		Long: `Reads the master key, as age has opened its escrow, from standard input and seals
it for the KMS, as [unseal] of the configuration says. What it seals it has opened
once before it takes the place of what was there.

A master key that is here and opens gives way only to one that holds all its
versions. The KMS and Vault are to be restarted afterwards.`,
		Example: `  age -d -i ~/.ssh/id_ed25519 master-key.age | ssh root@vault.example.com strongroom kms import
  systemctl restart strongroom-kms vault`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			k, err := kms.Read(c.InOrStdin())
			if err != nil {
				return masterKeyFault(err)
			}
			end, err := begin(c, lock)
			if err != nil {
				return err
			}
			defer end()
			store, path := key.store()
			switch err := kms.Import(c.Context(), store, path, k); {
			case errors.Is(err, kms.ErrOtherKey):
				return &Error{Code: ExitOperator, Err: err, Hint: "give the newest escrow; only if nobody needs what Vault holds here, move " + path + " away first"}
			case errors.Is(err, kms.ErrUnsure):
				return &Error{Code: ExitOperator, Err: err, Hint: "run it again; if it stays so, and you have the escrow of the newest master key, move " + path + " away first"}
			case err != nil:
				return masterKeyFault(err)
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s is in %s. Now: systemctl restart strongroom-kms vault\n", k, path)
			return err
		},
	}
	key.add(c)
	return c
}
