package scratch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"time"

	"strongroom.example/appliance/base/atomicfile"
	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/config"
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

var (
	// ErrNoServer means that a program is neither Vault nor OpenBao.
	ErrNoServer = errors.New("this is not a Vault program")
	// ErrNoPlugin means that it is not the apikeys plugin.
	ErrNoPlugin = errors.New("this is not the apikeys plugin")
)

// ServerOf asks the program at path what it is.
func ServerOf(ctx context.Context, path string) (config.Server, error) {
	out, err := ask(ctx, path, "version", ErrNoServer)
	if err != nil {
		return config.Server{}, err
	}
	s, err := config.ParseServer(out)
	if err != nil {
		return config.Server{}, fmt.Errorf("program %q: %w: %w", path, ErrNoServer, err)
	}
	return s, nil
}

var pluginVersion = regexp.MustCompile(`^` + regexp.QuoteMeta(machine.PluginName) + ` v?([0-9]+\.[0-9]+\.[0-9]+[0-9A-Za-z.+-]*)\b`)

// PluginVersion asks the plugin's program itself, without the v.
func PluginVersion(ctx context.Context, path string) (string, error) {
	out, err := ask(ctx, path, "--version", ErrNoPlugin)
	if err != nil {
		return "", err
	}
	m := pluginVersion.FindStringSubmatch(out)
	if m == nil {
		return "", fmt.Errorf("program %q: %w: \"--version\" printed %.80q", path, ErrNoPlugin, out)
	}
	return m[1], nil
}

// answerWithin is how long a program may take to say its version: a Vault has hundreds of
// megabytes, which a busy machine has to read first.
const answerWithin = 2 * time.Minute

// ask is what the program at path prints for one argument. One that fails is not what was
// asked for; of one that does not come to its answer nobody knows.
func ask(ctx context.Context, path, arg string, other error) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, arg)
	cmd.Env = []string{"PATH=/usr/bin:/bin"}
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	switch {
	case ctx.Err() != nil:
		return "", fmt.Errorf("program %q: %q has not answered: %w", path, arg, ctx.Err())
	case err != nil:
		return "", fmt.Errorf("program %q: %w: %q failed: %w", path, other, arg, err)
	}
	return string(out), nil
}

// EnableAudit enables two audit devices, on files of the Layout, with a client that
// may: a Vault whose devices can't write answers nobody.
func (v *Vault) EnableAudit(ctx context.Context, c *vaultapi.Client) error {
	for _, name := range []string{"audit-1", "audit-2"} {
		if err := c.EnableFileAudit(ctx, name, v.Layout.Audit(name)); err != nil {
			return err
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
	server, err := ServerOf(ctx, program)
	if err != nil {
		return err
	}
	if err := v.Server.SameProduct(server); err != nil {
		return fmt.Errorf("vault program %q: %w", program, err)
	}
	if err := v.Process.Stop(); err != nil {
		return fmt.Errorf("stop Vault: %w", err)
	}
	// The old one's socket must not pass for the new one's.
	if err := os.Remove(v.Layout.VaultSocket()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("stop Vault: %w", err)
	}
	v.opts.Programs.Vault, v.Server = program, server
	return v.startVault(ctx)
}
