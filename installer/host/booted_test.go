package host

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"strongroom.example/config/machine"
)

// onBooted says whether this runs on a machine of its own, as root and below systemd; the
// tests on booted machines have it so. Elsewhere the fake alone is tried.
func onBooted() bool { return os.Getenv("STRONGROOM_BOOTED") == "1" }

// faulty is a machine whose file systems have faults: each func gives a folder of them.
type faulty struct {
	FS
	mounted, full, noInodes, readOnly func(t *testing.T) string
}

func memoryFaults(t *testing.T) faulty {
	t.Helper()
	m := NewMemory()
	at := func(list *[]string, name string) func(*testing.T) string {
		return func(t *testing.T) string {
			t.Helper()
			for _, d := range []string{name, name + "/there"} {
				if err := m.Mkdir(d, me(0o755)); err != nil {
					t.Fatal(err)
				}
			}
			if err := m.Write(name+"/there/f", strings.NewReader("x"), me(0o600)); err != nil {
				t.Fatal(err)
			}
			*list = append(*list, name)
			return name
		}
	}
	return faulty{m, at(&m.Mounts, "/mounted"), at(&m.Full, "/full"), at(&m.Full, "/inodes"), at(&m.ReadOnly, "/ro")}
}

func realFaults(t *testing.T) faulty {
	t.Helper()
	root := t.TempDir()
	mount := func(name, options string, fill func(dir string), flags uintptr) func(*testing.T) string {
		return func(t *testing.T) string {
			t.Helper()
			dir := filepath.Join(root, name)
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
			if err := errors.Join(os.Mkdir(filepath.Join(dir, "there"), 0o755), os.WriteFile(filepath.Join(dir, "there", "f"), []byte("x"), 0o600)); err != nil {
				t.Fatal(err)
			}
			fill(dir)
			if flags != 0 {
				if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|flags, options); err != nil {
					t.Fatal(err)
				}
			}
			return "/" + name
		}
	}
	nothing := func(string) {}
	fill := func(dir string) { _ = os.WriteFile(filepath.Join(dir, "filler"), make([]byte, 1<<20), 0o600) }
	return faulty{OSFS{Root: root}, mount("mounted", "", nothing, 0), mount("full", "size=64k", fill, 0), mount("inodes", "nr_inodes=3", nothing, 0), mount("ro", "", nothing, syscall.MS_RDONLY)}
}

// The faults of file systems are the fake's as they are a real machine's.
func TestFaultsConformance(t *testing.T) {
	machines := map[string]func(*testing.T) faulty{"memory": memoryFaults}
	if onBooted() {
		machines["booted"] = realFaults
	}
	for name, open := range machines {
		t.Run(name, func(t *testing.T) {
			f := open(t)
			big := strings.Repeat("x", 256<<10)
			at := f.mounted(t)
			want := func(what string, err, is error) {
				t.Helper()
				if !errors.Is(err, is) {
					t.Errorf("%s: %v, want %v", what, err, is)
				}
			}
			want("rename of what is mounted", f.Rename(at, "/elsewhere"), syscall.EBUSY)
			want("removal of what is mounted", f.RemoveAll(at), syscall.EBUSY)
			if names, err := f.ReadDir(at); err != nil || len(names) > 0 {
				t.Errorf("it is emptied by that, and holds %q, %v", names, err)
			}
			for _, at := range []string{f.full(t), f.noInodes(t)} {
				want("write to "+at, f.Write(at+"/there/new", strings.NewReader(big), me(0o600)), syscall.ENOSPC)
				want("write over a file of "+at, f.Write(at+"/there/f", strings.NewReader(big), me(0o600)), syscall.ENOSPC)
				if b, err := f.ReadFile(at + "/there/f"); err != nil || string(b) != "x" {
					t.Errorf("the old file of %s is %.10q, %v", at, b, err)
				}
				if names, err := f.ReadDir(at + "/there"); err != nil || !slices.Equal(names, []string{"f"}) {
					t.Errorf("%s holds %q, %v", at, names, err)
				}
				want("attributes in "+at, f.SetAttr(at+"/there/f", me(0o640)), nil)
				want("rename in "+at, f.Rename(at+"/there/f", at+"/there/g"), nil)
				want("removal in "+at, f.Remove(at+"/there/g"), nil)
			}
			at = f.readOnly(t)
			for what, err := range map[string]error{
				"write":      f.Write(at+"/there/new", strings.NewReader("x"), me(0o600)),
				"mkdir":      f.Mkdir(at+"/new", me(0o700)),
				"attributes": f.SetAttr(at+"/there/f", me(0o640)),
				"link":       f.Symlink("/x", at+"/link"),
				"rename":     f.Rename(at+"/there/f", at+"/there/g"),
				"remove":     f.Remove(at + "/there/f"),
				"remove all": f.RemoveAll(at + "/there"),
			} {
				want(what+" where nothing can be changed", err, syscall.EROFS)
			}
			if b, err := f.ReadFile(at + "/there/f"); err != nil || string(b) != "x" {
				t.Errorf("it is %q, %v", b, err)
			}
		})
	}
}

// systemd's part is the fake's as it is a real machine's: states, enablement, failures,
// invocations, and that a caller who has given up starts nothing.
func TestServicesConformance(t *testing.T) {
	const (
		stays, fails, socket = "strongroom-conformance.service", "strongroom-conformance-fails.service", "strongroom-conformance.socket"
		texts                = "[Install]\nWantedBy=multi-user.target\n"
	)
	units := map[string]string{
		stays:  "[Service]\nExecStart=/bin/sleep infinity\n" + texts,
		fails:  "[Service]\nType=oneshot\nExecStart=/bin/false\n" + texts,
		socket: "[Socket]\nListenStream=/run/strongroom-conformance.sock\n" + texts,
	}
	machines := map[string]func(*testing.T) *Host{"memory": func(t *testing.T) *Host {
		m := NewMemory()
		for _, d := range []string{"/etc", "/etc/systemd", machine.UnitDir} {
			if err := m.Mkdir(d, Attr{Mode: 0o755}); err != nil {
				t.Fatal(err)
			}
		}
		m.OnStart[fails] = func() error { return errors.New("it ends badly") }
		return m.Host()
	}}
	if onBooted() {
		machines["booted"] = func(t *testing.T) *Host {
			h, closing, err := Open(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(closing)
			return h
		}
	}
	for name, open := range machines {
		t.Run(name, func(t *testing.T) {
			h := open(t)
			ctx := t.Context()
			is := func(unit, load, active, enabled string) Unit {
				t.Helper()
				u, err := h.Unit(ctx, unit)
				if err != nil {
					t.Fatal(err)
				}
				if u.Load != load || u.Active != active || enabled != "" && u.Enabled != enabled {
					t.Errorf("%s is %s, %s, %s; want %s, %s, %s", unit, u.Load, u.Active, u.Enabled, load, active, enabled)
				}
				return u
			}
			ok := func(what string, err error) {
				t.Helper()
				if err != nil {
					t.Fatalf("%s: %v", what, err)
				}
			}
			is(stays, "not-found", "inactive", "")
			if err := h.Start(ctx, stays); err == nil {
				t.Error("a unit that isn't there was started")
			}
			for n, text := range units {
				ok("write", h.Write(machine.UnitDir+"/"+n, strings.NewReader(text), Attr{Mode: 0o644}))
				t.Cleanup(func() {
					ctx := context.WithoutCancel(ctx)
					_ = h.Retire(ctx, n)
					_ = h.ResetFailed(ctx, n)
					_ = h.Remove(machine.UnitDir + "/" + n)
					_ = h.ReloadUnits(ctx)
				})
			}
			ok("reload", h.ReloadUnits(ctx))
			is(stays, "loaded", "inactive", "disabled")
			ok("enable", h.Enable(ctx, stays, socket))
			is(stays, "loaded", "inactive", "enabled")

			gone, cancel := context.WithCancel(ctx)
			cancel()
			if err := h.Start(gone, stays); err == nil {
				t.Error("who has given up is told that it was started")
			}
			is(stays, "loaded", "inactive", "enabled")

			before := time.Now().Add(-time.Second)
			ok("start", h.Start(ctx, stays))
			first := is(stays, "loaded", "active", "enabled")
			if name == "booted" && first.Since.Before(before) || first.Invocation == "" {
				t.Errorf("it runs since %v, invocation %q", first.Since, first.Invocation)
			}
			ok("start once more", h.Start(ctx, stays))
			if again := is(stays, "loaded", "active", "enabled"); again.Invocation != first.Invocation {
				t.Error("a start of what runs is another invocation")
			}
			ok("restart", h.Restart(ctx, stays))
			if again := is(stays, "loaded", "active", "enabled"); again.Invocation == first.Invocation || !again.Since.After(first.Since) {
				t.Error("a restart is no other invocation")
			}
			if err := h.Start(ctx, fails); err == nil {
				t.Error("a unit that fails was started")
			}
			is(fails, "loaded", "failed", "disabled")
			ok("reset", h.ResetFailed(ctx, fails))
			is(fails, "loaded", "inactive", "disabled")
			ok("reset of what has not failed", h.ResetFailed(ctx, stays))
			is(stays, "loaded", "active", "enabled")
			ok("reset of what isn't there", h.ResetFailed(ctx, "strongroom-conformance-none.service"))

			ok("stop together", h.StopTogether(ctx, stays, socket))
			is(stays, "loaded", "inactive", "enabled")
			ok("stop of what stands", h.Stop(ctx, stays))
			ok("start", h.Start(ctx, stays))
			ok("retire", h.Retire(ctx, stays))
			is(stays, "loaded", "inactive", "disabled")
			ok("retire of what isn't there", h.Retire(ctx, "strongroom-conformance-none.service"))
			ok("remove", h.Remove(machine.UnitDir+"/"+stays))
			ok("reload", h.ReloadUnits(ctx))
			is(stays, "not-found", "inactive", "")
			if _, err := h.Stat(machine.UnitDir + "/" + stays); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("its file: %v", err)
			}
		})
	}
}
