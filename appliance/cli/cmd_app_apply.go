package cli

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/base/argument"
	"strongroom.example/appliance/base/words"
	"strongroom.example/appliance/secrets/apps"
	"strongroom.example/config"
	"strongroom.example/config/machine"
)

func appPlanCommand(o *appOptions) *cobra.Command {
	c := &cobra.Command{
		Use:   "plan",
		Short: "Show what apply would change",
		Long: `Compares Vault with the file and changes nothing.

Exit codes: 0 nothing to do, 3 Vault differs from the file, or holds what the file
no longer names, 4 something is in the way that a person must look at.`,
		RunE: func(c *cobra.Command, _ []string) error { return appError(runAppPlan(c, o)) },
	}
	argument.One(c, "FILE", "config", &o.config)
	c.Flags().BoolVar(&o.json, "json", false, "print JSON, the unchanged things too")
	o.addApply(c)
	return c
}

func (o *appOptions) addApply(c *cobra.Command) {
	c.Flags().StringArrayVar(&o.adopt, "adopt", nil, `take over something that exists and nobody owns, as the plan names it: "approle/NAME", or "app/NAME" for all of an app; repeatable`)
	c.Flags().StringVar(&o.from, "adopt-from", "", "the manifest that hands over what --adopt names, where another owns it")
	c.Flags().BoolVar(&o.resend, "resend-secrets", false, "send the passwords of connections and auth methods again, from their files")
	c.Flags().StringArrayVar(&o.resendOf, "resend", nil, `send one of them again, as the plan names it: "database/NAME"; repeatable`)
	c.Flags().BoolVar(&o.reset, "reset", false, "write Vault's defaults over settings that an earlier version has left alone and the file doesn't name")
	c.Flags().BoolVar(&o.split, "split-groups", false, "give schemas whose groups of PostgreSQL have one name groups of their own")
}

func (o *appOptions) options(c *cobra.Command, conf config.Apps, v apps.Vault) (apps.Options, error) {
	a := apps.Options{Config: conf, Vault: v, Adopt: o.adopt, From: o.from, ResendSecrets: o.resend, Resend: o.resendOf, Reset: o.reset, SplitGroups: o.split, Out: c.OutOrStdout()}
	// Whose server it is is asked where something depends on it.
	if slices.ContainsFunc(conf.Auth, func(a config.Auth) bool { return a.Type == config.AuthLDAP }) ||
		slices.ContainsFunc(conf.Databases, func(d config.Database) bool { return d.CAFile != "" }) {
		h, err := o.client.Health(c.Context())
		if err != nil {
			return a, err
		}
		a.Product = h.Product
	}
	return a, nil
}

func runAppPlan(c *cobra.Command, o *appOptions) error {
	conf, v, err := o.load(c.ErrOrStderr())
	if err != nil {
		return err
	}
	opts, err := o.options(c, conf, v)
	if err != nil {
		return err
	}
	p, err := apps.MakePlan(c.Context(), opts)
	if err != nil {
		return err
	}
	if o.json {
		err = printJSON(c, p)
	} else {
		err = printPlan(c.OutOrStdout(), p)
	}
	switch {
	case err != nil:
		return err
	case p.Count(apps.Conflict, apps.Blocked) > 0:
		return apps.ErrConflict
	case p.Changed():
		if p.Count(apps.Create, apps.Update) == 0 {
			return &Error{Code: ExitDrift, Err: fmt.Errorf("%s no longer named in %s still work", words.Count(p.Count(apps.Unnamed), "object"), o.config), Hint: "strongroom app prune removes them"}
		}
		return &Error{Code: ExitDrift, Err: fmt.Errorf("vault differs from %s", o.config), Hint: "strongroom app apply brings it there"}
	}
	return nil
}

func appApplyCommand(o *appOptions) *cobra.Command {
	c := &cobra.Command{
		Use:   "apply",
		Short: "Bring Vault to what the file says",
		Long: `Prints the plan and carries it out. A second run changes nothing; one that was
interrupted is gone on with by running it again. Nothing is changed while
something is in the way, and nothing is removed: that is what prune does, or
--prune, which does both.

A new person's first password is not printed: Vault keeps it, and prints a token
with which that person fetches it, once.`,
		RunE: func(c *cobra.Command, _ []string) error { return appError(runAppApply(c, o)) },
	}
	argument.One(c, "FILE", "config", &o.config)
	o.addApply(c)
	c.Flags().StringVar(&o.digest, "digest", "", "apply only the plan that has this digest, as app plan prints it")
	c.Flags().BoolVar(&o.prune, "prune", false, "then remove what is no longer to be kept, as the verb prune does")
	return c
}

func runAppApply(c *cobra.Command, o *appOptions) error {
	conf, v, err := o.load(c.ErrOrStderr())
	if err != nil {
		return err
	}
	out := c.OutOrStdout()
	opts, err := o.options(c, conf, v)
	if err != nil {
		return err
	}
	opts.Digest = o.digest
	opts.Reveal = func(name string, w apps.Wrapped) {
		fmt.Fprintf(out, "hand over to %s, good once until %s: vault unwrap %s\n", name, w.Created.Add(w.TTL).Local().Format("2006-01-02 15:04 MST"), w.Token)
	}
	var asked sync.Once
	opts.SnapshotSoon = func() {
		if err := snapshot.AskSoon(machine.ChangedFile); err != nil {
			asked.Do(func() {
				fmt.Fprintf(c.ErrOrStderr(), "note: only Vault knows a database's password now, and no snapshot could be asked for (%v): systemctl start strongroom-snapshot on Vault's machine\n", err)
			})
		}
	}
	_, err = apps.Apply(c.Context(), opts, func(p *apps.Plan) error { return printPlan(out, p) })
	if err != nil {
		return err
	}
	if o.prune {
		if _, err := apps.Prune(c.Context(), apps.PruneOptions{Options: opts}, func(*apps.Plan) error { return nil }); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintln(out, "done")
	return err
}

func appPruneCommand(o *appOptions) *cobra.Command {
	c := &cobra.Command{
		Use:   "prune",
		Short: "Remove what apps.toml has made and names no longer",
		Long: `Shows what would be removed, and removes it with --yes. Only what the same
manifest has made is looked at. Secrets that hold a value stay, unless
--delete-values is given; then they are gone with all their versions.

Exit codes: 0 nothing (left) to remove, 3 there is something, and --yes was not
given.`,
		RunE: func(c *cobra.Command, _ []string) error { return appError(runAppPrune(c, o)) },
	}
	argument.One(c, "FILE", "config", &o.config)
	c.Flags().BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	c.Flags().BoolVarP(&o.dryRun, "dry-run", "n", false, "change nothing, and show what would be removed")
	c.Flags().BoolVar(&o.withValues, "delete-values", false, "remove secrets that hold a value, too")
	return c
}

func runAppPrune(c *cobra.Command, o *appOptions) error {
	conf, v, err := o.load(c.ErrOrStderr())
	if err != nil {
		return err
	}
	out := c.OutOrStdout()
	world, err := o.options(c, conf, v)
	if err != nil {
		return err
	}
	opts := apps.PruneOptions{Options: world, DeleteValues: o.withValues}
	if o.yes && !o.dryRun {
		_, err := apps.Prune(c.Context(), opts, func(p *apps.Plan) error { return printPlan(out, p) })
		return err
	}
	p, err := apps.PlanPrune(c.Context(), opts)
	if err != nil {
		return err
	}
	if err := printPlan(out, p); err != nil {
		return err
	}
	if n := p.Count(apps.Delete); n > 0 {
		return &Error{Code: ExitDrift, Err: fmt.Errorf("%d objects are no longer named in %s", n, o.config), Hint: "add --yes to remove them"}
	}
	return nil
}

// defaultBundleTTL is a working day.
const defaultBundleTTL = 8 * time.Hour
