package cli

import (
	"fmt"
	"io"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/base/words"
	"strongroom.example/appliance/secrets/dotenv"
	"strongroom.example/appliance/secrets/migrate"
)

type scanOptions struct {
	*migrateOptions
	dialects     []string
	earlier      *migrate.Plan // whose choices of dialects stay; may be nil
	from         string        // of plan
	other        []byte        // what that holds
	environments []string
	exclude      []string
	fallback     string
	noHistory    bool
	historyLimit time.Duration
	reveal       bool
	compare      bool // with a baseline
	all          bool
}

func (o *scanOptions) add(c *cobra.Command) {
	f := c.Flags()
	f.StringArrayVar(&o.dialects, "dialect", nil, "FILE=NAME, or NAME for all: whose reading of .env files is followed, in place of who reads them by what the tree shows; repeatable")
	f.StringArrayVar(&o.environments, "env-file", nil, "FILE=ENVIRONMENT, for a .env file whose name does not tell; repeatable")
	f.StringArrayVar(&o.exclude, "exclude", nil, "a path, or a name in one, that is not looked at; * and ? as in a shell; repeatable")
	f.StringVar(&o.fallback, "default-environment", "development", "environment of a plain .env")
	f.BoolVar(&o.noHistory, "no-history", false, "do not look for the secrets in git's history")
	f.DurationVar(&o.historyLimit, "history-limit", migrate.HistoryLimit, "search git's history no longer than this")
}

// named are the environments that the options give files.
func (o *scanOptions) named() (map[string]string, error) {
	envs := map[string]string{}
	for _, e := range o.environments {
		file, env, ok := strings.Cut(e, "=")
		if !ok || file == "" || env == "" {
			return nil, &Error{Code: ExitUsage, Err: fmt.Errorf("--env-file %q is not FILE=ENVIRONMENT", e)}
		}
		envs[path.Clean(filepath.ToSlash(file))] = env
	}
	return envs, nil
}

// excluded is what is not looked at, by the options and by an earlier plan.
func (o *scanOptions) excluded() []string {
	var out []string
	if o.earlier != nil {
		out = slices.Clone(o.earlier.Exclude)
	}
	for _, pattern := range o.exclude {
		if !slices.Contains(out, pattern) {
			out = append(out, pattern)
		}
	}
	return out
}

// run scans with the options.
func (o *scanOptions) run(c *cobra.Command) (*migrate.Report, error) {
	all, files, err := o.followed()
	if err != nil {
		return nil, err
	}
	named, err := o.named()
	if err != nil {
		return nil, err
	}
	envs := map[string]string{}
	if o.earlier != nil {
		envs = o.earlier.FileEnvironments()
	}
	maps.Copy(envs, named)
	if o.historyLimit <= 0 {
		return nil, &Error{Code: ExitUsage, Err: fmt.Errorf("--history-limit %v must be more than nothing", o.historyLimit), Hint: "--no-history leaves the history out"}
	}
	for _, pattern := range o.exclude {
		if err := migrate.CheckExclude(pattern); err != nil {
			return nil, &Error{Code: ExitUsage, Err: fmt.Errorf("--exclude %w", err)}
		}
	}
	progress, done := historyProgress(c.ErrOrStderr())
	r, err := migrate.Scan(c.Context(), migrate.ScanOptions{
		Root: o.root, Dialect: all, Dialects: files, Environments: envs, Default: o.fallback, History: !o.noHistory, HistoryLimit: o.historyLimit, Progress: progress, Exclude: o.excluded(), OtherStore: o.other, Reveal: o.reveal, Compare: o.compare,
	})
	done()
	if err != nil {
		return nil, &Error{Code: ExitFailed, Err: err}
	}
	for _, given := range o.dialects {
		file, _, ok := strings.Cut(given, "=")
		if file = path.Clean(filepath.ToSlash(file)); ok && r.Dialects[file] == "" {
			return nil, &Error{Code: ExitUsage, Err: fmt.Errorf("--dialect %q: no .env file %q is in the tree", given, file), Hint: "the path is relative to the top of the tree"}
		}
	}
	for file := range named {
		if r.Dialects[file] == "" {
			return nil, &Error{Code: ExitUsage, Err: fmt.Errorf("--env-file: no .env file %q is in the tree", file), Hint: "the path is relative to the top of the tree"}
		}
	}
	return r, nil
}

// followed takes --dialect apart: for all files, and for single ones, where what
// an earlier plan was told counts as well.
func (o *scanOptions) followed() (all dotenv.Dialect, files map[string]dotenv.Dialect, err error) {
	files = map[string]dotenv.Dialect{}
	earlier := func(name string) (dotenv.Dialect, error) {
		d, err := dotenv.ParseDialect(name)
		if err != nil {
			return 0, &Error{Code: ExitUsage, Err: fmt.Errorf("the plan: %w", err), Hint: "correct the plan: see docs/migrate.md"}
		}
		return d, nil
	}
	if o.earlier != nil {
		if o.earlier.Dialect != dotenv.Python.String() {
			if all, err = earlier(o.earlier.Dialect); err != nil {
				return 0, nil, err
			}
		}
		for file, name := range o.earlier.Chosen {
			if files[file], err = earlier(name); err != nil {
				return 0, nil, err
			}
		}
	}
	for _, given := range o.dialects {
		file, name, one := strings.Cut(given, "=")
		if !one {
			name = given
		}
		d, err := dotenv.ParseDialect(name)
		switch {
		case err != nil:
			return 0, nil, &Error{Code: ExitUsage, Err: fmt.Errorf("--dialect %q: %w", given, err)}
		case !one:
			all = d
		case file == "":
			return 0, nil, &Error{Code: ExitUsage, Err: fmt.Errorf("--dialect %q names no file", given)}
		default:
			files[path.Clean(filepath.ToSlash(file))] = d
		}
	}
	return all, files, nil
}

// printReaders says whose reading was followed, where the tree shows that.
func printReaders(w io.Writer, r *migrate.Report) {
	for _, file := range slices.Sorted(maps.Keys(r.Readers)) {
		var who []string
		for _, reader := range r.Readers[file] {
			who = append(who, fmt.Sprintf("%s (%s:%d)", reader.Dialect, reader.File, reader.Line))
		}
		if followed := r.Dialects[file]; followed != "" {
			fmt.Fprintf(w, "%s is read as by %s: its readers are %s\n", file, followed, strings.Join(who, ", "))
		}
	}
}

func migrateScanCommand(shared *migrateOptions) *cobra.Command {
	o := scanOptions{migrateOptions: shared}
	var check checkOptions
	c := &cobra.Command{
		Use:   "scan [FOLDER]",
		Short: "Find environment variables, where they are set and used, and which look like secrets",
		Long: `Looks through the tree for .env files and for everything that reads environment
variables: Python (os.environ, os.getenv, pydantic settings, Dagster's EnvVar),
dagster.yaml, JavaScript, Go, shell, Dockerfile, docker-compose, systemd units,
GitHub Actions. It says which variables look like secrets, why, and whether
their values stand in git's history; and it lists secrets in files that this tool
does not move: dbt's profiles.yml, notebooks, code, Terraform, .netrc, .pgpass,
ini, TOML, JSON, YAML, Kubernetes, compose, scripts. It changes nothing.

With --check it is for CI, and for before a commit: it lists the secrets in files
that git does not ignore, beyond those of --baseline, and leaves git's history out.

Exit code 3 if a .env file is malformed, or if --check finds a secret.`,
		Example: "  strongroom migrate scan .\n  strongroom migrate scan --baseline .strongroom-baseline.json --format sarif",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := subject(c, args, "root", &o.root); err != nil {
				return err
			}
			if check.wanted() {
				return check.run(c, o)
			}
			return runScan(c, o, check.format)
		},
	}
	o.add(c)
	check.add(c)
	c.Flags().BoolVar(&o.reveal, "reveal", false, "print the values")
	c.Flags().BoolVar(&o.all, "all", false, "everything: also variables that no .env file sets")
	return c
}

func runScan(c *cobra.Command, o scanOptions, format string) error {
	format, err := scanFormat(o, format)
	if err != nil {
		return err
	}
	r, err := o.run(c)
	if err != nil {
		return err
	}
	switch format {
	case "json":
		err = printJSON(c, r)
	case "sarif":
		err = printSARIF(c, r, r.Findings(), nil)
	default:
		err = printScan(c, o, r)
	}
	if err != nil {
		return err
	}
	return scanFaults(r)
}

func scanFaults(r *migrate.Report) error {
	if fatal := r.Fatal(); len(fatal) > 0 {
		return &Error{Code: ExitDrift, Err: fmt.Errorf("%s in .env files", words.Count(len(fatal), "fault")), Hint: "correct them: nothing can be planned or written before that"}
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
	secrets, places := 0, 0
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
			secret, history, why := "-", "-", strings.Join(d.Secret, "; ")
			if len(d.Secret) > 0 {
				secret = "yes"
				places++
			} else if d.Placeholder != "" {
				why = "named like one; its value " + d.Placeholder
			}
			if len(d.InHistory) > 0 {
				history = strings.Join(d.InHistory, ",")
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s:%d\t%d\t%s\t%s", v.Name, secret, dash(d.Environment), d.File, d.Line, len(v.Uses), history, dash(why))
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
	if len(r.NotMoved) > 0 {
		fmt.Fprint(w, "\nNOT MOVED BY THIS TOOL\tKIND\tNAME\tWHY\tWHAT TO DO\n")
		for _, f := range r.NotMoved {
			fmt.Fprintf(w, "%s:%d\t%s\t%s\t%s\t%s\n", f.File, f.Line, f.Kind, dash(f.Name), strings.Join(f.Secret, "; "), adviceOf(f))
		}
		if err := w.Flush(); err != nil {
			return err
		}
		fmt.Fprintln(out)
	}
	problems(c, r.Problems)
	printReaders(out, r)
	for _, d := range r.Differences {
		fmt.Fprintf(out, "note: %s:%d: %s %s\n", d.File, d.Line, dash(d.Name), d.Why)
	}
	for _, f := range r.Tracked {
		fmt.Fprintf(out, "note: %s is tracked by git\n", f)
	}
	printHistory(out, r, nil)
	fmt.Fprintf(out, "%s, %s; names that look like secrets: %d, set at %s; secrets where this tool does not move them: %d\n", words.Count(r.Files, "file"), words.Count(len(r.Variables), "name"), secrets, words.Count(places, "place"), len(r.NotMoved))
	return nil
}

// adviceOf is what to do about a finding.
func adviceOf(f migrate.Finding) string {
	if f.InHistory == "" {
		return f.Advice
	}
	return f.Advice + "; and rotate it: it stands in git's history since " + f.InHistory
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
