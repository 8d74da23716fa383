package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/secrets/migrate"
)

type rollbackOptions struct {
	*migrateOptions
	identities []string
	force      bool
	dryRun     bool
	inVault    bool
}

func migrateRollbackCommand(shared *migrateOptions) *cobra.Command {
	o := rollbackOptions{migrateOptions: shared}
	c := &cobra.Command{
		Use:   "rollback [FOLDER]",
		Short: "Restore every file that the cutover has changed, byte for byte",
		Long: `Opens the encrypted backups and restores the files. If a file was edited
since the cutover, it is named and nothing is changed, unless --force. With --from-vault, what was written to
Vault is taken back as well, as far as nobody has written it since; Vault's own
undelete brings it again.`,
		Example: "  strongroom migrate rollback --identity ~/.ssh/id_ed25519",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := subject(c, args, "root", &o.root); err != nil {
				return err
			}
			return runRollback(c, o)
		},
	}
	o.vault.add(c.PersistentFlags())
	f := c.Flags()
	f.StringArrayVar(&o.identities, "identity", nil, "file with an age identity or an SSH private key, repeatable")
	f.BoolVar(&o.force, "force", false, "do it all the same: restore files that were edited since")
	f.BoolVarP(&o.dryRun, "dry-run", "n", false, "change nothing, and show what would be restored")
	f.BoolVar(&o.inVault, "from-vault", false, "also take back what was written to Vault")
	return c
}

func runRollback(c *cobra.Command, o rollbackOptions) error {
	opts := migrate.RollbackOptions{Root: o.root, Force: o.force, DryRun: o.dryRun}
	var err error
	if len(o.identities) > 0 { // without a backup none is needed
		if opts.Identities, err = readIdentities(o.identities, ""); err != nil {
			return err
		}
	}
	if o.inVault {
		if opts.Plan, err = o.loadPlan(); err != nil {
			return err
		}
		store, err := o.store()
		if err != nil {
			return err
		}
		opts.Store = store
	}
	r, err := migrate.Rollback(c.Context(), opts)
	if err != nil {
		return migrateError(err)
	}
	if o.json {
		return printJSON(c, r)
	}
	out := c.OutOrStdout()
	would := ""
	if o.dryRun {
		would = "would be "
	}
	for _, f := range r.Restored {
		fmt.Fprintf(out, "%s: %srestored\n", f, would)
	}
	for _, f := range r.Same {
		fmt.Fprintf(out, "%s: is as it was\n", f)
	}
	for _, f := range r.Removed {
		fmt.Fprintf(out, "%s: %sremoved\n", f, would)
	}
	for _, p := range r.Deleted {
		fmt.Fprintf(out, "%s: %staken back in Vault\n", p, would)
	}
	for _, p := range r.Left {
		fmt.Fprintf(out, "note: %s was written since by somebody else and stays\n", p)
	}
	if len(r.Restored)+len(r.Same)+len(r.Removed)+len(r.Deleted)+len(r.Left) == 0 {
		fmt.Fprintln(out, "nothing to take back")
	}
	return nil
}
