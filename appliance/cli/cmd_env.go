package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/base/access"
	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/appliance/base/vaultapi/kv"
	"strongroom.example/appliance/secrets/appenv"
	"strongroom.example/appliance/secrets/apps"
	"strongroom.example/config/machine"
)

// envOptions say which variables are meant.
type envOptions struct {
	vault                         vaultAccess
	app, environment, mount, file string
	allowed                       []string // names that steer a program, and are wanted all the same
}

// ofBundle is what strongroom app open-bundle calls an AppRole's two files, as
// credentials of a unit.
var ofBundle = access.Role{ID: apps.RoleIDFile, Secret: apps.SecretIDFile, Hint: "strongroom app open-bundle writes both"}

func envCommand() *cobra.Command {
	o := &envOptions{}
	o.vault.Machine = ofBundle
	c := &cobra.Command{
		Use:   "env",
		Short: "Give an app's secrets to a program as environment variables",
		Long: `For programs that cannot ask Vault themselves yet. What is meant is every secret
below secret/{app}/{environment}/, or what a mapping file names.

It logs in with a token, or by itself as an AppRole: by --role-id-file and
--secret-id-file, or in a unit by the credentials role-id and secret-id. That
login ends before the program begins, which is given nothing of it.

An environment is readable by everything that runs as the same user: prefer a
client that reads from Vault.

Names that steer which code a program runs (LD_PRELOAD, PATH, PYTHONPATH,
NODE_OPTIONS, BASH_ENV, IFS and their like) are refused unless --allow-name
names them: whoever may write such a secret could run anything.`,
	}
	o.vault.add(c.PersistentFlags())
	f := c.PersistentFlags()
	f.StringVar(&o.app, "app", "", "the app")
	f.StringVar(&o.environment, "env", "", "the environment, such as production")
	f.StringVar(&o.mount, "mount", machine.MountKV, "mount of the engine KV version 2")
	f.StringVar(&o.file, "mapping", "", "mapping file of strongroom migrate, in place of --app and --env")
	f.StringArrayVar(&o.allowed, "allow-name", nil, "hand on this variable although it steers which code a program runs, such as PATH or LD_PRELOAD; repeatable")
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

// load reads the variables. A login of its own has ended when it returns; warn is
// where that is told that could not be ended.
func (o *envOptions) load(ctx context.Context, warn io.Writer) (pairs []appenv.Pair, err error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	var mapping *appenv.Mapping
	if o.file != "" {
		if mapping, err = appenv.ReadMapping(o.file); err != nil {
			return nil, &Error{Code: ExitUsage, Err: err, Hint: mappingHint(o.file, err)}
		}
	}
	c, err := o.vault.Client()
	if err != nil {
		return nil, err
	}
	session, err := o.vault.Login(ctx, c)
	switch {
	case vaultapi.IsBadRequest(err) || vaultapi.IsDenied(err):
		return nil, &Error{Code: ExitOperator, Err: err, Hint: "the secret id has ended, or is not for this address: hand out a new one with strongroom app login-bundle"}
	case err != nil:
		return nil, vaultError(err)
	}
	defer func() {
		if err := session.End(ctx); err != nil {
			fmt.Fprintf(warn, "strongroom: the login's token stays until it ends by itself: %v\n", err)
		}
	}()
	if mapping != nil {
		pairs, err = mapping.Load(ctx, c)
	} else {
		pairs, err = appenv.Load(ctx, kv.New(c), o.mount, o.app, o.environment)
	}
	switch {
	case errors.Is(err, appenv.ErrNotThere) && !vaultapi.IsRefusal(err):
		return nil, &Error{Code: ExitFailed, Err: fmt.Errorf("read the environment: %w", err),
			Hint: fmt.Sprintf("is %s the mapping file of this environment? strongroom migrate apply writes what it names; of what is meant to be gone, take the line out", o.file)}
	case err != nil:
		return nil, vaultError(fmt.Errorf("read the environment: %w", err))
	}
	if names := appenv.Steering(pairs, o.allowed); len(names) > 0 {
		return nil, &Error{Code: ExitOperator, Err: fmt.Errorf("%s: such a variable steers which code a program runs, and is not handed on", strings.Join(names, ", ")),
			Hint: "remove the secret, or name each with --allow-name"}
	}
	return pairs, nil
}

// mappingHint is what to do about a mapping file that cannot be read.
func mappingHint(file string, err error) string {
	if !errors.Is(err, os.ErrNotExist) {
		return "correct the file: see docs/migrate.md"
	}
	there, globErr := filepath.Glob(filepath.Join(filepath.Dir(file), "strongroom-env*.toml"))
	if globErr == nil && len(there) > 0 {
		return "in that folder there is " + strings.Join(there, ", ")
	}
	return "strongroom migrate apply writes it, as strongroom-env.toml in the top folder of the tree"
}
