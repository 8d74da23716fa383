package vaultapi

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
)

// ErrInitialized is returned by Init for a Vault that is initialised already:
// its keys exist somewhere, and this call cannot give them.
var ErrInitialized = errors.New("vault is initialised already")

// InitRequest for an auto-unsealed Vault: recovery keys in place of unseal keys.
type InitRequest struct {
	RecoveryShares    int
	RecoveryThreshold int
}

// InitResult is shown once by Vault. Both fields are secret.
type InitResult struct {
	RecoveryKeys []string // base64, one per share
	RootToken    string
}

// String hides the secrets.
func (InitResult) String() string { return "init result (hidden)" }

// GoString hides the secrets from %#v.
func (r InitResult) GoString() string { return r.String() }

// Init initialises a new Vault whose seal is automatic.
func (c *Client) Init(ctx context.Context, r InitRequest) (InitResult, error) {
	var status struct {
		Initialized *bool `json:"initialized"`
	}
	if err := c.sys(ctx, request{method: http.MethodGet, path: "sys/init"}, &status); err != nil {
		return InitResult{}, fmt.Errorf("read Vault's init status: %w", err)
	}
	if status.Initialized == nil {
		return InitResult{}, fmt.Errorf("read Vault's init status: %w", ErrNoData)
	}
	if *status.Initialized {
		return InitResult{}, ErrInitialized
	}
	var made struct {
		RecoveryKeys []string `json:"recovery_keys_base64"`
		RootToken    string   `json:"root_token"`
	}
	err := c.sys(ctx, request{method: http.MethodPut, path: "sys/init", body: map[string]any{
		"recovery_shares": r.RecoveryShares, "recovery_threshold": r.RecoveryThreshold,
	}}, &made)
	if err != nil {
		return InitResult{}, fmt.Errorf("initialise Vault: %w", err)
	}
	if len(made.RecoveryKeys) != r.RecoveryShares || made.RootToken == "" {
		return InitResult{}, fmt.Errorf("initialise Vault: %w", ErrNoData)
	}
	return InitResult{RecoveryKeys: made.RecoveryKeys, RootToken: made.RootToken}, nil
}

// EnableFileAudit enables an audit device that writes to file. Vault creates
// the file with the mode given here; an executable mode would keep Vault from
// unsealing, so it is fixed.
func (c *Client) EnableFileAudit(ctx context.Context, path, file string) error {
	_, err := c.Write(ctx, "sys/audit/"+path, map[string]any{
		"type": "file", "options": map[string]string{"file_path": file, "mode": "0600"},
	})
	if err != nil {
		return fmt.Errorf("enable audit device %q on %q: %w", path, file, err)
	}
	return nil
}

// EnableKV2 mounts a KV version 2 secrets engine, and returns when it takes
// requests: a new one refuses them for a moment.
func (c *Client) EnableKV2(ctx context.Context, path string) error {
	_, err := c.Write(ctx, "sys/mounts/"+path, map[string]any{"type": "kv", "options": map[string]string{"version": "2"}})
	if err != nil {
		return fmt.Errorf("mount kv at %q: %w", path, err)
	}
	// Who may not read this has the mount all the same.
	if _, err := c.Read(ctx, path+"/config"); err != nil && !IsDenied(err) {
		return fmt.Errorf("kv at %q is mounted, and takes no requests: %w", path, err)
	}
	return nil
}

// Plugin names one version of a secrets engine's binary in Vault's plugin
// directory.
type Plugin struct {
	Name    string // in the catalog, and the mount's type
	Command string // file name inside the plugin directory
	Version string // semantic, with or without its v
	SHA256  string // of the file, hex
}

// SHA256File is the hex sum that Vault's plugin catalog wants.
func SHA256File(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("sum of plugin: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("sum of plugin %q: %w", path, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

const catalog = "sys/plugins/catalog/secret/"

// RegisterPlugin puts p into the catalog, pinned by its sum and version.
// Versions live side by side, so an upgrade never meets another's checksum.
func (c *Client) RegisterPlugin(ctx context.Context, p Plugin) error {
	_, err := c.Write(ctx, catalog+p.Name, map[string]any{
		"type": "secret", "command": p.Command, "sha256": p.SHA256, "version": p.Version,
	})
	if err != nil {
		return fmt.Errorf("register plugin %q version %q: %w", p.Name, p.Version, err)
	}
	return nil
}

// MountPlugin mounts p at path, tuned so that a conditional read works: Vault
// passes If-None-Match in and ETag out only when it is told to.
func (c *Client) MountPlugin(ctx context.Context, path string, p Plugin) error {
	_, err := c.Write(ctx, "sys/mounts/"+path, map[string]any{"type": p.Name, "config": map[string]any{
		"plugin_version":              p.Version,
		"passthrough_request_headers": []string{"If-None-Match"},
		"allowed_response_headers":    []string{"ETag"},
	}})
	if err != nil {
		return fmt.Errorf("mount plugin %q at %q: %w", p.Name, path, err)
	}
	return nil
}
