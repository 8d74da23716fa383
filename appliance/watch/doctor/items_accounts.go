package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"

	"strongroom.example/appliance/base/words"
	"strongroom.example/config/machine"
)

// daemonUnits are the services that always run.
func daemonUnits() []string { return []string{machine.UnitVault, machine.UnitKMS, machine.UnitFront} }

func daemonUsers(_ context.Context, e *exam) {
	a, ok := e.people()
	if !ok {
		return
	}
	for _, name := range []string{machine.UserVault, machine.UserFront} {
		u, ok := a.user(name)
		if !ok {
			e.fail(reinstall, "there is no user %q", name)
			continue
		}
		e.found(1, "/etc/passwd", "%s: uid %d, shell %s", name, u.uid, u.shell)
		if u.uid == 0 || u.canLogIn() {
			e.fail("usermod --shell /usr/sbin/nologin "+name, "user %q can log in (uid %d, shell %q)", name, u.uid, u.shell)
		}
		for _, gid := range a.members[name] {
			if gid == a.groups["root"] || gid == a.groups["sudo"] || gid == a.groups["shadow"] {
				e.fail("gpasswd --delete "+name+" "+a.groupName(gid), "user %q is in the group %q", name, a.groupName(gid))
			}
		}
	}
}

func daemonProcesses(ctx context.Context, e *exam) {
	a, ok := e.people()
	if !ok {
		return
	}
	all, err := e.processes()
	if err != nil {
		e.unseen("processes", err)
		return
	}
	for _, unit := range daemonUnits() {
		pid, ok := e.mainPID(ctx, unit)
		if !ok {
			continue
		}
		procs := family(all, pid)
		if len(procs) == 0 {
			e.unseen(unit, fmt.Errorf("its process %d is not among those that can be seen", pid))
			continue
		}
		for _, proc := range procs {
			e.saw(fmt.Sprintf("/proc/%d/status", proc.pid), "%s of %s runs as %s", proc.name, unit, a.name(proc.uid))
			if proc.uid == 0 {
				e.fail("systemctl cat "+unit+"; "+reinstall, "process %d (%s) of %s runs as root", proc.pid, proc.name, unit)
			}
			if want, ok := a.user(machine.UserVault); ok && unit == machine.UnitVault && proc.uid != want.uid && proc.uid != 0 {
				e.fail("systemctl cat "+unit+"; "+reinstall, "process %d (%s) of %s runs as %s, not as %s", proc.pid, proc.name, unit, a.name(proc.uid), machine.UserVault)
			}
		}
		e.found(1, unit, "its processes were looked at")
	}
}

// mainPID is a daemon's process. One that does not run is noted: it is for the
// item units to say so, and no question passes for that.
func (e *exam) mainPID(ctx context.Context, unit string) (int, bool) {
	p, err := e.show(ctx, unit, "MainPID")
	if err != nil {
		e.unseen(unit, err)
		return 0, false
	}
	pid, err := strconv.Atoi(p["MainPID"])
	switch {
	case err != nil:
		e.unseen(unit, fmt.Errorf("MainPID %q is no number", p["MainPID"]))
	case pid == 0:
		e.unseen("the process of "+unit, errors.New("it does not run: see the item units"))
	default:
		return pid, true
	}
	return 0, false
}

// readOnlyPaths are what Vault must not be able to write, with the folders above.
func readOnlyPaths() []string {
	return []string{
		"/usr", "/usr/local", machine.BinDir, machine.VaultProgram, machine.Program, "/usr/local/lib", path.Dir(machine.PluginDir), machine.PluginDir,
		"/etc", machine.Etc, machine.VaultHCL, machine.TLSDir, machine.CredentialDir, "/etc/systemd", machine.UnitDir, path.Join(machine.UnitDir, machine.UnitVault), path.Join(machine.UnitDir, machine.UnitKMS),
	}
}

func vaultReadOnly(_ context.Context, e *exam) {
	e.vaultCantWrite(readOnlyPaths(), "programs, configuration and units, with the folders above them")
}

func pluginsReadOnly(_ context.Context, e *exam) {
	names, err := e.Machine.ReadDir(machine.PluginDir)
	if err != nil {
		e.unseen(machine.PluginDir, err)
		return
	}
	paths := make([]string, len(names))
	for i, n := range names {
		paths[i] = path.Join(machine.PluginDir, n)
	}
	e.vaultCantWrite(paths, "plugins")
}

func (e *exam) vaultCantWrite(paths []string, what string) {
	a, u, ok := e.vaultUser()
	if !ok {
		return
	}
	groups := append([]int{u.gid}, a.members[machine.UserVault]...)
	seen := 0
	for _, p := range paths {
		info, err := e.Machine.Stat(p)
		if err != nil {
			e.unseen(p, err)
			continue
		}
		seen++
		if why := writableBy(info, u.uid, groups); why != "" {
			e.fail("chown root "+p+" && chmod go-w "+p, "%s (mode %04o, owner %s:%s): %s", p, info.Mode, a.name(info.UID), a.groupName(info.GID), why).
				fix(onlyRootWrites(p, info), "chown root %s, chmod go-w", p)
		}
	}
	e.found(seen, "modes and owners of "+words.Count(seen, "path"), "%s", what)
}

// writableBy says how a user may change a file; "" if it may not.
func writableBy(i Info, uid int, groups []int) string {
	if i.Type == fs.ModeSymlink {
		return ""
	}
	if i.UID == uid {
		return "it is its own" // an owner can give itself any mode
	}
	for _, g := range groups {
		if i.GID == g && i.Mode&0o020 != 0 {
			return "its group may write"
		}
	}
	if i.Mode&0o002 != 0 {
		return "everybody may write"
	}
	return ""
}

func onlyRootWrites(p string, i Info) fix {
	return func(_ context.Context, m Machine) error {
		if i.UID != 0 {
			if err := m.SetOwner(p, 0, i.GID); err != nil {
				return err
			}
		}
		return m.SetMode(p, i.Mode&^0o022)
	}
}
