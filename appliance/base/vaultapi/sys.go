package vaultapi

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// sys makes a call whose answer has a form of its own; v may be nil.
func (c *Client) sys(ctx context.Context, r request, v any) error {
	status, body, err := c.do(ctx, r)
	switch {
	case err != nil:
		return err
	case status == http.StatusNoContent && v == nil:
		return nil
	case status != http.StatusOK:
		return refusal(r, status, body)
	case v == nil:
		return nil
	}
	if err := decode(body, v); err != nil {
		err = fmt.Errorf("%s %s: %w: %w", r.method, r.path, ErrNotVault, err)
		if r.changes() {
			err = fmt.Errorf("%w: %w", err, errUncertain)
		}
		return err
	}
	return nil
}

// Leader is who leads, as this node sees it.
// https://developer.hashicorp.com/vault/api-docs/system/leader
type Leader struct {
	IsSelf           bool   `json:"is_self"`
	LeaderAddress    string `json:"leader_address"`
	RaftAppliedIndex uint64 `json:"raft_applied_index"`
}

// Leader asks who leads.
func (c *Client) Leader(ctx context.Context) (Leader, error) {
	var l struct {
		Leader
		HAEnabled *bool `json:"ha_enabled"`
	}
	if err := c.sys(ctx, request{method: http.MethodGet, path: "sys/leader"}, &l); err != nil {
		return Leader{}, fmt.Errorf("ask who leads: %w", err)
	}
	if l.HAEnabled == nil {
		return Leader{}, fmt.Errorf("ask who leads: %w", ErrNoData)
	}
	return l.Leader, nil
}

// Mount is a secrets engine, auth method or audit device that is enabled.
type Mount struct {
	Type           string            `json:"type"`
	Description    string            `json:"description"`
	Accessor       string            `json:"accessor"`
	UUID           string            `json:"uuid"`
	PluginVersion  string            `json:"plugin_version"`
	RunningVersion string            `json:"running_plugin_version"`
	Options        map[string]string `json:"options"`
}

// Mounts are the secrets engines by path, with a slash at the end.
func (c *Client) Mounts(ctx context.Context) (map[string]Mount, error) {
	return c.mounts(ctx, "sys/mounts")
}

// AuthMethods are those by path, with a slash at the end.
func (c *Client) AuthMethods(ctx context.Context) (map[string]Mount, error) {
	return c.mounts(ctx, "sys/auth")
}

// AuditDevices are those by path, with a slash at the end. There may be none.
func (c *Client) AuditDevices(ctx context.Context) (map[string]Mount, error) {
	return c.mounts(ctx, "sys/audit")
}

func (c *Client) mounts(ctx context.Context, path string) (map[string]Mount, error) {
	m := map[string]Mount{}
	if err := c.ReadInto(ctx, path, nil, &m); err != nil {
		return nil, err
	}
	for name, one := range m {
		if one.Type == "" {
			return nil, fmt.Errorf("GET %s: %q has no type", path, name)
		}
	}
	return m, nil
}

// TunePlugin has a mount run another version of its plugin from the next reload.
func (c *Client) TunePlugin(ctx context.Context, mount, version string) error {
	_, err := c.Write(ctx, "sys/mounts/"+strings.Trim(mount, "/")+"/tune", map[string]any{"plugin_version": version})
	return err
}

// ReloadMount starts the plugin of a mount again.
func (c *Client) ReloadMount(ctx context.Context, mount string) error {
	_, err := c.Write(ctx, "sys/plugins/reload/backend", map[string]any{"mounts": strings.Trim(mount, "/") + "/"})
	return err
}

// PluginVersions are those of a secrets engine in the catalog.
func (c *Client) PluginVersions(ctx context.Context, name string) ([]string, error) {
	var catalog struct {
		Detailed []struct{ Name, Type, Version string } `json:"detailed"`
	}
	if err := c.ReadInto(ctx, "sys/plugins/catalog", nil, &catalog); err != nil {
		return nil, err
	}
	if len(catalog.Detailed) == 0 {
		return nil, fmt.Errorf("GET sys/plugins/catalog: %w", ErrNoData) // Vault's own are always there
	}
	var versions []string
	for _, p := range catalog.Detailed {
		if p.Name == name && p.Type == "secret" {
			versions = append(versions, p.Version)
		}
	}
	return versions, nil
}

// DeregisterPlugin takes one version of a secrets engine out of the catalog.
func (c *Client) DeregisterPlugin(ctx context.Context, name, version string) error {
	_, err := c.call(ctx, request{method: http.MethodDelete, path: catalog + name, query: url.Values{"version": {version}}})
	return err
}

const policies = "sys/policies/acl"

// Policies are their names. There are always some.
func (c *Client) Policies(ctx context.Context) ([]string, error) {
	names, err := c.List(ctx, policies)
	if err == nil && len(names) == 0 {
		err = fmt.Errorf("list %s: %w", policies, ErrNoData)
	}
	return names, err
}

// Policy is the text of one; IsNotFound where there is none.
func (c *Client) Policy(ctx context.Context, name string) (string, error) {
	data, err := c.Read(ctx, policies+"/"+name)
	if err != nil {
		return "", fmt.Errorf("read policy %q: %w", name, err)
	}
	text, err := data.Text("policy")
	if err != nil {
		return "", fmt.Errorf("read policy %q: %w", name, err)
	}
	return text, nil
}

// PutPolicy writes the text of one.
func (c *Client) PutPolicy(ctx context.Context, name, text string) error {
	if _, err := c.Write(ctx, policies+"/"+name, map[string]any{"policy": text}); err != nil {
		return fmt.Errorf("write policy %q: %w", name, err)
	}
	return nil
}
