package upgrade

import (
	"context"
	"errors"
	"strings"
	"testing"

	"strongroom.example/appliance/base/fault"
	"strongroom.example/config"
	"strongroom.example/config/machine"
	"strongroom.example/installer/host"
)

// "Not healthy" says what is not, and what it should be: an operator decides by
// it whether to wait or to look.
func TestNotHealthySaysWhat(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(w *world, u *Upgrade)
		want  string
	}{
		{"all is well", func(*world, *Upgrade) {}, ""},
		{"Vault is down", func(w *world, _ *Upgrade) { w.running = "" }, "vault is down"},
		{"another Vault", func(w *world, _ *Upgrade) { w.running = "0.9.0" }, "vault 0.9.0 runs, 1.0.0 should"},
		{"storage of before", func(_ *world, u *Upgrade) { u.rec.RaftIndex = 1000 }, "vault's raft index is 100, it was 1000 before"},
		{"another plugin", func(w *world, _ *Upgrade) { w.engine = "0.9.0" }, `the engine runs plugin v0.9.0 and is pinned to "v1.0.0"; both should be v1.0.0`},
		{"pinned to another", func(w *world, _ *Upgrade) {
			s := w.load()
			s.Pinned = "v0.9.0"
			w.put(s)
		}, `pinned to "v0.9.0"`},
		{"the engine does not run", func(w *world, _ *Upgrade) { w.engine = "" }, "the engine runs plugin  and"},
		{"fenced", func(w *world, _ *Upgrade) {
			w.Files[machine.EpochFile].Data = []byte(`{"installation_id":"x","epoch":2}`)
		}, "the engine is fenced, and was not before"},
		{"fenced as before", func(w *world, u *Upgrade) {
			w.Files[machine.EpochFile].Data = []byte(`{"installation_id":"x","epoch":2}`)
			u.rec.Fenced = true
		}, ""},
		{"the KMS", func(w *world, _ *Upgrade) { w.Units[machine.UnitKMS].Active = "failed" }, machine.UnitKMS + " is failed"},
		{"the front", func(w *world, _ *Upgrade) { w.Units[machine.UnitFront].Active = "failed" }, "the front does not answer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			u, _ := w.upgrade(newStrongroom, newPlugin, "")
			u.rec = &Record{RaftIndex: 100}
			c.spoil(w, u)
			err := u.healthy(t.Context(), Versions{Vault: "1.0.0", Plugin: "v1.0.0"})
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "not healthy after 1m0s") {
				t.Errorf("error = %v, want %q", err, c.want)
			}
		})
	}
}

// A rollback that meets an obstacle names it beside the reason of the upgrade's
// end, and says how to go on; with the obstacle gone it ends, whatever it had
// done before.
func TestRollbackMeetsAnObstacle(t *testing.T) {
	for _, c := range []struct {
		name         string
		spoil, clear func(w *world)
		want         string
	}{
		{"an epoch file that cannot be read",
			func(w *world) { // once it is put back itself
				w.Commands["cp"] = func(c host.Command, in []byte) (host.Output, error) {
					w.Files[machine.EpochFile].Data = []byte("{")
					return w.cp(c, in)
				}
			},
			func(w *world) { w.Commands["cp"] = w.cp },
			`epoch file "` + machine.EpochFile + `"`},
		{"rules that cannot be loaded",
			func(w *world) {
				w.Commands["nft"] = func(host.Command, []byte) (host.Output, error) {
					return host.Output{}, &host.ExitError{Command: "nft", Code: 1, Stderr: "no such kernel module"}
				}
			},
			func(w *world) {
				w.Commands["nft"] = func(host.Command, []byte) (host.Output, error) { return host.Output{}, nil }
			},
			"no such kernel module"},
		{"a copy that cannot be moved into its place",
			func(w *world) {
				w.rename = errors.New("Input/output error")
			},
			func(w *world) { w.rename = nil },
			"put Vault's storage back: "},
		{"a KMS that does not start",
			func(w *world) {
				w.OnStart[machine.UnitKMS] = func() error { return errors.New("TPM: lockout") }
			},
			func(w *world) { delete(w.OnStart, machine.UnitKMS) },
			"TPM: lockout"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := brokenWorld(t)
			w.OnStart[machine.UnitVault] = func() error {
				err := w.startVault()
				if err != nil {
					c.spoil(w)
				}
				return err
			}
			u, out := w.upgrade(newStrongroom, newPlugin, "/root/vault-broken")
			u.SkipRehearsal = "a test"
			err := u.Run(t.Context())
			var e *fault.Error
			if !errors.As(err, &e) || e.Code != fault.Operator || !strings.Contains(e.Hint, "upgrade --rollback") || !strings.Contains(e.Hint, Dir) {
				t.Fatalf("%v\n%s", err, out)
			}
			for _, want := range []string{"could not be rolled back", "does not start", c.want} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error = %v, want %q", err, want)
				}
			}
			if Unfinished(u.Env.Host) == nil {
				t.Error("nothing is left to be done, says the record")
			}
			c.clear(w)
			u, out = w.upgrade(newStrongroom, newPlugin, "")
			if err := u.RollBack(t.Context()); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			w.before(t)
		})
	}
}

// A unit that came with the new version is stopped, and not started at the next
// boot, before its file goes.
func TestUnitsOfTheNewVersionAreRetired(t *testing.T) {
	const name = "strongroom-doctor.service"
	for _, active := range []string{"active", "failed", "inactive"} {
		w := brokenWorld(t)
		w.OnStart[machine.UnitVault] = func() error {
			err := w.startVault()
			if err != nil {
				w.Units[name] = &host.Unit{Load: "loaded", Active: active, Enabled: "enabled"}
			}
			return err
		}
		u, out := w.upgrade(newStrongroom, newPlugin, "/root/vault-broken")
		u.SkipRehearsal = "a test"
		if err := u.Run(t.Context()); !errors.Is(err, ErrRolledBack) {
			t.Fatalf("%v\n%s", err, out)
		}
		w.before(t)
		if got := w.Units[name]; got.Active != "inactive" || got.Enabled == "enabled" {
			t.Errorf("it was %s and is %s, %s", active, got.Active, got.Enabled)
		}
	}
}

// The unit that the new version has taken away is back at boot, too, when the old one
// is: its daemons require it.
func TestFormerUnitsComeBack(t *testing.T) {
	w := brokenWorld(t)
	for _, name := range machine.FormerUnits() {
		file := machine.UnitDir + "/" + name
		w.Files[file] = &host.Node{Data: []byte("[Socket]\n"), Info: host.Info{Attr: host.Attr{Mode: 0o644}}}
		w.Units[name] = &host.Unit{Load: "loaded", Active: "active", Enabled: "enabled"}
		w.OnStart[machine.UnitVault] = func() error {
			err := w.startVault()
			if err != nil { // the new one
				w.Units[name].Enabled = "disabled"
				delete(w.Files, file)
			}
			return err
		}
		u, out := w.upgrade(newStrongroom, newPlugin, "/root/vault-broken")
		u.SkipRehearsal = "a test"
		if err := u.Run(t.Context()); !errors.Is(err, ErrRolledBack) {
			t.Fatalf("%v\n%s", err, out)
		}
		if w.Files[file] == nil || w.Units[name].Enabled != "enabled" {
			t.Errorf("%s: %+v", name, *w.Units[name])
		}
	}
}

// Where there are places for backups, the machine's own jobs take one and read it
// back before anything is changed; when they can't, the upgrade does not begin.
func TestNoUpgradeWithoutABackup(t *testing.T) {
	for _, failing := range []string{"", machine.UnitSnapshot, machine.UnitVerify} {
		w := newWorld(t)
		var ran []string
		for _, name := range []string{machine.UnitSnapshot, machine.UnitVerify} {
			w.Units[name] = &host.Unit{Load: "loaded", Active: "inactive"}
			w.OnStart[name] = func() error {
				ran = append(ran, name)
				if name == failing {
					return errors.New("no space left")
				}
				return nil
			}
		}
		u, out := w.upgrade(newStrongroom, newPlugin, "")
		u.Env.Config.Backup.To = []config.BackupTo{{Type: config.BackupDir, Path: "/srv/backup"}}
		u.Rehearse = func(context.Context, *Record, Programs) error {
			if failing != "" {
				t.Error("rehearsed without a backup")
			}
			return nil
		}
		err := u.Run(t.Context())
		if failing == "" {
			if err != nil || len(ran) != 2 {
				t.Fatalf("%v, ran %q\n%s", err, ran, out)
			}
			continue
		}
		var e *fault.Error
		if !errors.As(err, &e) || e.Code != fault.Operator || !strings.Contains(e.Hint, "journalctl -u "+failing) || !strings.Contains(e.Hint, "nothing has been changed") ||
			!strings.Contains(err.Error(), "a backup before the upgrade") || !strings.Contains(err.Error(), "no space left") {
			t.Errorf("%s: %v\n%s", failing, err, out)
		}
		if w.running != "1.0.0" || w.engine != "1.0.0" || Unfinished(u.Env.Host) != nil {
			t.Errorf("%s: Vault %q and engine %q run, %v", failing, w.running, w.engine, Unfinished(u.Env.Host))
		}
	}
}

// A storage that is a disk of its own is put back file by file.
func TestRollsBackOntoADisk(t *testing.T) {
	w := brokenWorld(t)
	w.Mounts = []string{machine.RaftDir}
	u, out := w.upgrade(newStrongroom, newPlugin, "/root/vault-broken")
	u.SkipRehearsal = "a test"
	if err := u.Run(t.Context()); !errors.Is(err, ErrRolledBack) {
		t.Fatalf("%v\n%s", err, out)
	}
	w.before(t)
}
