package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"filippo.io/age"
	"golang.org/x/term"

	"strongroom.example/appliance/backup/restore"
	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/base/atomicfile"
	"strongroom.example/appliance/base/fault"
	"strongroom.example/appliance/serve/escrow"
	"strongroom.example/appliance/serve/kms"
	"strongroom.example/config"
	"strongroom.example/installer/recover"
)

func (o *restoreOptions) readIdentities() ([]age.Identity, error) {
	if len(o.identities) == 0 {
		return nil, &fault.Error{Code: fault.Usage, Err: errors.New("no --identity"), Hint: "give the private key that opens the backups and the escrow, such as your SSH key"}
	}
	var all []age.Identity
	for _, name := range o.identities {
		data, err := atomicfile.ReadSmall(name, atomicfile.MaxSmall)
		if err != nil {
			return nil, &fault.Error{Code: fault.Usage, Err: fmt.Errorf("--identity: %w", err), Hint: "copy your private key here for the time of the restore, or an age identity made for that"}
		}
		ids, err := snapshot.ParseIdentities(data, askOnce(name))
		clear(data)
		if err != nil {
			return nil, &fault.Error{Code: fault.Usage, Err: fmt.Errorf("--identity %q: %w", name, err), Hint: "give an SSH private key of type ed25519 or RSA, or an age identity"}
		}
		all = append(all, ids...)
	}
	return all, nil
}

// askOnce asks for a passphrase on the terminal, also when standard input is a
// pipe, and remembers it: snapshot and escrow want it one after the other. It is
// nil where there is no terminal.
func askOnce(name string) func() ([]byte, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil
	}
	var known []byte
	return func() ([]byte, error) {
		if known != nil {
			return append([]byte(nil), known...), nil
		}
		fmt.Fprintf(tty, "Passphrase of %s: ", name)
		defer fmt.Fprintln(tty)
		b, err := term.ReadPassword(int(tty.Fd()))
		if err == nil {
			known = append([]byte(nil), b...)
		}
		return b, err
	}
}

// maxMasterKey bounds an opened master key, in bytes.
const maxMasterKey = 1 << 20

func (o *restoreOptions) readMasterKey() ([]byte, error) {
	switch o.masterKey {
	case "":
		return nil, nil
	case "-":
		return io.ReadAll(io.LimitReader(o.in, maxMasterKey))
	}
	b, err := atomicfile.ReadSmall(o.masterKey, maxMasterKey)
	if err != nil {
		return nil, &fault.Error{Code: fault.Usage, Err: fmt.Errorf("--key-file: %w", err)}
	}
	return b, nil
}

// recoverError gives the exit code and what to do. All of these come before the
// first change.
func recoverError(err error) error {
	var known *fault.Error
	var faults config.Faults
	if errors.As(err, &known) || errors.As(err, &faults) {
		return err
	}
	e := &fault.Error{Code: fault.Failed, Err: err, Hint: "nothing has been changed"}
	operator := func(hint string) { e.Code, e.Hint = fault.Operator, "nothing has been changed: "+hint }
	switch {
	case errors.Is(err, snapshot.ErrPassphrase):
		operator("run it again and type the passphrase of the private key")
	case errors.Is(err, escrow.ErrWrongIdentity), errors.Is(err, snapshot.ErrWrongIdentity):
		operator("give the private key of one of the recipients: --identity")
	case errors.Is(err, restore.ErrOtherSeal):
		operator("this escrow is of another cluster, or older than its last kms rotate; give the one that belongs to the snapshot")
	case errors.Is(err, recover.ErrNoMasterKey), errors.Is(err, fs.ErrNotExist):
		operator("look at the path; the folder of the escrow holds master-key.age")
	case errors.Is(err, recover.ErrDamaged):
		operator("take another copy of the escrow")
	case errors.Is(err, kms.ErrNotKeyset), errors.Is(err, kms.ErrTruncated), errors.Is(err, kms.ErrDamaged), errors.Is(err, kms.ErrEncrypted), errors.Is(err, kms.ErrEmpty):
		operator("this is not a whole, opened master key")
	case errors.Is(err, recover.ErrClusters):
		e.Code, e.Hint = fault.Usage, "name one with --cluster"
	case errors.Is(err, snapshot.ErrSkew):
		operator("set this machine's clock: timedatectl timesync-status")
	case errors.Is(err, snapshot.ErrRegion):
		operator("give --region and --endpoint of the bucket, as the store's answer names them")
	case errors.Is(err, snapshot.ErrDenied):
		operator("check the key pair and the bucket's name")
	case errors.Is(err, snapshot.ErrForged):
		operator("somebody else can write to this place: take a snapshot that is signed")
	case errors.Is(err, snapshot.ErrUntrusted):
		operator("take the newest copy of the escrow, whose keyring.json may know the key. A snapshot from before there were keys, which you know: --id NAME --unsigned")
	case errors.Is(err, snapshot.ErrCorrupt), errors.Is(err, snapshot.ErrTruncated), errors.Is(err, snapshot.ErrTrailing), errors.Is(err, restore.ErrUnsafe):
		operator("this snapshot is damaged; choose an earlier one with --id")
	case errors.Is(err, snapshot.ErrNoSnapshot), errors.Is(err, snapshot.ErrNotFound):
		operator("no verified snapshot is there: look at the bucket's name, the key pair, and --cluster; --id takes a snapshot that was never verified")
	}
	return e
}
