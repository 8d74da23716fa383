package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/secrets/migrate"
)

func migrateApplyCommand(o *migrateOptions) *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use:   "apply [FOLDER]",
		Short: "Write the plan's secrets to Vault",
		Long: `Checks the whole plan first and writes nothing if anything is in the way: a
malformed .env file, a value too large, a path that holds another value. Then it
writes each secret by check-and-set, reads it back and compares. An interrupted
run is finished by running it again. The .env files stay as they are.

It also writes the mapping files that the Python client and strongroom env read.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := subject(c, args, "root", &o.root); err != nil {
				return err
			}
			return runMigrateApply(c, o, force)
		},
	}
	o.vault.add(c.PersistentFlags())
	c.Flags().BoolVar(&force, "force", false, "do it all the same: write a new version where a path holds another value")
	return c
}

func runMigrateApply(c *cobra.Command, o *migrateOptions, force bool) error {
	plan, err := o.loadPlan()
	if err != nil {
		return err
	}
	store, err := o.store()
	if err != nil {
		return err
	}
	r, err := migrate.Apply(c.Context(), migrate.ApplyOptions{Root: o.root, Plan: plan, Store: store, Force: force})
	if err != nil {
		if r.Written > 0 {
			fmt.Fprintf(c.OutOrStdout(), "%d secrets were written and checked before it stopped\n", r.Written)
		}
		return migrateError(err)
	}
	if o.json {
		return printJSON(c, r)
	}
	out := c.OutOrStdout()
	fmt.Fprintf(out, "%d secrets written and read back, %d unchanged; %d variables stay plain, %d are replaced by database roles\n", r.Written, r.Unchanged, r.Plain, r.Database)
	for _, m := range r.Mappings {
		fmt.Fprintf(out, "wrote %s\n", m)
	}
	for _, a := range r.Ambiguous {
		fmt.Fprintf(out, "note: %s has several places and is in no mapping file\n", a)
	}
	return nil
}
