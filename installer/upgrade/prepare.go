package upgrade

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/base/fault"
	"strongroom.example/config"
	"strongroom.example/config/machine"
	"strongroom.example/installer/host"
)

// ready refuses to upgrade a machine that is not well, or with a token that
// would not do.
func (u *Upgrade) ready(ctx context.Context) error {
	wait, cancel := context.WithTimeout(ctx, u.Patience)
	defer cancel()
	if err := u.Vault.WaitActive(wait); err != nil {
		return &fault.Error{Code: fault.Operator, Err: err, Hint: "an upgrade begins on a machine that is well: see strongroom doctor, or run strongroom-installer install; nothing has been changed"}
	}
	if err := u.Vault.MayUpgrade(ctx); err != nil {
		return &fault.Error{Code: fault.Operator, Err: err, Hint: "log in as an administrator and give the token in VAULT_TOKEN or by --token-file; nothing has been changed"}
	}
	return nil
}

// well refuses to upgrade a machine that would not pass as healthy after a
// rollback either: its fault is not the upgrade's to mend, nor to be taken for
// one that the upgrade has made.
func (u *Upgrade) well(ctx context.Context, from Versions) error {
	fenced, err := u.Vault.Status(ctx)
	if err == nil {
		u.rec = &Record{From: from, Fenced: fenced}
		err = u.healthy(ctx, from)
		u.rec = nil
	}
	if err != nil {
		return &fault.Error{Code: fault.Operator, Err: fmt.Errorf("the machine is not well as it is: %w", err),
			Hint: "see strongroom doctor, or run strongroom-installer install; nothing has been changed"}
	}
	return nil
}

// prepare does all that leaves the machine as it is.
func (u *Upgrade) prepare(ctx context.Context) error {
	p, err := u.stage(ctx)
	if err != nil {
		return err
	}
	if err := u.at(Snapshot); err != nil {
		return err
	}
	if err := u.timed("snapshot of what is there", func() error { return u.snapshot(ctx) }); err != nil {
		return err
	}
	if err := u.at(Rehearsal); err != nil {
		return err
	}
	if err := u.rehearse(ctx, p); err != nil {
		return err
	}
	if err := u.at(Keeping); err != nil {
		return err
	}
	return u.timed("what will be replaced is kept", func() error {
		if err := u.remember(ctx); err != nil {
			return err
		}
		return u.keep()
	})
}

// stage puts the new programs beside the old ones.
func (u *Upgrade) stage(ctx context.Context) (Programs, error) {
	h := u.Env.Host
	var p Programs
	if err := mkdirs(h, Dir); err != nil {
		return p, err
	}
	if err := u.at(Staging); err != nil {
		return p, err
	}
	// What an upgrade before this one has left.
	for _, old := range []string{stagedDir, storageDir, snapshotFile, SealedDir, rehearsalDir} {
		if err := h.RemoveAll(old); err != nil {
			return p, err
		}
	}
	if err := h.Mkdir(stagedDir, host.Attr{Mode: 0o755}); err != nil {
		return p, err
	}
	var err error
	if u.rec.FromFormat, err = u.storageFormat(ctx, u.rec.From.Plugin); err != nil {
		return p, err
	}
	p = Programs{
		Strongroom: path.Join(stagedDir, machine.ProgramName),
		Plugin:     path.Join(machine.PluginDir, machine.PluginFile(u.Env.Version)),
		Vault:      machine.VaultProgram,
	}
	for name, to := range map[string]string{machine.ProgramName: p.Strongroom, machine.PluginName: p.Plugin} {
		if err := u.install(name, to); err != nil {
			return p, err
		}
	}
	if u.rec.ToFormat, err = u.storageFormat(ctx, u.rec.To.Plugin); err != nil {
		return p, err
	}
	if _, _, vault := u.rec.changes(); vault {
		p.Vault = stagedVault
		if err := copyFile(h, u.Env.VaultBinary, stagedVault, host.Attr{Mode: 0o755}); err != nil {
			return p, err
		}
	}
	return p, nil
}

// storageFormat asks a version of the plugin how it writes the engine's storage. 0.1
// does not know the question.
func (u *Upgrade) storageFormat(ctx context.Context, version string) (int, error) {
	file := path.Join(machine.PluginDir, machine.PluginFile(strings.TrimPrefix(version, "v")))
	out, err := u.Env.Host.Run(ctx, host.Command{Args: []string{file, "--storage-format"}})
	var refused *host.ExitError
	if err != nil && !errors.As(err, &refused) {
		return 0, fmt.Errorf("ask plugin %s for its storage format: %w", version, err)
	}
	if n, err := strconv.Atoi(strings.TrimSpace(string(out.Stdout))); err == nil {
		return n, nil
	}
	return 1, nil
}

const stagedVault = stagedDir + "/vault"

// install writes a program of the payload, where it isn't there already.
func (u *Upgrade) install(name, to string) error {
	p, err := u.Env.Payload.Program(name)
	if err != nil {
		return err
	}
	got, err := u.Env.Host.Sum(to)
	if err == nil && got == p.SHA256 {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	r, err := p.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	return u.Env.Host.Write(to, r, host.Attr{Mode: 0o755})
}

// snapshot takes one from Vault, for the way back and the rehearsal, and sees
// to one that the operator can open.
func (u *Upgrade) snapshot(ctx context.Context) error {
	h := u.Env.Host
	if err := u.Mark(ctx); err != nil {
		return err
	}
	if err := u.writeSnapshot(ctx); err != nil {
		return err
	}
	info, err := u.Vault.Info(ctx)
	if err != nil {
		return err
	}
	if err := u.Seal(ctx, snapshotFile, info); err != nil {
		return err
	}
	if len(u.Env.Config.Backup.To) == 0 {
		return nil
	}
	unit, err := h.Unit(ctx, machine.UnitSnapshot)
	if err != nil || unit.Load != "loaded" {
		return err
	}
	return u.backUp(ctx)
}

// writeSnapshot has Vault write its data to snapshotFile.
func (u *Upgrade) writeSnapshot(ctx context.Context) error {
	h := u.Env.Host
	// Vault's archive is encrypted by its barrier, as its storage beside it on
	// this disk is: it gives nobody more than that.
	reading, stop := context.WithCancel(ctx)
	pr, pw := io.Pipe()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		pw.CloseWithError(u.Vault.Snapshot(reading, pw))
	}()
	err := func() error {
		defer func() { // also when the writing never returns
			pr.CloseWithError(errors.New("the snapshot could not be written"))
			stop()
			<-ended
		}()
		return h.Write(snapshotFile, pr, host.Attr{Mode: 0o600})
	}()
	if err != nil {
		return err
	}
	f, err := h.Open(snapshotFile)
	if err != nil {
		return err
	}
	defer f.Close()
	a, err := snapshot.CheckArchive(f)
	if err != nil {
		return err
	}
	u.rec.RaftIndex = a.Index
	return nil
}

// backUp has the appliance's own jobs take a snapshot and read it back.
func (u *Upgrade) backUp(ctx context.Context) error {
	for _, name := range []string{machine.UnitSnapshot, machine.UnitVerify} {
		if err := u.Env.Host.Start(ctx, name); err != nil {
			return &fault.Error{Code: fault.Operator, Err: fmt.Errorf("a backup before the upgrade: %w", err),
				Hint: "see journalctl -u " + name + "; nothing has been changed"}
		}
	}
	return nil
}

// rehearse starts the new programs on a copy of Vault's data.
func (u *Upgrade) rehearse(ctx context.Context, p Programs) error {
	if u.SkipRehearsal != "" {
		u.rec.Rehearsed = "skipped: " + u.SkipRehearsal
		u.say("- %s", "rehearsal skipped: "+u.SkipRehearsal)
		return nil
	}
	err := u.timed("rehearsal of the new programs on a copy", func() error { return u.Rehearse(ctx, u.rec, p) })
	if err != nil {
		return fmt.Errorf("the rehearsal: %w", err)
	}
	u.rec.Rehearsed = "passed"
	return nil
}

// remember notes what Vault's own settings are.
func (u *Upgrade) remember(ctx context.Context) error {
	var err error
	if u.rec.MaxWait, err = u.Vault.MaxWait(ctx); err != nil {
		return err
	}
	if u.rec.Fenced, err = u.Vault.Status(ctx); err != nil {
		return err
	}
	u.rec.Policies, u.rec.Roles = map[string]string{}, map[string]map[string]any{}
	for name := range config.Policies() {
		role, err := u.Vault.Role(ctx, name)
		if err != nil {
			return err
		}
		if role != nil {
			u.rec.Roles[name] = role
		}
		text, err := u.Vault.Policy(ctx, name)
		if err != nil {
			return err
		}
		if strings.TrimSpace(text) != "" {
			u.rec.Policies[name] = text
		}
	}
	return u.rememberUnits(ctx)
}

// rememberUnits notes which of the appliance's units are there, and in which state.
func (u *Upgrade) rememberUnits(ctx context.Context) error {
	names, err := u.Env.Host.ReadDir(machine.UnitDir)
	if err != nil {
		return err
	}
	u.rec.Units = nil
	for _, n := range names {
		if !machine.IsUnit(n) || strings.Contains(n, "@.") || path.Ext(n) == ".d" {
			continue
		}
		unit, err := u.Env.Host.Unit(ctx, n)
		if err != nil {
			return err
		}
		u.rec.Units = append(u.rec.Units, KeptUnit{n, unit.Enabled, unit.Active})
	}
	return nil
}
