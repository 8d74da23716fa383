package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"strongroom.example/appliance/backup/restore"
	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/base/argument"
	"strongroom.example/appliance/base/credential"
	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/appliance/base/words"
	"strongroom.example/config"
	"strongroom.example/config/machine"
)

// Where an installed appliance has what a restore needs.
type restoreOptions struct {
	snapshotOptions
	vault      vaultAccess
	identities []string
	file, id   string
	recipients []string
	keepDir    string
	noKeep     bool
	epoch      string
	work       string
	unsigned   bool
	force      bool
	intoOlder  bool
	yes        bool
	dryRun     bool
	timeout    time.Duration
	only       restorePaths
	files      restoreFiles
	lock       string // of operations
}

func restoreCommand(version string) *cobra.Command {
	o := restoreOptions{snapshotOptions: snapshotOptions{version: version}, lock: machine.OperationLock}
	c := &cobra.Command{
		Use:   "restore [FILE|FOLDER]",
		Short: "Bring a snapshot back into Vault",
		Long: `Brings the newest verified snapshot back into the Vault that runs here: on this
machine or a new one that the installer has set up with the escrowed master key.
It needs the private key of one of the snapshot's recipients, your SSH key
included, and a Vault token that may restore.

It shows what it will do and asks first. The snapshot is checked wholly before
anything changes, and a snapshot of what is replaced is kept. Afterwards every
apikeys engine compares its keys with their providers (reconcile). It works with
a stock Vault, and with a file from "vault operator raft snapshot save".

With --path it brings back single secrets, each as a new version, and touches
nothing else: the snapshot is brought up in a Vault of its own without a network,
which needs root and the master key. With --files it unpacks the certificates and
the configuration that were kept beside the snapshot, and does not speak to Vault.

Exit code 3: the snapshot is damaged or not there; nothing was changed. 4: you
must act, as the message says; after "restored" the snapshot is in.`,
		Example: `  strongroom restore --identity ~/.ssh/id_ed25519
  strongroom restore --identity key.txt --id CLUSTER/20261124T151500Z-1a2b3c4d
  strongroom restore vault.snap
  strongroom restore /mnt/backup --identity key.txt
  strongroom restore --identity key.txt --files /root/old
  systemd-creds decrypt --name=master-key /etc/strongroom/credentials/master-key - |
    strongroom restore --identity ~/.ssh/id_ed25519 --yes --key-file - --path secret/app/prod/name`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.about(c, args); err != nil {
				return err
			}
			if o.work == "" {
				o.work = workDir(machine.StateDir)
			}
			if err := o.only.validate(); err != nil {
				return err
			}
			switch {
			case o.files.dir != "" && len(o.only.paths) > 0:
				return &Error{Code: ExitUsage, Err: errors.New("--files and --path are two different restores"), Hint: "run one after the other"}
			case o.files.dir != "":
				return runRestoreFiles(c, o)
			case len(o.only.paths) > 0:
				return runRestorePaths(c, o)
			}
			return runRestore(c, o)
		},
	}
	o.vault.add(c.PersistentFlags())
	o.only.add(c)
	o.files.add(c)
	f := c.Flags()
	f.StringVar(&o.config, "config", machine.ConfigFile, "configuration file with the table [backup]")
	f.StringArrayVar(&o.dirs, "dir", nil, "folder with snapshots, in place of the configuration's places; repeatable")
	f.StringVar(&o.cluster, "cluster", "", "id of Vault's cluster (default: the only one there)")
	f.StringVar(&o.id, "id", "", "which snapshot, CLUSTER/NAME as list shows it (default: the newest verified one)")
	f.BoolVar(&o.unsigned, "unsigned", false, unsignedUsage)
	addKeyring(f, &o.keyring)
	f.StringVar(&o.file, "file", "", "restore this file: encrypted by strongroom, or a stock raft snapshot")
	f.StringArrayVar(&o.identities, "identity", nil, "file with an age identity or an SSH private key, repeatable (default: systemd's credential)")
	f.StringArrayVar(&o.recipients, "recipient", nil, "who can open it, the snapshot of what is replaced, beside the configuration's; repeatable")
	f.StringVar(&o.keepDir, "keep-dir", machine.ReplacedDir, "folder for the snapshot of what is replaced")
	f.BoolVar(&o.noKeep, "no-keep", false, "do not keep a snapshot of what is replaced")
	f.StringVar(&o.epoch, "epoch-file", machine.EpochFile, "the installation's epoch file; passed over where it is not there")
	f.StringVar(&o.work, "work-dir", "", "folder for the download, as large as the snapshot (default: "+machine.StateDir+" for root where it is, else /var/tmp)")
	f.BoolVar(&o.force, "force", false, "do it all the same: accept a snapshot sealed by another master key; only for a Vault that is unsealed by hand")
	f.BoolVar(&o.intoOlder, "into-older", false, "insist where the snapshot is of a newer Vault than the one here")
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	f.BoolVarP(&o.dryRun, "dry-run", "n", false, "change nothing: check the snapshot and show what would be done")
	f.DurationVar(&o.timeout, "patience", 10*time.Minute, "how long what was started may take to be well: Vault, active again")
	return c
}

// workDir is on a disk: /tmp is often memory.
func workDir(state string) string {
	if fi, err := os.Stat(state); err == nil && fi.IsDir() && os.Geteuid() == 0 {
		return state
	}
	return "/var/tmp"
}

// about takes the argument: a snapshot's file, or a folder with snapshots.
func (o *restoreOptions) about(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if fi, err := os.Stat(args[0]); err != nil || !fi.IsDir() {
		return argument.Take(c, args, "file", &o.file)
	}
	if c.Flags().Changed("file") {
		return &Error{Code: ExitUsage, Err: fmt.Errorf("--file, and the folder %q as the argument", args[0]), Hint: "one of them"}
	}
	return argument.Take(c, args, "dir", nil)
}

func runRestore(c *cobra.Command, o restoreOptions) error {
	spareMemory()
	client, err := o.vault.client()
	if err != nil {
		return err
	}
	keep, err := o.keeping()
	if err != nil {
		return err
	}
	from, err := o.source(o.file == "")
	if err != nil {
		return restoreError(err)
	}
	p, err := restore.NewPlan(c.Context(), from, keep, restore.Options{
		Vault: client, Force: o.force, IntoOlder: o.intoOlder, EpochFile: o.epoch, WaitsFile: machine.RestoreWaits, Patience: o.timeout,
		Step: func(name string) { fmt.Fprintf(c.OutOrStdout(), "… %s\n", name) },
	})
	if err != nil {
		return restoreError(err)
	}
	defer p.Close()
	o.print(c.OutOrStdout(), p)
	if o.dryRun {
		return nil
	}
	if o.yes && p.Choice.Older {
		return &Error{Code: ExitOperator, Err: errors.New("nothing was done: the newest verified snapshot is damaged in every place, and --yes was not given for an older one"),
			Hint: "name it with --id " + p.Choice.Manifest.ID}
	}
	if err := o.confirm(c); err != nil {
		return err
	}
	return o.bringBack(c, p)
}

// bringBack does what was planned.
func (o *restoreOptions) bringBack(c *cobra.Command, p *restore.Plan) error {
	end, err := begin(c, o.lock)
	if err != nil {
		return err
	}
	defer end()
	res, err := p.Run(c.Context())
	printRestored(c.OutOrStdout(), res)
	if err != nil {
		return restoreError(err)
	}
	return nil
}

// source is the file, or what lies where backups go. A file need not be encrypted,
// and then nobody has to give an identity.
func (o *restoreOptions) source(encrypted bool) (restore.Source, error) {
	s := restore.Source{File: o.file, Unsigned: o.unsigned, Cluster: o.cluster, TakeState: machine.SnapshotState, Dir: o.work}
	var err error
	if o.id != "" {
		if s.ID, err = snapshot.ParseID(o.id); err != nil {
			return s, &Error{Code: ExitUsage, Err: err, Hint: "strongroom snapshot list shows the names"}
		}
	}
	if o.file == "" {
		b, err := o.backup()
		if err != nil {
			return s, err
		}
		s.Places = o.destinations(b, machine.SnapshotState)
	}
	if encrypted || len(o.identities) > 0 || credential.InUnit() {
		s.Identities, err = readIdentities(o.identities, machine.CredDrillKey)
	}
	return s, err
}

// keeping is nil with --no-keep.
func (o *restoreOptions) keeping() (*restore.Keeping, error) {
	if o.noKeep {
		return nil, nil
	}
	b, err := o.backup()
	if err != nil && o.file == "" {
		return nil, err
	}
	if len(o.dirs) > 0 {
		// What is replaced is this machine's, wherever the snapshot comes from.
		if own, err := config.LoadBackup(o.config); err == nil {
			b.Recipients = own.Recipients
		}
	}
	recipients, err := readRecipients(append(b.Recipients, o.recipients...))
	if err == nil && len(recipients) == 0 {
		err = errors.New("nobody could open the snapshot of what is replaced")
	}
	if err != nil {
		return nil, &Error{Code: ExitUsage, Err: err, Hint: "give --recipient, or --no-keep"}
	}
	key, _ := o.takerKey() // who restores may not be root; unsigned it is kept as well
	return &restore.Keeping{SigningKey: key, Dir: o.keepDir, Own: filepath.Clean(o.keepDir) == machine.ReplacedDir, Recipients: recipients, ToolVersion: o.version}, nil
}

func (o *restoreOptions) print(w io.Writer, p *restore.Plan) {
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "  %-10s "+format+"\n", append([]any{name}, args...)...)
	}
	fmt.Fprintln(w, "Restore")
	m := p.Choice.Manifest
	if o.file == "" {
		line("snapshot", "%s", m.ID)
		line("taken", "%s, %s ago", m.TakenAt.Format(time.RFC3339), time.Since(m.TakenAt).Round(time.Minute))
	}
	line("from", "%s", p.From)
	if o.file == "" {
		line("newest?", "%s", restore.Freshness(m, machine.SnapshotState, time.Now()))
	}
	line("content", "%s, raft index %d, term %d; checked wholly", words.Size(p.Size), p.Archive.Index, p.Archive.Term)
	line("into", "%s, cluster %q", p.Health.Server(), p.Health.ClusterID)
	if m.ClusterID != "" && m.ClusterID != p.Health.ClusterID {
		line("", "which becomes cluster %q", m.ClusterID)
	}
	line("loses", "all that was written since it was taken: secrets, keys, tokens, leases")
	line("", "and Vault's way into each database whose connection was set up since, or set up anew (docs/databases.md)")
	for _, note := range p.Notes {
		line("note", "%s", note)
	}
	fmt.Fprintln(w, "Steps")
	if !o.noKeep {
		fmt.Fprintf(w, "  - keep an encrypted snapshot of what is there now in %s\n", o.keepDir)
	} else {
		fmt.Fprintln(w, "  - keep nothing of what is there now (--no-keep)")
	}
	if p.RaisesEpoch {
		fmt.Fprintf(w, "  - raise the epoch in %s: no engine acts on old state\n", o.epoch)
	}
	fmt.Fprintln(w, "  - hand the snapshot to Vault and wait until it is active")
	fmt.Fprintln(w, "  - let every apikeys engine compare its keys with their providers")
}

// confirm asks on a terminal.
func (o *restoreOptions) confirm(c *cobra.Command) error {
	if o.yes {
		return nil
	}
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return &Error{Code: ExitOperator, Err: errors.New("nothing was done: there is nobody to ask"), Hint: "look at the plan and give --yes"}
	}
	fmt.Fprint(c.OutOrStdout(), "Type yes to go on: ")
	answer, err := askLine(c.Context(), os.Stdin)
	if err != nil {
		return err
	}
	if answer != "yes" {
		return &Error{Code: ExitOperator, Err: errors.New("nothing was done")}
	}
	return nil
}

func printRestored(w io.Writer, res restore.Result) {
	if res.Kept != nil {
		fmt.Fprintf(w, "kept %s in %s\n", res.Kept.Manifest.ID, strings.Join(res.Kept.Held, ", "))
	}
	if res.Restored {
		fmt.Fprintln(w, "restored")
	}
	for _, e := range res.Engines {
		fence := "it was not fenced"
		if e.WasFenced {
			fence = "it had waited behind its fence"
		}
		fmt.Fprintf(w, "reconciled %s: %d keys, %d checked, %d renewed, %d problems; %s\n", e.Mount, e.Keys, e.Checked, e.Renewed, len(e.Problems), fence)
		for key, p := range e.Problems {
			fmt.Fprintf(w, "  %s: %s\n", key, p)
		}
	}
}

// restoreError gives the exit code and what to do.
func restoreError(err error) error {
	var known *Error
	if errors.As(err, &known) {
		return err
	}
	switch {
	case errors.Is(err, restore.ErrOtherSeal):
		return &Error{Code: ExitOperator, Err: err, Hint: "nothing was restored: put the escrowed master key of that snapshot in place first (docs/restore.md)"}
	case errors.Is(err, restore.ErrNewerVault):
		return &Error{Code: ExitOperator, Err: err, Hint: "nothing was restored: upgrade Vault first (docs/upgrade.md); --into-older insists, at the risk of a Vault that does not start"}
	case errors.Is(err, restore.ErrOtherProduct):
		return &Error{Code: ExitOperator, Err: err, Hint: "nothing was restored: docs/openbao.md says how secrets move between the two"}
	case errors.Is(err, restore.ErrOtherAnswers):
		return &Error{Code: ExitOperator, Err: err, Hint: "nothing was restored: the nodes here would take it for their leader, be none of its nodes, and stay sealed. " +
			"Stop that Vault, or cut it off, and restore again"}
	case errors.Is(err, restore.ErrTokenKind):
		return &Error{Code: ExitOperator, Err: err, Hint: "nothing was restored: log in for a service token without a bound on its uses, as vault login gives"}
	case errors.Is(err, restore.ErrNotReady):
		return &Error{Code: ExitOperator, Err: err, Hint: "nothing was restored: a new machine needs the installer first; see also docs/unseal.md"}
	case errors.Is(err, restore.ErrSealed):
		return &Error{Code: ExitOperator, Err: err, Hint: "unseal it with the keys of the snapshot, or restart Vault and restore the snapshot that was kept"}
	case errors.Is(err, restore.ErrTokenGone):
		return &Error{Code: ExitOperator, Err: err, Hint: "it is restored; log in to it and write apikeys/reconcile, until done is true"}
	case errors.Is(err, restore.ErrProblems):
		return &Error{Code: ExitOperator, Err: err, Hint: "it is restored; look at the keys above, then write apikeys/reconcile again"}
	case errors.Is(err, restore.ErrUnfinished):
		return &Error{Code: ExitOperator, Err: err, Hint: "it is restored; once Vault is active, write apikeys/reconcile until done is true"}
	case errors.Is(err, restore.ErrUnclear):
		return &Error{Code: ExitOperator, Err: err, Hint: "look at Vault; then restore again, or write apikeys/reconcile until done is true and set max_wait in apikeys/config, which may be 0: it was as " + machine.RestoreWaits + " says (docs/restore.md)"}
	case errors.Is(err, snapshot.ErrNotFound):
		return &Error{Code: ExitDrift, Err: err, Hint: "strongroom snapshot list shows what there is"}
	}
	if vaultapi.IsRefusal(err) {
		return vaultError(err)
	}
	return snapshotError(err)
}
