package upgrade

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"

	"strongroom.example/config/machine"
	"strongroom.example/installer/host"
)

// copyFile makes to a copy of from, atomically.
func copyFile(h *host.Host, from, to string, a host.Attr) error {
	f, err := h.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	return h.Write(to, f, a)
}

// mkdirs makes a folder and those above it, below Dir.
func mkdirs(h *host.Host, p string) error {
	if p != Dir {
		if err := mkdirs(h, path.Dir(p)); err != nil {
			return err
		}
	}
	return h.Mkdir(p, host.Attr{Mode: 0o700})
}

// ours are the files that an upgrade may replace: programs, configuration,
// units. Credentials, certificates and state are never replaced.
func ours(h *host.Host) ([]string, error) {
	files := append([]string{path.Join(machine.BinDir, machine.ProgramName), machine.VaultProgram}, machine.SystemFiles()...)
	add := func(dir string, wanted func(name string) bool) error {
		names, err := h.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, n := range names {
			if wanted(n) {
				files = append(files, path.Join(dir, n))
			}
		}
		return nil
	}
	all := func(string) bool { return true }
	if err := add(machine.Etc, all); err != nil {
		return nil, err
	}
	if err := add(machine.DocDir, all); err != nil {
		return nil, err
	}
	if err := add(machine.UnitDir, ourUnit); err != nil {
		return nil, err
	}
	for _, f := range slices.Clone(files) {
		if path.Dir(f) == machine.UnitDir && strings.HasSuffix(f, ".d") {
			if err := add(f, all); err != nil {
				return nil, err
			}
		}
	}
	var regular []string
	for _, f := range files {
		info, err := h.Stat(f)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if info.Type == 0 {
			regular = append(regular, f)
		}
	}
	return regular, nil
}

// ourUnit says whether a unit's file, or the folder of its drop-ins, is the
// appliance's.
func ourUnit(name string) bool {
	return machine.IsUnit(name) || name == machine.UnitVault+".d" || name == machine.UnitNftables+".d"
}

// keep copies every file that may be replaced.
func (u *Upgrade) keep() error {
	h := u.Env.Host
	if err := h.RemoveAll(keptDir); err != nil {
		return err
	}
	files, err := ours(h)
	if err != nil {
		return err
	}
	u.rec.Kept = nil
	for _, f := range files {
		info, err := h.Stat(f)
		if err != nil {
			return err
		}
		to := keptDir + f
		if err := mkdirs(h, path.Dir(to)); err != nil {
			return err
		}
		// The attributes are the record's to remember; what is kept is root's.
		if err := copyFile(h, f, to, host.Attr{Mode: 0o600}); err != nil {
			return err
		}
		s, err := h.Sum(to)
		if err != nil {
			return err
		}
		u.rec.Kept = append(u.rec.Kept, Kept{Path: f, Attr: info.Attr, Sum: s})
	}
	return nil
}

// putBack restores every kept file that is another one now, and removes units
// that weren't there. It returns what it has changed.
func (u *Upgrade) putBack(ctx context.Context) (changed []string, err error) {
	h := u.Env.Host
	before := map[string]bool{}
	for _, k := range u.rec.Kept {
		before[k.Path] = true
		now, err := h.Sum(k.Path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return changed, err
		}
		if err == nil && now == k.Sum {
			continue
		}
		if err := copyFile(h, keptDir+k.Path, k.Path, k.Attr); err != nil {
			return changed, err
		}
		changed = append(changed, k.Path)
	}
	now, err := ours(h)
	if err != nil {
		return changed, err
	}
	for _, f := range now {
		// Files in /etc/strongroom that are new belong to credentials that are
		// new, and stay with them.
		if before[f] || !strings.HasPrefix(f, machine.UnitDir+"/") && !strings.HasPrefix(f, machine.DocDir+"/") && !slices.Contains(machine.SystemFiles(), f) {
			continue
		}
		if name := path.Base(f); path.Dir(f) == machine.UnitDir && !strings.Contains(name, "@.") {
			if err := h.Retire(ctx, name); err != nil {
				return changed, err
			}
		}
		if err := h.Remove(f); err != nil {
			return changed, err
		}
		changed = append(changed, f)
	}
	return changed, nil
}

// tidyPlugins removes plugins of neither version from disk and catalog: the
// last one is kept.
func (u *Upgrade) tidyPlugins(ctx context.Context) error {
	keep := []string{u.rec.From.Plugin, u.rec.To.Plugin}
	there, err := u.Vault.Registered(ctx)
	if err != nil {
		return err
	}
	for _, v := range there {
		if slices.Contains(keep, v) {
			continue
		}
		if err := u.Vault.Deregister(ctx, v); err != nil {
			return err
		}
	}
	names, err := u.Env.Host.ReadDir(machine.PluginDir)
	if err != nil {
		return err
	}
	for _, n := range names {
		v, ok := strings.CutPrefix(n, machine.PluginFile(""))
		if !ok || slices.Contains(keep, "v"+v) {
			continue
		}
		if err := u.Env.Host.Remove(path.Join(machine.PluginDir, n)); err != nil {
			return err
		}
	}
	return nil
}
