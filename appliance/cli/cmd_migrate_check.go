package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/base/words"
	"strongroom.example/appliance/secrets/migrate"
)

func migrateCheckCommand(o *migrateOptions) *cobra.Command {
	c := &cobra.Command{
		Use:   "check [FOLDER]",
		Short: "Find units, compose files and others that still set a moved variable",
		Long: `In a moved program its own environment variable wins over Vault. This looks
through the folder for what still sets one: systemd units and the files that
they name, compose, Kubernetes, Dockerfiles, crontabs, workflows, .env files and
other configuration. It changes nothing and needs no login. The variables are
those of the plan and of the mapping files, in the folder or in --root.

Exit code 3 if there is any: it would beat a rotation unseen.`,
		Example: `  strongroom migrate check
  strongroom migrate check /etc/systemd/system`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			where := o.root
			if len(args) == 1 {
				where = args[0]
			}
			return runMigrateCheck(c, o, where)
		},
	}
	return c
}

func runMigrateCheck(c *cobra.Command, o *migrateOptions, where string) error {
	names, err := movedNames(c, o, where)
	if err != nil {
		return err
	}
	r, err := migrate.Check(c.Context(), where, names)
	if err != nil {
		return &Error{Code: ExitFailed, Err: err}
	}
	if o.json {
		err = printJSON(c, r)
	} else {
		out := c.OutOrStdout()
		for _, s := range r.Setters {
			fmt.Fprintln(out, s)
		}
		for _, p := range r.NotLookedAt {
			fmt.Fprintf(out, "not looked at: %s\n", p)
		}
		fmt.Fprintf(out, "%s searched for %s; set at %s\n", words.Count(r.Files, "file"), words.Count(r.Names, "moved variable"), words.Count(len(r.Setters), "place"))
	}
	if err != nil {
		return err
	}
	if len(r.Setters) > 0 {
		return &Error{Code: ExitDrift, Err: fmt.Errorf("moved variables are still set at %s, which wins over Vault", words.Count(len(r.Setters), "place")), Hint: "take them out, or set STRONGROOM_ENV_PREFER=vault for the programs"}
	}
	return nil
}

// movedNames are of the folder itself, where it has a plan or mapping files, and
// else of the root.
func movedNames(c *cobra.Command, o *migrateOptions, where string) (map[string]bool, error) {
	roots := []string{where, o.root}
	if c.Flags().Changed("root") {
		roots = roots[1:]
	}
	for _, root := range roots {
		one := *o
		one.root = root
		var plan *migrate.Plan
		if _, err := os.Stat(one.planFile()); err == nil || o.plan != "" {
			if plan, err = one.loadPlan(); err != nil {
				return nil, err
			}
		}
		names, err := migrate.MovedNames(root, plan)
		if errors.Is(err, migrate.ErrNothingMoved) {
			continue
		}
		if err != nil {
			return nil, &Error{Code: ExitUsage, Err: err}
		}
		return names, nil
	}
	for i, root := range roots {
		full, err := filepath.Abs(root)
		if err != nil {
			return nil, &Error{Code: ExitFailed, Err: err}
		}
		roots[i] = strconv.Quote(full)
	}
	return nil, &Error{Code: ExitUsage, Err: fmt.Errorf("%w in %s", migrate.ErrNothingMoved, strings.Join(slices.Compact(roots), ", nor in ")), Hint: o.orAbove("run it where the plan is, or name that folder with --root")}
}
