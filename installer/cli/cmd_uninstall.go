package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/base/fault"
	"strongroom.example/config"
	"strongroom.example/config/machine"
	"strongroom.example/installer/host"
	"strongroom.example/installer/uninstall"
)

type uninstallOptions struct {
	options
	purge   bool
	confirm string
	plan    bool
}

const whatUninstallDoes = `Takes the appliance off this machine: stops, disables and removes its units,
programs, firewall rules and system settings. Nothing of anybody else's is
touched.

Vault's storage, the sealed master key, the escrow, certificates and audit logs
stay, and "install" on them brings the same Vault back. With --purge they are
deleted too, and the users with them; it asks for the domain's name to be typed.
Backups elsewhere are never deleted.

It may be stopped anywhere and run again.`

func uninstallCommand(version string) *cobra.Command {
	o := uninstallOptions{options: options{version: version}}
	c := &cobra.Command{
		Use:   "uninstall",
		Short: "Take the appliance off this machine; keeps the data unless told to purge it",
		Long:  whatUninstallDoes,
		Example: "  sudo ./" + program + " uninstall\n" +
			"  sudo ./" + program + " uninstall --purge --confirm-domain vault.example.com",
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			o.from(c)
			if o.confirm != "" && !o.purge {
				return usage(c, errors.New("--confirm-domain is for --purge"))
			}
			return o.uninstall(c.Context())
		},
	}
	f := c.Flags()
	f.BoolVar(&o.purge, "purge", false, "delete Vault's data, the escrow and the sealed master key too")
	f.StringVar(&o.confirm, "confirm-domain", "", "the domain's name, in place of typing it")
	f.BoolVarP(&o.plan, "dry-run", "n", false, "change nothing, and print what would go and what would stay")
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask; doesn't stand in for --confirm-domain")
	return c
}

func (o *uninstallOptions) uninstall(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return &fault.Error{Code: fault.Usage, Err: errors.New("not root"), Hint: "run it with sudo"}
	}
	cfg, known, err := o.installed()
	if err != nil {
		return err
	}
	h, closing, err := host.Open(ctx)
	if err != nil {
		return &fault.Error{Code: fault.Operator, Err: err, Hint: "this machine must be run by systemd"}
	}
	defer closing()
	u := &uninstall.Uninstall{Host: h, Config: cfg, Unknown: !known, Purge: o.purge, Out: o.out}
	inside, err := u.Inside()
	if err != nil {
		return err
	}
	if o.purge && inside != "" {
		return &fault.Error{Code: fault.Operator, Err: fmt.Errorf("backups lie in %q, which would be deleted with the rest", inside), Hint: "move them first"}
	}
	if err := u.Plan(); errors.Is(err, uninstall.ErrNothing) {
		fmt.Fprintln(o.out, "Nothing to remove.")
		return nil
	} else if err != nil {
		return err
	}
	if o.purge {
		for _, w := range u.Warnings() {
			fmt.Fprintln(o.out, "WARNING:", w)
		}
	}
	if o.plan {
		return nil
	}
	end, err := begin(machine.OperationLock, "uninstall")
	if err != nil {
		return err
	}
	defer end()
	if err := o.sure(ctx, cfg.Domain); err != nil {
		return &fault.Error{Code: fault.Operator, Err: err, Hint: "nothing has been changed"}
	}
	if err := u.Run(ctx); err != nil {
		return &fault.Error{Code: fault.Failed, Err: err, Hint: "remove the cause and run the same command again"}
	}
	if !o.purge {
		fmt.Fprintf(o.out, "\nThe data is still here: %s (Vault's storage), %s (sealed master key), %s (escrow).\nTo bring the same Vault back: %s install; to delete it: %s uninstall --purge\n",
			machine.VaultData, machine.CredentialDir, machine.EscrowDir, program, program)
	}
	return nil
}

// installed is the configuration of what is there. One that is lost or can't be
// read doesn't keep anybody from uninstalling.
func (o *uninstallOptions) installed() (cfg config.Appliance, known bool, err error) {
	cfg, err = config.Load(machine.ConfigFile)
	if err == nil {
		return cfg, true, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintln(o.out, "note: the configuration can't be read:", err)
	}
	if o.purge && cfg.Domain == "" {
		// There is no name to be typed, so it can't be what is meant.
		if o.confirm == "" {
			return cfg, false, &fault.Error{Code: fault.Usage, Err: fmt.Errorf("the domain is not known: %q can't be read", machine.ConfigFile),
				Hint: "say --confirm-domain NAME"}
		}
		cfg.Domain = o.confirm
	}
	cfg.Firewall.Manage = true
	return cfg, false, nil
}

// sure asks; a purge wants the domain's name.
func (o *uninstallOptions) sure(ctx context.Context, domain string) error {
	if !o.purge {
		if o.yes {
			return nil
		}
		if !o.terminal {
			return errors.New("nobody can be asked here: say --yes")
		}
		return o.askYes(ctx, "Type yes to uninstall: ", 10*time.Minute)
	}
	answer := o.confirm
	if answer == "" {
		if !o.terminal {
			return errors.New("nobody can be asked here: say --confirm-domain NAME")
		}
		var err error
		if answer, err = o.line(ctx, fmt.Sprintf("Everything will be deleted. Type %s to go on: ", domain), 10*time.Minute); err != nil {
			return err
		}
	}
	if answer != domain {
		return fmt.Errorf("%q is not this machine's domain", answer)
	}
	return nil
}
