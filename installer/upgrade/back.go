package upgrade

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"syscall"

	"strongroom.example/appliance/backup/restore"
	"strongroom.example/appliance/base/fault"
	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/config/machine"
	"strongroom.example/installer/host"
)

// back puts everything back as it was. Each of its parts may be done again. An
// interrupt ends the upgrade, not its rollback.
func (u *Upgrade) back(ctx context.Context, why error) error {
	ctx = context.WithoutCancel(ctx)
	u.rec.Why = why.Error()
	if u.rec.Phase != RollingBack {
		// Storage is put back if a new Vault may have touched it, which it may
		// not have before its program was in place.
		now, err := u.Env.Host.Sum(machine.VaultProgram)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return u.stuck(why, err)
		}
		u.rec.StorageWanted = u.rec.StorageKept && now != u.rec.From.VaultSHA256
		u.rec.SnapshotWanted = u.rec.Switched && u.otherFormat() && !u.rec.StorageWanted
	}
	if err := u.at(RollingBack); err != nil {
		return u.stuck(why, err)
	}
	u.say("Rolling back.")
	for _, s := range []stage{
		{"", "programs, configuration and units of before", u.filesBack},
		{"", "Vault runs as before", u.vaultBack},
		{"", "health", u.wellAgain},
	} {
		if err := u.timed(s.what, func() error { return s.do(ctx) }); err != nil {
			return u.stuck(why, err)
		}
	}
	if err := u.end(ctx, u.Env.Host, RolledBack); err != nil {
		return u.stuck(why, err)
	}
	return &fault.Error{Code: fault.Failed, Err: fmt.Errorf("%w: %w", ErrRolledBack, why),
		Hint: "the machine runs the versions of before and is healthy"}
}

func (u *Upgrade) stuck(why, err error) error {
	if errors.Is(err, errNoToken) {
		return tokenNeeded("the old Vault runs again, and the rest of the rollback is inside it")
	}
	return &fault.Error{Code: fault.Operator, Err: fmt.Errorf("the upgrade failed (%w), and it could not be rolled back: %w", why, err),
		Hint: "remove the cause and run: strongroom-installer upgrade --rollback. What was there before is in " + Dir}
}

var errNoToken = errors.New("an administrator's token is needed")

// tokenNeeded ends a run that was begun without a token, since there may have
// been no Vault to give one.
func tokenNeeded(why string) error {
	return &fault.Error{Code: fault.Operator, Err: fmt.Errorf("%w: %s", errNoToken, why),
		Hint: "log in (vault login -method=userpass username=admin) and run: strongroom-installer upgrade --rollback --token-file FILE"}
}

// filesBack restores files and, where need be, Vault's storage. No daemon is
// started with one of them old and the other new, unless the machine is booted
// in between; then the storage is put back by the next run.
func (u *Upgrade) filesBack(ctx context.Context) error {
	h := u.Env.Host
	if u.rec.StorageWanted && !u.rec.StorageBack {
		if err := h.Stop(ctx, machine.UnitVault); err != nil {
			return err
		}
	}
	changed, err := u.putBack(ctx)
	if err != nil {
		return err
	}
	if err := u.systemBack(ctx, changed); err != nil {
		return err
	}
	if err := h.ReloadUnits(ctx); err != nil {
		return err
	}
	if err := u.formerBack(ctx); err != nil {
		return err
	}
	if err := u.unitsBack(ctx); err != nil {
		return err
	}
	if u.rec.StorageWanted && !u.rec.StorageBack {
		if err := u.storageBack(ctx); err != nil {
			return err
		}
	}
	if !u.Env.Config.Firewall.Manage {
		return nil
	}
	if _, err := h.Stat(machine.NftablesConf); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	_, err = h.Run(ctx, host.Command{Args: []string{"nft", "-f", machine.NftablesConf}})
	return err
}

// systemBack has the machine as a whole go by the files of before. What it does not take
// back at once, it goes by after the next boot.
func (u *Upgrade) systemBack(ctx context.Context, changed []string) error {
	h := u.Env.Host
	for _, f := range changed {
		if _, err := h.Stat(f); errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return err
		}
		if f != machine.SysctlFile {
			continue
		}
		var refused *host.ExitError // a container's kernel is its host's
		if _, err := h.Run(ctx, host.Command{Args: []string{"sysctl", "-q", "-e", "-p", f}}); err != nil && !errors.As(err, &refused) && !errors.Is(err, host.ErrNotFound) {
			return err
		}
	}
	return nil
}

// unitsBack has the units enabled and, but for services, active as they were.
func (u *Upgrade) unitsBack(ctx context.Context) error {
	h := u.Env.Host
	for _, k := range u.rec.Units {
		now, err := h.Unit(ctx, k.Name)
		if err != nil {
			return err
		}
		switch {
		case k.Enabled == "enabled" && now.Enabled != "enabled":
			err = h.Enable(ctx, k.Name)
		case k.Enabled != "enabled" && now.Enabled == "enabled":
			err = h.Disable(ctx, k.Name)
		}
		if err != nil {
			return err
		}
		if path.Ext(k.Name) == ".service" {
			continue // those that stay up are seen to next; jobs come by themselves
		}
		switch {
		case k.Active == "active" && now.Active != "active":
			err = h.Start(ctx, k.Name)
		case k.Active != "active" && now.Active == "active":
			err = h.Stop(ctx, k.Name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// formerBack has those units started at boot again that the new version had taken
// away; the old daemons, which are started next, require them.
func (u *Upgrade) formerBack(ctx context.Context) error {
	for _, name := range machine.FormerUnits() {
		if _, err := u.Env.Host.Stat(path.Join(machine.UnitDir, name)); errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return err
		}
		if err := u.Env.Host.Enable(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// storageBack replaces Vault's storage, while Vault is stopped, by the copy.
func (u *Upgrade) storageBack(ctx context.Context) error {
	h := u.Env.Host
	aside := machine.RaftDir + ".back"
	if err := u.copyTree(ctx, storageDir, aside); err != nil {
		return err
	}
	// A machine that is booted in between has an empty folder here and the
	// record still says what is to be done.
	err := h.RemoveAll(machine.RaftDir)
	switch {
	case errors.Is(err, syscall.EBUSY):
		// A disk of its own is emptied by that, and takes the files one by one.
		if err := u.copyInto(ctx, aside, machine.RaftDir); err != nil {
			return err
		}
		if err := h.RemoveAll(aside); err != nil {
			return err
		}
	case err != nil:
		return err
	default:
		if err := h.Rename(aside, machine.RaftDir); err != nil {
			return fmt.Errorf("put Vault's storage back: %w", err)
		}
	}
	// The engine may have acted at a provider since the copy was taken.
	if err := raiseEpoch(h); err != nil {
		return err
	}
	u.rec.StorageBack = true
	return u.rec.save(h, RecordPath)
}

// raiseEpoch has the engine compare its keys with their providers before it
// acts again.
func raiseEpoch(h *host.Host) error {
	b, err := h.ReadFile(machine.EpochFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	info, err := h.Stat(machine.EpochFile)
	if err != nil {
		return err
	}
	e, err := restore.ParseEpoch(b)
	if err != nil {
		return fmt.Errorf("epoch file %q: %w", machine.EpochFile, err)
	}
	if b, err = e.Next().Encode(); err != nil {
		return err
	}
	return h.Write(machine.EpochFile, bytes.NewReader(b), info.Attr)
}

// vaultBack starts the daemons with what is on disk now and sets Vault's own
// settings back.
func (u *Upgrade) vaultBack(ctx context.Context) error {
	if err := u.Env.RestartStale(ctx, core...); err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, u.Patience)
	defer cancel()
	if err := u.Vault.WaitActive(wait); err != nil {
		return err
	}
	if u.Env.AdminToken == "" {
		return errNoToken
	}
	if u.rec.SnapshotWanted && !u.rec.StorageBack {
		u.say("  the old plugin would misread what the new one has written: Vault's data is put back as it was when the new one began")
		return u.restoreSnapshot(ctx)
	}
	if _, plugin, _ := u.rec.changes(); plugin {
		if err := u.pluginBack(ctx); err != nil {
			return err
		}
	}
	for name, settings := range u.rec.Roles {
		now, err := u.Vault.Role(ctx, name)
		if err != nil {
			return err
		}
		if fmt.Sprint(now) != fmt.Sprint(settings) {
			if err := u.Vault.PutRole(ctx, name, settings); err != nil {
				return err
			}
		}
	}
	for name, text := range u.rec.Policies {
		now, err := u.Vault.Policy(ctx, name)
		if err != nil {
			return err
		}
		if now != text {
			if err := u.Vault.PutPolicy(ctx, name, text); err != nil {
				return err
			}
		}
	}
	return nil
}

func (u *Upgrade) pluginBack(ctx context.Context) error {
	registered, err := u.Vault.Registered(ctx)
	if err != nil {
		return err
	}
	if !slices.Contains(registered, u.rec.From.Plugin) {
		if err := u.Vault.Register(ctx, vaultapi.Plugin{Name: machine.PluginName, Version: u.rec.From.Plugin, SHA256: u.rec.From.PluginSHA256,
			Command: machine.PluginFile(strings.TrimPrefix(u.rec.From.Plugin, "v"))}); err != nil {
			return err
		}
	}
	if err := u.use(ctx, u.rec.From.Plugin); err != nil {
		return err
	}
	if u.rec.From.Plugin == u.rec.To.Plugin {
		return nil
	}
	if slices.Contains(registered, u.rec.To.Plugin) {
		if err := u.Vault.Deregister(ctx, u.rec.To.Plugin); err != nil {
			return err
		}
	}
	return u.Env.Host.Remove(path.Join(machine.PluginDir, machine.PluginFile(strings.TrimPrefix(u.rec.To.Plugin, "v"))))
}

// core are the daemons without which there is no service, in the order of their
// start.
var core = []string{machine.UnitKMS, machine.UnitVault, machine.UnitFront}

// wellAgain checks the machine with its old versions. An old plugin that can't
// read what the new one has written gets the snapshot of before; no other fault
// is worth what has been written since.
func (u *Upgrade) wellAgain(ctx context.Context) error {
	if err := u.unfence(ctx); err != nil {
		return err
	}
	err := u.healthy(ctx, u.rec.From)
	if err != nil && !u.rec.StorageBack && u.engineUnwell(ctx) {
		u.say("  not healthy (%v): the snapshot of before is put back", err)
		if err = errors.Join(err, u.restoreSnapshot(ctx)); u.rec.StorageBack {
			if err = u.unfence(ctx); err == nil {
				err = u.healthy(ctx, u.rec.From)
			}
		}
	}
	if err != nil {
		return err
	}
	return u.Vault.SetMaxWait(ctx, u.rec.MaxWait)
}

// engineUnwell says that Vault itself is well with its old version, and the
// engine in it is not.
func (u *Upgrade) engineUnwell(ctx context.Context) bool {
	return u.lookAtServer(ctx, u.rec.From) == nil && u.lookAtEngine(ctx, u.rec.From) != nil
}

// restoreSnapshot brings Vault's data of before back through Vault itself,
// which can open it: its master key is the same.
func (u *Upgrade) restoreSnapshot(ctx context.Context) error {
	h := u.Env.Host
	if err := raiseEpoch(h); err != nil {
		return err
	}
	f, err := h.Open(snapshotFile)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := u.Vault.Restore(ctx, f); err != nil {
		return err
	}
	u.rec.StorageBack = true
	if err := u.rec.save(h, RecordPath); err != nil {
		return err
	}
	if err := h.Restart(ctx, machine.UnitVault); err != nil {
		return err
	}
	return u.vaultBack(ctx)
}

// unfence reconciles an engine that is fenced only because its storage was put
// back.
func (u *Upgrade) unfence(ctx context.Context) error {
	if !u.rec.StorageBack || u.rec.Fenced {
		return nil
	}
	return u.Vault.Reconcile(ctx)
}
