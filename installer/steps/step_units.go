package steps

import (
	"context"
	"path"
	"strings"

	"strongroom.example/config/machine"
	"strongroom.example/installer/engine"
	"strongroom.example/systemd"
)

// unitFiles writes the units and has systemd read them.
type unitFiles struct{ *Env }

func (unitFiles) ID() string    { return "units" }
func (unitFiles) Title() string { return "systemd units" }

func (s unitFiles) Check(ctx context.Context) (engine.Diff, error) {
	vault, err := s.group(0, machine.UserVault)
	if err != nil {
		return nil, err
	}
	var c collect
	dropIn := machine.DropInPath(machine.UnitKMS, "vault-uid")
	c.add(s.dir(path.Dir(dropIn), root(0o755)))
	uid := nobody
	if vault.GID != nobody {
		u, err := s.Host.User(machine.UserVault)
		if err != nil {
			return nil, err
		}
		uid = u.UID
	}
	c.add(s.file(dropIn, bytesSource(systemd.KMSDropIn(uid)), root(0o644)))
	c.add(s.frontDropIns())
	c.add(s.dropIn(machine.UnitNftables, "strongroom", systemd.NftablesDropIn(), s.Config.Firewall.Manage))
	stale := false
	for _, name := range systemd.Names() {
		b, err := systemd.Unit(name)
		if err != nil {
			return nil, err
		}
		c.add(s.file(path.Join(machine.UnitDir, name), bytesSource(b), root(0o644)))
		if strings.Contains(name, "@.") {
			continue // a template: only its instances are units
		}
		u, err := s.Host.Unit(ctx, name)
		if err != nil {
			return nil, err
		}
		if u.Load == "masked" {
			return nil, operator("run: systemctl unmask "+name, "unit %q is masked", name)
		}
		stale = stale || u.NeedsReload || u.Load != "loaded"
	}
	if c.err == nil && (len(c.diff) > 0 || stale) {
		c.diff = append(c.diff, engine.Change{What: "systemd", From: "old units", To: "new units", Apply: s.Host.ReloadUnits})
	}
	c.add(s.former())
	return c.done()
}

// former takes away the units of earlier versions. systemd has read the new ones by
// then: stopping what an old one requires would stop that one with it.
func (s unitFiles) former() (diff engine.Diff, err error) {
	for _, name := range machine.FormerUnits() {
		file := path.Join(machine.UnitDir, name)
		there, err := s.exists(file)
		if err != nil {
			return nil, err
		}
		if !there {
			continue
		}
		diff = append(diff, engine.Change{What: name, From: "of an earlier version", To: "stopped and removed", Apply: func(ctx context.Context) error {
			if err := s.Host.Retire(ctx, name); err != nil {
				return err
			}
			// Commit point: while the file is there, it is all done again.
			if err := s.Host.Remove(file); err != nil {
				return err
			}
			return s.Host.ReloadUnits(ctx)
		}})
	}
	return diff, nil
}
