package upgrade

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"strongroom.example/appliance/backup/restore"
	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/config/machine"
	"strongroom.example/installer/steps"
)

// Vault is what an upgrade asks of the machine's Vault.
type Vault interface {
	// WaitActive returns once Vault is unsealed and active.
	WaitActive(ctx context.Context) error
	// Info names the cluster and Vault's version.
	Info(ctx context.Context) (snapshot.VaultInfo, error)
	// RaftIndex is the index that has been applied.
	RaftIndex(ctx context.Context) (uint64, error)
	// MayUpgrade says nil if the token may do all that an upgrade does.
	MayUpgrade(ctx context.Context) error
	// Mounted gives the version that the engine's mount is pinned to and the
	// one that it runs.
	Mounted(ctx context.Context) (pinned, running string, err error)
	// Register adds a version of the plugin to the catalog.
	Register(ctx context.Context, p vaultapi.Plugin) error
	// Registered gives the plugin's versions in the catalog.
	Registered(ctx context.Context) ([]string, error)
	// Deregister takes a version out of the catalog.
	Deregister(ctx context.Context, version string) error
	// Pin has the mount use a version from the next reload on.
	Pin(ctx context.Context, version string) error
	// Reload starts the mount's plugin anew, in the version that is pinned.
	Reload(ctx context.Context) error
	// Status reads the engine's own status: whether it is fenced.
	Status(ctx context.Context) (fenced bool, err error)
	// MaxWait is how long a read may wait for a new version, in seconds.
	MaxWait(ctx context.Context) (seconds int, err error)
	// SetMaxWait changes it; 0 ends all waits at once.
	SetMaxWait(ctx context.Context, seconds int) error
	// Policy gives a policy's text; empty where there is none.
	Policy(ctx context.Context, name string) (string, error)
	// PutPolicy writes a policy.
	PutPolicy(ctx context.Context, name, text string) error
	// Role gives those settings of a job's AppRole that an installation makes; nil where
	// there is none.
	Role(ctx context.Context, name string) (map[string]any, error)
	// PutRole writes them.
	PutRole(ctx context.Context, name string, settings map[string]any) error
	// Snapshot writes a raft snapshot to w, not encrypted.
	Snapshot(ctx context.Context, w io.Writer) error
	// Restore brings back a snapshot of this Vault's own, and returns when it is there.
	Restore(ctx context.Context, r io.Reader) error
	// Reconcile lifts the fence of an engine whose storage was put back.
	Reconcile(ctx context.Context) error
}

// vault is the real one.
type vault struct{ *vaultapi.Client }

var _ Vault = vault{}

// NewVault is a Vault through c, whose token is an administrator's.
func NewVault(c *vaultapi.Client) Vault { return vault{c} }

const (
	mount   = machine.MountKeys
	catalog = "sys/plugins/catalog/secret/" + machine.PluginName
)

func (v vault) Info(ctx context.Context) (snapshot.VaultInfo, error) {
	h, err := v.Health(ctx)
	if err != nil {
		return snapshot.VaultInfo{}, err
	}
	return snapshot.InfoOf(h), nil
}

func (v vault) RaftIndex(ctx context.Context) (uint64, error) {
	l, err := v.Leader(ctx)
	if err != nil {
		return 0, fmt.Errorf("read Vault's raft index: %w", err)
	}
	return l.RaftAppliedIndex, nil
}

// needed are the capabilities of an upgrade, all on paths that an administrator
// has.
var needed = map[string]string{
	catalog:                           "update",
	"sys/plugins/reload/backend":      "update",
	"sys/mounts/" + mount + "/tune":   "update",
	"sys/storage/raft/snapshot":       "read",
	"sys/policies/acl/strongroom-any": "update",
	mount + "/config":                 "update",
	mount + "/status":                 "read",
	mount + "/reconcile":              "update",
}

func (v vault) MayUpgrade(ctx context.Context) error {
	if _, err := v.LookupSelf(ctx); err != nil {
		return fmt.Errorf("vault refuses the token: %w", err)
	}
	var lacking []string
	for path, capability := range needed {
		got, err := v.Capabilities(ctx, path)
		if err != nil {
			return fmt.Errorf("ask what the token may do: %w", err)
		}
		if !slices.Contains(got, capability) && !slices.Contains(got, "root") {
			lacking = append(lacking, capability+" "+path)
		}
	}
	if len(lacking) > 0 {
		return fmt.Errorf("the token may not: %s", strings.Join(lacking, ", "))
	}
	return nil
}

func (v vault) Mounted(ctx context.Context) (pinned, running string, err error) {
	mounts, err := v.Mounts(ctx)
	if err != nil {
		return "", "", fmt.Errorf("list mounts: %w", err)
	}
	m := mounts[mount+"/"]
	if m.Type != machine.PluginName {
		return "", "", fmt.Errorf("the engine for API keys is not mounted at %s/", mount)
	}
	return m.PluginVersion, m.RunningVersion, nil
}

func (v vault) Register(ctx context.Context, p vaultapi.Plugin) error {
	return v.RegisterPlugin(ctx, p)
}

func (v vault) Registered(ctx context.Context) ([]string, error) {
	versions, err := v.PluginVersions(ctx, machine.PluginName)
	if err != nil {
		return nil, fmt.Errorf("list the plugin catalog: %w", err)
	}
	return versions, nil
}

func (v vault) Deregister(ctx context.Context, version string) error {
	if err := v.DeregisterPlugin(ctx, machine.PluginName, version); err != nil {
		return fmt.Errorf("take plugin %s out of the catalog: %w", version, err)
	}
	return nil
}

func (v vault) Pin(ctx context.Context, version string) error {
	return v.TunePlugin(ctx, mount, version)
}

func (v vault) Reload(ctx context.Context) error { return v.ReloadMount(ctx, mount) }

func (v vault) Status(ctx context.Context) (fenced bool, err error) {
	data, err := v.Read(ctx, mount+"/status")
	if err != nil {
		return false, err
	}
	fence, err := data.Map("fence")
	if err == nil {
		fenced, err = fence.Bool("closed")
	}
	if err != nil {
		return false, fmt.Errorf("read %s/status: %w", mount, err)
	}
	return fenced, nil
}

func (v vault) MaxWait(ctx context.Context) (int, error) {
	data, err := v.Read(ctx, mount+"/config")
	if err != nil {
		return 0, err
	}
	seconds, err := data.Number("max_wait")
	if err != nil {
		return 0, fmt.Errorf("read %s/config: %w", mount, err)
	}
	return int(seconds), nil
}

func (v vault) SetMaxWait(ctx context.Context, seconds int) error {
	_, err := v.Write(ctx, mount+"/config", map[string]any{"max_wait": seconds})
	return err
}

func (v vault) Policy(ctx context.Context, name string) (string, error) {
	text, err := v.Client.Policy(ctx, name)
	if vaultapi.IsNotFound(err) {
		return "", nil
	}
	return text, err
}

func (v vault) Role(ctx context.Context, name string) (map[string]any, error) {
	got, err := v.Read(ctx, steps.RolePath(name))
	if vaultapi.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read AppRole %q: %w", name, err)
	}
	out := map[string]any{}
	for _, key := range steps.RoleKeys() {
		if value, ok := got[key]; ok {
			out[key] = value
		}
	}
	return out, nil
}

func (v vault) PutRole(ctx context.Context, name string, settings map[string]any) error {
	_, err := v.Write(ctx, steps.RolePath(name), settings)
	return err
}

func (v vault) Restore(ctx context.Context, r io.Reader) error {
	return restore.HandOver(ctx, v.Client, r, restorePatience)
}

// restorePatience is how long Vault may take to bring a snapshot back.
const restorePatience = 10 * time.Minute

// maxReconciles bounds how often the engine is told to go on; a round takes up
// to a minute.
const maxReconciles = 60

func (v vault) Reconcile(ctx context.Context) error {
	checked := int64(-1)
	for range maxReconciles {
		data, err := v.Write(ctx, mount+"/reconcile", nil)
		if err != nil {
			return err
		}
		done, err := data.Bool("done")
		if err != nil {
			return fmt.Errorf("write %s/reconcile: %w", mount, err)
		}
		if done {
			return nil
		}
		now, err := data.Number("checked")
		if err != nil {
			return fmt.Errorf("write %s/reconcile: %w", mount, err)
		}
		if data.Has("finished_time") || now == checked {
			break
		}
		checked = now
	}
	return fmt.Errorf("the engine stays fenced: `vault read %s/reconcile` says which keys could not be checked", mount)
}
