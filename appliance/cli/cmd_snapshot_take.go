package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/backup/restore"
	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/base/access"
	"strongroom.example/appliance/base/argument"
	"strongroom.example/appliance/base/credential"
	"strongroom.example/appliance/base/words"
	"strongroom.example/config"
	"strongroom.example/config/machine"
)

// byHand is the error of a command that a person gave too little. It is no
// failure of the job's, and is neither recorded nor told to anybody else.
func byHand(code int, err error, give string) error {
	return &Error{Code: code, Err: err, Hint: give + "; on an installed machine the jobs have what they need: systemctl start strongroom-snapshot takes a snapshot and has it verified"}
}

// typed says whether an error is of what somebody has typed: outside of a unit it is no
// failure of the job's either.
func typed(err error) bool {
	known := new(Error)
	return !credential.InUnit() && (errors.As(err, &known) && known.Code == ExitUsage || errors.Is(err, errIdentity))
}

type takeOptions struct {
	*snapshotOptions
	vault      vaultAccess
	recipients []string
	state      string
	timeout    time.Duration
	noFiles    bool
	filesFrom  string
	adopt      bool
	// drillKey is a file with the drill's public key; passed over where it is
	// not there.
	drillKey, epoch                  string
	canaryRoleFile, canarySecretFile string
	again                            retries
}

func takeCommand(shared *snapshotOptions) *cobra.Command {
	o := takeOptions{snapshotOptions: shared}
	o.vault.Machine = access.Role{ID: machine.CredSnapshotRoleID, Secret: machine.CredSnapshotSecretID}
	c := &cobra.Command{
		Use:   "take",
		Short: "Take a snapshot and store it, encrypted, in every place",
		Long: `Takes one snapshot of Vault, checks on the way that it is whole, and stores it,
encrypted to all recipients, in every place. It needs public keys only and a
login that can do nothing but take snapshots; it ends that login when done.

Just before, a login of its own writes a canary into Vault (secret/strongroom/canary),
which the drill looks for. Without that login it is passed over with a note; when
it fails, the snapshot is taken all the same and the failure is told.

It is not a backup before "strongroom snapshot verify" has read it back.
It fails when one place of several fails; the others keep what they have, none
waits for another, and --retries serves those alone that have nothing yet.`,
		Example: `  strongroom snapshot take
  strongroom snapshot take /mnt/backup --recipient ~/.ssh/id_ed25519.pub --token-file token`,
		RunE: func(c *cobra.Command, _ []string) error { return runTake(c, o) },
	}
	argument.Several(c, "FOLDER", "dir", &shared.dirs)
	f := c.Flags()
	o.vault.add(f)
	f.StringArrayVar(&o.recipients, "recipient", nil, "who can open it, repeatable, beside the configuration's: age1…, an SSH public key, or a file of them")
	f.StringVar(&o.state, "state", "", "folder of the job's state (default: systemd's, else "+machine.SnapshotState+")")
	f.DurationVar(&o.timeout, "timeout", 2*time.Hour, "give up after this time")
	o.again.add(c)
	f.BoolVar(&o.adopt, "adopt-places", false, "store to folders although they are not the places that they were: after a disk was replaced")
	f.BoolVar(&o.noFiles, "no-files", false, "leave out the configuration's files")
	f.StringVar(&o.filesFrom, "files-from", "", "socket of root's job that packs the configuration's files, encrypted")
	f.StringVar(&o.drillKey, "drill-key", machine.DrillKeyPub, "file with the drill's age recipient, who can open it too; passed over where it is not there")
	f.StringVar(&o.epoch, "epoch-file", machine.EpochFile, "the installation's epoch file; passed over where it is not there")
	f.StringVar(&o.canaryRoleFile, "canary-role-id-file", "", "file with the role id of the canary's AppRole (default: systemd's credential)")
	f.StringVar(&o.canarySecretFile, "canary-secret-id-file", "", "file with the secret id of the canary's AppRole (default: systemd's credential)")
	return c
}

func runTake(c *cobra.Command, o takeOptions) error {
	began := time.Now()
	spareMemory()
	b, err := o.backup()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Context(), o.timeout)
	defer cancel()
	var taken snapshot.Taken
	job, err := o.job(c, b)
	if err == nil {
		job.Began = began
		tries := o.again.tries(c, "snapshot take")
		tries.MayPass = snapshot.MayPass
		err = tries.Do(ctx, func(ctx context.Context) (err error) {
			taken, err = job.Run(ctx)
			o.tell(c, taken)
			return err
		})
		err = errors.Join(err, job.Lasting)
		if job.LoginLeft != nil {
			journal(c, journalWarning, "the login of the snapshot could not be ended; it ends by itself: %v", job.LoginLeft)
		}
		if failure := job.CanaryFailure; failure != nil {
			// Loud, and yet no failure of the backup.
			_ = alertOf(c, b, "canary", failure)
			fmt.Fprintf(c.ErrOrStderr(), "strongroom: the canary was not written, the next drill will fail: %v\n", failure)
		}
	}
	if errors.Is(err, snapshot.ErrStandby) {
		fmt.Fprintln(c.OutOrStdout(), "standby: the leader takes the snapshots")
		return snapshot.RecordStandby(stateDir(o.state, machine.SnapshotState), time.Now())
	}
	if errors.Is(err, access.ErrNoLogin) && !credential.InUnit() {
		return byHand(ExitOperator, err, "log in with vault login, or set VAULT_TOKEN, or give --token-file, or --role-id-file and --secret-id-file")
	}
	if err != nil && (len(o.dirs) > 0 || typed(err)) {
		return snapshotError(err)
	}
	if err != nil {
		// Take records its own failures; those before it are recorded here.
		err = errors.Join(err, snapshot.RecordTakeFailure(stateDir(o.state, machine.SnapshotState), began, time.Now(), err))
		return alertOf(c, b, "snapshot take", snapshotError(err))
	}
	if o.json {
		return printJSON(c, taken)
	}
	return nil
}

// tell says what was stored.
func (o *takeOptions) tell(c *cobra.Command, taken snapshot.Taken) {
	if o.json || len(taken.Held) == 0 {
		return
	}
	m := taken.Manifest
	fmt.Fprintf(c.OutOrStdout(), "taken %s: %s of Vault %s, raft index %d, for %d recipients, in %s\n",
		m.ID, words.Size(m.Snapshot.Size), m.VaultVersion, m.RaftIndex, len(m.Recipients), strings.Join(taken.Held, " and "))
}

// job is what is taken, where to, and who asks Vault for it.
func (o *takeOptions) job(c *cobra.Command, b config.Backup) (*snapshot.Job, error) {
	recipients, err := snapshot.Readers(append(b.Recipients, o.recipients...), o.drillKey)
	if err != nil {
		return nil, &Error{Code: ExitUsage, Err: err, Hint: "give --recipient, or recipients in the table [backup]"}
	}
	client, err := o.vault.Client()
	if err != nil {
		return nil, err
	}
	j := &snapshot.Job{From: client, Host: hostName(), TakeOptions: snapshot.TakeOptions{
		Recipients: recipients, Destinations: o.destinations(b, ""),
		StateDir: stateDir(o.state, machine.SnapshotState), ToolVersion: o.version,
		AdoptPlaces: o.adopt, Chosen: len(o.dirs) > 0,
	}}
	// Without it the snapshot is stored, and told: it would pass for one of before.
	j.TakeOptions.Lineage, j.Lasting = restore.LineageIn(o.epoch)
	// Unsigned it is stored, and told in the job: what this machine's state holds counts as
	// signed for as long as it is the last.
	if j.SigningKey, err = o.takerKey(); err != nil {
		err = fmt.Errorf("the snapshot is not signed: %w", err)
		if !credential.InUnit() {
			fmt.Fprintf(c.ErrOrStderr(), "note: %v\n", err)
			err = nil
		}
		j.Lasting = errors.Join(j.Lasting, err)
	}
	switch {
	case len(b.Files) == 0 || o.noFiles:
	case o.filesFrom != "":
		j.Packed = snapshot.Packed(o.filesFrom)
	default:
		j.Files = snapshot.FilesFrom(b.Files...)
	}
	j.Login = func(ctx context.Context) (snapshot.End, error) {
		session, err := o.vault.Login(ctx, client)
		return session.End, err
	}
	j.CanaryLogin = func(ctx context.Context) (snapshot.Writer, snapshot.End, error) {
		v := o.vault
		v.TokenFile = ""
		v.RoleIDFile, v.SecretIDFile = o.canaryRoleFile, o.canarySecretFile
		v.Machine = access.Role{ID: machine.CredCanaryRoleID, Secret: machine.CredCanarySecretID}
		own, err := v.Client()
		if err != nil {
			return nil, nil, err
		}
		session, err := v.LoginAppRole(ctx, own)
		if errors.Is(err, access.ErrNoLogin) {
			if !o.json {
				fmt.Fprintln(c.OutOrStdout(), "note: no login for the canary, so no drill can look for one in this snapshot")
			}
			return nil, nil, nil
		}
		return own, session.End, err
	}
	return j, nil
}
