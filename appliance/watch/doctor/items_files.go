package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strings"

	"strongroom.example/appliance/base/statefile"
	"strongroom.example/appliance/base/words"
	"strongroom.example/config/machine"
)

// wanted is how a file must be: nobody may do more with it than mode says, and
// it is owner's and group's ("" for any).
type wanted struct {
	path         string
	mode         fs.FileMode
	owner, group string
}

// owned looks at files, and answers with how many. Those that are not there are
// left out where they may be.
func (e *exam) owned(what string, list []wanted, mayMiss bool) {
	a, ok := e.people()
	if !ok {
		return
	}
	seen := 0
	for _, w := range list {
		info, err := e.Machine.Stat(w.path)
		if errors.Is(err, fs.ErrNotExist) && mayMiss {
			continue
		}
		if err != nil {
			e.unseen(w.path, err)
			continue
		}
		seen++
		if over := info.Mode &^ w.mode; over != 0 && info.Type != fs.ModeSymlink {
			mode := info.Mode & w.mode
			e.fail(fmt.Sprintf("chmod %04o %s", mode, w.path), "%s has the mode %04o, and must not have more than %04o", w.path, info.Mode, w.mode).
				fix(func(_ context.Context, m Machine) error { return m.SetMode(w.path, mode) }, "chmod %04o %s", mode, w.path)
		}
		uid, gid := info.UID, info.GID
		if u, ok := a.user(w.owner); ok {
			uid = u.uid
		}
		if g, ok := a.groups[w.group]; ok {
			gid = g
		}
		if uid != info.UID || gid != info.GID {
			e.fail(fmt.Sprintf("chown %s:%s %s", w.owner, w.group, w.path), "%s belongs to %s:%s, and not to %s:%s", w.path, a.name(info.UID), a.groupName(info.GID), w.owner, w.group).
				fix(func(_ context.Context, m Machine) error {
					if err := m.SetOwner(w.path, uid, gid); err != nil {
						return err
					}
					// chown takes mode bits away.
					return m.SetMode(w.path, info.Mode&w.mode)
				}, "chown %s:%s %s", a.name(uid), a.groupName(gid), w.path)
		}
	}
	e.found(seen, "modes and owners", "of %s: %s", words.Count(seen, "path"), what)
}

func storageMode(_ context.Context, e *exam) {
	e.owned("Vault's storage", []wanted{
		{machine.VaultData, 0o700, machine.UserVault, machine.UserVault},
		{machine.RaftDir, 0o700, machine.UserVault, machine.UserVault},
	}, false)
}

// closedFiles are what is always there, as closed as it must be.
func closedFiles() []wanted {
	return []wanted{
		{machine.Etc, 0o755, "root", "root"},
		{machine.VaultHCL, 0o640, "root", machine.UserVault},
		{machine.Etc + "/front.toml", 0o640, "root", machine.UserFront},
		{machine.Etc + "/epoch.json", 0o640, "root", machine.UserVault},
		{machine.Etc + "/appliance.toml", 0o644, "root", "root"},
		{machine.TLSDir, 0o700, "root", "root"},
		{machine.CredentialDir, 0o700, "root", "root"},
		{machine.StateDir, 0o755, "root", ""},
		{machine.StateDir + "/escrow", 0o750, "root", ""},
		{machine.AuditDir, 0o750, machine.UserVault, ""},
		{machine.VaultSocket, 0o660, machine.UserVault, machine.UserVault},
		{machine.KMSSocket, 0o660, "root", machine.UserVault},
	}
}

func fileModes(_ context.Context, e *exam) {
	e.owned("folders, configuration, sockets", closedFiles(), false)
}

func tlsModes(_ context.Context, e *exam) {
	e.modesIn(machine.TLSDir, wanted{"", 0o600, "root", "root"})
}

func credentialModes(_ context.Context, e *exam) {
	e.modesIn(machine.CredentialDir, wanted{"", 0o600, "root", "root"})
}

func escrowModes(_ context.Context, e *exam) {
	// There may be none: whoever keeps the escrow elsewhere alone has taken it away.
	e.modesIn(machine.StateDir+"/escrow", wanted{"", 0o750, "root", ""})
	// The key that systemd seals credentials with, where there is no TPM.
	e.owned("systemd's own key", []wanted{{"/var/lib/systemd/credential.secret", 0o600, "root", "root"}}, true)
}

// modesIn wants each file in a folder as w says.
func (e *exam) modesIn(dir string, w wanted) {
	names, err := e.Machine.ReadDir(dir)
	if err != nil {
		e.unseen(dir, err)
		return
	}
	var all []wanted
	for _, n := range names {
		w.path = path.Join(dir, n)
		all = append(all, w)
	}
	e.owned(dir, all, true)
}

func oneConfig(ctx context.Context, e *exam) {
	p, err := e.show(ctx, machine.UnitVault, "ExecStart", "DropInPaths", "Environment")
	if err != nil {
		e.unseen(machine.UnitVault, err)
		return
	}
	args := configArgs(p["ExecStart"])
	e.found(len(args), machine.UnitVault, "starts Vault with %s; drop-ins: %s", orNone(args), orWord(p["DropInPaths"], "none"))
	if len(args) != 1 || args[0] != machine.VaultHCL {
		e.fail("systemctl cat "+machine.UnitVault+"; "+reinstall, "Vault is started with the configuration %s, and not with %s alone", orNone(args), machine.VaultHCL)
	}
	if strings.Contains(p["Environment"], "VAULT_CONFIG_PATH") {
		e.fail("systemctl cat "+machine.UnitVault+"; "+reinstall, "VAULT_CONFIG_PATH in the unit adds to Vault's configuration")
	}
}

func noOtherConfig(_ context.Context, e *exam) {
	for _, other := range []string{"/etc/vault.d", "/opt/vault", "/etc/vault"} {
		if _, err := e.Machine.Stat(other); err == nil {
			e.fail("move it away: Vault does not read it, and somebody may think so", "there is %s as well", other)
		} else if errors.Is(err, fs.ErrNotExist) {
			e.yes(other, "not there")
		} else {
			e.unseen(other, err)
		}
	}
}

func configIsFile(_ context.Context, e *exam) {
	switch info, err := e.Machine.Stat(machine.VaultHCL); {
	case err != nil:
		e.unseen(machine.VaultHCL, err)
	case info.Type != 0:
		e.fail(reinstall, "%s is not a regular file", machine.VaultHCL)
	default:
		e.yes(machine.VaultHCL, "a regular file")
	}
}

var configArg = regexp.MustCompile(`-{1,2}config(?:=|\s+)(\S+)`)

// configArgs are the configurations in systemctl's ExecStart.
func configArgs(execStart string) []string {
	var out []string
	for _, m := range configArg.FindAllStringSubmatch(execStart, -1) {
		out = append(out, m[1])
	}
	return out
}

func mlock(_ context.Context, e *exam) {
	f, ok := e.configuration()
	switch {
	case !ok:
	case f.DisableMlock == nil:
		e.fail(reinstall, "%s does not say disable_mlock", machine.VaultHCL)
	case !*f.DisableMlock:
		e.warn("docs/install.md", "disable_mlock = false: raft's memory maps would be locked as well")
	default:
		e.yes(machine.VaultHCL, "disable_mlock = true")
	}
}

func swapIsOff(_ context.Context, e *exam) {
	devices, there, ok := e.swaps()
	switch {
	case !ok:
	case len(devices) > 0:
		e.fail("swapoff -a", "memory is not locked and swap is on: keys may reach the disk")
	default:
		e.yes("/proc/swaps", "%s", swapWords(devices, there))
	}
}

// installed is what the installer has written down of its work.
type installed struct {
	Version string `json:"version"`
	Files   []struct {
		Path   string `json:"path"`
		SHA256 string `json:"sha256"`
		Mode   mode   `json:"mode"`
		UID    int    `json:"uid"`
		GID    int    `json:"gid"`
	} `json:"files"`
}

// mode is permission bits as JSON has them: a number, or octal digits in a
// string ("0640").
type mode fs.FileMode

// UnmarshalJSON implements json.Unmarshaler.
func (m *mode) UnmarshalJSON(b []byte) error {
	var n uint32
	if err := json.Unmarshal(b, &n); err == nil {
		*m = mode(n)
		return nil
	}
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	if _, err := fmt.Sscanf(s, "%o", &n); err != nil {
		return fmt.Errorf("mode %q is not octal", s)
	}
	*m = mode(n)
	return nil
}

func drift(_ context.Context, e *exam) {
	b, err := e.Machine.ReadFile(machine.ManifestFile)
	if err != nil {
		e.unseen(machine.ManifestFile, err)
		return
	}
	var in installed
	if err := statefile.Decode(b, machine.ManifestFormat, &in); err != nil {
		e.fail(reinstall, "%s is damaged: %v", machine.ManifestFile, err)
		return
	}
	same := 0
	for _, f := range in.Files {
		info, err := e.Machine.Stat(f.Path)
		if errors.Is(err, fs.ErrNotExist) {
			e.fail(reinstall, "%s is gone", f.Path)
			continue
		}
		if err != nil {
			e.unseen(f.Path, err)
			continue
		}
		ok := true
		if want := fs.FileMode(f.Mode).Perm(); info.Mode != want || info.UID != f.UID || info.GID != f.GID {
			ok = false
			e.fail(reinstall, "%s: mode %04o %d:%d, installed with %04o %d:%d", f.Path, info.Mode, info.UID, info.GID, want, f.UID, f.GID).
				fix(func(_ context.Context, m Machine) error {
					if err := m.SetOwner(f.Path, f.UID, f.GID); err != nil {
						return err
					}
					return m.SetMode(f.Path, want)
				}, "chmod %04o, chown %d:%d %s", want, f.UID, f.GID, f.Path)
		}
		if f.SHA256 != "" {
			sum, err := e.Machine.Sum(f.Path)
			if err != nil {
				e.unseen(f.Path, err)
				continue
			}
			if sum != f.SHA256 {
				ok = false
				e.fail(reinstall, "%s: other content (sha256 %.12s…, installed with %.12s…)", f.Path, sum, f.SHA256)
			}
		}
		if ok {
			same++
		}
	}
	e.found(len(in.Files), machine.ManifestFile, "version %s, %s, %d as they were written", in.Version, words.Count(len(in.Files), "file"), same)
}
