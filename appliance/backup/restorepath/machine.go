package restorepath

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"strongroom.example/appliance/base/vaultapi"
)

// auditFolders are where Vault's file devices write, as far as the token may
// know: a second Vault must not write there.
func auditFolders(ctx context.Context, c *vaultapi.Client) ([]string, error) {
	devices, err := c.AuditDevices(ctx)
	if vaultapi.IsDenied(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look where the audit devices write: %w", err)
	}
	var out []string
	for _, d := range devices {
		path := d.Options["file_path"]
		if d.Type == "file" && filepath.IsAbs(path) && filepath.Dir(path) != "/" {
			out = append(out, filepath.Dir(path))
		}
	}
	return out, nil
}

// PluginDir is the plugin directory of an installed machine, where the plugin is
// neither named nor beside this program; empty where there is none.
func PluginDir(named, beside, installed string) string {
	if named != "" {
		return ""
	}
	if _, err := os.Stat(beside); err == nil {
		return ""
	}
	if _, err := os.Stat(installed); err != nil {
		return ""
	}
	return installed
}
