package cli

import (
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/secrets/migrate"
)

func migrateVerifyCommand(o *migrateOptions) *cobra.Command {
	c := &cobra.Command{
		Use:   "verify [FOLDER]",
		Short: "Compare the .env files with Vault",
		Long: `Reads every planned secret and compares it with the file's value: ok, moved (the
file has none any more), missing or differs. It changes nothing. Exit code 3 if
anything is missing or differs.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := subject(c, args, "root", &o.root); err != nil {
				return err
			}
			return runMigrateVerify(c, o)
		},
	}
	o.vault.add(c.PersistentFlags())
	return c
}

func runMigrateVerify(c *cobra.Command, o *migrateOptions) error {
	plan, err := o.loadPlan()
	if err != nil {
		return err
	}
	store, err := o.store()
	if err != nil {
		return err
	}
	all, err := migrate.Verify(c.Context(), o.root, plan, store, 0)
	if err != nil {
		return migrateError(err)
	}
	bad := 0
	for _, v := range all {
		if !v.Good() {
			bad++
		}
	}
	if o.json {
		err = printJSON(c, all)
	} else {
		w := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "STATE\tVARIABLE\tFILE\tVAULT")
		for _, v := range all {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", v.State, v.Name, v.File, v.Place)
		}
		err = w.Flush()
	}
	if err != nil {
		return err
	}
	if bad > 0 {
		return &Error{Code: ExitDrift, Err: fmt.Errorf("%d of %d variables are not in Vault as in their files", bad, len(all)), Hint: "run strongroom migrate apply"}
	}
	return nil
}
