package cli

import (
	"errors"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/base/credential"
	"strongroom.example/appliance/serve/kms"
	"strongroom.example/config"
	"strongroom.example/config/machine"
)

// masterKeyOptions say where the master key is.
type masterKeyOptions struct {
	credential string
	keyFile    string
}

func (o *masterKeyOptions) add(c *cobra.Command) {
	c.Flags().StringVar(&o.credential, "credential", machine.MasterKeyFile, "the master key as systemd's encrypted credential")
	c.Flags().StringVar(&o.keyFile, "key-file", "", "file with the master key, mode 0600, in place of --credential")
}

func (o *masterKeyOptions) store() (kms.Store, string) {
	if o.keyFile != "" {
		return kms.FileStore{}, o.keyFile
	}
	return kms.SystemdStore{How: howSealed}, o.credential
}

// howSealed is what [unseal] says; without a configuration, as on a machine that
// is being put together again, what it says where it says nothing.
func howSealed() (string, error) {
	u, err := config.LoadUnseal(machine.ConfigFile)
	if errors.Is(err, fs.ErrNotExist) {
		return config.Default().Unseal.Seal, nil
	}
	return u.Seal, err
}

// loadMasterKey reads a file, standard input for "-", or systemd's credential.
func loadMasterKey(file string) (*kms.Keyset, error) {
	switch file {
	case "-":
		return kms.Read(os.Stdin)
	case "":
	default:
		return kms.LoadFile(file)
	}
	return kms.LoadCredential(os.Getenv("CREDENTIALS_DIRECTORY"))
}

// masterKeyFault gives each fault its exit code and what to do.
func masterKeyFault(err error) error {
	e := &Error{Code: ExitFailed, Err: err}
	switch {
	case errors.Is(err, kms.ErrNoKey), errors.Is(err, kms.ErrEmpty), errors.Is(err, kms.ErrNotKeyset),
		errors.Is(err, kms.ErrTruncated), errors.Is(err, kms.ErrDamaged):
		e.Code, e.Hint = ExitOperator, "put the master key back from its escrow: see docs/unseal.md"
	case errors.Is(err, kms.ErrEncrypted):
		e.Code, e.Hint = ExitOperator, "open it first: age -d -i YOUR_KEY FILE"
	case errors.Is(err, kms.ErrNotConfirmed):
		e.Code, e.Hint = ExitOperator, "nothing was changed: open the .next escrow, not the old one, and type the code in it"
	case errors.Is(err, kms.ErrNoRotation):
		e.Code, e.Hint = ExitOperator, "begin one: strongroom kms rotate --recipient FILE"
	case errors.Is(err, kms.ErrMissingVersion):
		e.Code, e.Hint = ExitOperator, "the key in force has changed since: begin the rotation again"
	default:
		if e.Hint = credential.Hint(err); e.Hint != "" {
			e.Code = ExitOperator
		}
	}
	return e
}
