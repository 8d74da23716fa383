package upgrade

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"reflect"
	"slices"
	"strings"
	"testing"

	"strongroom.example/appliance/base/fault"
	"strongroom.example/config"
	"strongroom.example/config/machine"
	"strongroom.example/installer/host"
)

const (
	newStrongroom = "strongroom 1.1.0 fine"
	newVault      = "/root/vault-new"
)

func newFile(version string) string { return path.Join(machine.PluginDir, machine.PluginFile(version)) }

// want checks the machine's versions, and that nothing is lost or left over.
func (w *world) want(t *testing.T, strongroom, plugin, vault string) {
	t.Helper()
	s := w.load()
	for _, c := range []struct{ what, got, want string }{
		{"strongroom", string(w.Files["/usr/local/bin/strongroom"].Data), "strongroom " + strongroom + " fine"},
		{"Vault's program", string(w.Files[machine.VaultProgram].Data), "Vault v" + vault + " fine"},
		{"Vault that runs", w.running, vault},
		{"engine that runs", w.engine, plugin},
		{"pinned", s.Pinned, "v" + plugin},
		{"secret", s.Secret, "canary-7"},
		{"the operator's drop-in", string(w.Files["/etc/systemd/system/vault.service.d/operator.conf"].Data), "the operator's"},
		{"somebody else's unit", string(w.Files["/etc/systemd/system/somebody-elses.service"].Data), "not ours"},
		{"credential", string(w.Files["/etc/strongroom/credentials/master-key"].Data), "sealed"},
	} {
		if c.got != c.want {
			t.Errorf("%s: %q, want %q", c.what, c.got, c.want)
		}
	}
	if s.MaxWait != 60 {
		t.Errorf("max_wait is %d, it was 60", s.MaxWait)
	}
	if fenced, err := (mortal{w}).Status(t.Context()); err != nil || fenced {
		t.Errorf("the engine: fenced %v, %v", fenced, err)
	}
	for _, p := range []string{RecordPath, stagedDir, storageDir, machine.RaftDir + ".back"} {
		if _, err := w.Stat(p); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left over", p)
		}
	}
	if _, there := s.Catalog["v"+plugin]; !there {
		t.Errorf("catalog: %v", s.Catalog)
	}
}

func (w *world) before(t *testing.T) {
	t.Helper()
	w.want(t, "1.0.0", "1.0.0", "1.0.0")
	if got := string(w.Files["/etc/strongroom/vault.hcl"].Data); got != "old" {
		t.Errorf("vault.hcl: %q", got)
	}
	if _, err := w.Stat("/etc/systemd/system/strongroom-doctor.service"); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a unit of the new version is left over")
	}
	s := w.load()
	if s.Catalog["v1.1.0"] != "" {
		t.Errorf("catalog: %v", s.Catalog)
	}
	if !maps.Equal(s.Policies, config.Policies()) {
		t.Error("the policies are not those of before")
	}
}

func TestUpgradeAll(t *testing.T) {
	w := newWorld(t)
	u, out := w.upgrade(newStrongroom, newPlugin, newVault)
	if err := u.Run(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	w.want(t, "1.1.0", "1.1.0", "1.1.0")
	if w.rehearsed != 1 {
		t.Errorf("%d rehearsals", w.rehearsed)
	}
	// The last version stays, older ones go.
	s := w.load()
	if s.Catalog["v1.0.0"] == "" || s.Catalog["v0.9.0"] != "" {
		t.Errorf("catalog: %v", s.Catalog)
	}
	if _, err := w.Stat(newFile("0.9.0")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a plugin two versions old is left over")
	}
	last, err := Load(u.Env.Host, LastPath)
	if err != nil || last.Outcome != Upgraded || last.Rehearsed != "passed" {
		t.Errorf("last record: %+v, %v", last, err)
	}

	count := w.mutations
	u, out = w.upgrade(newStrongroom, newPlugin, newVault)
	if err := u.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if changed := w.mutations - count; strings.Contains(out.String(), "snapshot of") {
		t.Errorf("the second run made %d changes:\n%s", changed, out)
	}
}

func TestVaultStaysWithoutANewOne(t *testing.T) {
	w := newWorld(t)
	u, out := w.upgrade(newStrongroom, newPlugin, "")
	if err := u.Run(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	w.want(t, "1.1.0", "1.1.0", "1.0.0")
}

func TestRehearsalRejects(t *testing.T) {
	for _, c := range []struct{ name, strongroom, plugin, vault string }{
		{"strongroom", "strongroom 1.1.0 broken", newPlugin, newVault},
		{"plugin", newStrongroom, "plugin 1.1.0 broken", newVault},
		{"Vault", newStrongroom, newPlugin, "/root/vault-broken"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := brokenWorld(t)
			wait := w.load()
			u, out := w.upgrade(c.strongroom, c.plugin, c.vault)
			err := u.Run(t.Context())
			var e *fault.Error
			if !errors.As(err, &e) || e.Code != fault.Failed || e.Hint != untouchedHint || !strings.Contains(err.Error(), "rehearsal") {
				t.Fatalf("%v\n%s", err, out)
			}
			// But for the canary nothing is written.
			wait.Index++
			if got := w.load(); !reflect.DeepEqual(got, wait) {
				t.Errorf("Vault's storage was %+v and is %+v", wait, got)
			}
			// The next upgrade begins anew.
			u, out = w.upgrade(newStrongroom, newPlugin, newVault)
			if err := u.Run(t.Context()); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			w.want(t, "1.1.0", "1.1.0", "1.1.0")
		})
	}
}

func brokenWorld(t *testing.T) *world {
	w := newWorld(t)
	w.Files["/root/vault-broken"] = &host.Node{Info: host.Info{Attr: host.Attr{Mode: 0o755}}, Data: []byte("Vault v1.1.0 broken")}
	w.Commands["vault-broken"] = w.print
	return w
}

func TestRollsBackByItself(t *testing.T) {
	for _, c := range []struct{ name, strongroom, plugin, vault string }{
		{"strongroom", "strongroom 1.1.0 broken", newPlugin, ""},
		{"plugin", newStrongroom, "plugin 1.1.0 broken", ""},
		{"plugin with a new Vault", newStrongroom, "plugin 1.1.0 broken", newVault},
		{"Vault", newStrongroom, newPlugin, "/root/vault-broken"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := brokenWorld(t)
			u, out := w.upgrade(c.strongroom, c.plugin, c.vault)
			u.SkipRehearsal = "a test"
			if err := u.Run(t.Context()); !errors.Is(err, ErrRolledBack) {
				t.Fatalf("%v\n%s", err, out)
			}
			w.before(t)
			last, err := Load(u.Env.Host, LastPath)
			if err != nil || last.Outcome != RolledBack || last.Why == "" || last.Rehearsed != "skipped: a test" {
				t.Errorf("last record: %+v, %v", last, err)
			}
		})
	}
}

// An engine that has written what its older version can't read gets the data of
// before back, though Vault stays.
func TestSnapshotBackForTheOldPlugin(t *testing.T) {
	w := newWorld(t)
	u, out := w.upgrade(newStrongroom, newPlugin, "")
	front := u.Front
	u.Front = func(ctx context.Context) error {
		if w.engine == "1.1.0" {
			return errors.New("broken for the test")
		}
		return front(ctx)
	}
	if err := u.Run(t.Context()); !errors.Is(err, ErrRolledBack) {
		t.Fatalf("%v\n%s", err, out)
	}
	w.before(t)
}

// 0.1 takes what a later plugin has written for its own, answers as ever, and drops
// what it does not know, so that keys end at the wrong place. It gets the data back that
// it has written itself: all that was written until the new plugin began.
func TestOldPluginGetsItsOwnDataBack(t *testing.T) {
	for name, fails := range map[string]func(w *world, u *Upgrade){
		"after the switch": func(w *world, u *Upgrade) {
			front := u.Front
			u.Front = func(ctx context.Context) error {
				if w.engine == "1.1.0" {
					return errors.New("broken for the test")
				}
				return front(ctx)
			}
		},
		"killed, then taken back": func(w *world, u *Upgrade) {
			front := u.Front
			u.Front = func(ctx context.Context) error {
				if w.engine == "1.1.0" {
					panic(killed{})
				}
				return front(ctx)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.lax = true
			w.meanwhile = func() {
				s := w.load()
				s.Secret = "written while it was rehearsed"
				w.put(s)
			}
			const other = newPlugin + ", format 2"
			u, out := w.upgrade(newStrongroom, other, "")
			fails(w, u)
			err := func() (err error) {
				defer func() {
					if p := recover(); p != nil {
						w.meanwhile = nil
						u, out = w.upgrade(newStrongroom, other, "")
						err = u.RollBack(t.Context())
					}
				}()
				if err := u.Run(t.Context()); !errors.Is(err, ErrRolledBack) {
					return fmt.Errorf("the upgrade was not rolled back: %w", err)
				}
				return nil
			}()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			s := w.load()
			if s.Secret != "written while it was rehearsed" || slices.Contains(s.WrittenBy, "1.1.0") {
				t.Errorf("secret %q, written by %v since\n%s", s.Secret, s.WrittenBy, out)
			}
			s.Secret = "canary-7"
			w.put(s)
			w.before(t)
		})
	}
}

// A fault beside Vault's data is no reason to give up what has been written
// since the snapshot.
func TestDataStaysWhenTheFrontIsDown(t *testing.T) {
	w := newWorld(t)
	u, out := w.upgrade(newStrongroom, "plugin 1.1.0 broken", "")
	u.SkipRehearsal = "a test"
	front, broken := u.Front, false
	u.Front = func(ctx context.Context) error {
		if r, err := Load(u.Env.Host, RecordPath); err == nil && r != nil && r.Phase == Checking && !broken {
			broken = true
			s := w.load()
			s.Secret = "written since"
			w.put(s)
		}
		if broken {
			return errors.New("port 443 is gone")
		}
		return front(ctx)
	}
	err := u.Run(t.Context())
	var e *fault.Error
	if !errors.As(err, &e) || e.Code != fault.Operator || !strings.Contains(err.Error(), "port 443 is gone") {
		t.Fatalf("%v\n%s", err, out)
	}
	if s := w.load(); s.Secret != "written since" || w.engine != "1.0.0" {
		t.Errorf("secret %q, engine %q\n%s", s.Secret, w.engine, out)
	}
	// The obstacle is gone: the rollback ends.
	u, out = w.upgrade(newStrongroom, newPlugin, "")
	if err := u.RollBack(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if s := w.load(); s.Secret != "written since" {
		t.Errorf("secret %q", s.Secret)
	}
}

// Without a token a rollback brings the old Vault up, and asks for one then.
func TestRollBackWithoutToken(t *testing.T) {
	w := brokenWorld(t)
	u, _ := w.upgrade(newStrongroom, newPlugin, "/root/vault-broken")
	u.SkipRehearsal = "a test"
	w.OnStart[machine.UnitVault] = func() error { w.running, w.engine = "", ""; panic(killed{}) }
	func() {
		defer func() { _ = recover() }()
		_ = u.Run(t.Context())
	}()
	w.OnStart[machine.UnitVault] = w.startVault
	if needed, err := NeedsToken(u.Env.Host); err != nil || !needed {
		t.Fatalf("the way forward needs no token: %v", err)
	}
	for range 2 { // Run goes on with a rollback, and without a token too
		var out *bytes.Buffer
		u, out = w.upgrade(newStrongroom, newPlugin, "/root/vault-broken")
		u.Env.AdminToken = ""
		run := u.RollBack
		if needed, err := NeedsToken(u.Env.Host); err != nil {
			t.Fatal(err)
		} else if !needed {
			run = u.Run
		}
		err := run(t.Context())
		var e *fault.Error
		if !errors.As(err, &e) || e.Code != fault.Operator || !errors.Is(err, errNoToken) || !strings.Contains(e.Hint, "--token-file") {
			t.Fatalf("%v\n%s", err, out)
		}
		if w.running != "1.0.0" {
			t.Fatalf("Vault that runs: %q\n%s", w.running, out)
		}
	}
	if needed, err := NeedsToken(u.Env.Host); err != nil || needed {
		t.Errorf("going on with the rollback needs a token at once: %v", err)
	}
	u, out := w.upgrade(newStrongroom, newPlugin, "/root/vault-broken")
	if err := u.RollBack(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	w.before(t)
}

func TestFinishingNeedsAToken(t *testing.T) {
	w := newWorld(t)
	u, _ := w.upgrade(newStrongroom, newPlugin, "")
	u.Env.AdminToken = ""
	if err := mkdirs(w.Memory.Host(), Dir); err != nil {
		t.Fatal(err)
	}
	if err := (&Record{Format: recordFormat, Phase: Settling}).save(w.Memory.Host(), RecordPath); err != nil {
		t.Fatal(err)
	}
	if err := u.RollBack(t.Context()); !errors.Is(err, errNoToken) {
		t.Error(err)
	}
}

// TestEveryFault fails each call that changes anything, once: the upgrade ends
// well or is taken back.
func TestEveryFault(t *testing.T) {
	n := 0
	for n = 1; ; n++ {
		w := newWorld(t)
		w.strike, w.fate = n, func() error { return host.ErrInjected }
		u, out := w.upgrade(newStrongroom, newPlugin, newVault)
		err := u.Run(t.Context())
		if w.mutations < n {
			break
		}
		again, _ := w.upgrade(newStrongroom, newPlugin, newVault)
		switch {
		case err == nil:
			w.want(t, "1.1.0", "1.1.0", "1.1.0")
		case errors.Is(err, ErrRolledBack):
			w.before(t)
		default:
			// Before the first change, or at the very end: the next run ends it.
			if err := again.Run(t.Context()); err != nil {
				t.Errorf("fault %d, run again: %v", n, err)
			}
			w.want(t, "1.1.0", "1.1.0", "1.1.0")
		}
		if t.Failed() {
			t.Fatalf("fault %d: %v\n%s", n, err, out)
		}
	}
	t.Logf("%d faults", n-1)
	if n < 40 {
		t.Errorf("only %d calls change anything", n)
	}
}

// TestKilledEverywhere ends the process at each call that changes anything, and
// runs the same upgrade again; or wants it back instead.
func TestKilledEverywhere(t *testing.T) {
	for _, broken := range []bool{false, true} {
		for _, back := range []bool{false, true} {
			t.Run(fmt.Sprintf("broken=%v rollback=%v", broken, back), func(t *testing.T) {
				n, step := 1, 1
				if testing.Short() { // an odd step, as what happens after the kill alternates
					step = 3
				}
				for ; ; n += step {
					if !killedAt(t, n, broken, back) {
						break
					}
					if t.Failed() {
						t.Fatalf("killed at %d", n)
					}
				}
				t.Logf("%d kills", (n-1)/step)
				if n < 40 {
					t.Errorf("only %d calls change anything", n)
				}
			})
		}
	}
}

// Wherever Ctrl-C, SIGTERM or a lost connection comes, the machine ends up with
// the versions of before or with the new ones, and is well.
func TestInterruptedEverywhere(t *testing.T) {
	upgraded, back, untouched := 0, 0, 0
	for n := 1; ; n++ {
		w := newWorld(t)
		ctx, interrupt := context.WithCancel(t.Context())
		w.strike, w.fate = n, func() error { interrupt(); return nil }
		u, out := w.upgrade(newStrongroom, newPlugin, newVault)
		u.SkipRehearsal = "a test"
		err := u.Run(ctx)
		struck := ctx.Err() != nil
		interrupt()
		switch {
		case err == nil:
			upgraded++
			w.want(t, "1.1.0", "1.1.0", "1.1.0")
		case errors.Is(err, ErrRolledBack):
			back++
			w.before(t)
		case Unfinished(u.Env.Host) == nil:
			untouched++
			if w.running != "1.0.0" || w.engine != "1.0.0" {
				t.Errorf("Vault %q and engine %q run", w.running, w.engine)
			}
		default:
			t.Errorf("unfinished: %v", err)
		}
		if t.Failed() {
			t.Fatalf("interrupted at %d: %v\n%s", n, err, out)
		}
		if !struck {
			break
		}
	}
	t.Logf("%d upgraded, %d rolled back, %d untouched", upgraded, back, untouched)
	if upgraded < 3 || back < 10 || untouched < 3 {
		t.Errorf("%d upgraded, %d rolled back, %d untouched: the interrupts come in the wrong places", upgraded, back, untouched)
	}
}

func killedAt(t *testing.T, n int, broken, back bool) bool {
	t.Helper()
	w := brokenWorld(t)
	vault := newVault
	if broken {
		vault = "/root/vault-broken"
	}
	w.strike, w.fate = n, func() error { panic(killed{}) }
	first, out := w.upgrade(newStrongroom, newPlugin, vault)
	first.SkipRehearsal = "a test"
	died := func() (died bool) {
		defer func() {
			if r := recover(); r != nil {
				if _, ok := r.(killed); !ok {
					panic(r)
				}
				died = true
			}
		}()
		_ = first.Run(t.Context())
		return false
	}()
	if !died {
		return false
	}
	if r, err := Load(first.Env.Host, RecordPath); err != nil || (r != nil && !r.Phase.untouched()) != (Unfinished(first.Env.Host) != nil) {
		t.Errorf("unfinished: %v, record %+v, %v", Unfinished(first.Env.Host), r, err)
	}
	if w.Units[machine.UnitVault].Active != "active" && n%2 == 0 {
		// Booted in between: systemd starts what is on the disk.
		_ = w.Restart(t.Context(), machine.UnitVault)
	}
	u, again := w.upgrade(newStrongroom, newPlugin, vault)
	u.SkipRehearsal = "a test"
	run := u.Run
	if back {
		run = u.RollBack
	}
	err := run(t.Context())
	at := fmt.Sprintf("killed at %d:\n%s\nthen:\n%s", n, out, again)
	if r, _ := Load(u.Env.Host, RecordPath); back && err == nil && r != nil {
		if !r.Phase.untouched() {
			t.Errorf("still in phase %q; %s", r.Phase, at)
		}
		return true
	}
	if back && err != nil {
		t.Errorf("%v; %s", err, at)
	}
	if _, err := w.Stat(LastPath); back && err != nil {
		return true // it hadn't begun
	}
	last, lerr := Load(u.Env.Host, LastPath)
	if lerr != nil || last == nil {
		t.Fatalf("%v, %v; %s", err, lerr, at)
	}
	switch {
	case last.Outcome == Upgraded && err == nil && !broken:
		w.want(t, "1.1.0", "1.1.0", "1.1.0")
	case last.Outcome == RolledBack && (back || errors.Is(err, ErrRolledBack)):
		w.before(t)
	default:
		t.Errorf("outcome %q, %v; %s", last.Outcome, err, at)
	}
	if t.Failed() {
		t.Log(at)
	}
	return true
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(*world, *Upgrade)
		code int
		want string
	}{
		{"older plugin", func(_ *world, u *Upgrade) { u.Env.Version = "0.9.9" }, fault.Usage, "v0.9.9 is older"},
		{"older Vault", func(w *world, u *Upgrade) { w.Files[newVault].Data = []byte("Vault v0.9.0 fine") }, fault.Usage, "0.9.0 is older"},
		{"no Vault", func(w *world, u *Upgrade) { w.Files[newVault].Data = []byte("true") }, fault.Usage, "is no Vault"},
		{"same version, another plugin", func(_ *world, u *Upgrade) { u.Env.Version = "1.0.0" }, fault.Usage, "another plugin of the same version"},
		{"nothing installed", func(w *world, _ *Upgrade) { delete(w.Files, "/usr/local/bin/strongroom") }, fault.Operator, "nothing is installed"},
		{"disk full", func(w *world, _ *Upgrade) { w.Free = 1 << 20 }, fault.Operator, "1 MiB free"},
		{"Vault down", func(w *world, _ *Upgrade) { w.running = "" }, fault.Operator, "down"},
		{"front down", func(w *world, _ *Upgrade) { w.Units[machine.UnitFront].Active = "failed" }, fault.Operator, "the front does not answer"},
		{"front mute", func(_ *world, u *Upgrade) {
			u.Front = func(context.Context) error { return errors.New("mute") }
		}, fault.Operator, "not well as it is"},
		{"engine down", func(w *world, _ *Upgrade) { w.engine = "" }, fault.Operator, "the engine does not answer"},
		{"no", func(_ *world, u *Upgrade) { u.Ask = func(context.Context) error { return errors.New("no") } }, fault.Operator, "no"},
		{"a record of another format", func(w *world, _ *Upgrade) {
			w.Files[Dir] = w.Files["/var"]
			w.Files[RecordPath] = &host.Node{Data: []byte(`{"format":99}`)}
		}, fault.Failed, "format 99"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			u, out := w.upgrade(newStrongroom, newPlugin, newVault)
			c.do(w, u)
			index := w.load().Index
			err := u.Run(t.Context())
			code := fault.Failed
			var e *fault.Error
			if errors.As(err, &e) {
				code = e.Code
			}
			if err == nil || code != c.code || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("code %d, %v\n%s", code, err, out)
			}
			if w.load().Index != index || string(w.Files["/etc/strongroom/vault.hcl"].Data) != "old" {
				t.Error("something was changed")
			}
		})
	}
}
