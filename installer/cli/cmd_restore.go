package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/backup/restore"
	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/base/fault"
	"strongroom.example/config"
	"strongroom.example/config/machine"
	"strongroom.example/installer/engine"
	"strongroom.example/installer/host"
	"strongroom.example/installer/recover"
	"strongroom.example/installer/steps"
)

// restoreOptions are those of install and what is left of the old machine.
type restoreOptions struct {
	options
	identities  []string
	escrow      string
	masterKey   string
	dirs        []string
	endpoint    string
	region      string
	bucket      string
	prefix      string
	bucketCA    string
	cluster     string
	id          string
	unsigned    bool
	workDir     string
	credentials []string
}

const whatRestoreDoes = `Rebuilds a lost machine on this fresh one, from what is not on it: the bucket (or
folder) with the snapshots, your copy of the escrow, and your private key.

First it downloads the newest verified snapshot and checks all of it, opens the
escrow, and compares the master key with the snapshot's seal: where something does
not fit, nothing has been changed. Then it does what install does, but with the
escrowed master key, with the configuration and the certificates that were kept
beside the snapshot, and restores the snapshot before anybody is let in. The
engine for API keys compares every key with its provider, and mints anew what is
dead. The jobs get new logins; those of the old machine are revoked. It ends with
a snapshot of the new machine, and says what was lost.

It may be stopped anywhere and run again. The escrow must hold recovery keys or
the first administrator's password; without them give an administrator's token of
then in VAULT_TOKEN or by --token-file.

The old machine must be gone, or off.`

func restoreCommand(version string) *cobra.Command {
	o := restoreOptions{options: options{version: version}}
	c := &cobra.Command{
		Use:   "restore",
		Short: "Rebuild a lost machine on this fresh one",
		Long:  whatRestoreDoes,
		Example: `  sudo ./` + program + ` restore --identity id_ed25519 --escrow escrow \
    --endpoint https://fsn1.your-objectstorage.com --bucket vault-backups --backup-credentials s3.toml
  sudo ./` + program + ` restore --identity id_ed25519 --escrow escrow --config appliance.toml --backup-credentials s3.toml
  age -d -i key.txt master-key.age | sudo ./` + program + ` restore --yes --key-file - --identity key.txt --escrow escrow --dir /mnt/backup`,
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			o.from(c)
			return o.runRestore(c.Context(), c)
		},
	}
	o.flags(c)
	f := c.Flags()
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	f.StringArrayVar(&o.identities, "identity", nil, "file with an age identity or an SSH private key, repeatable; it opens snapshot and escrow, and is not copied")
	f.StringVar(&o.escrow, "escrow", "", "the escrow's folder, your copy, or the file master-key.age")
	f.StringVar(&o.masterKey, "key-file", "", "file with the master key, opened, or - for standard input, in place of master-key.age")
	f.StringArrayVar(&o.dirs, "dir", nil, "folder with snapshots, in place of a bucket; one")
	f.StringVar(&o.endpoint, "endpoint", "", "URL of the object storage with the snapshots")
	f.StringVar(&o.region, "region", "", "region of the bucket")
	f.StringVar(&o.bucket, "bucket", "", "bucket with the snapshots")
	f.StringVar(&o.prefix, "prefix", "", "what the snapshots' names begin with in the bucket")
	f.Var(pathFlag{&o.bucketCA}, "bucket-ca", "PEM file of the authority of the object storage")
	f.StringVar(&o.cluster, "cluster", "", "id of Vault's cluster (default: the only one there)")
	f.StringVar(&o.id, "id", "", "which snapshot, CLUSTER/NAME (default: the newest verified one)")
	f.BoolVar(&o.unsigned, "unsigned", false, "take the one of --id although no key of the keyring has signed it; whoever can write to the place may have made it")
	f.StringVar(&o.workDir, "work-dir", "/var/tmp", "folder for the download, as large as the snapshot")
	f.StringArrayVar(&o.credentials, "credential-file", nil, "NAME=FILE: a secret that the old configuration names, such as backup-webhook; repeatable")
	return c
}

// from reads what the command was called with. The domain still points to the
// old machine, and is moved when the new one is well.
func (o *restoreOptions) from(c *cobra.Command) {
	o.options.from(c)
	o.skipDNS = true
}

func (o *restoreOptions) runRestore(ctx context.Context, c *cobra.Command) error {
	if os.Geteuid() != 0 {
		return &fault.Error{Code: fault.Usage, Err: errors.New("not root"), Hint: "run it with sudo"}
	}
	state, err := recover.LoadState(host.OSFS{Root: "/"})
	if err != nil {
		return err
	}
	if state != nil && !state.Finished.IsZero() {
		fmt.Fprintf(o.out, "This machine was recovered from %s at %s; looking whether all is as it should be.\n", state.ID, state.Finished.Format(time.RFC3339))
		err := o.run(ctx, c, o.install)
		state.Summary(o.out)
		return err
	}
	given, err := o.credentialFiles()
	if err != nil {
		return err
	}
	opened, found, err := o.prepare(ctx, state, given)
	if err != nil {
		return recoverError(err)
	}
	if found != nil {
		defer found.Close()
	}
	cfg, err := o.configOf(ctx, c, found)
	if err != nil {
		return err
	}
	return o.with(ctx, cfg, func(ctx context.Context, env *steps.Env) error {
		for name, file := range given {
			env.Given[name] = file
		}
		r, err := recover.Begin(env, state, found, opened)
		if err != nil {
			return err
		}
		dropped, err := o.withoutLostSecrets(env)
		if err != nil {
			return err
		}
		return o.recover(ctx, r, dropped)
	})
}

// credentialFiles are --credential-file and --backup-credentials by name.
func (o *restoreOptions) credentialFiles() (map[string]string, error) {
	given := map[string]string{}
	for _, s := range o.credentials {
		name, file, ok := strings.Cut(s, "=")
		if !ok || name == "" || file == "" || strings.Contains(name, "/") {
			return nil, &fault.Error{Code: fault.Usage, Err: fmt.Errorf("--credential-file %q: want NAME=FILE", s), Hint: "such as backup-webhook=/root/webhook"}
		}
		if err := (pathFlag{&file}).Set(file); err != nil {
			return nil, err
		}
		given[name] = file
	}
	if o.backupKeys != "" {
		given[machine.CredS3] = o.backupKeys
	}
	return given, nil
}

// prepare opens the escrow and fetches the snapshot: all that can be refused. A
// recovery that has come as far as to have restored needs no snapshot any more.
func (o *restoreOptions) prepare(ctx context.Context, state *recover.State, given map[string]string) (*recover.Opened, *recover.Found, error) {
	ids, err := o.readIdentities()
	if err != nil {
		return nil, nil, err
	}
	key, err := o.readMasterKey()
	if err != nil {
		return nil, nil, err
	}
	defer clear(key)
	if o.escrow == "" && len(key) == 0 {
		return nil, nil, &fault.Error{Code: fault.Usage, Err: errors.New("no --escrow"), Hint: "give the folder with your copy of /var/lib/strongroom/escrow"}
	}
	opened, err := recover.OpenEscrow(o.escrow, ids, key)
	if err != nil {
		return nil, nil, err
	}
	if state != nil && !state.Restored.IsZero() {
		return opened, nil, nil
	}
	places, err := o.places()
	if err != nil {
		return nil, nil, err
	}
	if o.id != "" {
		if _, err := snapshot.ParseID(o.id); err != nil {
			return nil, nil, &fault.Error{Code: fault.Usage, Err: fmt.Errorf("--id: %w", err), Hint: "the names are those of the files in the bucket, without what follows the first dot"}
		}
	}
	src := recover.Source{Places: places, Keys: given, Cluster: o.cluster, ID: o.id, Unsigned: o.unsigned, Keyring: opened.Keyring, Identities: ids, WorkDir: o.workDir}
	if state != nil {
		src.ID = state.ID // of this recovery, whatever came since
	}
	fmt.Fprintln(o.out, "Downloading and checking the snapshot …")
	found, err := src.Fetch(ctx)
	if err != nil {
		return nil, nil, err
	}
	if err := found.Snapshot.SealedBy(ctx, opened.MasterKey); err != nil {
		return nil, nil, errors.Join(err, found.Close())
	}
	return opened, found, nil
}

// places are where snapshots may be.
func (o *restoreOptions) places() ([]config.BackupTo, error) {
	switch {
	case len(o.dirs) > 1:
		return nil, &fault.Error{Code: fault.Usage, Err: fmt.Errorf("--dir: %d folders", len(o.dirs)), Hint: "name the one with the snapshot"}
	case len(o.dirs) == 1 && o.dirs[0] != "":
		// The steps look from the root of the file system.
		dir, err := filepath.Abs(o.dirs[0])
		return []config.BackupTo{{Type: config.BackupDir, Path: dir}}, err
	case o.bucket != "" && o.endpoint != "" && o.backupKeys != "":
		return []config.BackupTo{{Type: config.BackupS3, Endpoint: o.endpoint, Region: o.region, Bucket: o.bucket, Prefix: o.prefix,
			CAFile: o.bucketCA, Credentials: machine.CredS3}}, nil
	case o.bucket != "" || o.endpoint != "":
		return nil, &fault.Error{Code: fault.Usage, Err: errors.New("a bucket needs --endpoint, --bucket and --backup-credentials"), Hint: "see --help"}
	case o.config != "":
		b, err := config.LoadBackup(o.config)
		if err != nil {
			return nil, err
		}
		for i := range b.To {
			if b.To[i].Type == config.BackupS3 && b.To[i].Credentials == "" {
				b.To[i].Credentials = machine.CredS3
			}
		}
		return b.To, nil
	}
	return nil, &fault.Error{Code: fault.Usage, Err: errors.New("where are the snapshots?"),
		Hint: "give --endpoint, --bucket and --backup-credentials, or --dir, or a --config with the table [backup]"}
}

// maxConfig bounds the configuration that is kept beside a snapshot, in bytes.
const maxConfig = 1 << 20

// configOf is the configuration: the file given, or that of a run that was
// killed, or the old machine's, with the flags over it.
func (o *restoreOptions) configOf(ctx context.Context, c *cobra.Command, found *recover.Found) (config.Appliance, error) {
	if o.config != "" || found == nil {
		return o.load(c)
	}
	cfg, file := config.Default(), found.Manifest.ID+":"+machine.ConfigFile
	var data []byte
	if found.Files != nil {
		var err error
		data, err = found.Files.Read(ctx, strings.TrimPrefix(machine.ConfigFile, "/"), maxConfig)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return cfg, recoverError(err)
		}
	}
	if data == nil {
		file, cfg.Vault.Product = "", found.Manifest.Product.Known()
		cfg.Vault.Version = cfg.Vault.Product.Release()
	} else {
		var err error
		if cfg, err = config.Parse(file, data); err != nil {
			return cfg, err
		}
	}
	if err := o.override(&cfg); err != nil {
		return cfg, err
	}
	if err := steps.CheckSHA256(o.vaultSHA256, o.vaultBinary); err != nil {
		return cfg, usage(c, err)
	}
	if o.vaultBinary != "" {
		var err error
		if cfg.Vault.Version, err = o.given(ctx, cfg); err != nil {
			return cfg, err
		}
	}
	if len(cfg.Backup.To) == 0 {
		var err error
		if cfg.Backup.To, err = o.places(); err != nil {
			return cfg, err
		}
	}
	if err := o.ask(ctx, &cfg); err != nil {
		return cfg, err
	}
	check := cfg
	steps.SealSecrets(&check, o.backupKeys)
	return cfg, check.Validate(file, data)
}

// withoutLostSecrets leaves out of the configuration what only tells of
// failures and whose secret was sealed for the old machine: a recovery must not
// wait for that. A place for backups is not left out.
func (o *restoreOptions) withoutLostSecrets(env *steps.Env) (dropped []string, err error) {
	missing, err := env.MissingCredentials()
	if err != nil {
		return nil, err
	}
	for _, name := range missing {
		if !steps.ForgetAlert(&env.Config, name) {
			return nil, &fault.Error{Code: fault.Operator, Err: fmt.Errorf("the old configuration names the credential %q, which was sealed for the old machine", name),
				Hint: fmt.Sprintf("give it with --credential-file %s=FILE", name)}
		}
		dropped = append(dropped, name)
	}
	return dropped, nil
}

func (o *restoreOptions) recover(ctx context.Context, r *recover.Recovery, dropped []string) error {
	if err := o.askToRecover(ctx, r); err != nil {
		return err
	}
	end, err := begin(machine.OperationLock, "restore")
	if err != nil {
		return err
	}
	defer end()
	j, err := engine.OpenJournal(machine.InstallJournal, o.version, time.Now)
	if err != nil {
		return err
	}
	defer j.Close()
	r.Env.Journal = j
	all, err := r.Steps()
	if err != nil {
		return err
	}
	e := engine.Engine{Steps: all, Out: o.out, Journal: j, Now: time.Now}
	res, err := e.Install(ctx)
	if err != nil {
		return err
	}
	if err := steps.Ended(ctx, r.Env.Host); err != nil {
		return err
	}
	d, err := steps.Diagnose(ctx, r.Env)
	if err != nil {
		return err
	}
	o.ending(r.Env, res, d, asked(ctx, r.Env, res))
	r.State.Summary(o.out)
	o.privateFiles()
	if others := r.Escrow.Unopened(); len(others) > 0 {
		fmt.Fprintf(o.out, "Of the escrow %s belong to others; they are on this machine again, unopened.\n", strings.Join(others, ", "))
	}
	for _, name := range dropped {
		fmt.Fprintf(o.out, "Not restored: %q was sealed for the old machine. Put it into the configuration again to be told of failures.\n", name)
	}
	return errors.Join(r.State.Err(), d.Err())
}

func (o *restoreOptions) askToRecover(ctx context.Context, r *recover.Recovery) error {
	s := r.State
	fmt.Fprintf(o.out, "Recovering https://%s on this machine\n", r.Env.Config.Domain)
	fmt.Fprintf(o.out, "  snapshot    %s\n  taken       %s, %s ago: what was written since is lost\n  from        %s\n",
		s.ID, s.TakenAt.Format(time.RFC3339), r.Env.Host.Now().Sub(s.TakenAt).Round(time.Second), s.From)
	if r.Found != nil {
		fmt.Fprintf(o.out, "  newest?     %s\n", restore.Freshness(r.Found.Manifest, "", r.Env.Host.Now()))
		beside := "none"
		if r.Found.Files != nil {
			beside = "configuration and certificates"
		}
		fmt.Fprintf(o.out, "  beside it   %s\n", beside)
		for _, n := range r.Found.Notes {
			fmt.Fprintf(o.out, "  note        %s\n", n)
		}
	}
	fmt.Fprintf(o.out, "  master key  %s\n", r.Escrow.MasterKey.Fingerprint())
	if o.yes {
		return nil
	}
	if !o.terminal || o.masterKey == "-" {
		return &fault.Error{Code: fault.Usage, Err: errors.New("nobody can be asked here"), Hint: "say --yes"}
	}
	if err := o.askYes(ctx, "Type yes to go on: ", 10*time.Minute); err != nil {
		return &fault.Error{Code: fault.Operator, Err: err, Hint: "nothing has been changed"}
	}
	return nil
}

// privateFiles names the keys that have opened escrow and snapshot and lie on this machine
// still: whoever takes it has them, too.
func (o *restoreOptions) privateFiles() {
	for _, file := range o.identities {
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() {
			fmt.Fprintf(o.out, "\n!! YOUR PRIVATE KEY %s IS ON THIS MACHINE. It opens the escrow and every\n   backup: delete it here (shred -u), and keep it elsewhere.\n", file)
		}
	}
}
