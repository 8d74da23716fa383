package drill

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"strongroom.example/appliance/backup/drill/report"
	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/config/machine"
)

// Rehearsal is an upgrade to try on the restored Vault.
type Rehearsal struct {
	// Vault is the new program; empty to keep the one that restored.
	Vault string
	// Plugin is the new plugin's program; empty to keep the mounts as they are.
	Plugin string
	// PluginVersion is the plugin's own, as it tells Vault.
	PluginVersion string
	// Token may register the plugin and move the mounts; only with Plugin. It
	// must be in the snapshot, so a snapshot is taken after it was made.
	Token string
}

// newPluginFile is the new plugin's file in the scratch Vault.
func (h *Rehearsal) newPluginFile() string {
	return machine.PluginName + "-rehearsal-" + strings.TrimPrefix(h.PluginVersion, "v")
}

// pluginFiles are all of the machine's plugins and the new one: versions stand
// side by side.
func (h *Rehearsal) pluginFiles(machine string) (map[string]string, error) {
	entries, err := os.ReadDir(machine)
	if err != nil {
		return nil, fmt.Errorf("plugin folder: %w", err)
	}
	files := map[string]string{}
	for _, e := range entries {
		if e.Type().IsRegular() {
			files[e.Name()] = filepath.Join(machine, e.Name())
		}
	}
	files[h.newPluginFile()] = h.Plugin
	return files, nil
}

// rehearse does to the restored Vault what the upgrade would do to the live one.
func (r *run) rehearse(ctx context.Context, m snapshot.Manifest) error {
	before, err := r.engineState(ctx)
	if err != nil {
		return err
	}
	if r.Rehearse.Vault != "" {
		if err := r.newVault(ctx, m, before); err != nil {
			return err
		}
	}
	if r.Rehearse.Plugin == "" {
		return nil
	}
	return r.newPlugin(ctx, before)
}

func (r *run) newVault(ctx context.Context, m snapshot.Manifest, before *engineState) error {
	r.Step("start the new Vault on the same storage")
	wait, cancel := context.WithTimeout(ctx, r.Patience)
	defer cancel()
	if err := r.vault.SwapVault(wait, r.Rehearse.Vault); err != nil {
		return fmt.Errorf("start the new Vault: %w", err)
	}
	if err := r.isolated(); err != nil {
		return err
	}
	var err error
	if r.client, err = r.vault.Local(); err != nil {
		return err
	}
	if err := r.vault.WaitActive(wait); err != nil {
		return fmt.Errorf("the new Vault: %w", err)
	}
	h, err := r.client.Health(ctx)
	if err != nil {
		return err
	}
	r.rep.Programs.NewVault = h.Version
	r.check("new vault", report.Pass, "", "%s opens the storage of %s and is active", h.Server(), r.rep.Programs.Vault)
	r.Step("log in to the new Vault and look")
	if err := r.login(ctx); err != nil {
		return err
	}
	r.canary(ctx, m)
	return r.engineAgain(ctx, "new vault's engine", before)
}

// engineAgain sees that the engine reads what it read before, and holds still.
func (r *run) engineAgain(ctx context.Context, name string, before *engineState) error {
	after, err := r.engineState(ctx)
	if err != nil {
		r.check(name, report.Fail, "", "%s", oneLine(err))
		return nil
	}
	if !slices.Equal(before.keys, after.keys) || !maps.Equal(before.current, after.current) {
		r.check(name, report.Fail, "", "it had %d keys before and has %d now, or other current versions", len(before.keys), len(after.keys))
		return nil
	}
	r.judgeEngine(name, after)
	return nil
}

// newPlugin registers the new plugin beside the old one and moves every mount of
// its kind to it.
func (r *run) newPlugin(ctx context.Context, before *engineState) error {
	r.Step("register the new plugin and move its mounts")
	admin, err := r.admin(ctx)
	if err != nil {
		return err
	}
	sum, err := vaultapi.SHA256File(r.Rehearse.Plugin)
	if err != nil {
		return err
	}
	p := vaultapi.Plugin{
		Name: machine.PluginName, Command: r.Rehearse.newPluginFile(),
		Version: "v" + strings.TrimPrefix(r.Rehearse.PluginVersion, "v"), SHA256: sum,
	}
	r.rep.Programs.NewPlugin = p.Version
	if err := admin.RegisterPlugin(ctx, p); err != nil {
		return err
	}
	mounts, err := admin.Mounts(ctx)
	if err != nil {
		return fmt.Errorf("list mounts: %w", err)
	}
	var moved []string
	for path, m := range mounts {
		if m.Type == p.Name {
			moved = append(moved, path)
		}
	}
	slices.Sort(moved)
	for _, path := range moved {
		if err := move(ctx, admin, path, p); err != nil {
			return err
		}
	}
	if mounts, err = admin.Mounts(ctx); err != nil {
		return fmt.Errorf("list mounts: %w", err)
	}
	for _, path := range moved {
		if got := mounts[path].RunningVersion; got != p.Version {
			r.check("new plugin", report.Fail, "", "%s runs version %q, not %q", path, got, p.Version)
			return nil
		}
	}
	r.check("new plugin", report.Pass, "", "version %s stands beside the old one and runs at %s", p.Version, strings.Join(moved, " "))
	r.Step("look at the moved mounts")
	return r.engineAgain(ctx, "new plugin's engine", before)
}

// move tunes a mount to the plugin's version and loads it.
func move(ctx context.Context, c *vaultapi.Client, path string, p vaultapi.Plugin) error {
	if err := c.TunePlugin(ctx, path, p.Version); err != nil {
		return fmt.Errorf("move %s to plugin version %s: %w", path, p.Version, err)
	}
	if err := c.ReloadMount(ctx, path); err != nil {
		return fmt.Errorf("reload %s: %w", path, err)
	}
	return nil
}

// admin is a client with the operator's token, if the snapshot knows it.
func (r *run) admin(ctx context.Context) (*vaultapi.Client, error) {
	if r.Rehearse.Token == "" {
		return nil, fmt.Errorf("%w: none was given", ErrNeedsToken)
	}
	c, err := r.vault.Local()
	if err != nil {
		return nil, err
	}
	c.SetToken(r.Rehearse.Token)
	_, err = c.LookupSelf(ctx)
	if vaultapi.IsDenied(err) {
		return nil, fmt.Errorf("%w: it doesn't know this one", ErrNeedsToken)
	}
	if err != nil {
		return nil, fmt.Errorf("log in to the restored Vault: %w", err)
	}
	return c, nil
}
