package cli

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/base/atomicfile"
	"strongroom.example/appliance/base/vaultapi/kv"
	"strongroom.example/appliance/secrets/kvexport"
	"strongroom.example/config/recipient"
)

type kvExportOptions struct {
	*kvOptions
	output     string
	recipients []string
	all        bool
	latest     bool
}

func kvExportCommand(shared *kvOptions) *cobra.Command {
	o := kvExportOptions{kvOptions: shared}
	c := &cobra.Command{
		Use:   "export PATH...",
		Short: "Write secrets, with versions and metadata, to an encrypted file",
		Long: `PATH is a secret, or with a slash at the end everything below it; --all is the
whole mount. The file appears when it is complete, with mode 0600.`,
		Example: "  strongroom kv export bike-data-flow/ --recipient ~/.ssh/id_ed25519.pub --output bikes.age",
		RunE: func(c *cobra.Command, args []string) error {
			if o.all != (len(args) == 0) {
				return &Error{Code: ExitUsage, Err: errors.New("give paths, or --all"), Hint: "see " + c.CommandPath() + " --help"}
			}
			return runKVExport(c, o, args)
		},
	}
	f := c.Flags()
	f.StringVarP(&o.output, "output", "o", "", "where to write: a file")
	f.StringArrayVar(&o.recipients, "recipient", nil, "who can open it, repeatable: age1…, an SSH public key, or a file of them")
	f.BoolVar(&o.all, "all", false, "everything in the mount")
	f.BoolVar(&o.latest, "latest", false, "leave earlier versions out")
	return c
}

func runKVExport(c *cobra.Command, o kvExportOptions, paths []string) error {
	if o.all {
		paths = []string{""}
	}
	for _, p := range paths {
		if p != "" {
			if err := kvPath(p); err != nil {
				return err
			}
		}
	}
	to, err := readRecipients(o.recipients)
	if err != nil {
		return err
	}
	if len(to) == 0 || o.output == "" {
		return &Error{Code: ExitUsage, Err: errors.New("--recipient and --output are needed"), Hint: "see " + c.CommandPath() + " --help"}
	}
	client, err := o.vault.client()
	if err != nil {
		return err
	}
	if err := kvMount(c.Context(), client, o.mountOrDefault()); err != nil {
		return kvError(err)
	}
	if err := atomicfile.Sweep(o.output); err != nil {
		return err
	}
	f, err := atomicfile.Create(o.output, 0o600)
	if err != nil {
		return err
	}
	defer f.Abort()
	n, err := kvexport.Export(c.Context(), f, kvexport.ExportOptions{
		Store: kv.New(client), Mount: o.mountOrDefault(), Paths: paths, Latest: o.latest, Recipients: recipient.Age(to), Now: time.Now,
	})
	if err != nil {
		return kvError(err)
	}
	if err := f.Commit(); err != nil {
		return err
	}
	fmt.Fprintf(c.OutOrStdout(), "%s: %d secrets\n", o.output, n)
	return nil
}
