// Package uninstall takes the appliance off a machine: what runs and what makes
// it run, or, on purge, the data as well.
//
// It removes only what the installer has put there, and works from what it
// finds, so it may be stopped anywhere and run again. It is not a way to erase a
// disk: what is deleted can be read from it until it is overwritten.
package uninstall

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"syscall"

	"strongroom.example/config"
	"strongroom.example/config/machine"
	"strongroom.example/installer/host"
	"strongroom.example/installer/steps"
	"strongroom.example/systemd"
)

// Uninstall is one machine's.
type Uninstall struct {
	Host   *host.Host
	Config config.Appliance
	// Unknown says that the configuration could not be read, and Config names
	// no more than the domain.
	Unknown bool
	// Purge deletes the data too.
	Purge bool
	Out   io.Writer
}

// data are the folders that hold what can't be made again. Without Purge they
// stay, and an installation on them brings the same Vault back.
var data = []struct{ path, what string }{
	{machine.VaultData, "Vault's storage"},
	{machine.StateDir, "escrow, journal and the jobs' state"},
	{machine.Etc, "configuration, the sealed master key, the internal CA's root and logins"},
	{machine.AuditDir, "audit logs"},
	{machine.FrontData, "certificates"},
}

// rendered are the files in the configuration's folder that the next
// installation writes anew.
func rendered() []string {
	return []string{machine.VaultHCL, machine.Etc + "/front.toml", machine.NftablesConf, machine.NftablesConf + ".new",
		machine.ManifestFile}
}

// ErrNothing says that nothing of the appliance is there.
var ErrNothing = errors.New("nothing of the appliance is on this machine")

// Run uninstalls. It prints a line for each part.
func (u *Uninstall) Run(ctx context.Context) error {
	for _, part := range []struct {
		what string
		do   func(context.Context) error
		want bool
	}{
		{"units stopped and disabled", u.stop, true},
		{"firewall's table", u.firewall, true},
		{"units removed", u.removeUnits, true},
		{"programs", u.removePrograms, true},
		{"settings of the system", u.removeSettings, true},
		{"configuration that is written anew", u.removeRendered, !u.Purge},
		{"data", u.removeData, u.Purge},
		{"users", u.removeUsers, u.Purge},
	} {
		if !part.want {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := part.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", part.what, err)
		}
		fmt.Fprintf(u.Out, "✓ %s\n", part.what)
	}
	return nil
}

// units are the appliance's unit files that are on the machine.
func (u *Uninstall) units() ([]string, error) {
	names, err := u.Host.ReadDir(machine.UnitDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	listed, err := u.manifest()
	if err != nil {
		return nil, err
	}
	ours := systemd.Names()
	var found []string
	for _, n := range names {
		if slices.Contains(ours, n) || slices.Contains(listed, path.Join(machine.UnitDir, n)) {
			found = append(found, n)
		}
	}
	return found, nil
}

// manifest are the files that the installer has written down as its own.
func (u *Uninstall) manifest() ([]string, error) {
	m, err := steps.ReadManifest(u.Host)
	if err != nil || m == nil {
		return nil, err
	}
	var files []string
	for _, f := range m.Files {
		files = append(files, f.Path)
	}
	return files, nil
}

// rank orders the stops: first what starts others, last what others need.
func rank(unit string) int {
	switch {
	case strings.HasSuffix(unit, ".timer"), strings.HasSuffix(unit, ".path"):
		return 0
	case unit == machine.UnitFrontHTTPS, unit == machine.UnitFrontHTTP, unit == machine.UnitFrontHTTP3, unit == machine.UnitAuthoritySocket, unit == machine.UnitMetricsSocket, unit == machine.UnitFilesSocket:
		return 1
	case unit == machine.UnitVault:
		return 3
	case unit == machine.UnitKMSSocket:
		return 4
	case unit == machine.UnitKMS:
		return 5
	case unit == machine.UnitFirewall:
		return 6
	}
	return 2
}

func (u *Uninstall) stop(ctx context.Context) error {
	names, err := u.units()
	if err != nil {
		return err
	}
	// A rollback of the firewall's rules that is still armed would bring them
	// back.
	names = append(names, machine.UnitFirewallRollback+".timer")
	slices.SortStableFunc(names, func(a, b string) int { return rank(a) - rank(b) })
	if err := u.stopFront(ctx, names); err != nil {
		return err
	}
	for _, n := range names {
		if strings.Contains(n, "@.") {
			continue
		}
		unit, err := u.Host.Unit(ctx, n)
		if err != nil {
			return err
		}
		if unit.Load == "not-found" {
			continue
		}
		if unit.Active != "inactive" && unit.Active != "failed" {
			if err := u.Host.Stop(ctx, n); err != nil {
				return err
			}
		}
		if unit.Enabled == "enabled" {
			if err := u.Host.Disable(ctx, n); err != nil {
				return err
			}
		}
		if err := u.Host.ResetFailed(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

// stopFront stops each socket with the service that it starts, which a client that
// connects just now would start again.
func (u *Uninstall) stopFront(ctx context.Context, names []string) error {
	for _, set := range [][]string{
		{machine.UnitFront, machine.UnitFrontHTTPS, machine.UnitFrontHTTP, machine.UnitFrontHTTP3},
		{machine.UnitMetrics, machine.UnitMetricsSocket},
	} {
		var running []string
		for _, n := range set {
			unit, err := u.Host.Unit(ctx, n)
			if err != nil {
				return err
			}
			if slices.Contains(names, n) && unit.Load != "not-found" && unit.Active != "inactive" {
				running = append(running, n)
			}
		}
		if len(running) == 0 {
			continue
		}
		if err := u.Host.StopTogether(ctx, running...); err != nil {
			return err
		}
	}
	return nil
}

// firewall removes the table where its unit's stop has not.
func (u *Uninstall) firewall(ctx context.Context) error {
	if !u.Config.Firewall.Manage {
		return nil
	}
	table := []string{"table", "inet", machine.FirewallTable}
	_, err := u.Host.Run(ctx, host.Command{Args: append([]string{"nft", "list"}, table...)})
	var exit *host.ExitError
	if errors.As(err, &exit) || errors.Is(err, host.ErrNotFound) {
		return nil // it isn't there
	}
	if err != nil {
		return err
	}
	_, err = u.Host.Run(ctx, host.Command{Args: append([]string{"nft", "delete"}, table...)})
	return err
}

// written begins every drop-in of the installer's.
const written = "# Written by " + machine.InstallerName

func (u *Uninstall) removeUnits(ctx context.Context) error {
	names, err := u.units()
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := u.removeDropIns(path.Join(machine.UnitDir, n+".d")); err != nil {
			return err
		}
		if err := u.Host.Remove(path.Join(machine.UnitDir, n)); err != nil {
			return err
		}
	}
	if err := u.removeDropIns(path.Join(machine.UnitDir, machine.UnitNftables+".d")); err != nil {
		return err
	}
	return u.Host.ReloadUnits(ctx)
}

// removeDropIns leaves the operator's own.
func (u *Uninstall) removeDropIns(dir string) error {
	names, err := u.Host.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	left := 0
	for _, n := range names {
		p := path.Join(dir, n)
		b, err := u.Host.ReadFile(p)
		if err != nil {
			return err
		}
		if !strings.HasPrefix(string(b), written) {
			fmt.Fprintf(u.Out, "  %s is not the installer's, and stays\n", p)
			left++
			continue
		}
		if err := u.Host.Remove(p); err != nil {
			return err
		}
	}
	if left > 0 {
		return nil
	}
	return u.Host.Remove(dir)
}

func (u *Uninstall) programs() []string {
	return []string{path.Join(machine.BinDir, machine.ProgramName), machine.VaultProgram, machine.LibDir}
}

func (u *Uninstall) removePrograms(context.Context) error {
	for _, p := range u.programs() {
		if err := u.Host.RemoveAll(p); err != nil {
			return err
		}
	}
	return nil
}

// removeSettings takes back what concerns the machine as a whole, from the next
// boot on: what the kernel's settings were before is not known.
func (u *Uninstall) removeSettings(ctx context.Context) error {
	listed, err := u.manifest()
	if err != nil {
		return err
	}
	for _, f := range append(machine.SystemFiles(), slices.DeleteFunc(listed, elsewhere)...) {
		if err := u.removeSetting(f); err != nil {
			return err
		}
	}
	if err := u.apport(ctx); err != nil {
		return err
	}
	const fstab = "/etc/fstab"
	b, err := u.Host.ReadFile(fstab)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	text := withSwap(string(b))
	if text == string(b) {
		return nil
	}
	info, err := u.Host.Stat(fstab)
	if err != nil {
		return err
	}
	return u.Host.Write(fstab, strings.NewReader(text), info.Attr)
}

// removeSetting removes a file that is as an installation has left it. One that somebody
// has changed since is his, too: it is out of force, and kept.
func (u *Uninstall) removeSetting(file string) error {
	m, err := steps.ReadManifest(u.Host)
	if err != nil || m == nil {
		return errors.Join(err, u.Host.Remove(file))
	}
	at := slices.IndexFunc(m.Files, func(f steps.ManifestFile) bool { return f.Path == file })
	if at < 0 || m.Files[at].SHA256 == "" {
		return u.Host.Remove(file)
	}
	sum, err := u.Host.Sum(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if sum == m.Files[at].SHA256 {
		return u.Host.Remove(file)
	}
	to := file + machine.Aside + u.Host.Now().UTC().Format("20060102T150405Z")
	fmt.Fprintf(u.Out, "  %s was changed by somebody: it is kept as %s\n", file, to)
	return u.Host.Rename(file, to)
}

// apport is unmasked where an installation has masked it.
func (u *Uninstall) apport(ctx context.Context) error {
	if _, err := u.Host.Stat(machine.ApportMasked); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	if _, err := u.Host.Run(ctx, host.Command{Args: []string{"systemctl", "unmask", "apport.service"}}); err != nil {
		return err
	}
	return u.Host.Remove(machine.ApportMasked)
}

// elsewhere says that another part sees to a file: its unit's, its program's, or
// whoever deletes the data.
func elsewhere(file string) bool {
	for _, d := range data {
		if strings.HasPrefix(file, d.path+"/") {
			return true
		}
	}
	return !strings.HasPrefix(file, "/etc/") || strings.HasPrefix(file, machine.UnitDir+"/")
}

// withSwap brings back the swap lines of an fstab that the installer has
// commented out.
func withSwap(old string) string {
	var b strings.Builder
	for line := range strings.Lines(old) {
		b.WriteString(strings.TrimPrefix(line, steps.SwapNote))
	}
	return b.String()
}

func (u *Uninstall) removeRendered(context.Context) error {
	for _, f := range rendered() {
		if err := u.Host.Remove(f); err != nil {
			return err
		}
	}
	return u.Host.RemoveAll(machine.TLSDir)
}

// removeData deletes the configuration last: it says what the machine was.
func (u *Uninstall) removeData(context.Context) error {
	for _, d := range data {
		if d.path == machine.Etc {
			continue
		}
		if err := u.empty(d.path); err != nil {
			return err
		}
	}
	return u.empty(machine.Etc)
}

// empty removes a folder. A disk that is mounted there, or below it, is emptied and stays.
func (u *Uninstall) empty(dir string) error {
	err := u.Host.RemoveAll(dir)
	if !errors.Is(err, syscall.EBUSY) {
		return err
	}
	left, walkErr := filesBelow(u.Host, dir)
	if walkErr != nil {
		return errors.Join(err, walkErr)
	}
	if len(left) > 0 {
		return err
	}
	fmt.Fprintf(u.Out, "  %s is emptied; a disk is mounted there, and stays\n", dir)
	return nil
}

// filesBelow are all that are no folders.
func filesBelow(h host.FS, p string) ([]string, error) {
	info, err := h.Stat(p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if info.Type != fs.ModeDir {
		return []string{p}, nil
	}
	names, err := h.ReadDir(p)
	var out []string
	for _, n := range names {
		more, walkErr := filesBelow(h, path.Join(p, n))
		out, err = append(out, more...), errors.Join(err, walkErr)
	}
	return out, err
}

func (u *Uninstall) removeUsers(ctx context.Context) error {
	for _, a := range machine.Accounts() {
		own, err := u.ownUser(a)
		if err != nil {
			return err
		}
		found, err := u.Host.User(a.Name)
		if errors.Is(err, host.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		if !own {
			fmt.Fprintf(u.Out, "  user %q is not as an installation makes it, and stays\n", a.Name)
			continue
		}
		file, err := u.fileOf(found)
		if err != nil {
			return err
		}
		if file != "" {
			fmt.Fprintf(u.Out, "  user %q owns %s, and stays: another user would get its number, and the files\n", a.Name, file)
			continue
		}
		if _, err := u.Host.Run(ctx, host.Command{Args: []string{"userdel", a.Name}}); err != nil {
			return err
		}
	}
	return nil
}

// ownUser says whether a user is there as an installation makes it: by that full name,
// and without a login. One by the name alone is somebody else's.
func (u *Uninstall) ownUser(a machine.Account) (bool, error) {
	found, err := u.Host.User(a.Name)
	if errors.Is(err, host.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return found.UID != 0 && found.Comment == a.Comment && (strings.HasSuffix(found.Shell, "nologin") || strings.HasSuffix(found.Shell, "/false")), nil
}

// fileOf names a file of a user's, or of its group, in a place for backups, which stays;
// "" for none.
func (u *Uninstall) fileOf(user host.User) (string, error) {
	for _, to := range u.Config.Backup.To {
		if to.Type != config.BackupDir {
			continue
		}
		if f, err := ownedBelow(u.Host, to.Path, user); err != nil || f != "" {
			return f, err
		}
	}
	return "", nil
}

func ownedBelow(h host.FS, p string, user host.User) (string, error) {
	info, err := h.Stat(p)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if info.UID == user.UID || info.GID == user.GID {
		return p, nil
	}
	if info.Type != fs.ModeDir {
		return "", nil
	}
	names, err := h.ReadDir(p)
	if err != nil {
		return "", err
	}
	for _, n := range names {
		if f, err := ownedBelow(h, path.Join(p, n), user); err != nil || f != "" {
			return f, err
		}
	}
	return "", nil
}
