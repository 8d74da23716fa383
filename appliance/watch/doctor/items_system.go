package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"strongroom.example/appliance/base/words"
	"strongroom.example/config/machine"
)

func swapOff(_ context.Context, e *exam) {
	devices, there, ok := e.swaps()
	switch {
	case !ok:
	case len(devices) > 0:
		e.fail("swapoff -a", "swap is on: %s", words.List(devices, 8)).fix(run("swapoff", "-a"), "swapoff -a")
	default:
		e.yes("/proc/swaps", "%s", swapWords(devices, there))
	}
}

// swaps reads what swap is on, and whether the kernel has any.
func (e *exam) swaps() (devices []string, there, ok bool) {
	b, err := e.Machine.ReadFile("/proc/swaps")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, true
	}
	if err == nil && !strings.HasPrefix(string(b), "Filename") {
		err = errNothing // its heading is always there
	}
	if err != nil {
		e.unseen("/proc/swaps", err)
		return nil, false, false
	}
	return swapDevices(string(b)), true, true
}

func swapWords(devices []string, there bool) string {
	if !there {
		return "not there: this kernel has no swap"
	}
	return orNone(devices)
}

func noSwapAtBoot(_ context.Context, e *exam) {
	b, err := e.Machine.ReadFile("/etc/fstab")
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e.yes("/etc/fstab", "not there")
		return
	case err != nil:
		e.unseen("/etc/fstab", err)
		return
	}
	text, n := withoutSwap(string(b))
	e.yes("/etc/fstab", "%s for swap", words.Count(n, "line"))
	if n > 0 {
		e.fail("comment the lines for swap out of /etc/fstab", "swap comes back at the next boot: /etc/fstab has %s for it", words.Count(n, "line")).
			fix(func(_ context.Context, m Machine) error { return m.Replace("/etc/fstab", []byte(text)) }, "comment %s out of /etc/fstab", words.Count(n, "line"))
	}
}

// zramConfigs are those of systemd's zram-generator: the first that is there counts.
var zramConfigs = []string{"/etc/systemd/zram-generator.conf", "/usr/lib/systemd/zram-generator.conf"}

// noSwapUnit looks for units of swap that a boot wants, and for swap in memory.
func noSwapUnit(_ context.Context, e *exam) {
	folders, err := e.Machine.ReadDir(machine.UnitDir)
	if err == nil && len(folders) == 0 {
		err = errNothing // our own units are there
	}
	if err != nil {
		e.unseen(machine.UnitDir, err)
		return
	}
	var units []string
	for _, folder := range folders {
		if !strings.HasSuffix(folder, ".wants") && !strings.HasSuffix(folder, ".requires") {
			continue
		}
		names, err := e.Machine.ReadDir(machine.UnitDir + "/" + folder)
		if err != nil {
			e.unseen(machine.UnitDir+"/"+folder, err)
			return
		}
		for _, name := range names {
			if strings.HasSuffix(name, ".swap") {
				units = append(units, name)
				e.fail("systemctl disable --now "+name, "swap comes at each boot: %s/%s/%s", machine.UnitDir, folder, name)
			}
		}
	}
	e.yes(machine.UnitDir, "units of swap that a boot wants: %s", orNone(units))
	for _, file := range zramConfigs {
		b, err := e.Machine.ReadFile(file)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			e.unseen(file, err)
		case strings.Contains("\n"+string(b), "\n[zram"):
			e.fail("an empty "+zramConfigs[0]+" makes none; then swapoff -a", "swap in memory comes at each boot, by %s", file)
		}
		return
	}
}

// swapDevices are the names in /proc/swaps, whose first line is a heading.
func swapDevices(text string) []string {
	var out []string
	first := true
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); !first && len(f) > 0 {
			out = append(out, f[0])
		}
		first = false
	}
	return out
}

// withoutSwap comments out the swap lines of an fstab(5).
func withoutSwap(old string) (text string, n int) {
	var b strings.Builder
	for line := range strings.Lines(old) {
		if f := strings.Fields(line); len(f) >= 3 && !strings.HasPrefix(f[0], "#") && f[2] == "swap" {
			// As the installer writes it, so that its uninstall finds it.
			b.WriteString("# no swap, by strongroom-installer: ")
			n++
		}
		b.WriteString(line)
	}
	return b.String(), n
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return words.List(names, 8)
}

// run is a fix by one command.
func run(args ...string) fix {
	return func(ctx context.Context, m Machine) error {
		_, err := m.Run(ctx, args...)
		return err
	}
}

func suidDumpable(_ context.Context, e *exam) { e.sysctl("fs.suid_dumpable", "0") }

func unitCores(ctx context.Context, e *exam) {
	for _, unit := range daemonUnits() {
		p, err := e.show(ctx, unit, "LimitCORE")
		if err != nil {
			e.unseen(unit, err)
			continue
		}
		e.found(1, unit, "LimitCORE=%s", p["LimitCORE"])
		if p["LimitCORE"] != "0" {
			e.fail(reinstall, "%s may leave a core dump: LimitCORE=%s", unit, p["LimitCORE"])
		}
	}
}

func processCores(ctx context.Context, e *exam) {
	for _, unit := range daemonUnits() {
		pid, ok := e.mainPID(ctx, unit)
		if !ok {
			continue
		}
		p := fmt.Sprintf("/proc/%d/limits", pid)
		b, err := e.Machine.ReadFile(p)
		if err != nil {
			e.unseen(p, err)
			continue
		}
		limit := coreLimit(string(b))
		e.found(1, p, "%s: core file size %s", unit, limit)
		if limit != "0" {
			e.fail("systemctl restart "+unit, "process %d of %s may leave a core dump (limit %s)", pid, unit, limit)
		}
	}
}

// coreLimit is the soft limit in a process's limits, proc(5).
func coreLimit(text string) string {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, "Max core file size"); ok {
			if f := strings.Fields(rest); len(f) > 0 {
				return f[0]
			}
		}
	}
	return "unknown"
}

// sysctl wants a kernel setting.
func (e *exam) sysctl(key, want string) {
	p := "/proc/sys/" + strings.ReplaceAll(key, ".", "/")
	b, err := e.Machine.ReadFile(p)
	if err != nil {
		e.unseen(p, err)
		return
	}
	got := strings.TrimSpace(string(b))
	if got == want {
		e.yes(p, "%s", got)
		return
	}
	e.saw(p, "%s", got)
	if c := e.inContainer(); c != "" {
		e.warn("set it on the host: sysctl -w "+key+"="+want, "%s is %s, and not %s; in a container (%s) the host decides", key, got, want, c)
		return
	}
	e.fail("sysctl -w "+key+"="+want, "%s is %s, and not %s", key, got, want).
		fix(run("sysctl", "-q", "-w", key+"="+want), "sysctl -w %s=%s", key, want)
}

func engineClock(ctx context.Context, e *exam) {
	if !e.vault("the engine's clock") {
		return
	}
	keys, err := e.Vault.Keys(ctx, e.Mount)
	switch {
	case err != nil:
		e.unseen("the engine's clock", err)
	case keys.Clock != "ok":
		e.fail("set the clock right (timedatectl); then vault write "+e.Mount+"/config accept_clock=true", "the clock jumped: the engine finds it %s and keeps its own time", orWord(keys.Clock, "unknown"))
	default:
		e.yes("vault read "+e.Mount+"/status", "the engine finds the clock %s", keys.Clock)
	}
}

func kernelClock(ctx context.Context, e *exam) {
	if c := e.inContainer(); c != "" {
		e.moot("/run/systemd/container", "a container (%s): the clock is the host's", c)
		return
	}
	out, err := e.Machine.Run(ctx, "timedatectl", "show", "--property=NTPSynchronized", "--property=NTP")
	if err != nil {
		e.unseen("timedatectl", err)
		return
	}
	p := parseProperties(string(out))
	switch p["NTPSynchronized"] {
	case "yes":
		e.yes("timedatectl show", "NTPSynchronized=yes, NTP=%s", p["NTP"])
	case "no":
		r := e.fail("timedatectl timesync-status; systemctl status systemd-timesyncd", "the kernel's clock is not synchronised")
		if p["NTP"] == "no" {
			r.fix(run("timedatectl", "set-ntp", "true"), "timedatectl set-ntp true")
		}
	default:
		e.unseen("timedatectl", errNothing)
	}
}
