package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/base/argument"
	"strongroom.example/appliance/secrets/apps"
)

func appShowCommand(o *appOptions) *cobra.Command {
	c := &cobra.Command{
		Use:   "show",
		Short: "Show each environment as it is in Vault, without a secret",
		RunE:  func(c *cobra.Command, _ []string) error { return appError(runAppShow(c, o)) },
	}
	argument.One(c, "FILE", "config", &o.config)
	o.addTarget(c)
	c.Flags().BoolVar(&o.json, "json", false, "print JSON")
	return c
}

func runAppShow(c *cobra.Command, o *appOptions) error {
	_, v, targets, err := o.loadTargets(c.ErrOrStderr())
	if err != nil {
		return err
	}
	states, err := apps.Show(c.Context(), v, targets)
	if err != nil {
		return err
	}
	if o.json {
		return printJSON(c, states)
	}
	var b strings.Builder
	for _, s := range states {
		showState(&b, s)
	}
	_, err = fmt.Fprint(c.OutOrStdout(), b.String())
	return err
}

func showState(b *strings.Builder, s apps.State) {
	fmt.Fprintf(b, "%s\n", s.Path)
	login := "not in Vault yet: strongroom app apply"
	switch {
	case s.InVault && s.SecretIDs < 0:
		login = "tokens for " + shortDuration(s.TokenTTL)
	case s.InVault:
		login = fmt.Sprintf("tokens for %s, secret ids: %d", shortDuration(s.TokenTTL), s.SecretIDs)
		if !s.SecretIDEnds.IsZero() {
			login += ", until " + s.SecretIDEnds.UTC().Format("2006-01-02 15:04 UTC")
		}
	}
	fmt.Fprintf(b, "  login     %s (%s), policy %s\n", s.Login, login, s.Policy)
	for _, g := range s.Grants {
		fmt.Fprintf(b, "  reads     secret/%s\n", g)
	}
	for _, x := range s.Secrets {
		version := fmt.Sprintf("version %d", x.Version)
		switch {
		case x.Version == 0:
			version = "no value yet"
		case slices.Contains(s.Deleted, x.Name):
			version += ", deleted"
		}
		fmt.Fprintf(b, "  secret    %s (%s)\n", x.Name, version)
	}
	for _, k := range s.Keys {
		fmt.Fprintf(b, "  key       %s (%s)\n", k.Name, keyLine(k))
	}
	for _, d := range s.Databases {
		fmt.Fprintf(b, "  database  %s\n", d)
	}
}

// keyLine is an API key's state: one without a version has no time to show.
func keyLine(k apps.KeyState) string {
	if k.Version == 0 {
		return k.Condition
	}
	next := k.Next
	if at, err := time.Parse(time.RFC3339Nano, next); err == nil {
		next = at.UTC().Format("2006-01-02 15:04 UTC")
	}
	return fmt.Sprintf("version %d, %s, next rotation %s", k.Version, k.Condition, next)
}

// shortDuration is d without parts that are zero: 1h, not 1h0m0s.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func appCheckDBCommand(o *appOptions) *cobra.Command {
	c := &cobra.Command{
		Use:   "check-db",
		Short: "Prove that database roles issue, work, revoke and leave nothing",
		Long: `For each database role: issues a user, logs in, uses it as the role says, revokes
it, and proves that it is gone: a session that was open is dead, and a new login
is refused. A static role's password is tried. Needs the address of the database
server, which this machine must reach.

Exit codes: 0 all roles work, 3 one doesn't.`,
		RunE: func(c *cobra.Command, _ []string) error { return appError(runCheckDB(c, o)) },
	}
	argument.One(c, "FILE", "config", &o.config)
	o.addTarget(c)
	c.Flags().BoolVar(&o.json, "json", false, "print JSON")
	return c
}

func runCheckDB(c *cobra.Command, o *appOptions) error {
	conf, v, targets, err := o.loadTargets(c.ErrOrStderr())
	if err != nil {
		return err
	}
	results := []apps.DBCheck{}
	var errs []error
	bad := 0
	for _, t := range targets {
		for _, r := range t.Databases {
			one, err := apps.CheckDB(c.Context(), v, conf, r)
			if err != nil {
				errs = append(errs, fmt.Errorf("database role %q: %w", r.Name, err))
				one.Fault = "the check could not be done"
			}
			if one.Fault != "" {
				bad++
			}
			results = append(results, one)
		}
	}
	if o.json {
		errs = append(errs, printJSON(c, results))
	} else {
		for _, r := range results {
			verdict := "ok"
			if r.Fault != "" {
				verdict = "FAILED: " + r.Fault
			}
			fmt.Fprintf(c.OutOrStdout(), "%s (%s): %s: %s\n", r.Role, r.Access, strings.Join(r.Done, ", "), verdict)
			for _, n := range r.Notes {
				fmt.Fprintf(c.OutOrStdout(), "  note: %s\n", n)
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if len(results) == 0 {
		return &Error{Code: ExitUsage, Err: errors.New("no database role is meant"), Hint: "add a [[app.environment.database]] to " + o.config}
	}
	if bad > 0 {
		return &Error{Code: ExitDrift, Err: fmt.Errorf("%d of %d database roles failed", bad, len(results)), Hint: "see docs/databases.md"}
	}
	return nil
}
