package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"strongroom.example/appliance/base/atomicfile"
	"strongroom.example/appliance/secrets/appenv"
)

func envPrintCommand(o *envOptions) *cobra.Command {
	var format, output string
	var reveal bool
	c := &cobra.Command{
		Use:   "print",
		Short: "Render an app's secrets as a file",
		Long: `Renders a file in the form of who reads it: dotenv (one text for python-dotenv,
docker-compose and Node's dotenv), python, compose, node (the package dotenv and
--env-file), systemd (EnvironmentFile=), docker (run --env-file, and
docker-compose's "format: raw"), shell or json. To a file, which gets mode 0600,
or to standard output with --reveal. Without either only the names are printed.

What the reader cannot hold, such as an end of line for docker, is refused by
the variable's name, and nothing is written.`,
		Example: "  strongroom env print --app bike-data-flow --env staging --output .env",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if !slices.Contains(appenv.Formats(), format) {
				return &Error{Code: ExitUsage, Err: fmt.Errorf("--format %q is none of %s", format, strings.Join(appenv.Formats(), ", ")), Hint: "see strongroom env print --help"}
			}
			pairs, err := o.load(c.Context(), c.ErrOrStderr())
			if err != nil {
				return err
			}
			return printEnv(c, pairs, format, output, reveal)
		},
	}
	f := c.Flags()
	f.StringVar(&format, "format", "python", "form of the output: "+strings.Join(appenv.Formats(), ", "))
	f.StringVarP(&output, "output", "o", "", "where to write: a file, mode 0600")
	f.BoolVar(&reveal, "reveal", false, "print the values to standard output")
	return c
}

func printEnv(c *cobra.Command, pairs []appenv.Pair, format, output string, reveal bool) error {
	if output == "" && !reveal {
		for _, p := range pairs {
			fmt.Fprintln(c.OutOrStdout(), p.Name)
		}
		if term.IsTerminal(int(os.Stdout.Fd())) {
			fmt.Fprintln(c.ErrOrStderr(), "the names only: values with --output FILE or --reveal")
		}
		return nil
	}
	data, err := appenv.Render(pairs, format)
	var cannot *appenv.CannotHoldError
	if errors.As(err, &cannot) {
		return &Error{Code: ExitFailed, Err: err, Hint: "nothing was written: choose another --format (json holds everything), or another value"}
	}
	if err != nil {
		return err
	}
	if format != "json" {
		tellTooMuch(c.ErrOrStderr(), pairs)
	}
	if output != "" {
		// A print that was killed may have left all of it in a folder that git sees.
		if err := atomicfile.Sweep(output); err != nil {
			return err
		}
		return atomicfile.Write(output, data, 0o600)
	}
	_, err = c.OutOrStdout().Write(data)
	return err
}

// tellTooMuch says what no program can be started with: who reads the file by itself
// has it, and what that starts does not begin.
func tellTooMuch(warn io.Writer, pairs []appenv.Pair) {
	if large := appenv.TooLarge(pairs); len(large) > 0 {
		fmt.Fprintf(warn, "strongroom: no program can be started with %s in its environment: one variable holds at most %d bytes\n", sizes(large), appenv.MaxVariable)
	}
	if n := appenv.TooMuch(pairs); n > 0 {
		fmt.Fprintf(warn, "strongroom: %d bytes together are more than a program is usually started with (a quarter of the stack's limit)\n", n)
	}
}
