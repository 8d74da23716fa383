package cli

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"strongroom.example/appliance/backup/drill"
	"strongroom.example/appliance/backup/isolate"
	"strongroom.example/appliance/backup/restore"
	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/base/credential"
	"strongroom.example/appliance/base/signing"
	"strongroom.example/appliance/base/statefile"
	"strongroom.example/appliance/serve/kms"
	"strongroom.example/config"
	"strongroom.example/config/machine"
)

// drillKeys are what opens and compares; the network half has none of them.
type drillKeys struct {
	identities             []string
	keyFile                string
	roleIDFile, secretFile string
	signingFile            string
	vault, pluginDir       string
	hide                   []string
	timeout, maxRPO        time.Duration
}

func (k *drillKeys) add(c *cobra.Command) {
	f := c.Flags()
	f.StringArrayVar(&k.identities, "identity", nil, "file with an age identity or an SSH private key, repeatable (default: the credential "+machine.CredDrillKey+")")
	f.StringVar(&k.keyFile, "key-file", "", "file with the master key, or - for standard input (default: the credential "+machine.CredMasterKey+")")
	f.StringVar(&k.roleIDFile, "role-id-file", "", "file with an AppRole's role id, the drill's (default: the credential "+machine.CredDrillRoleID+")")
	f.StringVar(&k.secretFile, "secret-id-file", "", "file with an AppRole's secret id, the drill's (default: the credential "+machine.CredDrillSecretID+")")
	f.StringVar(&k.signingFile, "signing-key", "", "file with the key that signs the report (default: the credential "+machine.CredDrillSigningKey+")")
	f.StringVar(&k.vault, "vault", "", "Vault's program (default: $VAULT_BIN, beside this program, $PATH)")
	f.StringVar(&k.pluginDir, "plugin-dir", machine.PluginDir, "folder with the plugins that the restored catalog names")
	f.StringArrayVar(&k.hide, "hide", []string{machine.AuditDir, machine.VaultRun, machine.KMSRun}, "folder that what is started must not see; repeatable")
	f.DurationVar(&k.maxRPO, "max-rpo", drill.DefaultMaxRPO, "how old the newest data may be, by the canary in the snapshot; older fails")
	f.DurationVar(&k.timeout, "patience", 5*time.Minute, "how long what was started may take to be well: each wait for the scratch Vault")
}

// options reads all keys.
func (k *drillKeys) options(c *cobra.Command, version, state string) (drill.Options, error) {
	o := drill.Options{
		StateDir: state, PluginDir: k.pluginDir, Hide: k.hide, Policies: config.Policies(),
		Version: version, Patience: k.timeout, MaxRPO: k.maxRPO, Host: hostName(),
	}
	if k.maxRPO <= 0 {
		return o, &Error{Code: ExitUsage, Err: fmt.Errorf("--max-rpo %s is not above 0", k.maxRPO)}
	}
	var err error
	if o.Programs, err = findPrograms(k.vault, ""); err != nil {
		return o, err
	}
	if o.Programs.Vault, err = filepath.Abs(o.Programs.Vault); err != nil {
		return o, err
	}
	if o.PluginDir, err = filepath.Abs(o.PluginDir); err != nil {
		return o, err
	}
	if o.Identities, err = k.openers(); err != nil {
		return o, err
	}
	if o.Keyset, err = k.masterKey(); err != nil {
		return o, masterKeyFault(err)
	}
	for _, one := range []struct {
		file, credential string
		to               *string
	}{{k.roleIDFile, machine.CredDrillRoleID, &o.RoleID}, {k.secretFile, machine.CredDrillSecretID, &o.SecretID}} {
		data, err := fileOrCredential(one.file, one.credential)
		if err != nil {
			return o, &Error{Code: ExitOperator, Err: fmt.Errorf("the drill's login: %w", err), Hint: "run the installer again: it makes what is missing"}
		}
		*one.to = strings.TrimSpace(string(data))
	}
	if o.SigningKey, err = k.signingKey(c); err != nil {
		return o, err
	}
	return o, nil
}

func fileOrCredential(file, name string) ([]byte, error) {
	if file != "" {
		return credential.Read(credential.Path(file))
	}
	return credential.Read(name)
}

// openers are the identities that open snapshots.
func (k *drillKeys) openers() ([]age.Identity, error) {
	if len(k.identities) > 0 {
		return readIdentities(k.identities, machine.CredDrillKey)
	}
	data, err := credential.Read(machine.CredDrillKey)
	if err != nil {
		return nil, &Error{Code: ExitOperator, Err: fmt.Errorf("the drill's key: %w", err), Hint: "give --identity FILE, or run the installer again"}
	}
	defer clear(data)
	ids, err := snapshot.ParseIdentities(data, nil)
	if err != nil {
		return nil, &Error{Code: ExitOperator, Err: fmt.Errorf("the drill's key: %w", err)}
	}
	return ids, nil
}

func (k *drillKeys) masterKey() (*kms.Keyset, error) {
	if k.keyFile != "" || os.Getenv("CREDENTIALS_DIRECTORY") != "" {
		return loadMasterKey(k.keyFile)
	}
	data, err := credential.Read(machine.CredMasterKey)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", kms.ErrNoKey, err)
	}
	defer clear(data)
	return kms.ParseKeyset(data)
}

// signingKey is nil, with a note, where there is none.
func (k *drillKeys) signingKey(c *cobra.Command) (ed25519.PrivateKey, error) {
	data, err := fileOrCredential(k.signingFile, machine.CredDrillSigningKey)
	if err != nil {
		if k.signingFile != "" {
			return nil, &Error{Code: ExitOperator, Err: fmt.Errorf("--signing-key: %w", err)}
		}
		fmt.Fprintf(c.ErrOrStderr(), "note: the report will not be signed: %v\n", err)
		return nil, nil
	}
	defer clear(data)
	key, err := signing.ParseKey(data)
	if err != nil {
		return nil, &Error{Code: ExitOperator, Err: err, Hint: "run the installer again: it makes what is missing"}
	}
	return key, nil
}

// drillSource says which snapshot.
type drillSource struct {
	snapshotOptions
	id         string
	unverified bool
	unsigned   bool
	takeState  string
}

func (s *drillSource) add(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&s.config, "config", machine.ConfigFile, "configuration file with the table [backup]")
	f.StringArrayVar(&s.dirs, "dir", nil, "folder with snapshots, in place of the configuration's places; repeatable")
	f.StringVar(&s.cluster, "cluster", "", "id of Vault's cluster (default: the last one that was taken, or the only one there)")
	f.StringVar(&s.id, "id", "", "which snapshot, CLUSTER/NAME as list shows it (default: the newest verified one)")
	addKeyring(f, &s.keyring)
	f.BoolVar(&s.unsigned, "unsigned", false, unsignedUsage)
	f.BoolVar(&s.unverified, "unverified", false, "take the newest snapshot, verified or not")
	f.StringVar(&s.takeState, "take-state", machine.SnapshotState, "folder of the taking job's state, which tells the cluster")
}

// chosen says that a person has named the snapshot or the places.
func (s *drillSource) chosen() bool { return s.id != "" || len(s.dirs) > 0 }

func (s *drillSource) options(ctx context.Context, state string) (drill.FetchOptions, error) {
	o := drill.FetchOptions{StateDir: state, Unverified: s.unverified, Unsigned: s.unsigned, Cluster: s.cluster, TakeStateDir: s.takeState, Chosen: s.chosen()}
	b, err := s.backup()
	if err != nil {
		return o, err
	}
	o.Destinations = s.destinations(b, s.takeState)
	if s.id != "" {
		if o.ID, err = snapshot.ParseID(s.id); err != nil {
			return o, &Error{Code: ExitUsage, Err: err, Hint: "strongroom snapshot list shows the names"}
		}
		return o, nil
	}
	o.Cluster, err = snapshot.ClusterOf(ctx, o.Destinations, s.cluster, s.takeState)
	return o, err
}

// cannotBegin notes that a drill failed before it came to its report.
func cannotBegin(state string, err error) error {
	if known := new(Error); errors.As(err, &known) && known.Code == ExitUsage {
		return err // a person's, at the keyboard
	}
	return errors.Join(err, drill.RecordFetchFailure(state, time.Now(), err))
}

// exitAgain is what "drill run" exits with where another drill may pass later, for its
// unit, which starts it again (EX_TEMPFAIL of sysexits.h).
const exitAgain = 75

// escrowFault is of what the escrow's folder says.
func escrowFault(err error) error {
	return &Error{Code: ExitOperator, Err: fmt.Errorf("--escrow: %w", err)}
}

// drillError gives the exit code and what to do.
func drillError(err error) error {
	var known *Error
	if err == nil || errors.As(err, &known) {
		return err
	}
	switch {
	case errors.Is(err, drill.ErrFailed):
		return &Error{Code: ExitDrift, Err: err, Hint: "each failed check above says what to do; docs/drill.md explains them"}
	case errors.Is(err, statefile.ErrBusy):
		return &Error{Code: ExitFailed, Err: err, Hint: "wait until it ends"}
	case errors.Is(err, drill.ErrNotFetched):
		return &Error{Code: ExitFailed, Err: err, Hint: "run strongroom drill, or strongroom drill fetch first"}
	case errors.Is(err, drill.ErrNeedsToken):
		return &Error{Code: ExitOperator, Err: err, Hint: "log in, take a snapshot with strongroom snapshot take, and give the same token with --token-file or VAULT_TOKEN"}
	case errors.Is(err, isolate.ErrPrivileges), errors.Is(err, isolate.ErrNotIsolated):
		return &Error{Code: ExitOperator, Err: err, Hint: "nothing was restored; run it as root, or through strongroom-drill.service"}
	case errors.Is(err, restore.ErrOtherSeal):
		return &Error{Code: ExitOperator, Err: err, Hint: "the master key in force does not open these backups: find the escrow of the key that does, before anything else (docs/restore.md)"}
	}
	return restoreError(err)
}
