// Package cli is the command line of the installer: one file per verb, each of
// them options, flags, validation and a run function.
package cli

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/base/fault"
	"strongroom.example/appliance/base/oldnames"
	"strongroom.example/config"
	"strongroom.example/config/machine"
	"strongroom.example/installer/engine"
)

const program = machine.InstallerName

// New builds the whole command tree; version and commit are the build's.
func New(version, commit string) *cobra.Command {
	root := &cobra.Command{
		Use:   program,
		Short: "Turn a fresh Debian or Ubuntu machine into a hardened Vault",
		Long: `Turns a fresh Debian or Ubuntu machine into a hardened Vault. It may be stopped
at any moment and run again: it looks at the machine, changes what differs, and
says so when nothing does.

` + fault.Codes,
		Version:       version + " (" + commit + ")",
		Args:          args(cobra.NoArgs),
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetVersionTemplate("{{.Name}} {{.Version}}\n")
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return usage(c, err) })
	root.CompletionOptions.DisableDefaultCmd = true
	root.AddCommand(planCommand(version), installCommand(version), upgradeCommand(version),
		restoreCommand(version), uninstallCommand(version), cloudInitCommand(version), configCommand(), fetchVaultCommand())
	oldnames.Accept(root)
	return root
}

// Report prints err for a person and returns the exit code for it.
func Report(w io.Writer, err error) int {
	var faults config.Faults
	if errors.As(err, &faults) {
		fmt.Fprintln(w, faults)
		if n := len(faults); n > 1 {
			fmt.Fprintf(w, "  → %d faults; nothing was changed\n", n)
		}
		return fault.Usage
	}
	if errors.Is(err, engine.ErrDiffers) {
		return fault.Drift // the differences have been shown
	}
	return fault.Report(w, program, err)
}

func usage(c *cobra.Command, err error) error {
	return &fault.Error{Code: fault.Usage, Err: err, Hint: "see " + c.CommandPath() + " --help"}
}

// args wraps cobra's checks so that a wrong number of arguments is a usage
// error.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, given []string) error {
		if err := check(c, given); err != nil {
			return usage(c, err)
		}
		return nil
	}
}
