package upgrade

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/hashicorp/vault/api"

	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/config/machine"
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
	// Snapshot writes a raft snapshot to w, not encrypted.
	Snapshot(ctx context.Context, w io.Writer) error
	// Restore brings back a snapshot of this Vault's own.
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
	return snapshot.VaultInfo{ClusterID: h.ClusterID, ClusterName: h.ClusterName, Version: h.Version}, nil
}

func (v vault) RaftIndex(ctx context.Context) (uint64, error) {
	l, err := v.API().Sys().LeaderWithContext(ctx)
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
	if _, err := v.API().Auth().Token().LookupSelfWithContext(ctx); err != nil {
		return fmt.Errorf("vault refuses the token: %w", err)
	}
	var lacking []string
	for path, capability := range needed {
		got, err := v.API().Sys().CapabilitiesSelfWithContext(ctx, path)
		if err != nil {
			return fmt.Errorf("ask what the token may do: %w", err)
		}
		all := " " + strings.Join(got, " ") + " "
		if !strings.Contains(all, " "+capability+" ") && !strings.Contains(all, " root ") {
			lacking = append(lacking, capability+" "+path)
		}
	}
	if len(lacking) > 0 {
		return fmt.Errorf("the token may not: %s", strings.Join(lacking, ", "))
	}
	return nil
}

func (v vault) read(ctx context.Context, path string) (map[string]any, error) {
	s, err := v.API().Logical().ReadWithContext(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if s == nil {
		return nil, fmt.Errorf("read %s: there is nothing", path)
	}
	return s.Data, nil
}

func (v vault) write(ctx context.Context, path string, data map[string]any) (*api.Secret, error) {
	s, err := v.API().Logical().WriteWithContext(ctx, path, data)
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", path, err)
	}
	return s, nil
}

func (v vault) Mounted(ctx context.Context) (pinned, running string, err error) {
	mounts, err := v.API().Sys().ListMountsWithContext(ctx)
	if err != nil {
		return "", "", fmt.Errorf("list mounts: %w", err)
	}
	m := mounts[mount+"/"]
	if m == nil || m.Type != machine.PluginName {
		return "", "", fmt.Errorf("the engine for API keys is not mounted at %s/", mount)
	}
	return m.PluginVersion, m.RunningVersion, nil
}

func (v vault) Register(ctx context.Context, p vaultapi.Plugin) error {
	return v.RegisterPlugin(ctx, p)
}

func (v vault) Registered(ctx context.Context) ([]string, error) {
	l, err := v.API().Sys().ListPluginsWithContext(ctx, &api.ListPluginsInput{Type: api.PluginTypeSecrets})
	if err != nil {
		return nil, fmt.Errorf("list the plugin catalog: %w", err)
	}
	var versions []string
	for _, d := range l.Details {
		if d.Name == machine.PluginName {
			versions = append(versions, d.Version)
		}
	}
	return versions, nil
}

func (v vault) Deregister(ctx context.Context, version string) error {
	err := v.API().Sys().DeregisterPluginWithContext(ctx, &api.DeregisterPluginInput{
		Name: machine.PluginName, Type: api.PluginTypeSecrets, Version: version})
	if err != nil {
		return fmt.Errorf("take plugin %s out of the catalog: %w", version, err)
	}
	return nil
}

func (v vault) Pin(ctx context.Context, version string) error {
	_, err := v.write(ctx, "sys/mounts/"+mount+"/tune", map[string]any{"plugin_version": version})
	return err
}

func (v vault) Reload(ctx context.Context) error {
	_, err := v.write(ctx, "sys/plugins/reload/backend", map[string]any{"mounts": mount + "/"})
	return err
}

func (v vault) Status(ctx context.Context) (fenced bool, err error) {
	data, err := v.read(ctx, mount+"/status")
	if err != nil {
		return false, err
	}
	fence, ok := data["fence"].(map[string]any)
	if !ok {
		return false, errors.New("the engine's status says nothing of a fence")
	}
	closed, _ := fence["closed"].(bool)
	return closed, nil
}

func (v vault) MaxWait(ctx context.Context) (int, error) {
	data, err := v.read(ctx, mount+"/config")
	if err != nil {
		return 0, err
	}
	n, ok := data["max_wait"].(json.Number)
	if !ok {
		return 0, fmt.Errorf("read %s/config: max_wait is %v", mount, data["max_wait"])
	}
	seconds, err := n.Int64()
	return int(seconds), err
}

func (v vault) SetMaxWait(ctx context.Context, seconds int) error {
	_, err := v.write(ctx, mount+"/config", map[string]any{"max_wait": seconds})
	return err
}

func (v vault) Policy(ctx context.Context, name string) (string, error) {
	text, err := v.API().Sys().GetPolicyWithContext(ctx, name)
	if err != nil {
		return "", fmt.Errorf("read policy %q: %w", name, err)
	}
	return text, nil
}

func (v vault) PutPolicy(ctx context.Context, name, text string) error {
	if err := v.API().Sys().PutPolicyWithContext(ctx, name, text); err != nil {
		return fmt.Errorf("write policy %q: %w", name, err)
	}
	return nil
}

func (v vault) Restore(ctx context.Context, r io.Reader) error {
	return v.RestoreSnapshot(ctx, r, false)
}

// maxReconciles bounds how often the engine is told to go on; a round takes up
// to a minute.
const maxReconciles = 60

func (v vault) Reconcile(ctx context.Context) error {
	checked := json.Number("")
	for range maxReconciles {
		s, err := v.write(ctx, mount+"/reconcile", nil)
		if err != nil {
			return err
		}
		if s == nil {
			return fmt.Errorf("write %s/reconcile: an empty answer", mount)
		}
		if done, _ := s.Data["done"].(bool); done {
			return nil
		}
		now, _ := s.Data["checked"].(json.Number)
		if s.Data["finished_time"] != nil || now == checked {
			break
		}
		checked = now
	}
	return fmt.Errorf("the engine stays fenced: `vault read %s/reconcile` says which keys could not be checked", mount)
}
