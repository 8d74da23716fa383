package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/base/words"
	"strongroom.example/appliance/secrets/migrate"
)

func migrateApplyCommand(o *migrateOptions) *cobra.Command {
	var force bool
	var from string
	c := &cobra.Command{
		Use:   "apply [FOLDER]",
		Short: "Write the plan's secrets to Vault",
		Long: `Checks the whole plan first and writes nothing if anything is in the way: a
malformed .env file, a value too large, a path that holds another value. Then it
writes each secret by check-and-set, reads it back and compares. An interrupted
run is finished by running it again. The .env files stay as they are; a variable
that has gone from its file is looked for in Vault.

It also writes the mapping files that the Python client and strongroom env read:
what is in them of others stays.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := subject(c, args, "root", &o.root); err != nil {
				return err
			}
			return runMigrateApply(c, o, force, from)
		},
	}
	o.vault.add(c.PersistentFlags())
	c.Flags().BoolVar(&force, "force", false, "do it all the same: write a new version where a path holds another value")
	addFrom(c, &from)
	return c
}

func runMigrateApply(c *cobra.Command, o *migrateOptions, force bool, from string) error {
	plan, err := o.loadPlan()
	if err != nil {
		return err
	}
	other, err := readFrom(c, from)
	if err != nil {
		return err
	}
	store, err := o.store()
	if err != nil {
		return err
	}
	r, err := migrate.Apply(c.Context(), migrate.ApplyOptions{Root: o.root, Plan: plan, Store: store, Force: force, OtherStore: other})
	if err != nil {
		if r.Written > 0 {
			fmt.Fprintf(c.OutOrStdout(), "%s written and checked before it stopped\n", words.Count(r.Written, "secret"))
		}
		return migrateError(err)
	}
	if o.json {
		return printJSON(c, r)
	}
	out := c.OutOrStdout()
	fmt.Fprintf(out, "%s written and read back, %d unchanged; plain and left there: %s; replaced by database roles: %d\n", words.Count(r.Written, "secret"), r.Unchanged, words.Count(r.Plain, "variable"), r.Database)
	if r.Moved > 0 {
		fmt.Fprintf(out, "in Vault and no longer in a file: %s\n", words.Count(r.Moved, "variable"))
	}
	problems(c, r.Warnings)
	for _, m := range r.Mappings {
		fmt.Fprintf(out, "wrote %s\n", m)
	}
	return nil
}
