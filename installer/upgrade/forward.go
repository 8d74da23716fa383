package upgrade

import (
	"context"
	"fmt"
	"slices"

	"strongroom.example/appliance/base/fault"
	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/config/machine"
	"strongroom.example/installer/engine"
	"strongroom.example/installer/host"
	"strongroom.example/installer/steps"
)

// stage is one part of the way forward. Each may be done again.
type stage struct {
	phase Phase
	what  string
	do    func(context.Context) error
}

// forward makes the changes, from the phase on that the record names.
func (u *Upgrade) forward(ctx context.Context) error {
	_, plugin, vault := u.rec.changes()
	stages := []stage{{Quiet, "waiting reads are ended", u.quiet}}
	if vault {
		stages = append(stages, stage{Storage, "Vault is stopped and its storage copied", u.keepStorage})
	}
	stages = append(stages, stage{Applying, "", u.apply})
	if plugin {
		stages = append(stages, stage{Switching, "the engine runs the new plugin", u.switchPlugin})
	}
	stages = append(stages, stage{Checking, "health", func(ctx context.Context) error { return u.healthy(ctx, u.rec.To) }})

	first, err := u.firstStage(stages)
	if err != nil {
		return err
	}
	for _, s := range stages[first:] {
		if err := ctx.Err(); err != nil {
			return err
		}
		// Commit point of the stage before: from here on it is not done again.
		if err := u.at(s.phase); err != nil {
			return err
		}
		do := func() error { return s.do(ctx) }
		if s.what != "" {
			err = u.timed(s.what, do)
		} else {
			err = do()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// firstStage is where a run begins: at the first one, or where a killed run
// was.
func (u *Upgrade) firstStage(stages []stage) (int, error) {
	i := max(0, slices.IndexFunc(stages, func(s stage) bool { return s.phase == u.rec.Phase }))
	if u.rec.Phase != Applying {
		return i, nil
	}
	// While the old Vault's program is in place, the old Vault may have been
	// started again, at a boot say, and have gone on writing.
	if _, _, vault := u.rec.changes(); vault {
		now, err := u.Env.Host.Sum(machine.VaultProgram)
		if err != nil {
			return 0, err
		}
		if now == u.rec.From.VaultSHA256 {
			return i - 1, nil
		}
	}
	return i, nil
}

// quiet ends the long polls: a waiting read holds locks that Vault needs for a
// reload, and every other read would wait behind it.
func (u *Upgrade) quiet(ctx context.Context) error { return u.Vault.SetMaxWait(ctx, 0) }

// keepStorage copies Vault's storage while nobody writes to it.
func (u *Upgrade) keepStorage(ctx context.Context) error {
	h := u.Env.Host
	if err := h.Stop(ctx, machine.UnitVault); err != nil {
		return err
	}
	if err := u.copyTree(ctx, machine.RaftDir, storageDir); err != nil {
		return err
	}
	u.rec.StorageKept = true
	return u.rec.save(h, RecordPath)
}

// copyTree makes to a durable copy of the folder from, with owners and modes.
func (u *Upgrade) copyTree(ctx context.Context, from, to string) error {
	if err := u.Env.Host.RemoveAll(to); err != nil {
		return err
	}
	return u.copyInto(ctx, from, to)
}

// copyInto is copyTree to where nothing is, or an empty folder.
func (u *Upgrade) copyInto(ctx context.Context, from, to string) error {
	h := u.Env.Host
	for _, args := range [][]string{
		{"cp", "--archive", "--reflink=auto", "--no-target-directory", from, to},
		{"sync", "--file-system", to},
	} {
		if _, err := h.Run(ctx, host.Command{Args: args}); err != nil {
			return fmt.Errorf("copy %q: %w", from, err)
		}
	}
	return nil
}

// apply runs the installer's steps.
func (u *Upgrade) apply(ctx context.Context) error {
	u.Env.VaultBinary = ""
	if _, _, vault := u.rec.changes(); vault {
		u.Env.VaultBinary = stagedVault
	}
	u.Env.Config.Vault.Version, u.Env.Upgrading = u.rec.To.Vault, true
	e := engine.Engine{Steps: u.Steps(u.Env), Out: u.Out, Journal: u.Env.Journal, Now: u.Env.Host.Now}
	_, err := e.Install(ctx)
	return err
}

// switchPlugin pins the mount to the new version and reloads it. The old one's
// file and catalog entry stay, so no checksum is ever another than expected.
func (u *Upgrade) switchPlugin(ctx context.Context) error {
	if err := u.Vault.Register(ctx, vaultapi.Plugin{
		Name: machine.PluginName, Command: machine.PluginFile(u.Env.Version), Version: u.rec.To.Plugin, SHA256: u.rec.To.PluginSHA256,
	}); err != nil {
		return err
	}
	if !u.rec.Switched {
		// The old plugin would misread what the new one writes: what is written until
		// now comes back with it.
		if u.otherFormat() && !u.rec.StorageKept {
			if err := u.writeSnapshot(ctx); err != nil {
				return err
			}
		}
		u.rec.Switched = true
		if err := u.rec.save(u.Env.Host, RecordPath); err != nil {
			return err
		}
	}
	return u.use(ctx, u.rec.To.Plugin)
}

// otherFormat says that the old plugin and the new one write the engine's storage in
// different ways.
func (u *Upgrade) otherFormat() bool { return u.rec.FromFormat != u.rec.ToFormat }

// use has the mount run a version.
func (u *Upgrade) use(ctx context.Context, version string) error {
	pinned, running, err := u.Vault.Mounted(ctx)
	if err != nil {
		return err
	}
	if pinned == version && running == version {
		return nil
	}
	if pinned != version {
		if err := u.Vault.Pin(ctx, version); err != nil {
			return err
		}
	}
	return u.Vault.Reload(ctx)
}

// settle ends an upgrade that is healthy: its commit point is its first line. An
// interrupt comes too late.
func (u *Upgrade) settle(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	h := u.Env.Host
	if err := u.at(Settling); err != nil {
		return err
	}
	err := func() error {
		if err := u.Vault.SetMaxWait(ctx, u.rec.MaxWait); err != nil {
			return err
		}
		if err := u.tidyPlugins(ctx); err != nil {
			return err
		}
		return u.tidy(ctx)
	}()
	if err != nil {
		return &fault.Error{Code: fault.Failed, Err: fmt.Errorf("the new versions run and are healthy, but: %w", err),
			Hint: "run the same command again to finish"}
	}
	if err := u.end(ctx, h, Upgraded); err != nil {
		return err
	}
	u.say("Done: strongroom %s, plugin %s, Vault %s. What was replaced is kept in %s until the next upgrade.",
		u.rec.To.Strongroom, u.rec.To.Plugin, u.rec.To.Vault, keptDir)
	return nil
}

// tidy takes away what the new version and its configuration do not want any more.
func (u *Upgrade) tidy(ctx context.Context) error {
	u.Env.VaultBinary, u.Env.Upgrading = "", false
	u.Env.Config.Vault.Version = u.rec.To.Vault
	e := engine.Engine{Steps: u.Steps(u.Env), Out: u.Out, Now: u.Env.Host.Now}
	return e.Only(ctx, steps.Tidy()...)
}

// end removes what was needed on the way and closes the record.
func (u *Upgrade) end(ctx context.Context, h *host.Host, outcome string) error {
	for _, p := range []string{storageDir, stagedDir} {
		if err := h.RemoveAll(p); err != nil {
			return err
		}
	}
	u.rec.Ended, u.rec.Outcome = h.Now().UTC(), outcome
	if err := u.rec.save(h, LastPath); err != nil {
		return err
	}
	// Commit point: without it, nothing is unfinished.
	if err := h.Remove(RecordPath); err != nil {
		return err
	}
	return steps.Ended(ctx, h)
}
