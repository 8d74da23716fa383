package cli

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/base/words"
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
file its place in Vault, secret/{app}/{environment}/{name}, or that it stays.

Run it again whenever the tree has changed: your edits stay, what was moved stays
planned, and what is new is added. A plan in which git has left both sides of a
merge becomes one plan.`,
		Example: "  strongroom migrate plan --app bike-data-flow",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := subject(c, args, "root", &o.root); err != nil {
				return err
			}
			return runMigratePlan(c, o, app, force)
		},
	}
	o.add(c)
	addFrom(c, &o.from)
	c.Flags().StringVar(&app, "app", "", "the app: it begins every path (default: that of the plan which is there)")
	c.Flags().BoolVar(&force, "force", false, "do it all the same: plan anew, without the edits in the plan that is there; what was moved stays planned")
	return c
}

func runMigratePlan(c *cobra.Command, o scanOptions, app string, force bool) error {
	file := o.planFile()
	old, err := migrate.ReadPlan(file)
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return &Error{Code: ExitUsage, Err: err, Hint: "correct the plan: see docs/migrate.md"}
	case app == "":
		app = old.App
	case old.App != app && !force:
		return &Error{Code: ExitUsage, Err: fmt.Errorf("%q is the plan of the app %q", file, old.App), Hint: "leave --app out, give another --plan-file, or plan anew with --force"}
	}
	if app == "" {
		return &Error{Code: ExitUsage, Err: errors.New("no --app"), Hint: o.orAbove("give the app's name: it begins every path")}
	}
	if !force {
		o.earlier = old
	}
	if o.other, err = readFrom(c, o.from); err != nil {
		return err
	}
	r, err := o.run(c)
	if err != nil {
		return err
	}
	if fatal := r.Fatal(); len(fatal) > 0 {
		problems(c, fatal)
		return &Error{Code: ExitDrift, Err: fmt.Errorf("%s in .env files: no plan was written", words.Count(len(fatal), "fault")), Hint: "correct them first"}
	}
	if stops := r.Stops(); len(stops) > 0 {
		for _, d := range stops {
			fmt.Fprintf(c.OutOrStdout(), "error: %s:%d: %s %s\n", d.File, d.Line, dash(d.Name), d.Why)
		}
		return &Error{Code: ExitDrift, Err: fmt.Errorf("in %s the readers of a file do not agree on what goes to Vault: no plan was written", words.Count(len(stops), "place")),
			Hint: "write the value so that all of them read the same, or say who counts: --dialect FILE=NAME"}
	}
	fresh, err := migrate.NewPlan(r, app)
	if err != nil {
		return &Error{Code: ExitUsage, Err: err}
	}
	fresh.Exclude = o.excluded()
	named, err := o.named()
	if err != nil {
		return err
	}
	p, notes, err := migrate.Replan(migrate.ReplanOptions{Root: o.root, Old: old, Fresh: fresh, Named: named, Anew: force})
	if err != nil {
		return migrateError(err)
	}
	for _, one := range r.Problems {
		if migrate.IsEnvFile(one.File) {
			problems(c, []migrate.Problem{one})
		}
	}
	if len(p.Variable) == 0 {
		return &Error{Code: ExitFailed, Err: fmt.Errorf("no .env file below %q sets a variable", o.root), Hint: "give the tree as the argument"}
	}
	data := p.Encode()
	if err := migrate.WritePlan(o.root, file, data); err != nil {
		return migrateError(err)
	}
	if above := o.planAbove(); above != "" && old == nil {
		notes = append(notes, "this is a second plan: "+above)
	}
	for _, n := range notes {
		fmt.Fprintf(c.OutOrStdout(), "note: %s\n", n)
	}
	counts := map[string]int{}
	for _, e := range p.Variable {
		counts[e.Kind]++
	}
	fmt.Fprintf(c.OutOrStdout(), "%s: to Vault: %s; to stay: %d. Edit it, then run: strongroom migrate apply\n", file, words.Count(len(p.Variable)-counts[migrate.KindPlain], "variable"), counts[migrate.KindPlain])
	for _, d := range r.Differences {
		fmt.Fprintf(c.OutOrStdout(), "note: %s:%d: %s %s; the plan follows %s\n", d.File, d.Line, dash(d.Name), d.Why, r.Dialects[d.File])
	}
	printReaders(c.OutOrStdout(), r)
	if n := len(r.NotMoved); n > 0 {
		fmt.Fprintf(c.OutOrStdout(), "note: %s stand where this tool does not move them%s: strongroom migrate scan lists them\n", words.Count(n, "secret"), ofThemInHistory(r.NotMoved))
	}
	if whole := p.Composite(r); len(whole) > 0 {
		problems(c, whole)
		fmt.Fprintf(c.OutOrStdout(), "note: %s; for a part that rotates by itself, have the program take that part as a variable of its own, and plan again\n", words.Count(len(whole), "composite value"))
	}
	printHistory(c.OutOrStdout(), r, old)
	if outside := p.FromOutside(r); len(outside) > 0 {
		problems(c, outside)
		return &Error{Code: ExitDrift, Err: fmt.Errorf("%s of the plan cannot be moved as it stands", words.Count(len(outside), "variable")),
			Hint: fmt.Sprintf("correct their lines, or set kind = %q in %s, and run it again", migrate.KindPlain, file)}
	}
	// Places that collide are the reader's to resolve, and known now.
	if _, err := migrate.ParsePlan(file, data); err != nil {
		return &Error{Code: ExitDrift, Err: fmt.Errorf("the plan needs edits: %w", err), Hint: "edit " + file}
	}
	return nil
}

// ofThemInHistory counts the findings that git's history holds as well.
func ofThemInHistory(all []migrate.Finding) string {
	n := 0
	for _, f := range all {
		if f.InHistory != "" {
			n++
		}
	}
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(", %d of them in git's history too", n)
}
