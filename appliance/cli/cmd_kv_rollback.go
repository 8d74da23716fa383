package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/base/vaultapi/kv"
	"strongroom.example/appliance/secrets/kvexport"
)

func kvRollbackCommand(o *kvOptions) *cobra.Command {
	var to int
	var yes, dryRun, reveal bool
	c := &cobra.Command{
		Use:   "rollback PATH",
		Short: "Make an earlier version of a secret the current one again",
		Long: `Shows which fields would be added, removed or changed, by name; their values only
with --reveal. With --yes it writes the earlier version as a new one, by
check-and-set: what somebody writes meanwhile is never lost.`,
		Example: "  strongroom kv rollback bike-data-flow/production/database-url --to-version 3 --yes",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := kvPath(args[0]); err != nil {
				return err
			}
			if to < 1 {
				return &Error{Code: ExitUsage, Err: errors.New("no --to-version"), Hint: "vault kv metadata get shows the versions"}
			}
			client, err := o.vault.client()
			if err != nil {
				return err
			}
			p, err := kvexport.PlanRollback(c.Context(), kv.New(client), o.mountOrDefault(), args[0], to)
			if err != nil {
				return kvError(err)
			}
			printRollback(c, p, reveal)
			if dryRun || !yes {
				fmt.Fprintln(c.OutOrStdout(), "nothing was written: do it with --yes")
				return nil
			}
			v, err := p.Apply(c.Context())
			if err != nil {
				return kvError(err)
			}
			fmt.Fprintf(c.OutOrStdout(), "version %d is written: it is version %d again\n", v, to)
			return nil
		},
	}
	f := c.Flags()
	f.IntVar(&to, "to-version", 0, "the earlier version")
	f.BoolVarP(&yes, "yes", "y", false, "do not ask: write it")
	f.BoolVarP(&dryRun, "dry-run", "n", false, "change nothing, and show the fields")
	f.BoolVar(&reveal, "reveal", false, "print the values")
	return c
}

func printRollback(c *cobra.Command, p *kvexport.RollbackPlan, reveal bool) {
	fmt.Fprintf(c.OutOrStdout(), "%s: version %d → %d\n", p.Path, p.From, p.To)
	for _, f := range p.Fields {
		fmt.Fprintf(c.OutOrStdout(), "  %s", f)
		if reveal {
			fmt.Fprintf(c.OutOrStdout(), ": %s → %s", orNone(f.Old), orNone(f.New))
		}
		fmt.Fprintln(c.OutOrStdout())
	}
}

func orNone(v []byte) string {
	if v == nil {
		return "–"
	}
	return string(v)
}
