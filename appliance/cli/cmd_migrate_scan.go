package cli

import (
	"fmt"
	"path"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/secrets/dotenv"
	"strongroom.example/appliance/secrets/migrate"
)

type scanOptions struct {
	*migrateOptions
	dialect      string
	environments []string
	fallback     string
	noHistory    bool
	reveal       bool
	all          bool
}

func (o *scanOptions) add(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.dialect, "dialect", dotenv.Python.String(), "whose reading of .env files is followed: python (python-dotenv) or compose (docker-compose)")
	f.StringArrayVar(&o.environments, "env-file", nil, "FILE=ENVIRONMENT, for a .env file whose name does not tell; repeatable")
	f.StringVar(&o.fallback, "default-environment", "development", "environment of a plain .env")
	f.BoolVar(&o.noHistory, "no-history", false, "do not look for the secrets in git's history")
}

// run scans with the options.
func (o *scanOptions) run(c *cobra.Command) (*migrate.Report, error) {
	d, err := dotenv.ParseDialect(o.dialect)
	if err != nil {
		return nil, &Error{Code: ExitUsage, Err: err}
	}
	envs := map[string]string{}
	for _, e := range o.environments {
		file, env, ok := strings.Cut(e, "=")
		if !ok || file == "" || env == "" {
			return nil, &Error{Code: ExitUsage, Err: fmt.Errorf("--env-file %q is not FILE=ENVIRONMENT", e)}
		}
		envs[path.Clean(filepath.ToSlash(file))] = env
	}
	r, err := migrate.Scan(c.Context(), migrate.ScanOptions{
		Root: o.root, Dialect: d, Environments: envs, Default: o.fallback, History: !o.noHistory, Reveal: o.reveal,
	})
	if err != nil {
		return nil, &Error{Code: ExitFailed, Err: err}
	}
	return r, nil
}

func migrateScanCommand(shared *migrateOptions) *cobra.Command {
	o := scanOptions{migrateOptions: shared}
	c := &cobra.Command{
		Use:   "scan [FOLDER]",
		Short: "Find environment variables, where they are set and used, and which look like secrets",
		Long: `Looks through the tree for .env files and for everything that reads environment
variables: Python (os.environ, os.getenv, pydantic settings, Dagster's EnvVar),
dagster.yaml, JavaScript, Go, shell, Dockerfile, docker-compose, systemd units,
GitHub Actions. It says which variables look like secrets, why, and whether
their values stand in git's history. It changes nothing.

Exit code 3 if a .env file is malformed.`,
		Example: "  strongroom migrate scan .",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := subject(c, args, "root", &o.root); err != nil {
				return err
			}
			return runScan(c, o)
		},
	}
	o.add(c)
	c.Flags().BoolVar(&o.reveal, "reveal", false, "print the values")
	c.Flags().BoolVar(&o.all, "all", false, "everything: also variables that no .env file sets")
	return c
}

func runScan(c *cobra.Command, o scanOptions) error {
	r, err := o.run(c)
	if err != nil {
		return err
	}
	if o.json {
		err = printJSON(c, r)
	} else {
		err = printScan(c, o, r)
	}
	if err != nil {
		return err
	}
	if fatal := r.Fatal(); len(fatal) > 0 {
		return &Error{Code: ExitDrift, Err: fmt.Errorf("%d faults in .env files", len(fatal)), Hint: "correct them: nothing can be planned or written before that"}
	}
	return nil
}

func printScan(c *cobra.Command, o scanOptions, r *migrate.Report) error {
	w := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "VARIABLE\tSECRET\tENVIRONMENT\tSET AT\tUSES\tHISTORY\tWHY")
	if o.reveal {
		fmt.Fprint(w, "\tVALUE")
	}
	fmt.Fprintln(w)
	secrets := 0
	for _, v := range r.Variables {
		if v.Secret() {
			secrets++
		}
		shown := false
		for _, d := range v.Definitions {
			if d.Kind == "template" || (d.Kind != "dotenv" && len(d.Secret) == 0 && !o.all) {
				continue
			}
			shown = true
			secret, history := "-", "-"
			if len(d.Secret) > 0 {
				secret = "yes"
			}
			if len(d.InHistory) > 0 {
				history = strings.Join(d.InHistory, ",")
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s:%d\t%d\t%s\t%s", v.Name, secret, dash(d.Environment), d.File, d.Line, len(v.Uses), history, dash(strings.Join(d.Secret, "; ")))
			if o.reveal {
				fmt.Fprintf(w, "\t%q", d.Value)
			}
			fmt.Fprintln(w)
		}
		if !shown && o.all && len(v.Uses) > 0 {
			fmt.Fprintf(w, "%s\t-\t-\tnowhere\t%d\t-\tused at %s:%d\n", v.Name, len(v.Uses), v.Uses[0].File, v.Uses[0].Line)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	out := c.OutOrStdout()
	problems(c, r.Problems)
	for _, d := range r.Differences {
		fmt.Fprintf(out, "note: %s:%d: %s %s\n", d.File, d.Line, dash(d.Name), d.Why)
	}
	for _, f := range r.Tracked {
		fmt.Fprintf(out, "note: %s is tracked by git\n", f)
	}
	if r.History != "" {
		fmt.Fprintf(out, "git history: %s\n", r.History)
	}
	fmt.Fprintf(out, "%d files, %d variables, %d of them look like secrets\n", r.Files, len(r.Variables), secrets)
	return nil
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
