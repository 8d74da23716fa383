package steps

import (
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"time"

	"strongroom.example/appliance/base/fault"
	"strongroom.example/config"
	"strongroom.example/config/machine"
	"strongroom.example/installer/host"
)

func TestDiagnose(t *testing.T) {
	const escrow = `{"id":"escrow","title":"the escrow","verdict":"fail","reasons":[{"verdict":"fail","text":"nobody has proved it"}]}`
	const backup = `{"id":"backup-drill","title":"backups","verdict":"fail","reasons":[{"verdict":"fail","text":"none"}]}`
	const swap = `{"id":"swap","title":"swap is off","verdict":"fail","reasons":[{"verdict":"warn","text":"a warning"},{"verdict":"fail","text":"/swapfile is on","remedy":"swapoff -a"}]}`
	const blind = `{"id":"leaks","title":"no secret anywhere","verdict":"skip","blind":true,"reasons":[{"verdict":"skip","text":"not seen: processes: hidden"}]}`
	const skipped = `{"id":"leaks","title":"no secret anywhere","verdict":"skip","reasons":[{"verdict":"skip","text":"not seen: processes: hidden"}]}`
	const good = `{"id":"tls","title":"TLS","verdict":"pass"}`
	for name, c := range map[string]struct {
		items    []string
		places   int
		age      time.Duration // of the report
		none     bool          // no report
		failures []string
		open     bool
		fault    string
	}{
		"all well":               {items: []string{good}, places: 1},
		"escrow not proved":      {items: []string{good, escrow}, places: 1, open: true},
		"no place for backups":   {items: []string{good, escrow, backup}, open: true},
		"places but no backup":   {items: []string{backup}, places: 1, failures: []string{"backups\n      none"}},
		"a fault, with a remedy": {items: []string{swap, good}, failures: []string{"swap is off\n      /swapfile is on\n      → swapoff -a"}},
		"one that saw nothing":   {items: []string{blind, good}, failures: []string{"no secret anywhere\n      not seen: processes: hidden"}},
		"one that saw a part":    {items: []string{skipped, good}},
		"an old report":          {items: []string{good}, age: time.Hour, fault: "an old one"},
		"no report":              {none: true, fault: "no report"},
		"rubbish":                {items: []string{"}"}, fault: "report"},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVPS(t)
			for _, d := range []string{machine.StateDir, machine.StateDir + "/doctor"} {
				v.Files[d] = &host.Node{Info: host.Info{Type: fs.ModeDir}}
			}
			v.Units[machine.UnitDoctor] = &host.Unit{Load: "loaded", Active: "inactive"}
			v.OnStart[machine.UnitDoctor] = func() error {
				if !c.none {
					v.Files[DoctorReport] = &host.Node{Data: fmt.Appendf(nil, `{"at":%q,"items":[%s]}`,
						v.Clock.Add(-c.age).Format(time.RFC3339Nano), strings.Join(c.items, ","))}
				}
				return nil
			}
			e := v.env()
			e.Config.Backup.To = make([]config.BackupTo, c.places)
			d, err := Diagnose(t.Context(), e)
			if c.fault != "" {
				if err == nil || !strings.Contains(err.Error(), c.fault) {
					t.Errorf("error = %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !d.Ran || d.EscrowOpen != c.open || fmt.Sprint(d.Failures) != fmt.Sprint(c.failures) {
				t.Errorf("%+v", d)
			}
			if code := fault.Report(new(strings.Builder), "x", d.Err()); (code == fault.Drift) != (len(c.failures) > 0) || code != 0 && code != fault.Drift {
				t.Errorf("exit code %d", code)
			}
		})
	}
}

func TestDiagnoseBelievesAYoungReport(t *testing.T) {
	const good, bad = `{"id":"tls","verdict":"pass"}`, `{"id":"swap","verdict":"fail"}`
	for name, c := range map[string]struct {
		item    string
		age     time.Duration
		changed bool
		runs    int
	}{
		"young and good":         {good, time.Hour, false, 0},
		"something has changed":  {good, time.Hour, true, 1},
		"old":                    {good, 30 * time.Hour, false, 1},
		"it had found something": {bad, time.Hour, false, 1},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVPS(t)
			runs := 0
			report := func(item string, at time.Time) {
				v.Files[DoctorReport] = &host.Node{Data: fmt.Appendf(nil, `{"at":%q,"items":[%s]}`, at.Format(time.RFC3339Nano), item)}
			}
			report(c.item, v.Clock.Add(-c.age))
			v.Units[machine.UnitDoctor] = &host.Unit{Load: "loaded", Active: "inactive"}
			v.OnStart[machine.UnitDoctor] = func() error { runs++; report(good, v.Clock); return nil }
			d, err := DiagnoseIf(t.Context(), v.env(), c.changed)
			if err != nil || runs != c.runs || len(d.Failures) > 0 || d.Pass != 1 {
				t.Errorf("%d runs, %+v, %v", runs, d, err)
			}
		})
	}
}
