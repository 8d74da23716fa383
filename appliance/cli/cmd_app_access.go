package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/base/words"
	"strongroom.example/appliance/secrets/apps"
)

func appAccessCommand(o *appOptions) *cobra.Command {
	var of, by string
	c := &cobra.Command{
		Use:   "access",
		Short: "Show who may do what, as Vault has it and not as the file says",
		Long: `Asks Vault, with an admin login: --of PATH shows who may do something at a path
(secret/data/…, apikeys/creds/…, database/creds/…), with the lines of the policies
that speak of it; --by NAME shows all lines of what a login gets. What a group of
LDAP's or of an identity provider gets, its people get.`,
		Example: "  strongroom app access --of secret/data/bike-data-flow/production/database-url\n  strongroom app access --by approle/dagster",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return appError(runAppAccess(c, o, of, by)) },
	}
	c.Flags().StringVar(&of, "of", "", "a path of Vault's: who may do something there")
	c.Flags().StringVar(&by, "by", "", `a login, as "approle/NAME" or "NAME": what it may`)
	c.Flags().BoolVar(&o.json, "json", false, "print JSON")
	return c
}

func runAppAccess(c *cobra.Command, o *appOptions, of, by string) error {
	if (of == "") == (by == "") {
		return &Error{Code: ExitUsage, Err: errors.New("one of --of and --by is wanted"), Hint: "see strongroom app access --help"}
	}
	client, err := o.vault.client()
	if err != nil {
		return err
	}
	v := apps.New(client)
	holders, unseen, err := apps.Holders(c.Context(), v)
	if err != nil {
		return err
	}
	if len(unseen) > 0 {
		fmt.Fprintf(c.ErrOrStderr(), "note: logins of these auth methods are not looked at: %s\n", words.List(unseen, 10))
	}
	var rights []apps.Right
	if of != "" {
		of = strings.TrimPrefix(strings.Trim(of, "/"), "v1/")
		if rights, err = apps.Of(c.Context(), client, holders, of); err != nil {
			return err
		}
	} else {
		found := apps.By(holders, by)
		if len(found) == 0 {
			return &Error{Code: ExitUsage, Err: fmt.Errorf("nobody logs in as %q", by), Hint: `name it as "approle/NAME", "userpass/NAME", "ldap/GROUP"`}
		}
		for _, h := range found {
			r := apps.Right{Holder: h, Capabilities: []string{}}
			for _, p := range h.Policies {
				rules, err := apps.RulesOf(c.Context(), v, p)
				if err != nil {
					return err
				}
				r.Rules = append(r.Rules, rules...)
			}
			rights = append(rights, r)
		}
	}
	if o.json {
		return printJSON(c, rights)
	}
	var b strings.Builder
	for _, r := range rights {
		fmt.Fprintf(&b, "%s %s", r.Kind, r.Name)
		if of != "" {
			fmt.Fprintf(&b, ": %s", strings.Join(r.Capabilities, ", "))
		}
		b.WriteByte('\n')
		for _, rule := range r.Rules {
			fmt.Fprintf(&b, "    %s: %s (%s)\n", rule.Policy, rule.Path, strings.Join(rule.Capabilities, ", "))
		}
	}
	if len(rights) == 0 {
		fmt.Fprintf(&b, "nobody but root may do anything at %s\n", of)
	}
	_, err = fmt.Fprint(c.OutOrStdout(), b.String())
	return err
}
