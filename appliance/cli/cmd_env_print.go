package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"strongroom.example/appliance/base/atomicfile"
	"strongroom.example/appliance/secrets/appenv"
	"strongroom.example/appliance/secrets/dotenv"
)

func envPrintCommand(o *envOptions) *cobra.Command {
	var format, output string
	var reveal bool
	c := &cobra.Command{
		Use:   "print",
		Short: "Render an app's secrets as a file",
		Long: `Renders python (.env for python-dotenv), compose (.env for docker-compose), shell
or json. To a file, which gets mode 0600, or to standard output with --reveal.
Without either only the names are printed.`,
		Example: "  strongroom env print --app bike-data-flow --env staging --output .env",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			render, err := renderer(format)
			if err != nil {
				return err
			}
			pairs, err := o.load(c.Context())
			if err != nil {
				return err
			}
			return printEnv(c, pairs, render, output, reveal)
		},
	}
	f := c.Flags()
	f.StringVar(&format, "format", "python", "python, compose, shell or json")
	f.StringVarP(&output, "output", "o", "", "where to write: a file, mode 0600")
	f.BoolVar(&reveal, "reveal", false, "print the values to standard output")
	return c
}

func printEnv(c *cobra.Command, pairs []appenv.Pair, render func([]appenv.Pair) ([]byte, error), output string, reveal bool) error {
	if output == "" && !reveal {
		for _, p := range pairs {
			fmt.Fprintln(c.OutOrStdout(), p.Name)
		}
		if term.IsTerminal(int(os.Stdout.Fd())) {
			fmt.Fprintln(c.ErrOrStderr(), "the names only: values with --output FILE or --reveal")
		}
		return nil
	}
	data, err := render(pairs)
	if err != nil {
		return err
	}
	if output != "" {
		return atomicfile.Write(output, data, 0o600)
	}
	_, err = c.OutOrStdout().Write(data)
	return err
}

func renderer(format string) (func([]appenv.Pair) ([]byte, error), error) {
	lines := func(quote func(string) string) func([]appenv.Pair) ([]byte, error) {
		return func(pairs []appenv.Pair) ([]byte, error) {
			var b strings.Builder
			for _, p := range pairs {
				fmt.Fprintf(&b, "%s=%s\n", p.Name, quote(p.Value))
			}
			return []byte(b.String()), nil
		}
	}
	switch format {
	case "python":
		return lines(func(v string) string { return dotenv.Quote(v, dotenv.Python) }), nil
	case "compose":
		return lines(func(v string) string { return dotenv.Quote(v, dotenv.Compose) }), nil
	case "shell":
		render := lines(func(v string) string { return "'" + strings.ReplaceAll(v, "'", `'\''`) + "'" })
		return func(pairs []appenv.Pair) ([]byte, error) {
			for _, p := range pairs {
				if strings.ContainsAny(p.Name, ".-") {
					return nil, &Error{Code: ExitFailed, Err: fmt.Errorf("%q is no name for a shell's variable", p.Name), Hint: "use --format json"}
				}
			}
			return render(pairs)
		}, nil
	case "json":
		return func(pairs []appenv.Pair) ([]byte, error) {
			m := map[string]string{}
			for _, p := range pairs {
				m[p.Name] = p.Value
			}
			data, err := json.MarshalIndent(m, "", "  ")
			return append(data, '\n'), err
		}, nil
	}
	return nil, &Error{Code: ExitUsage, Err: fmt.Errorf("--format %q is none of python, compose, shell, json", format), Hint: "see strongroom env print --help"}
}
