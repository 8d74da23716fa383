package cli

import (
	"cmp"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/base/access"
	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/appliance/secrets/apps"
)

func appRenewCommand(o *appOptions) *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use:   "renew-login FOLDER",
		Short: "Renew the login that an app's machine holds, before it ends",
		Long: `Replaces the secret id in a folder that open-bundle has written, when a third of
its life has gone: a new one is made, tried and put into its place, and the old one
is destroyed. Run it each day, as who owns the folder; a run that was killed is gone
on with by the next. The login needs renew = true in apps.toml.

Exit codes: 0 renewed, or not due yet; 4 the login has ended, or may not.`,
		Example: "  strongroom app renew-login /etc/bike-data-flow/vault",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			r, err := apps.RenewLogin(c.Context(), apps.RenewOptions{
				Dir: args[0], Always: force, Now: time.Now,
				Connect: func(ca string) (*vaultapi.Client, error) {
					conn := vaultAccess{access.Options{Address: o.vault.Address, CACert: cmp.Or(o.vault.CACert, ca)}}
					return conn.Client()
				},
			})
			if err != nil {
				return appError(err)
			}
			until := "without end"
			if !r.Ends.IsZero() {
				until = "until " + r.Ends.UTC().Format(time.RFC3339)
			}
			what := "not due yet"
			if r.Renewed {
				what = "renewed"
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s: %s, works %s\n", r.Role, what, until)
			return err
		},
	}
	c.Flags().BoolVar(&force, "force", false, "do it all the same, although it is not due")
	return c
}
