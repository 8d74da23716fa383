package cli

import (
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/base/words"
	"strongroom.example/appliance/secrets/migrate"
)

func migrateVerifyCommand(o *migrateOptions) *cobra.Command {
	var from string
	c := &cobra.Command{
		Use:   "verify [FOLDER]",
		Short: "Compare the .env files with Vault",
		Long: `Reads every planned secret and compares it with the file's value: ok, moved (the
file has none any more), missing or differs. Then it looks through the tree for
other places that hold one of the values. It changes nothing. Exit code 3 if
anything is missing or differs.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := subject(c, args, "root", &o.root); err != nil {
				return err
			}
			return runMigrateVerify(c, o, from)
		},
	}
	o.vault.add(c.PersistentFlags())
	addFrom(c, &from)
	return c
}

func runMigrateVerify(c *cobra.Command, o *migrateOptions, from string) error {
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
	all, err := migrate.Verify(c.Context(), migrate.VerifyOptions{Root: o.root, Plan: plan, Store: store, OtherStore: other})
	if err != nil {
		return migrateError(err)
	}
	remains, err := migrate.Remaining(c.Context(), o.root, plan, store)
	if err != nil {
		return migrateError(err)
	}
	bad, waiting := 0, 0
	for _, v := range all {
		if v.State != migrate.StateMoved {
			waiting++
		}
		if !v.Good() {
			bad++
		}
	}
	if o.json {
		err = printJSON(c, struct {
			Variables []migrate.Verified `json:"variables"`
			Remains   migrate.Remains    `json:"remains"`
		}{all, remains})
	} else {
		w := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "STATE\tVARIABLE\tFILE\tVAULT")
		for _, v := range all {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", v.State, v.Name, v.File, v.Place)
		}
		err = w.Flush()
		printRemains(c.OutOrStdout(), remains, waiting)
	}
	if err != nil {
		return err
	}
	if bad > 0 {
		return &Error{Code: ExitDrift, Err: fmt.Errorf("not in Vault as in the files: %d of %s", bad, words.Count(len(all), "variable")), Hint: "run strongroom migrate apply: where a value differs, it says what to do"}
	}
	return nil
}
