package drill

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"filippo.io/age"

	"strongroom.example/appliance/backup/drill/report"
	"strongroom.example/appliance/backup/isolate"
	"strongroom.example/appliance/backup/restore"
	"strongroom.example/appliance/backup/scratch"
	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/base/proc"
	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/appliance/serve/kms"
	"strongroom.example/config"
)

// Options is what Run needs. It holds the keys, and uses no network.
type Options struct {
	// StateDir holds the lock, what Fetch left, and the reports.
	StateDir string
	// Identities open the snapshot: the drill's key.
	Identities []age.Identity
	// Keyset is the master key, from the same credential as the KMS's.
	Keyset *kms.Keyset
	// EscrowKey is the fingerprint that was recorded with the escrow of the
	// master key; empty where none is known.
	EscrowKey string
	// RoleID and SecretID are the drill's AppRole, which the restored Vault
	// knows.
	RoleID, SecretID string
	Programs         scratch.Programs
	// PluginDir is the machine's plugin directory: the restored catalog names
	// files in it.
	PluginDir string
	// Hide are folders that the scratch Vault must not see: its audit files,
	// the sockets of the live one.
	Hide []string
	// Isolated says that this process is cut off already, by its unit. Then the
	// scratch Vault is started as it is; otherwise it takes root to cut it off.
	// Either way nothing is restored before a look has proved it.
	Isolated bool
	// Policies are the appliance's own, by name.
	Policies map[string]string
	// MaxRPO is how old the newest data may be; DefaultMaxRPO when zero.
	MaxRPO time.Duration
	// Rehearse makes it a rehearsal of an upgrade; nil for a drill.
	Rehearse *Rehearsal

	// SigningKey signs the report; nil leaves it unsigned.
	SigningKey ed25519.PrivateKey
	Host       string
	Version    string // of this program
	// Patience is how long each wait for Vault may take; 2 minutes when zero.
	Patience time.Duration
	// Step is told of each step as it begins; may be nil.
	Step func(name string)
	Now  func() time.Time // time.Now when nil

	room string // of what is scratch; StateDir when empty
}

// DefaultMaxRPO is twice the hour within which what is written is in a verified snapshot.
const DefaultMaxRPO = 2 * time.Hour

func (o *Options) place() string { return cmp.Or(o.room, o.StateDir) }

// run is one drill under way.
type run struct {
	Options
	rep     *report.Report
	set     *proc.Set
	fetched Fetched
	vault   *scratch.Vault
	client  *vaultapi.Client
	tooOld  bool // a check has failed by the data's age
}

func workDir(stateDir string) string { return filepath.Join(stateDir, "work") }

// Run drills with the snapshot that Fetch left, and writes the report. Whatever
// happens, nothing that it started or unpacked is left. The report is there with
// any error but statefile.ErrBusy and those of writing it; ErrFailed when the drill came to
// its end and a check failed.
func Run(ctx context.Context, o Options) (*report.Report, error) {
	unlock, err := lock(o.StateDir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	o.fill()
	return o.newRun().finish(ctx, func(r *run) error {
		var err error
		if r.fetched, err = loadFetched(r.StateDir); err == nil {
			r.rep.Steps = append(r.rep.Steps, report.Timing{Name: "fetch the snapshot", Seconds: r.fetched.FinishedAt.Sub(r.fetched.StartedAt).Seconds()})
		}
		return err
	})
}

// FetchAndRun is both halves in one process, with one report, whatever fails.
func FetchAndRun(ctx context.Context, f FetchOptions, o Options) (_ *report.Report, err error) {
	unlock, err := lock(o.StateDir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	o.fill()
	if o.room, err = makeRoom(o.StateDir); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, discardRoom(o.StateDir)) }()
	f.StateDir, f.Now, f.room = o.StateDir, o.Now, o.room
	return o.newRun().finish(ctx, func(r *run) error {
		r.Step("fetch the snapshot")
		var err error
		r.fetched, err = f.fetch(ctx)
		return err
	})
}

func (o *Options) fill() {
	if o.Step == nil {
		o.Step = func(string) {}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.MaxRPO == 0 {
		o.MaxRPO = DefaultMaxRPO
	}
	if o.Patience == 0 {
		o.Patience = 2 * time.Minute
	}
}

func (o *Options) newRun() *run {
	r := &run{Options: *o, rep: &report.Report{
		Format: report.Format, Kind: report.KindDrill, Host: o.Host, StartedAt: o.Now().UTC(),
		Programs: report.Versions{Strongroom: o.Version}, Checks: []report.Check{}, Steps: []report.Timing{},
	}}
	if o.Rehearse != nil {
		r.rep.Kind = report.KindRehearsal
	}
	step := r.Step
	var name string
	began := r.Now()
	r.Step = func(next string) {
		if name != "" {
			r.rep.Steps = append(r.rep.Steps, report.Timing{Name: name, Seconds: r.Now().Sub(began).Seconds()})
		}
		if name, began = next, r.Now(); next != "" {
			step(next)
		}
	}
	return r
}

// finish gets the snapshot, drills, tidies up and writes the report.
func (r *run) finish(ctx context.Context, get func(*run) error) (*report.Report, error) {
	err := get(r)
	r.describe()
	if err == nil {
		err = r.drill(ctx)
	}
	r.Step("remove everything scratch")
	err = errors.Join(err, discard(r.place()))
	r.Step("")
	err = r.outcome(err)
	r.rep.Passed = err == nil
	r.rep.FinishedAt = r.Now().UTC()
	return r.rep, errors.Join(err, store(r.StateDir, r.rep, r.SigningKey))
}

// outcome is the error of a drill that has come to its end, or ended early by err.
func (r *run) outcome(err error) error {
	failed := r.rep.Failed()
	switch {
	case err != nil:
		r.rep.Failure = err.Error()
		return err
	case len(failed) == 0:
		return nil
	case len(failed) == 1 && (r.tooOld || failed[0].Verdict == report.Undecided):
		return fmt.Errorf("%w: %w", ErrFailed, ErrTooOld)
	}
	return ErrFailed
}

// describe notes where the data came from.
func (r *run) describe() {
	if !r.fetched.StartedAt.IsZero() {
		r.rep.StartedAt = r.fetched.StartedAt
	}
	if r.fetched.Chosen && r.rep.Kind == report.KindDrill {
		r.rep.Kind = report.KindChosen
	}
	r.rep.Snapshot.ID, r.rep.Snapshot.From, r.rep.Snapshot.VerifiedAt = r.fetched.ID, r.fetched.From, r.fetched.VerifiedAt
}

func (r *run) check(name, verdict, remedy, format string, args ...any) {
	r.rep.Checks = append(r.rep.Checks, report.Check{Name: name, Verdict: verdict, Detail: fmt.Sprintf(format, args...), Remedy: remedy})
}

// drill is everything between the fetched snapshot and the report.
func (r *run) drill(ctx context.Context) (err error) {
	if err := os.RemoveAll(workDir(r.place())); err != nil {
		return fmt.Errorf("remove remains: %w", err)
	}
	if err := os.Mkdir(workDir(r.place()), 0o700); err != nil {
		return fmt.Errorf("folder for the scratch Vault: %w", err)
	}
	r.set = proc.NewSet()
	defer func() { err = errors.Join(err, r.set.Close()) }()

	m, checked, err := r.open(ctx)
	if err != nil {
		return err
	}
	defer checked.Close()
	if err := r.start(ctx); err != nil {
		return err
	}
	r.checkKey()
	r.Step("restore and unseal")
	if err := restore.Into(ctx, r.client, checked, r.Patience); err != nil {
		return err
	}
	r.check("unseal", report.Pass, "", "restored and unsealed by the master key alone")
	r.Step("log in and look")
	if err := r.look(ctx, m); err != nil {
		return err
	}
	if r.Rehearse != nil {
		return r.rehearse(ctx, m)
	}
	return nil
}

// open checks the fetched snapshot wholly: what is restored is what was checked.
func (r *run) open(ctx context.Context) (snapshot.Manifest, *restore.Checked, error) {
	r.Step("decrypt and check the snapshot")
	var m snapshot.Manifest
	dir, err := snapshot.NewDir(fetchedDir(r.place()))
	if err != nil {
		return m, nil, fmt.Errorf("%w: %w", ErrNotFetched, err)
	}
	id, err := snapshot.ParseID(r.fetched.ID)
	if err != nil {
		return m, nil, fmt.Errorf("%w: %w", ErrNotFetched, err)
	}
	choice, err := restore.ByID(ctx, []snapshot.Destination{dir}, id)
	if err != nil {
		return m, nil, err
	}
	m = choice.Manifest
	r.rep.Snapshot = report.Snapshot{
		ID: m.ID, From: r.fetched.From, ClusterID: m.ClusterID, TakenAt: m.TakenAt, VerifiedAt: choice.VerifiedAt,
		Size: m.Snapshot.Size, RaftIndex: m.RaftIndex, VaultVersion: m.VaultVersion,
	}
	server, err := scratch.ServerOf(ctx, r.Programs.Vault)
	if err != nil {
		return m, nil, err
	}
	if err := m.Server().SameProduct(server); err != nil {
		return m, nil, fmt.Errorf("%w: %w", restore.ErrOtherProduct, err)
	}
	if server.Product != config.ProductVault {
		r.rep.Snapshot.Product = server.Product.String()
	}
	r.rep.RPOSeconds = r.rep.StartedAt.Sub(m.TakenAt).Seconds()
	checked, err := restore.Fetch(ctx, choice, r.Identities, workDir(r.place()))
	if err != nil {
		return m, nil, err
	}
	if checked.Archive.Index != m.RaftIndex || checked.Archive.Term != m.RaftTerm {
		return m, nil, errors.Join(fmt.Errorf("%w: the archive has raft index %d, term %d; the manifest says %d, %d", snapshot.ErrMismatch,
			checked.Archive.Index, checked.Archive.Term, m.RaftIndex, m.RaftTerm), checked.Close())
	}
	r.check("snapshot", report.Pass, "", "%d bytes, decrypted, every sum as in its manifest", m.Snapshot.Size)
	switch {
	case r.fetched.Others != "":
		r.check("places", report.Note, "look at that place: strongroom snapshot list", "another copy could not be used: %s", r.fetched.Others)
	case choice.VerifiedAt.IsZero():
		r.check("places", report.Note, "see that strongroom-verify runs", "it came from %s and was not verified there before; it has been checked now", r.fetched.From)
	}
	return m, checked, nil
}

// start brings up the scratch Vault and proves that it reaches nothing.
func (r *run) start(ctx context.Context) error {
	r.Step("start a Vault of its own, without a network")
	if r.Isolated {
		// What it starts is as cut off as it is itself.
		reach, err := isolate.Look(os.Getpid())
		if err := errors.Join(err, reach.Err()); err != nil {
			return err
		}
	}
	dir := filepath.Join(workDir(r.place()), "vault")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("folder for the scratch Vault: %w", err)
	}
	o := scratch.Options{Dir: dir, Programs: r.Programs, Keyset: r.Keyset, PluginDir: r.PluginDir, FrontAddress: "127.0.0.1:8200"}
	if !r.Isolated {
		o.Wrap = isolate.CommandWith(r.Programs.Strongroom, isolate.Options{Hide: r.Hide, Keep: []string{dir}}, r.Programs.Vault)
	}
	if r.Rehearse != nil && r.Rehearse.Plugin != "" {
		var err error
		if o.PluginFiles, err = r.Rehearse.pluginFiles(r.PluginDir); err != nil {
			return err
		}
		o.PluginDir = ""
	}
	ctx, cancel := context.WithTimeout(ctx, r.Patience)
	defer cancel()
	var err error
	if r.vault, err = scratch.Start(ctx, r.set, o); err != nil {
		return err
	}
	if err := r.isolated(); err != nil {
		return err
	}
	if r.client, err = r.vault.Local(); err != nil {
		return err
	}
	init, err := r.client.Init(ctx, vaultapi.InitRequest{RecoveryShares: 1, RecoveryThreshold: 1})
	if err != nil {
		return err
	}
	r.client.SetToken(init.RootToken)
	if err := r.vault.WaitActive(ctx); err != nil {
		return err
	}
	r.check("isolation", report.Pass, "", "the scratch Vault has no route but its own loopback and sees no database's socket")
	return nil
}

// isolated proves that Vault's process is cut off. Nothing is restored into one
// that is not.
func (r *run) isolated() error {
	reach, err := isolate.Look(r.vault.Process.PID())
	if err != nil {
		return err
	}
	return reach.Err()
}

// checkKey compares the master key in force with the one in the escrow.
func (r *run) checkKey() {
	r.rep.MasterKey = r.Keyset.Fingerprint()
	switch r.EscrowKey {
	case "":
		r.check("master key", report.Note, "see strongroom escrow --help", "%s; no fingerprint was recorded with its escrow, so nothing says that the escrow holds it", r.rep.MasterKey)
	case r.rep.MasterKey:
		r.check("master key", report.Pass, "", "%s, the one recorded with the escrow", r.rep.MasterKey)
	default:
		r.check("master key", report.Fail, "write the escrow again (strongroom kms export) and confirm it: without it nobody can restore elsewhere",
			"%s is in force, the escrow holds %s", r.rep.MasterKey, r.EscrowKey)
	}
}
