package uninstall

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"strongroom/appliance/escrow"
	"strongroom/appliance/snapshot"
	"strongroom/config"
	"strongroom/installer/steps"
)

// Warnings are what an operator should know before data is deleted.
func (u *Uninstall) Warnings() []string {
	var out []string
	files, err := escrow.LoadStatus(steps.EscrowDir)
	open := slices.ContainsFunc(files, func(f escrow.FileStatus) bool { return !f.Confirmed() })
	if err != nil || len(files) == 0 || open {
		out = append(out, "nobody has proved that the escrow opens off this machine (strongroom escrow challenge): without it no backup can be opened")
	}
	s, err := snapshot.LoadVerifyState(steps.StateDir + "/verify")
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
	for _, p := range append(u.programs(), steps.EtcDir, steps.VaultData) {
		_, err := u.Host.Stat(p)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		// Without a unit or program only data is left, which only a purge
		// removes.
		isData := p == steps.EtcDir || p == steps.VaultData
		there = there || err == nil && (u.Purge || !isData)
	}
	if !there {
		return ErrNothing
	}
	fmt.Fprintf(u.Out, "Stopped and removed: %d units, the programs, the firewall's table %q, the settings of the system.\n", len(found), steps.FirewallTable)
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
		fmt.Fprintf(u.Out, "%-8s users %s\n", verb, strings.Join(steps.Users(), ", "))
		for _, to := range u.Config.Backup.To {
			fmt.Fprintf(u.Out, "%-8s backups in %s\n", "Kept", place(to))
		}
	}
	return nil
}

func place(to config.BackupTo) string {
	if to.Type == config.BackupDir {
		return to.Path
	}
	return to.Endpoint + "/" + to.Bucket
}

// Inside names a place for backups that a purge would delete with the rest; ""
// for none.
func (u *Uninstall) Inside() string {
	for _, to := range u.Config.Backup.To {
		for _, d := range data {
			if to.Type == config.BackupDir && strings.HasPrefix(path.Clean(to.Path)+"/", d.path+"/") {
				return to.Path
			}
		}
	}
	return ""
}
