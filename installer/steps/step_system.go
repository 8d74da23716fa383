package steps

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"strongroom.example/config/machine"
	"strongroom.example/installer/engine"
	"strongroom.example/installer/host"
)

// system is what the machine as a whole must be: no swap and no core dumps,
// either of which may write a key to the disk; no `vault` lines in shell
// histories; a clock that is kept.
type system struct{ *Env }

func (system) ID() string    { return "system" }
func (system) Title() string { return "swap, core dumps, history, clock" }

// sysctls are what the running kernel must have.
var sysctls = []struct{ key, value, why string }{
	{"fs.suid_dumpable", "0", "a process that changed its user leaves no core"},
	{"kernel.core_pattern", "|/bin/false", "no core reaches the disk"},
	{"kernel.dmesg_restrict", "1", "kernel messages are for root"},
	{"kernel.kptr_restrict", "2", "no kernel addresses to anyone"},
	{"net.ipv4.tcp_syncookies", "1", "a flood of connections does not fill the queue"},
}

const fstab = "/etc/fstab"

// SwapNote is what an fstab line for swap has been commented out with.
const SwapNote = "# no swap, by " + machine.InstallerName + ": "

func (s system) Check(ctx context.Context) (engine.Diff, error) {
	var c collect
	var text strings.Builder
	text.WriteString("# Written by strongroom-installer.\n")
	for _, v := range sysctls {
		fmt.Fprintf(&text, "# %s\n%s = %s\n", v.why, v.key, v.value)
	}
	c.add(s.apport(ctx)) // before the settings that it changes
	c.add(s.file(machine.SysctlFile, bytesSource([]byte(text.String())), root(0o644)))
	for _, v := range sysctls {
		c.add(s.sysctl(v.key, v.value))
	}
	for _, d := range []string{"/etc/security", "/etc/security/limits.d"} {
		c.add(s.dir(d, root(0o755)))
	}
	c.add(s.file(machine.LimitsFile, bytesSource([]byte("# Written by strongroom-installer: no core dumps.\n* hard core 0\nroot hard core 0\n")), root(0o644)))
	c.add(s.file(machine.HistoryFile, bytesSource([]byte(`# Written by strongroom-installer: commands that may hold secrets stay out of
# the shell's history.
HISTIGNORE="vault*:strongroom*:*[!A-Za-z0-9_.-]vault *:*[!A-Za-z0-9_.-]strongroom *:*VAULT_TOKEN*${HISTIGNORE:+:$HISTIGNORE}"
`)), root(0o644)))
	c.add(s.swap())
	c.add(s.clock(ctx))
	return c.done()
}

// sysctl wants a kernel setting to be in force now; the file is for the next
// boot. One that this kernel doesn't have, or doesn't let a container change,
// is not asked for.
func (s system) sysctl(key, want string) (engine.Diff, error) {
	p := "/proc/sys/" + strings.ReplaceAll(key, ".", "/")
	b, err := s.Host.ReadFile(p)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	got := strings.TrimSpace(string(b))
	if got == want || s.readOnly(p) {
		return nil, nil
	}
	return engine.Diff{{What: key, From: strconv.Quote(got), To: strconv.Quote(want), Apply: func(ctx context.Context) error {
		_, err := s.Host.Run(ctx, host.Command{Args: []string{"sysctl", "-q", "-w", key + "=" + want}})
		return err
	}}}, nil
}

// apport wants Ubuntu's collector of crashes gone: it takes core dumps, and its
// start at each boot, after sysctl.d's, undoes our settings.
func (s system) apport(ctx context.Context) (engine.Diff, error) {
	const name = "apport.service"
	u, err := s.Host.Unit(ctx, name)
	if err != nil || u.Load != "loaded" {
		return nil, err
	}
	return engine.Diff{{What: name, From: u.Active, To: "stopped and masked, since it turns core dumps on", Apply: func(ctx context.Context) error {
		// Whoever uninstalls unmasks what was masked here, and nothing else.
		if err := s.Host.Write(machine.ApportMasked, strings.NewReader(""), root(0o644)); err != nil {
			return err
		}
		if _, err := s.Host.Run(ctx, host.Command{Args: []string{"systemctl", "mask", "--now", name}}); err != nil {
			return err
		}
		// Its stop has changed what Check has seen.
		for _, v := range sysctls {
			diff, err := s.sysctl(v.key, v.value)
			if err != nil {
				return err
			}
			for _, c := range diff {
				if err := c.Apply(ctx); err != nil {
					return err
				}
			}
		}
		return nil
	}}}, nil
}

// readOnly says whether p lies on a file system that is mounted so, as /proc/sys
// is in containers.
func (s system) readOnly(p string) bool {
	b, err := s.Host.ReadFile("/proc/self/mounts")
	if err != nil {
		return false
	}
	best, ro := "", false
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 4 || len(f[1]) < len(best) || f[1] != "/" && p != f[1] && !strings.HasPrefix(p, f[1]+"/") {
			continue
		}
		best, ro = f[1], f[3] == "ro" || strings.HasPrefix(f[3], "ro,")
	}
	return ro
}

// swap wants none, now and after a boot.
func (s system) swap() (engine.Diff, error) {
	var diff engine.Diff
	b, err := s.Host.ReadFile("/proc/swaps")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if devices := strings.Count(strings.TrimSpace(string(b)), "\n"); devices > 0 {
		diff = append(diff, engine.Change{What: "swap", From: fmt.Sprintf("%d in use", devices), To: "off", Apply: func(ctx context.Context) error {
			_, err := s.Host.Run(ctx, host.Command{Args: []string{"swapoff", "-a"}})
			return err
		}})
	}
	old, err := s.Host.ReadFile(fstab)
	if errors.Is(err, fs.ErrNotExist) {
		return diff, nil
	}
	if err != nil {
		return nil, err
	}
	text, n := withoutSwap(string(old))
	if n == 0 {
		return diff, nil
	}
	info, err := s.Host.Stat(fstab)
	if err != nil {
		return nil, err
	}
	return append(diff, engine.Change{What: fstab, From: fmt.Sprintf("%d lines for swap", n), To: "commented out", Apply: func(context.Context) error {
		return s.Host.Write(fstab, strings.NewReader(text), info.Attr)
	}}), nil
}

// withoutSwap comments out the swap lines of an fstab.
func withoutSwap(old string) (text string, n int) {
	var b strings.Builder
	for line := range strings.Lines(old) {
		if f := strings.Fields(line); len(f) >= 3 && !strings.HasPrefix(f[0], "#") && f[2] == "swap" {
			b.WriteString(SwapNote)
			n++
		}
		b.WriteString(line)
	}
	return b.String(), n
}

// timeServices keep the clock; any one of them will do.
var timeServices = []string{"chrony.service", "chronyd.service", "ntpsec.service", "ntp.service", "ntpd.service", "openntpd.service", "systemd-timesyncd.service"}

func (s system) clock(ctx context.Context) (engine.Diff, error) {
	found := ""
	for _, name := range timeServices {
		u, err := s.Host.Unit(ctx, name)
		if err != nil {
			return nil, err
		}
		if u.Load != "loaded" {
			continue
		}
		if u.Enabled == "enabled" {
			return nil, nil
		}
		found = name
	}
	if found == "" {
		return nil, operator("apt-get install systemd-timesyncd, then run the same command again",
			"nothing on this machine keeps the clock: none of %s is installed", strings.Join(timeServices, ", "))
	}
	// Started first: enabled is what Check looks for. (In a container it does
	// not run, since the clock is the host's.)
	return engine.Diff{{What: found, From: "disabled", To: "started and enabled", Apply: func(ctx context.Context) error {
		if err := s.Host.Start(ctx, found); err != nil {
			return err
		}
		return s.Host.Enable(ctx, found)
	}}}, nil
}
