package cli

import (
	"context"
	"errors"
	"os"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"strongroom.example/appliance/backup/scratch"
	"strongroom.example/appliance/demo"
)

type demoOptions struct {
	dir, listen, vault, plugin string
	recipients                 []string
	keep, once                 bool
}

func demoCommand(version string) *cobra.Command {
	var o demoOptions
	c := &cobra.Command{
		Use:   "demo [FOLDER]",
		Short: "Show the whole appliance at work, in one folder and without root",
		Long: `Starts the KMS, Vault and the front in one folder, issues and rotates an API key,
kills Vault to show that it unseals by itself, takes a snapshot and verifies it.
Then it stays until Ctrl-C, or ends with --once. Everything is removed
afterwards, unless --keep is given; no process is left, whatever ends it.`,
		Example: `  strongroom demo
  strongroom demo --once
  strongroom demo ./sr --keep --recipient ~/.ssh/id_ed25519.pub`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := subject(c, args, "folder", &o.dir); err != nil {
				return err
			}
			return runDemo(c.Context(), c, o, version)
		},
	}
	f := c.Flags()
	f.StringVar(&o.dir, "folder", "", "folder to use, empty or not there yet (default: a temporary one)")
	f.BoolVar(&o.keep, "keep", false, "leave the folder when done")
	f.BoolVar(&o.once, "once", false, "end after the last step")
	f.StringVar(&o.listen, "listen", "127.0.0.1:0", "address on loopback for the front; port 0 for a free one")
	f.StringVar(&o.vault, "vault", "", "Vault's program (default: $VAULT_BIN, beside this program, $PATH)")
	f.StringVar(&o.plugin, "plugin", "", "the plugin's program (default: beside this program)")
	f.StringArrayVar(&o.recipients, "recipient", nil, "who can open it, repeatable: age1…, an SSH public key, or a file of them")
	return c
}

func runDemo(ctx context.Context, c *cobra.Command, o demoOptions, version string) error {
	programs, err := findPrograms(o.vault, o.plugin)
	if err != nil {
		return err
	}
	recipients, err := readRecipients(o.recipients)
	if err != nil {
		return err
	}
	if err := forgetVaultEnvironment(); err != nil {
		return err
	}
	err = demo.Run(ctx, demo.Options{
		Dir: o.dir, Keep: o.keep, Once: o.once, Listen: o.listen,
		Recipients: recipients, Programs: programs, Version: version,
		Out: c.OutOrStdout(), Width: terminalWidth(),
	})
	return demoError(err)
}

// forgetVaultEnvironment takes out what the terminal says of another Vault, such
// as an earlier demo's: the client library reads all of it, and fails where
// VAULT_CACERT names a file that is gone.
func forgetVaultEnvironment() error {
	for _, pair := range os.Environ() {
		name, _, _ := strings.Cut(pair, "=")
		if !strings.HasPrefix(name, "VAULT_") {
			continue
		}
		if err := os.Unsetenv(name); err != nil {
			return err
		}
	}
	return nil
}

// demoError says what to do about the faults that have a remedy.
func demoError(err error) error {
	var code int
	var hint string
	switch {
	case err == nil:
		return nil
	case errors.Is(err, scratch.ErrOccupied):
		code, hint = ExitUsage, "give an empty folder, or one that is not there yet as the argument"
	case errors.Is(err, demo.ErrListen):
		code, hint = ExitUsage, "give --listen 127.0.0.1:PORT"
	case errors.Is(err, scratch.ErrNoServer):
		code, hint = ExitUsage, "build one with make vault, or name another with --vault or VAULT_BIN"
	case errors.Is(err, scratch.ErrNoPlugin):
		code, hint = ExitUsage, "build it with make build, or name it with --plugin"
	case errors.Is(err, os.ErrNotExist):
		code, hint = ExitUsage, "build what is missing with make build vault"
	case errors.Is(err, demo.ErrPortTaken):
		code, hint = ExitFailed, "leave out --listen, or choose another port"
	case errors.Is(err, syscall.ENOSPC):
		code, hint = ExitFailed, "the demo needs about 300 MB: free some space, or choose a folder on another disk"
	default:
		return err
	}
	return &Error{Code: code, Err: err, Hint: hint}
}

// terminalWidth of standard output in columns; 0 where it is no terminal.
func terminalWidth() int {
	w, _, err := term.GetSize(int(os.Stdout.Fd()))
	if err != nil {
		return 0
	}
	return w
}
