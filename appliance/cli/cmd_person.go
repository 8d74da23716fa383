package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/base/words"
	"strongroom.example/appliance/secrets/apps"
)

func personCommand() *cobra.Command {
	var access vaultAccess
	var all bool
	c := &cobra.Command{
		Use:   "person",
		Short: "Shut somebody out of Vault at once, and let him in again",
		Long: `Somebody is named as he logs in: "alice", or with the method "userpass/alice"
where several have that name. Run it with an admin login.

See docs/people.md.`,
	}
	access.add(c.PersistentFlags())
	c.PersistentFlags().BoolVar(&all, "all", false, "everything that goes by the name: the person of each method")
	verb := func(use, short, long string, run func(context.Context, *cobra.Command, apps.Vault, apps.Identity) error, makeKnown bool) *cobra.Command {
		return &cobra.Command{
			Use: use + " NAME", Short: short, Long: long, Args: cobra.ExactArgs(1),
			RunE: func(c *cobra.Command, args []string) error {
				return personError(args[0], onPeople(c, &access, args[0], all, makeKnown, run))
			},
		}
	}
	c.AddCommand(
		verb("end", "Shut somebody out: log-in, live tokens, leases", `Vault refuses the person from now on, with whatever token; then the tokens end,
with the database users and other leases that they held. Who has never logged in
is shut out, too, where the method is named. Nothing of the person is deleted.`, endPerson, true),
		verb("allow", "Let somebody in again who was shut out", `The person logs in again, and may what the policies say by then. Tokens that
were ended stay so.`, allowPerson, false),
	)
	return c
}

func onPeople(c *cobra.Command, access *vaultAccess, name string, all, makeKnown bool, run func(context.Context, *cobra.Command, apps.Vault, apps.Identity) error) error {
	client, err := access.client()
	if err != nil {
		return err
	}
	v := apps.New(client)
	people, err := apps.FindPeople(c.Context(), v, name, makeKnown)
	if err != nil {
		return err
	}
	people, err = apps.One(people, all)
	if err != nil {
		return err
	}
	for _, p := range people {
		if err := run(c.Context(), c, v, p); err != nil {
			return err
		}
	}
	return nil
}

func endPerson(ctx context.Context, c *cobra.Command, v apps.Vault, p apps.Identity) error {
	e, err := apps.EndPerson(ctx, v, p)
	if err != nil {
		return err
	}
	out := c.OutOrStdout()
	fmt.Fprintf(out, "%s: shut out, %s ended with their leases\n", p, words.Count(e.Tokens, "live token"))
	for _, left := range e.Left {
		fmt.Fprintf(out, "  left: %s\n", left)
	}
	_, err = fmt.Fprintf(out, "  to undo it: strongroom person allow %q\n", p.Aliases[0])
	return err
}

func allowPerson(ctx context.Context, c *cobra.Command, v apps.Vault, p apps.Identity) error {
	if !p.Disabled {
		_, err := fmt.Fprintf(c.OutOrStdout(), "%s: was not shut out\n", p)
		return err
	}
	if err := apps.AllowPerson(ctx, v, p); err != nil {
		return err
	}
	_, err := fmt.Fprintf(c.OutOrStdout(), "%s: may log in again\n", p)
	return err
}

func personError(name string, err error) error {
	switch {
	case errors.Is(err, apps.ErrSeveral):
		return &Error{Code: ExitUsage, Err: err, Hint: "name the method, too (userpass/NAME), or --all of them"}
	case errors.Is(err, apps.ErrNobody):
		return &Error{Code: ExitUsage, Err: fmt.Errorf("%q: %w", name, err), Hint: "names are as the person logs in; with the method (userpass/NAME) somebody who has not logged in yet is shut out, too"}
	}
	return appError(err)
}
