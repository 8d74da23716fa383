package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/base/access"
	"strongroom.example/appliance/base/credential"
	"strongroom.example/appliance/base/pause"
	"strongroom.example/config"
	"strongroom.example/config/machine"
	"strongroom.example/config/recipient"
)

// errStandby: this node's Vault is a standby, and the leader's job does the work.
var errStandby = errors.New("standby")

// byHand is the error of a command that a person gave too little. It is no
// failure of the job's, and is neither recorded nor told to anybody else.
func byHand(code int, err error, give string) error {
	return &Error{Code: code, Err: err, Hint: give + "; on an installed machine the jobs have what they need: systemctl start strongroom-snapshot takes a snapshot and has it verified"}
}

type takeOptions struct {
	*snapshotOptions
	vault      vaultAccess
	recipients []string
	state      string
	timeout    time.Duration
	noFiles    bool
	// drillKey is a file with the drill's public key; passed over where it is
	// not there.
	drillKey                         string
	canaryRoleFile, canarySecretFile string
	again                            retries
}

func takeCommand(shared *snapshotOptions) *cobra.Command {
	o := takeOptions{snapshotOptions: shared, again: retries{wait: pause.For}}
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
It fails when one place of several fails; the others keep what they have.`,
		Example: `  strongroom snapshot take
  strongroom snapshot take --dir /mnt/backup --recipient ~/.ssh/id_ed25519.pub --token-file token`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runTake(c, o) },
	}
	f := c.Flags()
	o.vault.add(f)
	f.StringArrayVar(&o.recipients, "recipient", nil, "who can open it, repeatable, beside the configuration's: age1…, an SSH public key, or a file of them")
	f.StringVar(&o.state, "state", "", "folder of the job's state (default: systemd's, else "+machine.SnapshotState+")")
	f.DurationVar(&o.timeout, "timeout", 2*time.Hour, "give up after this time")
	o.again.add(c)
	f.BoolVar(&o.noFiles, "no-files", false, "leave out the configuration's files")
	f.StringVar(&o.drillKey, "drill-key", machine.DrillKeyPub, "file with the drill's age recipient, who can open it too; passed over where it is not there")
	f.StringVar(&o.canaryRoleFile, "canary-role-id-file", "", "file with the role id of the canary's AppRole (default: systemd's credential)")
	f.StringVar(&o.canarySecretFile, "canary-secret-id-file", "", "file with the secret id of the canary's AppRole (default: systemd's credential)")
	return c
}

// takeMayPass says whether another try may take it: not after a wrong
// configuration, nor where a person must act.
func takeMayPass(err error) bool {
	var known *Error
	return !errors.Is(err, errStandby) && errors.As(snapshotError(err), &known) && known.Code == ExitFailed && !errors.Is(err, snapshot.ErrFull)
}

func runTake(c *cobra.Command, o takeOptions) error {
	spareMemory()
	b, err := o.backup()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Context(), o.timeout)
	defer cancel()
	var canaryFailure error
	var taken snapshot.Taken
	err = o.again.do(ctx, c, "snapshot take", takeMayPass, func() (err error) {
		taken, err = o.take(ctx, c, b, &canaryFailure)
		return err
	})
	if canaryFailure != nil {
		// Loud, and yet no failure of the backup.
		_ = alertOf(c, b, "canary", canaryFailure)
		fmt.Fprintf(c.ErrOrStderr(), "strongroom: the canary was not written, the next drill will fail: %v\n", canaryFailure)
	}
	if errors.Is(err, errStandby) {
		fmt.Fprintln(c.OutOrStdout(), "standby: the leader takes the snapshots")
		return snapshot.RecordStandby(stateDir(o.state, machine.SnapshotState), time.Now())
	}
	if errors.Is(err, access.ErrNoLogin) && !credential.InUnit() {
		return byHand(ExitOperator, err, "log in with vault login, or set VAULT_TOKEN, or give --token-file, or --role-id-file and --secret-id-file")
	}
	if err != nil {
		// Take records its own failures; those before it are recorded here.
		err = errors.Join(err, snapshot.RecordTakeFailure(stateDir(o.state, machine.SnapshotState), time.Now(), err))
		return alertOf(c, b, "snapshot take", snapshotError(err))
	}
	if o.json {
		return printJSON(c, taken)
	}
	m := taken.Manifest
	fmt.Fprintf(c.OutOrStdout(), "taken %s: %s of Vault %s, raft index %d, for %d recipients, in %s\n",
		m.ID, size(m.Snapshot.Size), m.VaultVersion, m.RaftIndex, len(m.Recipients), strings.Join(taken.Held, " and "))
	return nil
}

func (o *takeOptions) take(ctx context.Context, c *cobra.Command, b config.Backup, canaryFailure *error) (snapshot.Taken, error) {
	recipients, err := readRecipients(append(b.Recipients, o.recipients...))
	if err == nil && len(recipients) == 0 {
		// The drill's key does not count: it is gone with this machine.
		err = errors.New("no recipient: nobody could ever read it")
	}
	if err == nil {
		recipients, err = o.withDrillKey(recipients)
	}
	if err != nil {
		return snapshot.Taken{}, &Error{Code: ExitUsage, Err: err, Hint: "give --recipient, or recipients in the table [backup]"}
	}
	dests, err := destinations(b)
	if err != nil {
		return snapshot.Taken{}, err
	}
	client, err := o.vault.Client()
	if err != nil {
		return snapshot.Taken{}, err
	}
	health, err := client.Health(ctx)
	if err != nil {
		return snapshot.Taken{}, err
	}
	switch {
	case !health.Initialized:
		return snapshot.Taken{}, &Error{Code: ExitOperator, Err: errors.New("vault is not initialised")}
	case health.Sealed:
		return snapshot.Taken{}, &Error{Code: ExitOperator, Err: errors.New("vault is sealed"), Hint: "see docs/unseal.md"}
	case health.Standby:
		return snapshot.Taken{}, errStandby
	}
	canary, noted := o.canary(ctx, c)
	*canaryFailure = noted
	session, err := o.vault.Login(ctx, client)
	if err != nil {
		return snapshot.Taken{}, err
	}
	opts := snapshot.TakeOptions{
		Source:     client,
		Vault:      snapshot.VaultInfo{ClusterID: health.ClusterID, ClusterName: health.ClusterName, Version: health.Version},
		Recipients: recipients, Destinations: dests,
		StateDir: stateDir(o.state, machine.SnapshotState), ToolVersion: o.version,
		Canary: canary, CanaryFailure: noted,
	}
	if len(b.Files) > 0 && !o.noFiles {
		opts.Files = snapshot.FilesFrom(b.Files...)
	}
	taken, err := snapshot.Take(ctx, opts)
	return taken, errors.Join(err, session.End(ctx))
}

// withDrillKey adds the public half of the drill's key where there is one.
func (o *takeOptions) withDrillKey(to []recipient.Recipient) ([]recipient.Recipient, error) {
	if _, err := os.Stat(o.drillKey); o.drillKey == "" || errors.Is(err, os.ErrNotExist) {
		return to, nil
	}
	keys, err := readRecipients([]string{credential.Path(o.drillKey)})
	if err != nil {
		return nil, fmt.Errorf("the drill's key: %w", err)
	}
	for _, k := range keys {
		if !slices.ContainsFunc(to, func(r recipient.Recipient) bool { return r.Fingerprint == k.Fingerprint }) {
			to = append(to, k)
		}
	}
	return to, nil
}

// canary writes the canary by its own login. Both are nil where there is no
// such login.
func (o *takeOptions) canary(ctx context.Context, c *cobra.Command) (_ *snapshot.Canary, err error) {
	v := o.vault
	v.TokenFile = ""
	v.RoleIDFile, v.SecretIDFile = o.canaryRoleFile, o.canarySecretFile
	v.Machine = access.Role{ID: machine.CredCanaryRoleID, Secret: machine.CredCanarySecretID}
	client, err := v.Client()
	if err != nil {
		return nil, err
	}
	session, err := v.LoginAppRole(ctx, client)
	if errors.Is(err, access.ErrNoLogin) {
		if !o.json {
			fmt.Fprintln(c.OutOrStdout(), "note: no login for the canary, so no drill can look for one in this snapshot")
		}
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, session.End(ctx)) }()
	return snapshot.WriteCanary(ctx, snapshot.CanaryOptions{Vault: client, Host: hostName()})
}
