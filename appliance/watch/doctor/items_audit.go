package doctor

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/appliance/base/words"
	"strongroom.example/config/machine"
)

// devices are Vault's audit devices.
func (e *exam) devices(ctx context.Context) (map[string]map[string]any, error) {
	if e.NoLogin != nil {
		return nil, e.NoLogin
	}
	data, err := e.Vault.Read(ctx, "sys/audit", nil)
	if err != nil {
		return nil, err
	}
	if data == nil {
		return nil, errNothing
	}
	out := map[string]map[string]any{}
	for name, d := range data {
		if t, ok := d.(map[string]any); ok && t["type"] != nil {
			out[strings.TrimSuffix(name, "/")] = t
		}
	}
	return out, nil
}

func auditDevices(ctx context.Context, e *exam) {
	devices, err := e.devices(ctx)
	if vaultapi.IsInternal(err) {
		// It says no more than that, and its health is well all the same.
		e.fail("df -h "+machine.AuditDir+" and make room; else journalctl -u vault",
			"Vault answers 500 to everybody: so it does when it can write to no audit device")
		return
	}
	if !e.listed(err) {
		return
	}
	files := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(devices)) {
		d := devices[name]
		file := text(dig(d, "options.file_path"))
		e.saw("vault audit list -detailed", "%s: %s %s", name, text(d["type"]), file)
		if text(dig(d, "options.log_raw")) == "true" {
			e.fail("vault audit disable "+name+", and enable it without log_raw", "audit device %s writes secrets in clear (log_raw)", name)
		}
		if text(d["type"]) != "file" {
			files[name] = true
			continue
		}
		if file == "discard" {
			e.fail("vault audit disable "+name, "audit device %s discards what it is given", name)
			continue
		}
		files[file] = true
		info, err := e.Machine.Stat(file)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			e.fail("systemctl reload vault; ls "+path.Dir(file), "audit device %s writes to %s, which is not there", name, file)
		case err != nil:
			e.unseen(file, err)
		default:
			e.saw(file, "%d bytes", info.Size)
		}
	}
	if len(files) < 2 {
		e.fail("vault audit enable -path=audit-2 file file_path="+machine.AuditDir+"/audit-2.log mode=0600",
			"%s: when it can't write Vault answers nobody, and two are wanted", words.Count(len(files), "audit device"))
		return
	}
	e.found(len(files), "vault audit list", "they write to %s", words.Count(len(files), "place"))
}

// listed notes why the audit devices could not be listed.
func (e *exam) listed(err error) bool {
	switch {
	case err != nil && e.NoLogin != nil:
		e.notAsked("vault audit list", err)
	case err != nil:
		e.unseen("vault audit list", err)
	}
	return err == nil
}

func auditModes(ctx context.Context, e *exam) {
	devices, err := e.devices(ctx)
	if !e.listed(err) {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(devices)) {
		d := devices[name]
		if text(d["type"]) != "file" {
			continue
		}
		option := text(dig(d, "options.mode"))
		e.found(1, "vault audit list -detailed", "%s: mode %q", name, option)
		if m, err := strconv.ParseUint(orWord(option, "0600"), 8, 32); err != nil || m&0o111 != 0 {
			e.fail("vault audit disable "+name+", then enable it with mode=0600", "audit device %s has the mode %q: Vault would not unseal with it", name, option)
		} else if m&0o077 != 0 {
			e.fail("vault audit disable "+name+", then enable it with mode=0600", "audit device %s has the mode %q: others may read it", name, option)
		}
	}
}

func auditFileModes(_ context.Context, e *exam) {
	names, err := e.Machine.ReadDir(machine.AuditDir)
	if err != nil {
		e.unseen(machine.AuditDir, err)
		return
	}
	n := 0
	for _, f := range names {
		p := path.Join(machine.AuditDir, f)
		info, err := e.Machine.Stat(p)
		if err != nil {
			e.unseen(p, err)
			continue
		}
		if info.Type != 0 {
			continue
		}
		n++
		if want := info.Mode &^ 0o137; want != info.Mode {
			e.fail("chmod 0600 "+p, "%s has the mode %04o", p, info.Mode).
				fix(func(_ context.Context, m Machine) error { return m.SetMode(p, 0o600) }, "chmod 0600 %s", p)
		}
	}
	e.found(n, machine.AuditDir, "%s", words.Count(n, "file"))
}
