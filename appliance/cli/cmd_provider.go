package cli

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"strongroom.example/config"
)

func providerCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "provider",
		Short: "Show the presets for services that issue API keys",
		Long: `A preset is what Vault must know of a service to make and revoke its API keys:
everything but the credential. Presets are starting points; this program asks
neither Vault nor the service.`,
	}
	c.PersistentFlags().BoolVar(&asJSON, "json", false, "print JSON")
	c.AddCommand(
		&cobra.Command{
			Use:     "list",
			Short:   "List the presets",
			Example: "  strongroom provider list",
			Args:    cobra.NoArgs,
			RunE:    func(c *cobra.Command, _ []string) error { return runProviderList(c, asJSON) },
		},
		&cobra.Command{
			Use:   "show NAME",
			Short: "Print a preset",
			Long: `Prints a preset as the commented TOML in which it is kept or, with --json, as
"vault write apikeys/providers/NAME -" takes it once "credential" is added. The
comments say what the credential must be able to do, and what is to be filled in.`,
			Example: `  strongroom provider show cloudflare
  strongroom provider show github --json | vault write apikeys/providers/github -`,
			Args: cobra.ExactArgs(1),
			RunE: func(c *cobra.Command, args []string) error { return runProviderShow(c, args[0], asJSON) },
		})
	return c
}

func runProviderList(c *cobra.Command, asJSON bool) error {
	presets, err := config.Presets()
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(c, presets)
	}
	w := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tTYPE\tFOR")
	for _, p := range presets {
		fmt.Fprintf(w, "%s\t%s\t%s\n", p.Name, p.Type, p.Title)
	}
	return w.Flush()
}

func runProviderShow(c *cobra.Command, name string, asJSON bool) error {
	presets, err := config.Presets()
	if err != nil {
		return err
	}
	var names []string
	for _, p := range presets {
		if p.Name != name {
			names = append(names, p.Name)
			continue
		}
		text := p.TOML
		if asJSON {
			if text, err = p.JSON(); err != nil {
				return err
			}
		}
		_, err = c.OutOrStdout().Write(text)
		return err
	}
	return &Error{Code: ExitUsage, Err: fmt.Errorf("there is no preset %q", name), Hint: "there are " + strings.Join(names, ", ")}
}
