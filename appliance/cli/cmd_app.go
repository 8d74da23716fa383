package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/appliance/base/words"
	"strongroom.example/appliance/secrets/apps"
	"strongroom.example/config"
	"strongroom.example/config/machine"
)

// appOptions are what the verbs of app share.
type appOptions struct {
	vault      vaultAccess
	client     *vaultapi.Client // what load has opened
	config     string
	app, env   string
	json       bool
	adopt      []string
	from       string
	resend     bool
	resendOf   []string
	reset      bool
	split      bool
	prune      bool
	digest     string
	yes        bool
	dryRun     bool
	withValues bool
}

func appCommand() *cobra.Command {
	o := &appOptions{}
	c := &cobra.Command{
		Use:   "app",
		Short: "Give apps their secrets, policies, logins and databases, as apps.toml says",
		Long: `Brings Vault to what apps.toml says: for each app and environment a path in KV, a
policy that reads it and nothing else, an AppRole with short tokens, database
roles and API keys; and for people the ways to log in.

It changes and removes only what the same manifest has made. Run it as a person
with an admin login, or from CI with a token of its own; never as root. The
people who own an app may plan, show, check-db and login-bundle.

See docs/apps.md and docs/databases.md.`,
	}
	f := c.PersistentFlags()
	f.StringVar(&o.config, "config", machine.AppsFile, "configuration file that names the apps")
	o.vault.add(c.PersistentFlags())
	c.AddCommand(appPlanCommand(o), appApplyCommand(o), appPruneCommand(o), appShowCommand(o),
		appBundleCommand(o), appOpenBundleCommand(o), appRenewCommand(o), appCheckDBCommand(o), appAccessCommand(o))
	return c
}

// load reads the file and connects.
func (o *appOptions) load(warnings io.Writer) (config.Apps, apps.Vault, error) {
	conf, err := config.LoadApps(o.config)
	if err != nil {
		return conf, nil, &Error{Code: ExitUsage, Err: err, Hint: "see docs/apps.md; --config names another file"}
	}
	c, err := o.vault.client()
	if err != nil {
		return conf, nil, err
	}
	o.client = c
	var telling sync.Mutex // what is written side by side
	return conf, apps.NewWarned(c, func(path, warning string) {
		telling.Lock()
		defer telling.Unlock()
		fmt.Fprintf(warnings, "note: Vault says of %s: %s\n", path, words.Line(warning, 500))
	}), nil
}

// addTarget defines the flags that pick environments.
func (o *appOptions) addTarget(c *cobra.Command) {
	c.Flags().StringVar(&o.app, "app", "", "the app (default: all)")
	c.Flags().StringVar(&o.env, "env", "", "the environment (default: all)")
}

func (o *appOptions) targets(conf config.Apps) ([]config.Target, error) {
	t, err := apps.Find(conf, o.app, o.env)
	if err != nil {
		return nil, &Error{Code: ExitUsage, Err: err, Hint: "the apps are in " + o.config}
	}
	return t, nil
}

// loadTargets is load, and the environments that are meant.
func (o *appOptions) loadTargets(warnings io.Writer) (config.Apps, apps.Vault, []config.Target, error) {
	conf, v, err := o.load(warnings)
	if err != nil {
		return conf, nil, nil, err
	}
	targets, err := o.targets(conf)
	return conf, v, targets, err
}

// target is the one environment that is meant.
func (o *appOptions) target(conf config.Apps) (config.Target, error) {
	all, err := o.targets(conf)
	if err != nil {
		return config.Target{}, err
	}
	if len(all) > 1 {
		var names []string
		for _, t := range all {
			names = append(names, t.Prefix)
		}
		return config.Target{}, &Error{Code: ExitUsage, Err: fmt.Errorf("%d environments are meant: %s", len(all), strings.Join(names, ", ")),
			Hint: "name one with --app and --env"}
	}
	return all[0], nil
}

var planSigns = map[apps.Action]string{
	apps.Create: "+", apps.Update: "~", apps.Delete: "-", apps.Conflict: "!", apps.Blocked: "!", apps.Keep: "=", apps.Unnamed: "-",
}

// printPlan writes what is to be done; unchanged things are only counted.
func printPlan(w io.Writer, p *apps.Plan) error {
	var b strings.Builder
	fmt.Fprintf(&b, "manifest %s\n", p.Manifest)
	for _, c := range p.Changes {
		if c.Action == apps.Unchanged {
			continue
		}
		fmt.Fprintf(&b, "  %s %s %s", planSigns[c.Action], c.Kind, c.Name)
		note := c.Note
		if c.Action == apps.Unnamed {
			note = strings.TrimSuffix("no longer named, and works until a prune: "+note, ": ")
		}
		if note != "" {
			fmt.Fprintf(&b, "  (%s)", note)
		}
		b.WriteByte('\n')
		for _, f := range c.Fields {
			if strings.ContainsRune(f.From+f.To, '\n') || len(f.From)+len(f.To) > 80 {
				fmt.Fprintf(&b, "      %s: changed\n", f.Name)
				continue
			}
			fmt.Fprintf(&b, "      %s: %q → %q\n", f.Name, f.From, f.To)
		}
	}
	for _, n := range p.Notes {
		fmt.Fprintf(&b, "note: %s\n", n)
	}
	fmt.Fprintf(&b, "plan: %d to create, %d to change, %d to remove, %d in the way, %d unchanged",
		p.Count(apps.Create), p.Count(apps.Update), p.Count(apps.Delete), p.Count(apps.Conflict, apps.Blocked), p.Count(apps.Unchanged))
	if n := p.Count(apps.Unnamed); n > 0 {
		fmt.Fprintf(&b, ", %d no longer named", n)
	}
	b.WriteByte('\n')
	if p.ID != "" {
		fmt.Fprintf(&b, "digest: %s\n", p.ID)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// appError gives the exit code and what to do.
func appError(err error) error {
	var known *Error
	var person *apps.NeedsOperator
	switch {
	case err == nil || errors.As(err, &known):
		return err
	case errors.As(err, &person):
		return &Error{Code: ExitOperator, Err: err, Hint: person.Hint}
	case errors.Is(err, apps.ErrConflict):
		return &Error{Code: ExitOperator, Err: err, Hint: `rename them, make what is missing, or take over what nobody owns with --adopt "KIND/NAME", and what another manifest hands over with --adopt-from MANIFEST besides`}
	case errors.Is(err, apps.ErrConcurrent):
		return &Error{Code: ExitFailed, Err: err, Hint: "run it again when the other one has ended"}
	case errors.Is(err, apps.ErrIntercepted):
		return &Error{Code: ExitOperator, Err: err, Hint: "unless you opened it yourself, somebody else may have the login: destroy its secret ids, find out who, and make a new bundle (docs/apps.md)"}
	case errors.Is(err, apps.ErrLost):
		return &Error{Code: ExitOperator, Err: err, Hint: "nobody can hold it but you: destroy the login's newest secret id, and make a new bundle (docs/apps.md)"}
	case errors.Is(err, apps.ErrWrapTTL):
		return &Error{Code: ExitUsage, Err: err}
	}
	return vaultError(err)
}
