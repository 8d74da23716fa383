package steps

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"strongroom.example/appliance/base/fault"
	"strongroom.example/config"
	"strongroom.example/config/machine"
	"strongroom.example/installer/engine"
	"strongroom.example/installer/host"
)

// backedUp is a machine with the jobs' units and one place for backups.
func backedUp(t *testing.T) (*vps, *Env) {
	t.Helper()
	v := newVPS(t)
	for _, d := range []string{machine.StateDir, machine.StateDir + "/verify", machine.StateDir + "/drill"} {
		v.Files[d] = &host.Node{Info: host.Info{Type: fs.ModeDir}}
	}
	for _, name := range []string{machine.UnitSnapshot, machine.UnitVerify, machine.UnitDrill} {
		v.Units[name] = &host.Unit{Load: "loaded", Active: "inactive"}
	}
	v.Commands["journalctl"] = answer("the last words\n")
	e := v.env()
	e.Config.Backup.To = []config.BackupTo{{Type: config.BackupDir, Path: "/mnt/backup"}}
	return v, e
}

func (v *vps) firstSteps(t *testing.T, e *Env) (string, error) {
	t.Helper()
	var out bytes.Buffer
	_, err := (&engine.Engine{Steps: []engine.Step{firstSnapshot{e}, firstDrill{e}}, Out: &out, Now: e.Host.Now}).Install(t.Context())
	return out.String(), err
}

func TestFirstSnapshotAndDrill(t *testing.T) {
	v, e := backedUp(t)
	var order []string
	v.OnStart[machine.UnitSnapshot] = func() error { order = append(order, "snapshot"); return nil }
	v.OnStart[machine.UnitVerify] = func() error {
		order = append(order, "verify")
		v.Files[VerifiedState] = &host.Node{Data: []byte(`{"format":1,"last_good":{"dir:/mnt/backup":{"id":"x"}}}`)}
		return nil
	}
	v.OnStart[machine.UnitDrill] = func() error {
		order = append(order, "drill")
		v.Files[DrillReport] = &host.Node{Data: []byte("{}")}
		return nil
	}
	if out, err := v.firstSteps(t, e); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if got := fmt.Sprint(order); got != "[snapshot verify drill]" {
		t.Errorf("order = %s", got)
	}
	if out, err := v.firstSteps(t, e); err != nil || fmt.Sprint(order) != "[snapshot verify drill]" || !strings.Contains(out, "Nothing to change") {
		t.Errorf("second run: %v, %v\n%s", order, err, out)
	}
	// What changes in [backup] is tried, but for how long snapshots are kept; so is another
	// place in the stead of one that was tried.
	for _, c := range []struct {
		name   string
		change func(*config.Backup)
		want   int // runs of jobs
	}{
		{"files", func(b *config.Backup) { b.Files = []string{"/etc/strongroom"} }, 2},
		{"recipients", func(b *config.Backup) { b.Recipients = []string{"age1x"} }, 2},
		{"how long they are kept", func(b *config.Backup) { b.Keep.Daily++ }, 0},
	} {
		before := len(order)
		c.change(&e.Config.Backup)
		if out, err := v.firstSteps(t, e); err != nil || len(order) != before+c.want {
			t.Errorf("%s: %v, %v\n%s", c.name, order[before:], err, out)
		}
	}
	e.Config.Backup.To[0].Path = "/mnt/another"
	if out, err := v.firstSteps(t, e); err == nil || !strings.Contains(err.Error(), "still differs") {
		t.Errorf("another place: %v\n%s", err, out)
	}
	e.Config.Backup.To[0].Path = "/mnt/backup"
	if out, err := v.firstSteps(t, e); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	// A second place is proved as well.
	e.Config.Backup.To = append(e.Config.Backup.To, config.BackupTo{Type: config.BackupDir, Path: "/mnt/other"})
	if _, err := v.firstSteps(t, e); err == nil || !strings.Contains(err.Error(), "still differs") {
		t.Errorf("a place without a proof: %v", err)
	}
	// Without a place there is nothing to do.
	e.Config.Backup.To = nil
	n := len(order)
	if _, err := v.firstSteps(t, e); err != nil || len(order) != n {
		t.Errorf("no place: %v", err)
	}
}

func TestFirstSnapshotFails(t *testing.T) {
	v, e := backedUp(t)
	v.OnStart[machine.UnitSnapshot] = func() error { return errors.New(`systemd says "failed"`) }
	_, err := v.firstSteps(t, e)
	var failed *fault.Error
	if !errors.As(err, &failed) || failed.Code != fault.Failed || !strings.Contains(err.Error(), "the last words") || !strings.Contains(failed.Hint, "journalctl -u "+machine.UnitSnapshot) {
		t.Errorf("error = %v", err)
	}
	v.Files[VerifiedState] = &host.Node{Data: []byte("rubbish")}
	_, err = v.firstSteps(t, e)
	if !errors.As(err, &failed) || failed.Code != fault.Operator {
		t.Errorf("a damaged state: %v", err)
	}
}

// busy is a machine on which a unit is under way until it has been looked at a
// few times.
type busy struct {
	host.Services
	unit  string
	looks int
	end   func()
	final string
}

func (b *busy) Unit(ctx context.Context, name string) (host.Unit, error) {
	u, err := b.Services.Unit(ctx, name)
	if name != b.unit || err != nil {
		return u, err
	}
	if b.looks--; b.looks > 0 {
		u.Active = "activating"
		return u, nil
	}
	if b.looks == 0 {
		b.end()
	}
	u.Active = b.final
	return u, nil
}

// TestJobUnderWay: a run that was killed has started the drill; the next one
// waits for it, and starts none beneath it.
func TestJobUnderWay(t *testing.T) {
	for _, final := range []string{"inactive", "failed"} {
		v, e := backedUp(t)
		v.Files[VerifiedState] = &host.Node{Data: []byte(`{"format":1,"last_good":{"dir:/mnt/backup":{"id":"x"}}}`)}
		starts := 0
		report := func() { v.Files[DrillReport] = &host.Node{Data: []byte("{}")} }
		v.OnStart[machine.UnitDrill] = func() error { starts++; report(); return nil }
		b := &busy{Services: v.Memory, unit: machine.UnitDrill, looks: 3, final: final, end: func() {
			if final == "inactive" {
				report()
			}
		}}
		e.Host.Services = b
		if out, err := v.firstSteps(t, e); err != nil {
			t.Fatalf("%s: %v\n%s", final, err, out)
		}
		if want := map[string]int{"inactive": 0, "failed": 1}[final]; starts != want {
			t.Errorf("it ended %s: %d starts, want %d", final, starts, want)
		}
	}
}
