// Package cli is the command line of the strongroom program: one file per
// verb, each of them options, flags, validation and a run function. It holds
// no product logic; that is in the packages beside it.
package cli

import (
	"io"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/base/fault"
	"strongroom.example/appliance/base/oldnames"
	"strongroom.example/config/machine"
)

// The exit codes and the error are those of both programs.
const (
	ExitOK       = fault.OK
	ExitFailed   = fault.Failed
	ExitUsage    = fault.Usage
	ExitDrift    = fault.Drift
	ExitOperator = fault.Operator
)

// Error is a failure with what to do about it kept apart from the fault.
type Error = fault.Error

// New builds the whole command tree. version is what --version prints.
func New(version string) *cobra.Command {
	root := &cobra.Command{
		Use:   machine.ProgramName,
		Short: "A HashiCorp Vault appliance for one VPS",
		Long: `Strongroom keeps one HashiCorp Vault running by itself: it unseals it, fronts
it with TLS, backs it up and proves that the backup restores.

` + fault.Codes,
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetVersionTemplate("{{.Name}} {{.Version}}\n")
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return &Error{Code: ExitUsage, Err: err, Hint: "see " + c.CommandPath() + " --help"}
	})
	root.AddCommand(commands(version)...)
	usageErrors(root)
	oldnames.Accept(root)
	return root
}

// usageErrors gives faults in the positional arguments of c and everything
// below it, and missing flags, the exit code of a wrong command line. A verb that
// only has others below it prints its help, and refuses any that it has not.
func usageErrors(c *cobra.Command) {
	if c.HasSubCommands() && !c.Runnable() {
		c.Args = cobra.NoArgs
		c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
	}
	if check := c.Args; check != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			err := check(c, args)
			if err == nil {
				err = c.ValidateRequiredFlags() // cobra does it later, without a code
			}
			if err != nil {
				return &Error{Code: ExitUsage, Err: err, Hint: "see " + c.CommandPath() + " --help"}
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		usageErrors(sub)
	}
}

// Report prints err for a person and returns the exit code for it.
func Report(w io.Writer, err error) int { return fault.Report(w, machine.ProgramName, err) }
