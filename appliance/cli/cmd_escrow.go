package cli

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/base/argument"
	"strongroom.example/appliance/serve/escrow"
	"strongroom.example/appliance/serve/kms"
	"strongroom.example/config/machine"
)

// escrowOptions say where the escrow is.
type escrowOptions struct {
	dir        string
	credential string
	json       bool
}

func escrowCommand() *cobra.Command {
	o := &escrowOptions{}
	c := &cobra.Command{
		Use:   "escrow",
		Short: "Prove that the escrow opens off this machine",
		Long: `The escrow holds the master key, the recovery keys and the first administrator's
password, encrypted to your own keys. Until you have copied it off the machine
and opened it there, nobody knows that the machine can ever be rebuilt.

"challenge" prints a question for each file, and what to run where your private
key is; "confirm" takes the answers and records them.`,
	}
	c.PersistentFlags().StringVar(&o.dir, "escrow", machine.EscrowDir, "the escrow's folder")
	c.AddCommand(escrowChallengeCommand(o), escrowAnswerCommand(o), escrowConfirmCommand(o), escrowStatusCommand(o))
	return c
}

// folder is the escrow on this machine.
func (o *escrowOptions) folder(c *cobra.Command) escrow.Folder {
	f := escrow.Folder{Dir: o.dir, Now: time.Now}
	if o.credential != "" {
		f.KeyInForce = func() (string, error) {
			plain, err := kms.SystemdStore{}.Open(c.Context(), o.credential)
			if err != nil {
				return "", err
			}
			defer clear(plain)
			k, err := kms.ParseKeyset(plain)
			if err != nil {
				return "", err
			}
			return k.Fingerprint(), nil
		}
	}
	return f
}

func escrowStatusCommand(o *escrowOptions) *cobra.Command {
	c := &cobra.Command{
		Use:   "status",
		Short: "Say which files of the escrow have proved that they open",
		Long:  "Says which files of the escrow have proved that they open off this machine.\nExit code 3: one has not.",
		RunE: func(c *cobra.Command, _ []string) error {
			files, err := escrow.LoadStatus(o.dir)
			if err != nil {
				return err
			}
			if o.json {
				if err := printJSON(c, files); err != nil {
					return err
				}
			} else {
				printEscrow(c.OutOrStdout(), files)
			}
			return unconfirmed(o.dir, files)
		},
	}
	argument.One(c, "FOLDER", "escrow", &o.dir)
	c.Flags().BoolVar(&o.json, "json", false, "print JSON")
	return c
}

func printEscrow(w io.Writer, files []escrow.FileStatus) {
	for _, f := range files {
		state := "not confirmed: for all that is known, the only copy is on this disk"
		switch {
		case f.Confirmed():
			state = fmt.Sprintf("confirmed %s, by %s", f.ConfirmedAt.Format(time.DateOnly), f.By)
		case f.Replaced:
			state = "not confirmed since it was replaced"
		}
		fmt.Fprintf(w, "%-22s %s\n", f.File, state)
	}
}

// unconfirmed is the error for files that have proved nothing.
func unconfirmed(dir string, files []escrow.FileStatus) error {
	if len(files) == 0 {
		return &Error{Code: ExitDrift, Err: fmt.Errorf("no escrow in %q", dir), Hint: "run the installer again, or give --escrow"}
	}
	n := 0
	for _, f := range files {
		if !f.Confirmed() {
			n++
		}
	}
	if n == 0 {
		return nil
	}
	return &Error{Code: ExitDrift, Err: fmt.Errorf("%d of %d escrow files have not proved that they open off this machine", n, len(files)),
		Hint: "copy " + filepath.Clean(dir) + " off the machine, then: strongroom escrow challenge"}
}

// escrowError gives the exit code and what to do.
func escrowError(err error) error {
	var known *Error
	if err == nil || errors.As(err, &known) {
		return err
	}
	e := &Error{Code: ExitFailed, Err: err}
	switch {
	case errors.Is(err, escrow.ErrNoChallenge), errors.Is(err, escrow.ErrExpired), errors.Is(err, escrow.ErrReplaced):
		e.Code, e.Hint = ExitOperator, "ask again: strongroom escrow challenge"
	case errors.Is(err, escrow.ErrWrongAnswer):
		e.Code, e.Hint = ExitOperator, "give the 64 hex digits that sha256sum printed for a file of the present challenge; if they are right, the copy is not this escrow"
	case errors.Is(err, escrow.ErrUsedUp):
		e.Code, e.Hint = ExitOperator, "of the master key make a new one: strongroom kms export --recipient KEYS --output "+machine.MasterKeyEscrow+"; for the others see docs/escrow.md"
	case errors.Is(err, escrow.ErrUnknownFile):
		e.Code, e.Hint = ExitUsage, "strongroom escrow status names the files"
	case errors.Is(err, escrow.ErrWrongIdentity):
		e.Code, e.Hint = ExitOperator, "give the private key of one of the escrow's recipients"
	}
	return e
}
