package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/base/vaultapi/kv"
	"strongroom.example/appliance/secrets/kvexport"
)

func kvImportCommand(o *kvOptions) *cobra.Command {
	var identities []string
	var force, dryRun bool
	c := &cobra.Command{
		Use:   "import FILE",
		Short: "Bring exported secrets back",
		Long: `Reads the whole file first: a damaged or truncated one changes nothing, nor does
one with a secret that exists with another value, unless --force. A secret that
is not there gets its versions with their numbers; times of creation are new.`,
		Example: "  strongroom kv import bikes.age --identity ~/.ssh/id_ed25519 --dry-run",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			ids, err := readIdentities(identities, "")
			if err != nil {
				return err
			}
			client, err := o.vault.client()
			if err != nil {
				return err
			}
			open := func() (io.ReadCloser, error) { return os.OpenFile(args[0], os.O_RDONLY|syscall.O_NONBLOCK, 0) }
			done, err := kvexport.Import(c.Context(), open, kvexport.ImportOptions{Store: kv.New(client), Mount: o.mount, Identities: ids, Force: force, DryRun: dryRun,
				Check: func(mount string) error { return kvMount(c.Context(), client, mount) }})
			if errors.Is(err, kvexport.ErrDamaged) {
				err = fmt.Errorf("%q: %w", args[0], err)
			}
			if o.json {
				if err := printJSON(c, done); err != nil {
					return err
				}
				return kvError(err)
			}
			would := map[bool]string{true: "would be "}[dryRun]
			for _, d := range done {
				fmt.Fprintf(c.OutOrStdout(), "%s: %s%s\n", d.Path, would, d.State)
			}
			return kvError(err)
		},
	}
	f := c.Flags()
	f.StringArrayVar(&identities, "identity", nil, "file with an age identity or an SSH private key, repeatable")
	f.BoolVar(&force, "force", false, "do it all the same: write a new version where a secret has another value")
	f.BoolVarP(&dryRun, "dry-run", "n", false, "change nothing, and check the file and Vault")
	return c
}
