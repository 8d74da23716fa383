package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"strongroom.example/appliance/base/argument"
	"strongroom.example/appliance/base/command"
	"strongroom.example/appliance/serve/kms"
	"strongroom.example/config/machine"
	"strongroom.example/config/recipient"
)

// recipientOptions say who may open an escrow.
type recipientOptions []string

func (o *recipientOptions) add(c *cobra.Command) {
	c.Flags().StringArrayVar((*[]string)(o), "recipient", nil,
		"who can open it, repeatable: "+recipient.Forms+", or a file of them")
}

func (o recipientOptions) parse() ([]age.Recipient, error) {
	found, err := readRecipients(o)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, errors.New("nobody could open the escrow: no --recipient")
	}
	return recipient.Age(found), nil
}

// kmsRotateCommand takes the lock of operations.
func kmsRotateCommand(lock string) *cobra.Command {
	var key masterKeyOptions
	var to recipientOptions
	var path string
	var vault vaultAccess
	var confirm, noRestart bool
	c := &cobra.Command{
		Use:   "rotate",
		Short: "Give the master key a new version",
		Long: `Makes a new version of the master key in two steps.

The first writes the new key into a new escrow and changes nothing else. Carry
that escrow off the machine, open it there, and read its confirmation code. The
second, with --confirm, reads the code from standard input, puts the new key in
force and restarts the KMS and Vault, which re-encrypts its seal when it unseals.
Versions are never dropped: any snapshot that is still kept may need them.

The first step ends with exit code 4, since a person must act.`,
		Example: `  strongroom kms rotate --recipient /root/.ssh/authorized_keys
  strongroom kms rotate --confirm`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			path, err := kms.EscrowFile(path)
			if err != nil {
				return &Error{Code: ExitUsage, Err: fmt.Errorf("--escrow: %w", err)}
			}
			end, err := begin(c, lock)
			if err != nil {
				return err
			}
			defer end()
			store, cred := key.store()
			r := &kms.Rotation{Store: store, Credential: cred, Escrow: path, Rand: rand.Reader, Now: time.Now}
			if !confirm {
				recipients, err := to.parse()
				if err != nil {
					return &Error{Code: ExitUsage, Err: err, Hint: "see " + c.CommandPath() + " --help"}
				}
				return beginRotation(c, r, recipients)
			}
			if err := confirmRotation(c, r); err != nil || noRestart {
				return err
			}
			return restartVault(c, &vault)
		},
	}
	key.add(c)
	to.add(c)
	f := c.Flags()
	f.StringVar(&path, "escrow", machine.MasterKeyEscrow, "the escrow's folder, or the file master-key.age")
	f.BoolVar(&confirm, "confirm", false, "second step: the code comes on standard input")
	f.BoolVar(&noRestart, "no-restart", false, "with --confirm: leave KMS and Vault to be restarted by hand")
	vault.addPlace(f)
	return c
}

func beginRotation(c *cobra.Command, r *kms.Rotation, to []age.Recipient) error {
	p, err := r.Begin(c.Context(), to...)
	if err != nil {
		return masterKeyFault(err)
	}
	fmt.Fprintf(c.OutOrStdout(), "Version %d of the master key is made, and not in force yet.\nIts escrow is %s, fingerprint %s.\n", p.Version, r.NextEscrow(), p.Fingerprint)
	return &Error{Code: ExitOperator, Err: errors.New("the new escrow must be confirmed"),
		Hint: fmt.Sprintf("carry %s off the machine, open it with age -d -i YOUR_KEY, then: %s --confirm", r.NextEscrow(), c.CommandPath())}
}

func confirmRotation(c *cobra.Command, r *kms.Rotation) error {
	if _, err := r.Pending(); err != nil {
		return masterKeyFault(err)
	}
	fmt.Fprint(c.ErrOrStderr(), "Confirmation code from the opened escrow: ")
	code, err := askLine(c.Context(), c.InOrStdin())
	if err != nil {
		return fmt.Errorf("confirmation code: %w", err)
	}
	p, err := r.Confirm(c.Context(), code)
	if err != nil {
		return masterKeyFault(err)
	}
	fmt.Fprintf(c.OutOrStdout(), "Version %d of the master key is in force at the next start of the KMS; the escrow is %s.\n", p.Version, r.Escrow)
	return nil
}

// restartVault puts the new key to use.
func restartVault(c *cobra.Command, vault *vaultAccess) error {
	took, err := kms.Restart{
		Unit: func(ctx context.Context, unit string) error {
			out, err := command.New(ctx, "systemctl", "restart", unit).CombinedOutput()
			if err != nil {
				err = fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
			}
			return err
		},
		Active: func(ctx context.Context) error {
			v, err := vault.Client()
			if err != nil {
				return err
			}
			return v.WaitActive(ctx)
		},
		Now: time.Now,
	}.Run(c.Context())
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.OutOrStdout(), "Vault is unsealed again, %.1f s later.\n", took.Seconds())
	return err
}

func kmsExportCommand() *cobra.Command {
	var key masterKeyOptions
	var to recipientOptions
	var out string
	c := &cobra.Command{
		Use:   "export",
		Short: "Encrypt the master key to new recipients",
		Long: `Writes the master key, all its versions, as an escrow that the given keys open.
It never shows or writes it in any other form.

Into the folder of this machine's escrow it writes the questions of "strongroom
escrow challenge" beside it: the escrow is then to be confirmed anew.`,
		Example: `  strongroom kms export --recipient new-operator.pub --output master-key.age
  strongroom kms export --recipient authorized_keys --output ` + machine.MasterKeyEscrow + `
  strongroom escrow challenge master-key.age`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			recipients, err := to.parse()
			if err == nil && out == "" {
				err = errors.New("no --output")
			}
			if err != nil {
				return &Error{Code: ExitUsage, Err: err, Hint: "see " + c.CommandPath() + " --help"}
			}
			store, path := key.store()
			plain, err := store.Open(c.Context(), path)
			if err != nil {
				return masterKeyFault(err)
			}
			defer clear(plain)
			k, err := kms.ParseKeyset(plain)
			if err != nil {
				return masterKeyFault(err)
			}
			ours, err := kms.Export{Escrow: machine.EscrowDir, Rand: rand.Reader, Now: time.Now}.To(out, k, recipients...)
			if err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "%s holds %s for %d recipients.\n", out, k, len(recipients))
			if ours {
				fmt.Fprintln(c.OutOrStdout(), "It must prove that it opens off this machine: strongroom escrow challenge", filepath.Base(out))
			}
			return nil
		},
	}
	key.add(c)
	to.add(c)
	c.Flags().StringVarP(&out, "output", "o", "", "where to write: a file, mode 0600")
	return c
}

func kmsFingerprintCommand() *cobra.Command {
	var key masterKeyOptions
	var stdin bool
	c := &cobra.Command{
		Use:   "fingerprint",
		Short: "Say which master key this is",
		Long: `Prints the fingerprint of the master key and its versions. Run it on the machine,
and on what an escrow holds, to see that they are the same.`,
		Example: `  strongroom kms fingerprint
  age -d -i ~/.ssh/id_ed25519 master-key.age | strongroom kms fingerprint --stdin`,
		RunE: func(c *cobra.Command, _ []string) error {
			var plain []byte
			var err error
			if stdin {
				plain, err = io.ReadAll(io.LimitReader(c.InOrStdin(), 1<<20))
			} else {
				store, path := key.store()
				plain, err = store.Open(c.Context(), path)
			}
			if err != nil {
				return masterKeyFault(err)
			}
			defer clear(plain)
			k, err := kms.ParseKeyset(plain)
			if err != nil {
				return masterKeyFault(err)
			}
			fmt.Fprintf(c.OutOrStdout(), "%s  versions %v\n", k.Fingerprint(), k.Versions())
			return nil
		},
	}
	argument.One(c, "FILE", "key-file", &key.keyFile)
	key.add(c)
	c.Flags().BoolVar(&stdin, "stdin", false, "read an opened escrow from standard input")
	return c
}
