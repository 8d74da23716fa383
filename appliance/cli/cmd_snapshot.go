package cli

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/base/credential"
	"strongroom.example/appliance/base/signing"
	"strongroom.example/appliance/base/statefile"
	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/config"
	"strongroom.example/config/machine"
)

// snapshotOptions are what the verbs of snapshot share.
type snapshotOptions struct {
	config  string
	keyring string
	dirs    []string
	cluster string
	json    bool
	version string // the program's own
}

func snapshotCommand(version string) *cobra.Command {
	o := &snapshotOptions{version: version}
	c := &cobra.Command{
		Use:   "snapshot",
		Short: "Take, verify, list and prune encrypted backups of Vault",
		Long: `Takes raft snapshots of Vault, encrypted with age before they leave the machine,
and proves that they can be read back. What is inside is Vault's own format:
"age --decrypt" and "vault operator raft snapshot restore" bring it back
without this program.

Where they go and how long they stay is in the table [backup] of the
configuration file; --dir names a folder instead.`,
	}
	f := c.PersistentFlags()
	f.StringVar(&o.config, "config", machine.ConfigFile, "configuration file with the table [backup]")
	f.StringArrayVar(&o.dirs, "dir", nil, "folder with snapshots, in place of the configuration's places; repeatable")
	f.StringVar(&o.cluster, "cluster", "", "id of Vault's cluster (default: the last one that was taken, or the only one there)")
	addKeyring(f, &o.keyring)
	f.BoolVar(&o.json, "json", false, "print JSON")
	f.Bool("no-alert", false, "leave the webhook of [backup] alone: the unit's OnFailure= tells of failures")
	c.AddCommand(takeCommand(o), packCommand(o), soonCommand(), verifyCommand(o), snapshotListCommand(o), pruneCommand(o), retireCommand(o))
	return c
}

// backup is the configuration. With --dir no file is needed.
func (o *snapshotOptions) backup() (config.Backup, error) {
	if len(o.dirs) == 0 {
		b, err := config.LoadBackup(o.config)
		if err != nil {
			return b, &Error{Code: ExitUsage, Err: err, Hint: "give --config FILE with a table [backup], or --dir PATH: see docs/backup.md"}
		}
		return b, nil
	}
	b := config.DefaultBackup()
	b.Files = nil
	for _, d := range o.dirs {
		path, err := filepath.Abs(d)
		if err != nil {
			return b, fmt.Errorf("--dir %q: %w", d, err)
		}
		b.To = append(b.To, config.BackupTo{Type: config.BackupDir, Path: path})
	}
	return b, nil
}

// unsignedUsage is of the flag that is the word for a snapshot which nobody has signed.
const unsignedUsage = "take the one of --id although no key of the keyring has signed it; whoever can write to the place may have made it"

func addKeyring(f *pflag.FlagSet, to *string) {
	f.StringVar(to, "keyring", machine.KeyringFile, "file with the public keys of who signs snapshots; where the default is not there no signature is asked for")
}

// destinations are the places of a configuration, and who is believed there: takeState is
// the folder of what this machine has stored.
func (o *snapshotOptions) destinations(b config.Backup, takeState string) []snapshot.Destination {
	return snapshot.Places(b.To, credential.Read, &snapshot.Trust{
		Keyring: o.keyring, Must: o.keyring != machine.KeyringFile, TakeState: takeState, VerifyState: machine.VerifyState,
	})
}

// takerKey is what the taking job signs with; nil, with what is wrong, where it cannot.
func (o *snapshotOptions) takerKey() (ed25519.PrivateKey, error) {
	ring, err := signing.LoadKeyring(o.keyring)
	if ring == nil || err != nil {
		return nil, err
	}
	data, err := credential.Read(machine.CredSnapshotSigningKey)
	if err != nil {
		return nil, err
	}
	defer clear(data)
	key, err := signing.ParseKey(data)
	if err == nil {
		err = ring.Signs(snapshot.RoleTaker, key.Public().(ed25519.PublicKey))
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", machine.CredSnapshotSigningKey, err)
	}
	return key, nil
}

// snapshotError gives the exit code and what to do.
func snapshotError(err error) error {
	var known *Error
	if err == nil || errors.As(err, &known) {
		return err
	}
	code, hint := ExitFailed, ""
	switch {
	case vaultapi.IsDenied(err), vaultapi.IsBadRequest(err):
		code, hint = ExitOperator, "Vault refuses this login: give the job a new secret id or token (docs/backup.md)"
	case errors.Is(err, snapshot.ErrMounted):
		code, hint = ExitOperator, "mount the disk; where another one is meant from now on: strongroom snapshot take --adopt-places. The other places were served as ever"
	case errors.Is(err, snapshot.ErrPlace):
		code, hint = ExitOperator, "mount the disk or make the folder, or correct [[backup.to]] and its credentials: see docs/backup.md. The other places were served as ever"
	case errors.Is(err, snapshot.ErrUninitialised):
		code = ExitOperator
	case errors.Is(err, snapshot.ErrSealed):
		code, hint = ExitOperator, "see docs/unseal.md"
	case errors.Is(err, snapshot.ErrPassphrase):
		code, hint = ExitOperator, "run it again and type the passphrase of the private key"
	case errors.Is(err, snapshot.ErrWrongIdentity):
		code, hint = ExitOperator, "give the identity of one of the recipients that the manifest names"
	case errors.Is(err, snapshot.ErrForged):
		code, hint = ExitDrift, "do not use it: somebody else can write to this place. Find out who, and give it another key pair; other places and older snapshots are on strongroom snapshot list"
	case errors.Is(err, snapshot.ErrUntrusted):
		code, hint = ExitDrift, "of another machine: give its keyring.json, which is in the escrow, with --keyring. From before there were keys, and you know it: --id NAME --unsigned (strongroom snapshot list shows them). Neither: somebody else can write to this place"
	case errors.Is(err, snapshot.ErrCorrupt), errors.Is(err, snapshot.ErrTruncated), errors.Is(err, snapshot.ErrTrailing),
		errors.Is(err, snapshot.ErrMismatch), errors.Is(err, snapshot.ErrWrongCluster), errors.Is(err, snapshot.ErrIncomplete):
		code, hint = ExitDrift, "the last good snapshot is untouched (strongroom snapshot list); take a new one, and look at the destination"
	case errors.Is(err, snapshot.ErrRetired):
		code, hint = ExitDrift, "take a new one: systemctl start strongroom-snapshot. If you have not retired it, somebody else can write to this place"
	case errors.Is(err, snapshot.ErrLast):
		code, hint = ExitOperator, "take and verify one first: systemctl start strongroom-snapshot"
	case errors.Is(err, snapshot.ErrDeleted):
		code, hint = ExitDrift, "it can be restored as ever; find out who deletes there, and give the bucket another key pair"
	case errors.Is(err, snapshot.ErrNotFound):
		code, hint = ExitDrift, "strongroom snapshot list shows what there is; take a new one, and look at who may delete there"
	case errors.Is(err, snapshot.ErrNoSnapshot):
		code, hint = ExitDrift, "take one with strongroom snapshot take"
	case errors.Is(err, snapshot.ErrClock):
		code, hint = ExitDrift, "set it right: timedatectl timesync-status. What is kept meanwhile is deleted afterwards"
	case errors.Is(err, snapshot.ErrLineages):
		code, hint = ExitOperator, "name the one that is wanted with --id; strongroom snapshot retire takes the other's out (docs/backup.md)"
	case errors.Is(err, snapshot.ErrClusters):
		code, hint = ExitUsage, "name one with --cluster"
	case errors.Is(err, statefile.ErrBusy):
		hint = "wait until it ends"
	case errors.Is(err, snapshot.ErrSkew):
		hint = "set this machine's clock: timedatectl timesync-status; the timer tries again"
	case errors.Is(err, snapshot.ErrRegion):
		code, hint = ExitOperator, "set region and endpoint in [[backup.to]] to the bucket's, as the store's answer names them"
	case errors.Is(err, snapshot.ErrArchived):
		code, hint = ExitOperator, "have the store bring it back to a class that can be read at once, and take the rule off the bucket: what is there cannot be restored in a hurry"
	case errors.Is(err, snapshot.ErrStoreKey):
		code, hint = ExitOperator, "look at the bucket's default encryption: its key is disabled, gone, or not this key pair's to use"
	case errors.Is(err, snapshot.ErrFull):
		hint = "make room in the destination, or keep fewer ([backup.keep]) and run strongroom snapshot prune"
	case errors.Is(err, snapshot.ErrDenied):
		code, hint = ExitOperator, "check the credentials and their rights in the destination"
	case errors.Is(err, snapshot.ErrUnreachable), errors.Is(err, snapshot.ErrStalled):
		hint = "the timer tries again; check the network and the destination"
	}
	return &Error{Code: code, Err: err, Hint: hint}
}
