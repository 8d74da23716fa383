package steps

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"strongroom.example/appliance/base/fault"
	"strongroom.example/config/machine"
	"strongroom.example/installer/host"
)

// Items of the doctor's that an installation alone can't pass.
const (
	itemEscrow = "escrow"
	itemBackup = "backup-drill"
)

// Diagnosis is what the doctor finds at the end of an installation.
type Diagnosis struct {
	// Ran is false in versions without a doctor.
	Ran  bool
	Pass int
	// Failures are the items that failed and that must not, each with what to do,
	// and those about security of which nothing was seen.
	Failures []string
	// EscrowOpen: it has not been proved that the escrow opens off the machine,
	// which after an installation is as it must be.
	EscrowOpen bool
}

// Err is a fault of its own exit code where there are failures.
func (d Diagnosis) Err() error {
	if len(d.Failures) == 0 {
		return nil
	}
	return &fault.Error{Code: fault.Drift, Err: fmt.Errorf("installed, and the doctor finds faults in %d of its items", len(d.Failures)),
		Hint: "see above, or: strongroom doctor"}
}

// doctorReport is what is read of the doctor's report.
type doctorReport struct {
	At    time.Time    `json:"at"`
	Items []doctorItem `json:"items"`
}

type doctorItem struct {
	ID      string `json:"id"`
	Title   string `json:"title"`
	Verdict string `json:"verdict"`
	// Blind says that it is about security, and that nothing of it was seen.
	Blind   bool `json:"blind"`
	Reasons []struct {
		Verdict string `json:"verdict"`
		Text    string `json:"text"`
		Remedy  string `json:"remedy"`
	} `json:"reasons"`
}

// String is the item for people, with what to do.
func (i doctorItem) String() string {
	s := i.Title
	if s == "" {
		s = i.ID
	}
	for _, r := range i.Reasons {
		if r.Verdict != "fail" && !i.Blind {
			continue
		}
		s += "\n      " + r.Text
		if r.Remedy != "" {
			s += "\n      → " + r.Remedy
		}
	}
	return s
}

// diagnosisLife is how long a report without a fault is believed where nothing
// has been changed since: the doctor comes by every day.
const diagnosisLife = 26 * time.Hour

// DiagnoseIf is Diagnose where something has been changed. Where nothing has, it
// believes the doctor's last report if that is young and without a fault.
func DiagnoseIf(ctx context.Context, e *Env, changed bool) (Diagnosis, error) {
	if !changed {
		d, err := e.diagnosis(e.Host.Now().Add(-diagnosisLife))
		if err == nil && len(d.Failures) == 0 {
			return d, nil
		}
	}
	return Diagnose(ctx, e)
}

// Diagnose has the doctor's unit look at the machine. What stays to be done by
// the operator alone is no fault here: the proof that the escrow opens, and,
// where no place for backups is named, backups.
func Diagnose(ctx context.Context, e *Env) (Diagnosis, error) {
	if !hasUnit(machine.UnitDoctor) {
		return Diagnosis{}, nil
	}
	if err := e.lookAgain(ctx); err != nil {
		return Diagnosis{}, err
	}
	begin := e.Host.Now()
	// It ends badly when it finds anything; the report tells.
	started := e.runJob(ctx, machine.UnitDoctor)
	// Reports have whole seconds at times.
	d, err := e.diagnosis(begin.Add(-2 * time.Second))
	if err != nil {
		return Diagnosis{}, errors.Join(err, started)
	}
	if len(d.Failures) == 0 {
		// What is left is said at the end, and by the doctor every day; the
		// machine is not degraded by it.
		return d, e.Host.ResetFailed(ctx, machine.UnitDoctor)
	}
	return d, nil
}

// Ended has it forgotten that something was found unfinished, which has come to its end.
func Ended(ctx context.Context, h *host.Host) error {
	return h.ResetFailed(ctx, machine.UnitUnfinished)
}

// lookAgain has the looks of every minute done again that have failed: what they have
// found may be what this run has mended. Whether they fail once more is the doctor's to
// tell.
func (e *Env) lookAgain(ctx context.Context) error {
	for _, name := range []string{machine.UnitFirewallWatch, machine.UnitAuditWatch, machine.UnitUnfinished} {
		u, err := e.Host.Unit(ctx, name)
		if err != nil {
			return err
		}
		if u.Active != "failed" {
			continue
		}
		if err := e.Host.ResetFailed(ctx, name); err != nil {
			return err
		}
		if err := e.Host.Start(ctx, name); err != nil && ctx.Err() != nil {
			return err
		}
	}
	return nil
}

// diagnosis reads the doctor's report, which must not be older than since.
func (e *Env) diagnosis(since time.Time) (Diagnosis, error) {
	b, err := e.Host.ReadFile(DoctorReport)
	if errors.Is(err, fs.ErrNotExist) {
		return Diagnosis{}, fmt.Errorf("the doctor has left no report in %q", DoctorReport)
	}
	if err != nil {
		return Diagnosis{}, err
	}
	var report doctorReport
	if err := json.Unmarshal(b, &report); err != nil {
		return Diagnosis{}, fmt.Errorf("the doctor's report %q: %w", DoctorReport, err)
	}
	if report.At.Before(since) {
		return Diagnosis{}, fmt.Errorf("the doctor's report %q is an old one", DoctorReport)
	}
	d := Diagnosis{Ran: true}
	for _, i := range report.Items {
		switch {
		case i.Verdict == "pass":
			d.Pass++
		case i.Verdict != "fail" && !i.Blind:
		case i.ID == itemEscrow:
			d.EscrowOpen = true
		case i.ID == itemBackup && len(e.Config.Backup.To) == 0:
			// Said loudly elsewhere.
		default:
			d.Failures = append(d.Failures, i.String())
		}
	}
	return d, nil
}
