package uninstall

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/serve/escrow"
	"strongroom.example/config"
	"strongroom.example/config/machine"
	"strongroom.example/installer/upgrade"
)

// Warnings are what an operator should know before data is deleted.
func (u *Uninstall) Warnings() []string {
	var out []string
	files, err := escrow.LoadStatus(machine.EscrowDir)
	open := slices.ContainsFunc(files, func(f escrow.FileStatus) bool { return !f.Confirmed() })
	if err != nil || len(files) == 0 || open {
		out = append(out, "nobody has proved that the escrow opens off this machine (strongroom escrow challenge): without it no backup can be opened")
	}
	s, err := snapshot.LoadVerifyState(machine.StateDir + "/verify")
	if err != nil || len(s.LastGood) == 0 {
		out = append(out, "there is no verified snapshot: what is in this Vault is nowhere else")
	}
	return out
}

// Plan prints what will go and what will stay. ErrNothing: there is nothing.
func (u *Uninstall) Plan() error {
	found, err := u.units()
	if err != nil {
		return err
	}
	there := len(found) > 0
	// All that Run removes in any case, since an earlier one may have been
	// stopped behind each of its parts.
	for _, p := range slices.Concat(u.programs(), machine.SystemFiles(), rendered(), []string{machine.TLSDir, machine.Etc, machine.VaultData}) {
		_, err := u.Host.Stat(p)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err == nil && (p == machine.Etc || p == machine.VaultData) {
			// A disk that is mounted there stays when all in it has gone.
			empty, walkErr := u.emptied(p)
			if walkErr != nil {
				return walkErr
			}
			if empty {
				continue
			}
		}
		// Without any of the others only data is left, which only a purge
		// removes.
		isData := p == machine.Etc || p == machine.VaultData
		there = there || err == nil && (u.Purge || !isData)
	}
	if u.Purge {
		// The users go last.
		for _, a := range machine.Accounts() {
			own, err := u.ownUser(a)
			if err != nil {
				return err
			}
			found, err := u.Host.User(a.Name)
			if err != nil || !own {
				continue
			}
			file, err := u.fileOf(found)
			if err != nil {
				return err
			}
			there = there || file == ""
		}
	}
	if !there {
		return ErrNothing
	}
	fmt.Fprintf(u.Out, "To be stopped and removed: %d units, the programs, the firewall's table %q, the settings of the system.\n", len(found), machine.FirewallTable)
	verb := "Kept"
	if u.Purge {
		verb = "DELETED"
	}
	for _, d := range data {
		if _, err := u.Host.Stat(d.path); err == nil {
			fmt.Fprintf(u.Out, "%-8s %-28s %s\n", verb, d.path, d.what)
		}
	}
	if u.Purge {
		fmt.Fprintf(u.Out, "%-8s users %s\n", verb, strings.Join(machine.Users(), ", "))
		for _, to := range u.Config.Backup.To {
			fmt.Fprintf(u.Out, "%-8s backups in %s\n", "Kept", place(to))
		}
	}
	return nil
}

// emptied says that nothing but folders is left in a place that something is mounted on.
func (u *Uninstall) emptied(dir string) (bool, error) {
	left, err := filesBelow(u.Host, dir)
	if err != nil || len(left) > 0 {
		return false, err
	}
	mounts, err := u.Host.ReadFile("/proc/self/mountinfo")
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line) // proc_pid_mountinfo(5)
		if len(f) > 4 && (f[4] == dir || strings.HasPrefix(f[4], dir+"/")) {
			return true, err
		}
	}
	return false, err
}

func place(to config.BackupTo) string {
	if to.Type == config.BackupDir {
		return to.Path
	}
	return to.Endpoint + "/" + to.Bucket
}

// Inside names a place for backups that a purge would delete with the rest, or,
// where the configuration is not known, a snapshot; "" for none.
func (u *Uninstall) Inside() (string, error) {
	if u.Unknown {
		for _, d := range data {
			if p, err := u.snapshotBelow(d.path); err != nil || p != "" {
				return p, err
			}
		}
		return "", nil
	}
	for _, to := range u.Config.Backup.To {
		for _, d := range data {
			if to.Type == config.BackupDir && strings.HasPrefix(path.Clean(to.Path)+"/", d.path+"/") {
				return to.Path, nil
			}
		}
	}
	return "", nil
}

// snapshotBelow finds a snapshot in a place for backups below dir; "" for none.
func (u *Uninstall) snapshotBelow(dir string) (string, error) {
	names, err := u.Host.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	for _, n := range names {
		p := path.Join(dir, n)
		if p == upgrade.Dir {
			continue // that of the last upgrade is no backup
		}
		info, err := u.Host.Stat(p)
		if err != nil {
			return "", err
		}
		switch {
		case info.Type == fs.ModeDir:
			if found, err := u.snapshotBelow(p); err != nil || found != "" {
				return found, err
			}
		case info.Type == 0 && strings.HasSuffix(n, ".snap.age"):
			return p, nil
		}
	}
	return "", nil
}
