package cli

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/base/atomicfile"
	"strongroom.example/appliance/secrets/migrate"
)

func migratePlanCommand(shared *migrateOptions) *cobra.Command {
	o := scanOptions{migrateOptions: shared}
	var app string
	var force bool
	c := &cobra.Command{
		Use:   "plan [FOLDER]",
		Short: "Write a plan that says where each variable goes",
		Long: `Scans the tree and writes a TOML file to edit: for each variable of each .env
file its place in Vault, secret/{app}/{environment}/{name}, or that it stays.`,
		Example: "  strongroom migrate plan --app bike-data-flow",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := subject(c, args, "root", &o.root); err != nil {
				return err
			}
			if app == "" {
				return &Error{Code: ExitUsage, Err: errors.New("no --app"), Hint: "give the app's name: it begins every path"}
			}
			return runMigratePlan(c, o, app, force)
		},
	}
	o.add(c)
	c.Flags().StringVar(&app, "app", "", "the app")
	c.Flags().BoolVar(&force, "force", false, "do it all the same: replace a plan that is there already, and all edits in it")
	return c
}

func runMigratePlan(c *cobra.Command, o scanOptions, app string, force bool) error {
	file := o.planFile()
	if _, err := os.Lstat(file); err == nil && !force {
		return &Error{Code: ExitUsage, Err: fmt.Errorf("there is a plan already: %q", file), Hint: "edit it, or replace it with --force"}
	}
	r, err := o.run(c)
	if err != nil {
		return err
	}
	if fatal := r.Fatal(); len(fatal) > 0 {
		problems(c, fatal)
		return &Error{Code: ExitDrift, Err: fmt.Errorf("%d faults in .env files: no plan was written", len(fatal)), Hint: "correct them first"}
	}
	p, err := migrate.NewPlan(r, app)
	if err != nil {
		return &Error{Code: ExitUsage, Err: err}
	}
	if len(p.Variable) == 0 {
		return &Error{Code: ExitFailed, Err: fmt.Errorf("no .env file below %q sets a variable", o.root), Hint: "give the tree as the argument"}
	}
	data := p.Encode()
	if err := atomicfile.Write(file, data, 0o644); err != nil {
		return err
	}
	counts := map[string]int{}
	for _, e := range p.Variable {
		counts[e.Kind]++
	}
	fmt.Fprintf(c.OutOrStdout(), "%s: %d variables go to Vault, %d stay. Edit it, then run: strongroom migrate apply\n", file, counts[migrate.KindKV], counts[migrate.KindPlain])
	for _, d := range r.Differences {
		fmt.Fprintf(c.OutOrStdout(), "note: %s:%d: %s %s; the plan follows %s\n", d.File, d.Line, dash(d.Name), d.Why, r.Dialect)
	}
	// Places that collide are the reader's to resolve, and known now.
	if _, err := migrate.ParsePlan(file, data); err != nil {
		return &Error{Code: ExitDrift, Err: fmt.Errorf("the plan needs edits: %w", err), Hint: "edit " + file}
	}
	return nil
}
