package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

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
		Short: "Give the files that the cutover has changed their secrets back",
		Long: `Takes every cutover back, the newest first, from the encrypted backups: byte for
byte where nothing was edited since, and with the edits where something was. If
edits contradict it, the file is named and nothing is changed, unless --force,
which loses what was edited since the last cutover. Mapping files lose what this
tree's apply has put there.

With --from-vault, what was written to Vault is taken back as well, as far as
nobody has written it since and a .env file has the value; Vault's own undelete
brings it again.`,
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
	f.BoolVar(&o.force, "force", false, "do it all the same: restore files whose edits since the last cutover contradict it, and lose those")
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
		// What was done is in the journal. The plan, if it is there, says how files are read.
		opts.Plan, err = migrate.ReadPlan(o.planFile())
		if err != nil && (o.plan != "" || !errors.Is(err, os.ErrNotExist)) {
			return &Error{Code: ExitUsage, Err: err, Hint: "correct the plan: see docs/migrate.md"}
		}
		store, err := o.store()
		if err != nil {
			return err
		}
		opts.Store = store
	}
	r, err := migrate.Rollback(c.Context(), opts)
	if o.json {
		if err := printJSON(c, r); err != nil {
			return err
		}
		return migrateError(err)
	}
	n := printTakenBack(c, o.dryRun, r)
	switch {
	case err != nil:
		if n > 0 {
			fmt.Fprintln(c.OutOrStdout(), "it stopped there: run it again to go on")
		}
		return migrateError(err)
	case n == 0:
		dir, err := filepath.Abs(o.root)
		if err != nil {
			return &Error{Code: ExitFailed, Err: err}
		}
		fmt.Fprintf(c.OutOrStdout(), "nothing to take back in %q\n", dir)
		if above := o.planAbove(); above != "" {
			fmt.Fprintln(c.OutOrStdout(), "note: "+above)
		}
	}
	return nil
}

// printTakenBack says how much it had to tell.
func printTakenBack(c *cobra.Command, dryRun bool, r migrate.RollbackReport) (n int) {
	out := c.OutOrStdout()
	would := ""
	if dryRun {
		would = "would be "
	}
	for _, one := range []struct {
		what []string
		text string
	}{
		{r.Restored, "%s: " + would + "restored\n"},
		{r.Same, "%s: is as it was\n"},
		{r.Removed, "%s: " + would + "removed\n"},
		{r.Changed, "%s: " + would + "left with what others have put there\n"},
		{r.Deleted, "%s: " + would + "taken back in Vault\n"},
		{r.Returned, "%s: what was there before " + map[bool]string{false: "is", true: "would be"}[dryRun] + " current again in Vault\n"},
		{r.Left, "note: %s\n"},
	} {
		for _, s := range one.what {
			fmt.Fprintf(out, one.text, s)
			n++
		}
	}
	return n
}
