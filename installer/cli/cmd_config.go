package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/base/fault"
	"strongroom.example/config"
)

func configCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "config",
		Short: "Write or check an appliance.toml",
		Args:  args(cobra.NoArgs),
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(
		&cobra.Command{
			Use:   "init [FILE]",
			Short: "Write a commented appliance.toml with every default",
			Long: `Writes a commented appliance.toml with every default: to FILE, which must not
be there yet, or to standard output.`,
			Example: "  " + program + " config init appliance.toml",
			Args:    args(cobra.MaximumNArgs(1)),
			RunE: func(c *cobra.Command, a []string) error {
				if len(a) == 0 {
					_, err := c.OutOrStdout().Write(config.ApplianceTemplate())
					return err
				}
				return runConfigInit(c.OutOrStdout(), a[0])
			},
		},
		&cobra.Command{
			Use:   "check FILE",
			Short: "Report everything that is wrong with an appliance.toml",
			Args:  args(cobra.ExactArgs(1)),
			RunE: func(c *cobra.Command, a []string) error {
				return runConfigCheck(c.OutOrStdout(), a[0])
			},
		},
	)
	return c
}

func runConfigCheck(out io.Writer, file string) error {
	data, err := config.Read(file)
	if err != nil {
		return configError(err)
	}
	cfg, err := config.Parse(file, data)
	if err != nil {
		return allFaults(err, cfg, file, data, givenLater)
	}
	if err := validate(cfg, file, data, givenLater); err != nil {
		return err
	}
	for i, to := range cfg.Backup.To {
		if to.Type == config.BackupS3 && to.Credentials == "" {
			fmt.Fprintf(out, "note: backup.to[%d] names no credentials: install and plan want --backup-credentials FILE\n", i)
		}
	}
	fmt.Fprintf(out, "%s is right\n", file)
	return nil
}

// givenLater stands for the file of --backup-credentials where nobody has given
// one yet.
const givenLater = "/--backup-credentials"

func runConfigInit(out io.Writer, file string) error {
	// O_EXCL: a configuration that someone has edited is never overwritten.
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return &fault.Error{Code: fault.Usage, Err: fmt.Errorf("%q is there already", file),
			Hint: "remove it first, or name another file"}
	}
	if err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	_, err = f.Write(config.ApplianceTemplate())
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write configuration: %w", errors.Join(err, os.Remove(file)))
	}
	fmt.Fprintf(out, "wrote %s: fill in domain and email, then run: %s install --config %s\n", file, program, file)
	return nil
}

// configError makes an unreadable file a usage error; Faults have their own
// code in Report.
func configError(err error) error {
	var faults config.Faults
	if errors.As(err, &faults) {
		return err
	}
	return &fault.Error{Code: fault.Usage, Err: err, Hint: "write one with: " + program + " config init FILE"}
}
