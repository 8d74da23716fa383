package upgrade

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/base/fault"
	"strongroom.example/config"
	"strongroom.example/config/machine"
	"strongroom.example/installer/engine"
	"strongroom.example/installer/host"
	"strongroom.example/installer/steps"
)

// Upgrade is one upgrade of one machine.
type Upgrade struct {
	// Env is the new installer's: its payload, version and configuration. Its
	// VaultBinary is the new Vault, empty to keep the one that is there.
	Env *steps.Env
	// Vault is the machine's, with an administrator's token: Env's AdminToken. A
	// rollback begins without one, and says when it needs it.
	Vault Vault
	// Front returns nil once the front answers for Vault over HTTPS.
	Front func(ctx context.Context) error
	// Mark writes into Vault what the rehearsal must find in the copy.
	Mark func(ctx context.Context) error
	// Seal encrypts a raft snapshot, a file of Vault's own archive, into
	// SealedDir: to the operator, and to the rehearsal's key.
	Seal func(ctx context.Context, file string, of snapshot.VaultInfo) error
	// Rehearse starts the new programs on a copy.
	Rehearse func(ctx context.Context, r *Record, p Programs) error
	// SkipRehearsal is why there is to be none; empty: there is one.
	SkipRehearsal string
	// Ask returns nil to go on, after the plan has been shown.
	Ask func(ctx context.Context) error
	// Steps are the installer's.
	Steps func(*steps.Env) []engine.Step
	// Patience is how long what was started may take to be healthy.
	Patience time.Duration
	// Poll is the pause between two looks at it, by Sleep.
	Poll  time.Duration
	Sleep func(ctx context.Context, d time.Duration) error
	Out   io.Writer

	rec *Record
}

// Programs are files on this machine.
type Programs struct {
	Strongroom, Plugin, Vault string
}

// untouchedHint ends every failure before the first change.
const untouchedHint = "nothing has been changed; remove the cause and run the same command again"

// Run upgrades, or ends what a killed run has begun. It returns nil when the
// machine runs the new versions and is healthy, or ran them already.
func (u *Upgrade) Run(ctx context.Context) error {
	rec, err := Load(u.Env.Host, RecordPath)
	if err != nil {
		return err
	}
	if rec != nil && !rec.Phase.untouched() {
		return u.resume(ctx, rec)
	}
	if rec != nil {
		u.say("An earlier upgrade was stopped before it had changed anything: beginning anew.")
	}
	if err := u.ready(ctx); err != nil {
		return err
	}
	p, err := u.Plan(ctx)
	if err != nil || !p.Differs {
		return err
	}
	if err := u.well(ctx, p.From); err != nil {
		return err
	}
	if err := u.room(p); err != nil {
		return err
	}
	if err := u.Ask(ctx); err != nil {
		return &fault.Error{Code: fault.Operator, Err: err, Hint: "nothing has been changed"}
	}
	u.rec = &Record{Format: recordFormat, Started: u.Env.Host.Now().UTC(), From: p.From, To: p.To}
	if err := u.prepare(ctx); err != nil {
		return keepCode(err, untouchedHint)
	}
	return u.forwardOrBack(ctx)
}

// resume goes on where a killed run was.
func (u *Upgrade) resume(ctx context.Context, rec *Record) error {
	u.rec = rec
	if rec.Phase == Settling {
		u.say("The upgrade of %s was stopped at its very end: finishing it.", rec.Started.Format(time.DateTime))
		return u.settle(ctx)
	}
	if rec.Phase == RollingBack {
		u.say("The upgrade of %s was being rolled back: going on with that.", rec.Started.Format(time.DateTime))
		return u.back(ctx, errors.New(rec.Why))
	}
	to, err := u.target(ctx)
	if err != nil {
		return err
	}
	if to != rec.To {
		u.say("An upgrade of %s by another installer is unfinished: rolling it back first.", rec.Started.Format(time.DateTime))
		return u.back(ctx, errors.New("it was unfinished, and another one was begun"))
	}
	u.say("The upgrade of %s was stopped while %s: going on.", rec.Started.Format(time.DateTime), rec.Phase)
	return u.forwardOrBack(ctx)
}

// NeedsToken says whether Run begins with what only an administrator's token can
// do. It doesn't where it goes on with a rollback: there may be no Vault that
// gives one.
func NeedsToken(h *host.Host) (bool, error) {
	rec, err := Load(h, RecordPath)
	return rec == nil || rec.Phase != RollingBack, err
}

// RollBack takes an unfinished upgrade back.
func (u *Upgrade) RollBack(ctx context.Context) error {
	rec, err := Load(u.Env.Host, RecordPath)
	if err != nil {
		return err
	}
	if rec == nil || rec.Phase.untouched() {
		u.say("There is no unfinished upgrade that has changed anything.")
		return nil
	}
	u.rec = rec
	if rec.Phase == Settling {
		if u.Env.AdminToken == "" {
			return tokenNeeded("the upgrade had ended well when it was stopped, and what is left to do is inside Vault")
		}
		u.say("The upgrade had ended well when it was stopped: finishing it.")
		return u.settle(ctx)
	}
	if err := u.back(ctx, errors.New("the operator wanted it back")); !errors.Is(err, ErrRolledBack) {
		return err
	}
	return nil
}

// forwardOrBack makes the changes; whatever keeps them from ending well has
// them taken back.
func (u *Upgrade) forwardOrBack(ctx context.Context) error {
	err := u.forward(ctx)
	if err == nil {
		return u.settle(ctx)
	}
	u.say("✗ %v", err)
	return u.back(ctx, err)
}

// ErrRolledBack is in the error of an upgrade that has taken itself back.
var ErrRolledBack = errors.New("the upgrade has been rolled back")

// at records that a phase begins.
func (u *Upgrade) at(p Phase) error {
	u.rec.Phase = p
	return u.rec.save(u.Env.Host, RecordPath)
}

func (u *Upgrade) say(format string, args ...any) { fmt.Fprintf(u.Out, format+"\n", args...) }

// timed does one stage and prints its line.
func (u *Upgrade) timed(what string, do func() error) error {
	start := u.Env.Host.Now()
	err := do()
	mark := "✓"
	if err != nil {
		mark = "✗"
	}
	u.say("%s %-54s %6.2fs", mark, what, u.Env.Host.Now().Sub(start).Seconds())
	return err
}

// keepCode adds a hint to an error that has none.
func keepCode(err error, hint string) error {
	var e *fault.Error
	if errors.As(err, &e) {
		return err
	}
	return &fault.Error{Code: fault.Failed, Err: err, Hint: hint}
}

// changes says which of the programs the upgrade replaces.
func (r *Record) changes() (strongroom, plugin, vault bool) {
	return r.From.StrongroomSHA256 != r.To.StrongroomSHA256,
		r.From.Plugin != r.To.Plugin || r.From.PluginSHA256 != r.To.PluginSHA256,
		r.From.VaultSHA256 != r.To.VaultSHA256
}

// target are the versions that the machine is to run.
func (u *Upgrade) target(ctx context.Context) (Versions, error) {
	var v Versions
	for name, sum := range map[string]*string{machine.ProgramName: &v.StrongroomSHA256, machine.PluginName: &v.PluginSHA256} {
		p, err := u.Env.Payload.Program(name)
		if err != nil {
			return v, &fault.Error{Code: fault.Failed, Err: err, Hint: "build the installer with: make build"}
		}
		*sum = p.SHA256
	}
	v.Strongroom, v.Plugin = u.Env.Version, "v"+u.Env.Version
	file := u.Env.VaultBinary
	if file == "" {
		file = machine.VaultProgram
		if u.rec != nil {
			// What is installed may be the new one already, and the flag
			// forgotten.
			v.Vault, v.VaultSHA256 = u.rec.To.Vault, u.rec.To.VaultSHA256
			return v, nil
		}
	}
	var server config.Server
	var err error
	if file == machine.VaultProgram {
		server, err = steps.ServerOf(ctx, u.Env.Host, u.Env.Config.Vault.Product, file)
	} else {
		server, err = steps.GivenServer(ctx, u.Env.Host, u.Env.Config.Vault, file, u.Env.VaultSHA256)
	}
	if err != nil {
		return v, err
	}
	v.Vault = server.Version
	v.VaultSHA256, err = u.Env.Host.Sum(file)
	return v, err
}
