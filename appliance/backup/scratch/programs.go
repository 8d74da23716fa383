package scratch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"strongroom.example/appliance/base/atomicfile"
	"strongroom.example/config/machine"
)

// copyPlugins fills Vault's own plugin directory, unless another one is used.
func (v *Vault) copyPlugins() error {
	if v.opts.PluginDir != "" {
		return nil
	}
	files := v.opts.PluginFiles
	if len(files) == 0 {
		files = map[string]string{machine.PluginName: v.opts.Programs.Plugin}
	}
	for name, from := range files {
		if filepath.Base(name) != name {
			return fmt.Errorf("plugin: %q is not a file's name", name)
		}
		if err := atomicfile.Copy(from, filepath.Join(v.Layout.Plugins(), name), 0o500); err != nil {
			return fmt.Errorf("plugin: %w", err)
		}
	}
	return nil
}

// SwapVault stops Vault and starts another program on the same storage and
// configuration: what an upgrade does. It returns when that one answers.
func (v *Vault) SwapVault(ctx context.Context, program string) error {
	if !filepath.IsAbs(program) {
		return fmt.Errorf("vault program %q: want an absolute path", program)
	}
	if err := v.Process.Stop(); err != nil {
		return fmt.Errorf("stop Vault: %w", err)
	}
	// The old one's socket must not pass for the new one's.
	if err := os.Remove(v.Layout.VaultSocket()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("stop Vault: %w", err)
	}
	v.opts.Programs.Vault = program
	return v.startVault(ctx)
}
