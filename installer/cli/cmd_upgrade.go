package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/base/fault"
	"strongroom.example/appliance/base/pause"
	"strongroom.example/config"
	"strongroom.example/config/machine"
	"strongroom.example/config/recipient"
	"strongroom.example/installer/engine"
	"strongroom.example/installer/recover"
	"strongroom.example/installer/steps"
	"strongroom.example/installer/upgrade"
)

// upgradeOptions are those of install that an upgrade has too, and its own.
type upgradeOptions struct {
	options
	vaultVersion  string
	plan          bool
	rollback      bool
	skipRehearsal string
	patience      time.Duration
}

const whatUpgradeDoes = `Upgrades the appliance and the plugin to what this installer carries and, with
--vault-version or --vault-binary, Vault too. It shows what will change and asks.
Then

 1. it puts the new programs beside the old ones, takes a snapshot (with the
    backup jobs too, where there is a place for backups), and starts the new
    programs on a copy of it that is cut off from everything;
 2. it ends waiting reads, keeps what it replaces, applies the installer's steps,
    and moves the engine to the new plugin, whose version stands beside the old;
 3. it looks whether all is well: units, Vault unsealed and active, its raft
    index, the engine, the front over HTTPS. If not, it puts everything back by
    itself; after a new Vault, its storage too.

A run that was killed is ended by running the same command again: it goes on, or
rolls back. Changes inside Vault need an administrator's token, as vault login leaves it, in
VAULT_TOKEN or in a file named by --token-file, and it is tried before anything is changed. A
rollback begins without one, since there may be no Vault to log in to, and says
when it needs one.

Exit codes: 0 done, or nothing to do; 1 failed, and nothing was changed or all is
as before (the message says which); 2 usage; 3 --dry-run: there are differences;
4 you must act, as the message says.`

func upgradeCommand(version string) *cobra.Command {
	o := upgradeOptions{options: options{version: version}}
	c := &cobra.Command{
		Use:   "upgrade",
		Short: "Replace the installed versions, and take that back by itself if they are not well",
		Long:  whatUpgradeDoes,
		Example: "  VAULT_TOKEN=$(cat token) ./" + program + " upgrade --dry-run\n" +
			"  ./" + program + " upgrade --token-file token\n" +
			"  ./" + program + " upgrade --token-file token --vault-version 2.2.3",
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			o.from(c)
			if err := o.validate(); err != nil {
				return usage(c, err)
			}
			return o.upgrade(c)
		},
	}
	o.flags(c)
	return c
}

func (o *upgradeOptions) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.vaultVersion, "vault-version", "", "upgrade Vault to this release, downloaded and verified")
	f.Var(pathFlag{&o.vaultBinary}, "vault-binary", "the new Vault's program, to upgrade to")
	f.StringVar(&o.vaultSHA256, "sha256", "", "SHA-256 that is checked first, of the --vault-binary")
	f.BoolVar(&o.allowOld, "allow-old-vault", false, "accept a Vault below "+config.VaultFloor)
	f.StringVar(&o.tokenFile, "token-file", "", tokenFileHelp)
	f.BoolVarP(&o.plan, "dry-run", "n", false, "change nothing, and print what would change")
	f.BoolVar(&o.rollback, "rollback", false, "take an unfinished upgrade back")
	f.StringVar(&o.skipRehearsal, "skip-rehearsal", "", "don't try the new programs on a copy first; its value is why, and is recorded")
	f.DurationVar(&o.patience, "patience", 90*time.Second, "how long what was started may take to be well")
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask")
}

func (o *upgradeOptions) validate() error {
	switch {
	case o.vaultVersion != "" && o.vaultBinary != "":
		return errors.New("--vault-version and --vault-binary: give one of them")
	case o.plan && o.rollback:
		return errors.New("--dry-run and --rollback: give one of them")
	case o.changed("skip-rehearsal") && strings.TrimSpace(o.skipRehearsal) == "":
		return errors.New("--skip-rehearsal: say why")
	case o.patience < time.Second:
		return fmt.Errorf("--patience %v: at least 1s is needed", o.patience)
	}
	// The certificate and DNS are as they are; an upgrade doesn't ask for them.
	o.skipDNS = true
	return nil
}

func (o *upgradeOptions) upgrade(c *cobra.Command) error {
	if _, err := os.Stat(machine.ConfigFile); errors.Is(err, fs.ErrNotExist) {
		return &fault.Error{Code: fault.Operator, Err: fmt.Errorf("nothing is installed here: %q is not there", machine.ConfigFile),
			Hint: "install first: " + program + " install --help"}
	}
	return o.run(c.Context(), c, func(ctx context.Context, env *steps.Env) error {
		end, err := begin(machine.OperationLock, "upgrade")
		if err != nil {
			return err
		}
		defer end()
		remove, err := o.fetchVault(ctx, env)
		if err != nil {
			return err
		}
		err = o.upgradeWith(ctx, env)
		return errors.Join(err, remove())
	})
}

// fetchVault downloads the release that was asked for.
func (o *upgradeOptions) fetchVault(ctx context.Context, env *steps.Env) (remove func() error, err error) {
	if o.vaultVersion == "" {
		return func() error { return nil }, nil
	}
	want := env.Config.Vault
	if want.Product == config.ProductOpenBao {
		return nil, &fault.Error{Code: fault.Usage, Err: errors.New("--vault-version: releases of Vault alone are downloaded, and this machine runs OpenBao"),
			Hint: "give OpenBao's program with --vault-binary FILE --sha256 SUM (docs/openbao.md); nothing has been changed"}
	}
	want.Version, want.AllowOld = o.vaultVersion, want.AllowOld || o.allowOld
	env.Config.Vault = want
	if err := env.Config.Validate("", nil); err != nil {
		return nil, err
	}
	env.VaultBinary, remove, err = steps.FetchVault(ctx, want)
	return remove, err
}

func (o *upgradeOptions) upgradeWith(ctx context.Context, env *steps.Env) error {
	if err := recover.Unfinished(env.Host); err != nil {
		return err
	}
	needed, err := upgrade.NeedsToken(env.Host)
	if err != nil {
		return err
	}
	if env.AdminToken == "" && needed && !o.rollback {
		return &fault.Error{Code: fault.Operator, Err: errors.New("an administrator's token is needed"),
			Hint: "log in (vault login -method=userpass username=admin), or give it in VAULT_TOKEN or by --token-file; nothing has been changed"}
	}
	client, err := env.Vault(env.AdminToken)
	if err != nil {
		return err
	}
	operator, err := o.snapshotRecipients(env)
	if err != nil {
		return err
	}
	copied := &upgrade.Copy{Host: env.Host, Version: o.version, Operator: operator, Token: env.AdminToken, Out: o.out, Vault: client}
	u := &upgrade.Upgrade{
		Env: env, Vault: upgrade.NewVault(client), Front: upgrade.FrontAt(env.Config.Domain, "127.0.0.1:443"),
		Mark: copied.Mark, Seal: copied.Seal, Rehearse: copied.Rehearse, SkipRehearsal: o.skipRehearsal,
		Ask: o.askToUpgrade, Steps: steps.All, Patience: o.patience, Poll: 250 * time.Millisecond, Sleep: pause.For, Out: o.out,
	}
	if o.plan {
		p, err := u.Plan(ctx)
		if err == nil && p.Differs {
			err = &fault.Error{Code: fault.Drift, Err: engine.ErrDiffers}
		}
		return err
	}
	j, err := engine.OpenJournal(machine.InstallJournal, o.version, time.Now)
	if err != nil {
		return err
	}
	defer j.Close()
	env.Journal = j
	if o.rollback {
		return u.RollBack(ctx)
	}
	return u.Run(ctx)
}

func (o *upgradeOptions) askToUpgrade(ctx context.Context) error {
	if o.yes {
		return nil
	}
	if !o.terminal {
		return errors.New("nobody can be asked here: say --yes")
	}
	return o.askYes(ctx, "Type yes to upgrade: ", 10*time.Minute)
}

// snapshotRecipients are who can open the snapshot of before: who can open the
// escrow.
func (o *upgradeOptions) snapshotRecipients(env *steps.Env) ([]recipient.Recipient, error) {
	keys := env.Config.Escrow.Recipients
	if len(keys) == 0 {
		var err error
		if keys, _, err = steps.LoginKeys(env.Host, accountName()); err != nil {
			return nil, err
		}
	}
	var out []recipient.Recipient
	for _, k := range keys {
		r, err := recipient.Parse(k)
		if err != nil {
			return nil, &fault.Error{Code: fault.Usage, Err: fmt.Errorf("escrow.recipients: %w", err)}
		}
		out = append(out, r)
	}
	return out, nil
}

// accountName is whose keys open the escrow where none are named.
func accountName() string { return cmp.Or(os.Getenv("SUDO_USER"), "root") }
