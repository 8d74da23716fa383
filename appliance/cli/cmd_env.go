package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/base/vaultapi/kv"
	"strongroom.example/appliance/secrets/appenv"
	"strongroom.example/config/machine"
)

// envOptions say which variables are meant.
type envOptions struct {
	vault                         vaultAccess
	app, environment, mount, file string
}

func envCommand() *cobra.Command {
	o := &envOptions{}
	c := &cobra.Command{
		Use:   "env",
		Short: "Give an app's secrets to a program as environment variables",
		Long: `For programs that cannot ask Vault themselves yet. What is meant is every secret
below secret/{app}/{environment}/, or what a mapping file names.

An environment is readable by everything that runs as the same user: prefer a
client that reads from Vault.`,
	}
	o.vault.add(c.PersistentFlags())
	f := c.PersistentFlags()
	f.StringVar(&o.app, "app", "", "the app")
	f.StringVar(&o.environment, "env", "", "the environment, such as production")
	f.StringVar(&o.mount, "mount", machine.MountKV, "mount of the engine KV version 2")
	f.StringVar(&o.file, "mapping", "", "mapping file of strongroom migrate, in place of --app and --env")
	c.AddCommand(envExecCommand(o), envPrintCommand(o))
	return c
}

func (o *envOptions) validate() error {
	switch {
	case o.file != "" && (o.app != "" || o.environment != ""):
		return &Error{Code: ExitUsage, Err: errors.New("--mapping and --app or --env: one or the other")}
	case o.file == "" && (o.app == "" || o.environment == ""):
		return &Error{Code: ExitUsage, Err: errors.New("no --app and --env"), Hint: "give both, or --mapping FILE"}
	}
	return nil
}

func (o *envOptions) load(ctx context.Context) ([]appenv.Pair, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	c, err := o.vault.client()
	if err != nil {
		return nil, err
	}
	var pairs []appenv.Pair
	if o.file != "" {
		pairs, err = appenv.LoadMapping(ctx, c, o.file)
	} else {
		pairs, err = appenv.Load(ctx, kv.New(c), o.mount, o.app, o.environment)
	}
	if err != nil {
		return nil, vaultError(fmt.Errorf("read the environment: %w", err))
	}
	return pairs, nil
}
