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
			Use:   "list",
			Short: "List the presets",
			Long: `Lists the presets. HELD TO says with what each was compared, and when: paper is the
service's documentation, specification the vendor's published schema or client, live the
service itself. --json also says which exactly.`,
			Example: "  strongroom provider list",
			Args:    cobra.NoArgs,
			RunE:    func(c *cobra.Command, _ []string) error { return runProviderList(c, asJSON) },
		},
		&cobra.Command{
			Use:   "show NAME|FILE",
			Short: "Print a preset, or one of your own",
			Long: `Prints a preset as the commented TOML in which it is kept or, with --json, as
"vault write apikeys/providers/NAME -" takes it once "credential" is added. The
comments say what the credential must be able to do, and what is to be filled in.
FILE is one of your own in TOML; what is unknown in it is refused with its line.`,
			Example: `  strongroom provider show cloudflare
  strongroom provider show github --json | vault write apikeys/providers/github -
  strongroom provider show ./acme.toml --json | vault write apikeys/providers/acme -`,
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
	fmt.Fprintln(w, "NAME\tTYPE\tHELD TO\tFOR")
	for _, p := range presets {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", p.Name, p.Type, strings.TrimSpace(p.HeldTo+" "+p.HeldToDate), p.Title)
	}
	return w.Flush()
}

func runProviderShow(c *cobra.Command, name string, asJSON bool) error {
	p, err := findPreset(name)
	if err != nil {
		return err
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

// findPreset takes one of ours by its name, or anybody's by its file: with a slash in
// it, or .toml at its end, which no name has.
func findPreset(name string) (config.Preset, error) {
	if strings.Contains(name, "/") || strings.HasSuffix(name, ".toml") {
		text, err := config.Read(name)
		if err != nil {
			return config.Preset{}, &Error{Code: ExitUsage, Err: fmt.Errorf("preset: %w", err)}
		}
		p, err := config.ParsePreset(name, text)
		if err != nil {
			return p, &Error{Code: ExitUsage, Err: err, Hint: "see docs/providers.md"}
		}
		return p, nil
	}
	presets, err := config.Presets()
	if err != nil {
		return config.Preset{}, err
	}
	var names []string
	for _, p := range presets {
		if p.Name == name {
			return p, nil
		}
		names = append(names, p.Name)
	}
	return config.Preset{}, &Error{Code: ExitUsage, Err: fmt.Errorf("there is no preset %q", name), Hint: "there are " + strings.Join(names, ", ")}
}
