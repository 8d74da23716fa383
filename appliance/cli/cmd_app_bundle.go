package cli

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/base/access"
	"strongroom.example/appliance/base/credential"
	"strongroom.example/appliance/secrets/apps"
)

func appBundleCommand(o *appOptions) *cobra.Command {
	var out string
	var ttl time.Duration
	c := &cobra.Command{
		Use:   "login-bundle",
		Short: "Issue a login for an environment, wrapped",
		Long: `Issues a secret id for the AppRole of one environment and writes a bundle to a new
file: where Vault is, the role id, and a token with which the secret id can be
fetched once (strongroom app open-bundle, on the machine that needs it). The
secret id itself passes through no screen, file or mail on the way.`,
		Example: "  strongroom app login-bundle --app bike-data-flow --env production --output production.bundle",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return appError(runAppBundle(c, o, out, ttl)) },
	}
	o.addTarget(c)
	c.Flags().StringVarP(&out, "output", "o", "", "where to write: a file that is not there yet")
	c.Flags().DurationVar(&ttl, "ttl", defaultBundleTTL, "how long the bundle can be opened")
	_ = c.MarkFlagRequired("output")
	return c
}

func runAppBundle(c *cobra.Command, o *appOptions, out string, ttl time.Duration) error {
	conf, v, err := o.load(c.ErrOrStderr())
	if err != nil {
		return err
	}
	t, err := o.target(conf)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(out); !errors.Is(err, os.ErrNotExist) {
		return &Error{Code: ExitUsage, Err: fmt.Errorf("--output %q exists", out), Hint: "name a new file"}
	}
	if err := apps.Keeps(c.Context(), v, t); err != nil {
		return err
	}
	var place apps.Place
	place.Address, place.CAFile = o.vault.Place()
	b, err := apps.WriteBundle(c.Context(), v, t, place, out, ttl)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.OutOrStdout(), "wrote %s for %s: can be opened once, until %s\n", out, t.Prefix, b.Expires.Format(time.RFC3339))
	return err
}

func appOpenBundleCommand(o *appOptions) *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use:   "open-bundle FILE",
		Short: "Fetch the login that a bundle stands for",
		Long: `Fetches the secret id, on the machine that needs it, and writes role-id, secret-id
and, where Vault's authority is a private one, ca.crt to a folder, readable by
their owner alone; a login that is there already is replaced when the new one is
fetched, and not before. The bundle can be opened once: if somebody was first, the
exit code is 4, and the login must be taken for stolen.`,
		Example: "  strongroom app open-bundle production.bundle --output /etc/bike-data-flow/vault",
		Args:    cobra.ExactArgs(1),
		RunE:    func(c *cobra.Command, args []string) error { return appError(runOpenBundle(c, o, args[0], dir)) },
	}
	c.Flags().StringVarP(&dir, "output", "o", ".", "where to write: a folder for the files")
	return c
}

func runOpenBundle(c *cobra.Command, o *appOptions, file, dir string) error {
	data, err := credential.Read(credential.Path(file))
	if err != nil {
		return &Error{Code: ExitUsage, Err: err}
	}
	b, err := apps.ParseBundle(data)
	if err != nil {
		return &Error{Code: ExitUsage, Err: fmt.Errorf("%q: %w", file, err)}
	}
	err = b.OpenInto(c.Context(), dir, func(ca string) (apps.Vault, error) {
		conn := vaultAccess{access.Options{Address: cmp.Or(o.vault.Address, b.Address), CACert: cmp.Or(o.vault.CACert, ca)}}
		cl, err := conn.Client()
		if err != nil {
			return nil, err
		}
		return apps.New(cl), nil
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.OutOrStdout(), "wrote role-id and secret-id to %s\n", dir)
	return err
}
