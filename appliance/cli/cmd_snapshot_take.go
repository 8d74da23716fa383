package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/base/pause"
	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/config"
)

// Names of systemd credentials of the snapshot job.
const (
	credRoleID         = "snapshot-role-id"
	credSecretID       = "snapshot-secret-id"
	credCanaryRoleID   = "canary-role-id"
	credCanarySecretID = "canary-secret-id"
)

// errStandby: this node's Vault is a standby, and the leader's job does the work.
var errStandby = errors.New("standby")

// drillRecipientFile holds the public half of the drill key on an installed
// machine.
const drillRecipientFile = "/etc/strongroom/drill-key.pub"

// vaultFlags say where Vault is and who asks; never a secret itself.
type vaultFlags struct {
	addr, caCert               string
	tokenFile                  string
	roleIDFile, secretIDFile   string
	defaultRole, defaultSecret string // credentials' names
}

func (v *vaultFlags) add(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&v.addr, "vault-addr", "", "Vault's address, https://… or unix:///… (default: $VAULT_ADDR, else "+defaultVault+")")
	f.StringVar(&v.caCert, "vault-cacert", "", "PEM file of Vault's authority (default: $VAULT_CACERT)")
	f.StringVar(&v.tokenFile, "token-file", "", "file with a Vault token, in place of AppRole")
	f.StringVar(&v.roleIDFile, "role-id-file", "", "file with the AppRole's role id (default: systemd's credential)")
	f.StringVar(&v.secretIDFile, "secret-id-file", "", "file with the AppRole's secret id (default: systemd's credential)")
}

// defaultVault is where the appliance's Vault listens for jobs on the machine.
const defaultVault = "unix:///run/vault/vault.sock"

// client connects, without a token yet.
func (v *vaultFlags) client() (*vaultapi.Client, error) {
	addr, ca := v.addr, v.caCert
	if addr == "" {
		addr = os.Getenv("VAULT_ADDR")
	}
	if addr == "" {
		addr = defaultVault
	}
	if ca == "" {
		ca = os.Getenv("VAULT_CACERT")
	}
	c, err := vaultapi.New(vaultapi.Options{Address: addr, CACert: ca})
	if err != nil {
		return nil, &Error{Code: ExitUsage, Err: err, Hint: "give --vault-addr https://HOST:PORT or unix:///PATH"}
	}
	return c, nil
}

// errNoLogin is a command by hand that was given no login; a job has its own.
var errNoLogin = errors.New("no way to log in to Vault")

// byHand is the error of a command that a person gave too little. It is no
// failure of the job's, and is neither recorded nor told to anybody else.
func byHand(code int, err error, give string) error {
	return &Error{Code: code, Err: err, Hint: give + "; on an installed machine the jobs have what they need: systemctl start strongroom-snapshot takes a snapshot and has it verified"}
}

// login makes c use the token file, an AppRole, or a person's VAULT_TOKEN, in
// this order. logout ends a token that was made here.
func (v *vaultFlags) login(ctx context.Context, c *vaultapi.Client) (logout func(context.Context) error, err error) {
	none := func(context.Context) error { return nil }
	if v.tokenFile != "" {
		token, err := readCredential(pathOf(v.tokenFile))
		if err != nil {
			return nil, &Error{Code: ExitUsage, Err: err}
		}
		c.SetToken(strings.TrimSpace(string(token)))
		return none, nil
	}
	role, secret, given, err := v.appRole()
	if err != nil {
		return nil, err
	}
	if given {
		if err := c.LoginAppRole(ctx, role, secret); err != nil {
			return nil, err
		}
		return c.RevokeSelf, nil
	}
	if token := os.Getenv("VAULT_TOKEN"); token != "" {
		c.SetToken(token)
		return none, nil
	}
	return nil, &Error{Code: ExitOperator, Err: errNoLogin,
		Hint: "give --token-file, or --role-id-file and --secret-id-file, or set VAULT_TOKEN"}
}

func (v *vaultFlags) appRole() (role, secret string, given bool, err error) {
	roleFile, secretFile := v.roleIDFile, v.secretIDFile
	if (roleFile == "") != (secretFile == "") {
		return "", "", false, &Error{Code: ExitUsage, Err: errors.New("--role-id-file and --secret-id-file: both or neither")}
	}
	if roleFile == "" {
		if os.Getenv("CREDENTIALS_DIRECTORY") == "" || v.defaultRole == "" {
			return "", "", false, nil
		}
		roleFile, secretFile = v.defaultRole, v.defaultSecret
	} else {
		roleFile, secretFile = pathOf(roleFile), pathOf(secretFile)
	}
	r, err := readCredential(roleFile)
	if err != nil {
		return "", "", false, &Error{Code: ExitOperator, Err: err}
	}
	s, err := readCredential(secretFile)
	if err != nil {
		return "", "", false, &Error{Code: ExitOperator, Err: err}
	}
	return strings.TrimSpace(string(r)), strings.TrimSpace(string(s)), true, nil
}

// pathOf makes a flag's file name one that is never a credential's name.
func pathOf(file string) string {
	if strings.Contains(file, "/") {
		return file
	}
	return "./" + file
}

type takeOptions struct {
	*snapshotOptions
	vault      vaultFlags
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
	o.vault.defaultRole, o.vault.defaultSecret = credRoleID, credSecretID
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
	o.vault.add(c)
	f := c.Flags()
	f.StringArrayVar(&o.recipients, "recipient", nil, "who can open it, beside the configuration's; repeatable: age1…, an SSH public key, or a file of them")
	f.StringVar(&o.state, "state", "", "folder of the job's state (default: systemd's, else "+takeStateDir+")")
	f.DurationVar(&o.timeout, "timeout", 2*time.Hour, "give up after this time")
	o.again.add(c)
	f.BoolVar(&o.noFiles, "no-files", false, "leave out the configuration's files")
	f.StringVar(&o.drillKey, "drill-key", drillRecipientFile, "file with the drill's public key, a recipient too; passed over where it is not there")
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
		return snapshot.RecordStandby(stateDir(o.state, takeStateDir), time.Now())
	}
	if errors.Is(err, errNoLogin) {
		return byHand(ExitOperator, errNoLogin, "give --token-file, or --role-id-file and --secret-id-file, or set VAULT_TOKEN")
	}
	if err != nil {
		// Take records its own failures; those before it are recorded here.
		err = errors.Join(err, snapshot.RecordTakeFailure(stateDir(o.state, takeStateDir), time.Now(), err))
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
	client, err := o.vault.client()
	if err != nil {
		return snapshot.Taken{}, err
	}
	health, err := client.Health(ctx)
	if err != nil {
		return snapshot.Taken{}, err
	}
	switch {
	case !health.Initialized:
		return snapshot.Taken{}, &Error{Code: ExitOperator, Err: errors.New("vault is not initialized")}
	case health.Sealed:
		return snapshot.Taken{}, &Error{Code: ExitOperator, Err: errors.New("vault is sealed"), Hint: "see docs/unseal.md"}
	case health.Standby:
		return snapshot.Taken{}, errStandby
	}
	canary, noted := o.canary(ctx, c)
	*canaryFailure = noted
	logout, err := o.vault.login(ctx, client)
	if err != nil {
		return snapshot.Taken{}, err
	}
	opts := snapshot.TakeOptions{
		Source:     client,
		Vault:      snapshot.VaultInfo{ClusterID: health.ClusterID, ClusterName: health.ClusterName, Version: health.Version},
		Recipients: recipients, Destinations: dests,
		StateDir: stateDir(o.state, takeStateDir), ToolVersion: o.version,
		Canary: canary, CanaryFailure: noted,
	}
	if len(b.Files) > 0 && !o.noFiles {
		opts.Files = snapshot.FilesFrom(b.Files...)
	}
	taken, err := snapshot.Take(ctx, opts)
	// A cancelled run leaves no token behind either.
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return taken, errors.Join(err, logout(end))
}

// withDrillKey adds the public half of the drill's key where there is one.
func (o *takeOptions) withDrillKey(to []snapshot.Recipient) ([]snapshot.Recipient, error) {
	if _, err := os.Stat(o.drillKey); o.drillKey == "" || errors.Is(err, os.ErrNotExist) {
		return to, nil
	}
	keys, err := readRecipients([]string{pathOf(o.drillKey)})
	if err != nil {
		return nil, fmt.Errorf("the drill's key: %w", err)
	}
	for _, k := range keys {
		if !slices.ContainsFunc(to, func(r snapshot.Recipient) bool { return r.Fingerprint == k.Fingerprint }) {
			to = append(to, k)
		}
	}
	return to, nil
}

// canary writes the canary by its own login. Both are nil where there is no
// such login.
func (o *takeOptions) canary(ctx context.Context, c *cobra.Command) (_ *snapshot.Canary, err error) {
	v := o.vault
	v.tokenFile = ""
	v.roleIDFile, v.secretIDFile = o.canaryRoleFile, o.canarySecretFile
	v.defaultRole, v.defaultSecret = credCanaryRoleID, credCanarySecretID
	if v.roleIDFile == "" && v.secretIDFile == "" && !hasCredential(credCanaryRoleID) {
		if !o.json {
			fmt.Fprintln(c.OutOrStdout(), "note: no login for the canary, so no drill can look for one in this snapshot")
		}
		return nil, nil
	}
	role, secret, _, err := v.appRole()
	if err != nil {
		return nil, err
	}
	client, err := v.client()
	if err != nil {
		return nil, err
	}
	if err := client.LoginAppRole(ctx, role, secret); err != nil {
		return nil, err
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		err = errors.Join(err, client.RevokeSelf(end))
	}()
	host, herr := os.Hostname()
	if herr != nil {
		host = "unknown"
	}
	return snapshot.WriteCanary(ctx, snapshot.CanaryOptions{Vault: client.API().Logical(), Host: host})
}

// hasCredential tells whether systemd passes a credential.
func hasCredential(name string) bool {
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	if dir == "" {
		return false
	}
	// The unit gives an empty one in place of one that is not there.
	data, err := os.ReadFile(filepath.Join(dir, name))
	return err == nil && len(bytes.TrimSpace(data)) > 0
}
