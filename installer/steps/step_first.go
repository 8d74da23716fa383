package steps

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/config"
	"strongroom.example/config/machine"
	"strongroom.example/installer/engine"
	"strongroom.example/installer/host"
	"strongroom.example/systemd"
)

// Where the jobs leave their evidence.
const (
	// VerifiedState tells which snapshots have been read back.
	VerifiedState = machine.StateDir + "/verify/verified.json"
	// DrillReport is the newest drill's.
	DrillReport = machine.StateDir + "/drill/last.json"
	// DoctorReport is the doctor's newest.
	DoctorReport = machine.StateDir + "/doctor/last.json"
)

// firstSnapshot ends with a snapshot in every place that has been read back. It
// is the unit's own run, with the unit's rights, so what works here works at
// night.
type firstSnapshot struct{ *Env }

func (firstSnapshot) ID() string    { return "first-snapshot" }
func (firstSnapshot) Title() string { return "first snapshot, read back" }

func (s firstSnapshot) Check(context.Context) (engine.Diff, error) {
	if len(s.Config.Backup.To) == 0 {
		return nil, nil
	}
	lacking, err := s.unproven()
	if err != nil {
		return nil, err
	}
	tried, err := s.backupTried()
	if err != nil {
		return nil, err
	}
	c := engine.Change{What: "snapshot", To: fmt.Sprintf("taken, stored in %d places, read back from each", len(s.Config.Backup.To)), Slow: true, Apply: s.take}
	switch {
	case len(lacking) > 0 && len(lacking) < len(s.Config.Backup.To):
		c.From = "never read back from " + strings.Join(lacking, ", ")
	case len(lacking) > 0:
	case tried:
		return nil, nil
	default:
		c.From = "of another [backup]"
	}
	return engine.Diff{c}, nil
}

// unproven names the places of which no snapshot has been read back.
func (e *Env) unproven() ([]string, error) {
	var state snapshot.VerifyState
	b, err := e.Host.ReadFile(VerifiedState)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err == nil {
		read, err := snapshot.ParseVerifyState(b)
		if err != nil {
			return nil, operator("move that file away, then run the same command again", "%q is no state of the verifying job", VerifiedState)
		}
		state = read
	}
	var out []string
	for _, to := range e.Config.Backup.To {
		name := snapshot.NewPlace(to, nil).Name()
		if _, ok := state.LastGood[name]; !ok {
			out = append(out, name)
		}
	}
	return out, nil
}

// backupTried says whether a snapshot was stored and read back with [backup] as it is now,
// but for how long they are kept.
func (e *Env) backupTried() (bool, error) {
	b, err := e.Host.ReadFile(machine.BackupTried)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	now, err := e.backupSum()
	return strings.TrimSpace(string(b)) == now, err
}

// backupSum stands for what [backup] says and for the key pairs that it names.
func (e *Env) backupSum() (string, error) {
	b := e.Config.Backup
	b.Keep = config.BackupKeep{}
	text, err := json.Marshal(b)
	if err != nil {
		return "", fmt.Errorf("[backup]: %w", err)
	}
	h := sha256.New()
	h.Write(text)
	for _, to := range b.To {
		if to.Credentials == "" {
			continue
		}
		sum, err := e.Host.Sum(machine.CredentialFile(to.Credentials))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		fmt.Fprintln(h, sum)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func (s firstSnapshot) take(ctx context.Context) error {
	sum, err := s.backupSum()
	if err != nil {
		return err
	}
	if err := s.runJob(ctx, machine.UnitSnapshot); err != nil {
		return err
	}
	if err := s.runJob(ctx, machine.UnitVerify); err != nil {
		return err
	}
	return s.Host.Write(machine.BackupTried, strings.NewReader(sum+"\n"), root(0o600))
}

// runJob runs a job's unit to its end. One that is under way already, since a run
// that was killed or a timer has started it, is waited for: to start it once more
// would start what it requires anew beneath it. A start limit that was hit before
// is forgotten.
func (e *Env) runJob(ctx context.Context, unit string) error {
	underWay, err := e.awaitJob(ctx, unit)
	if err != nil {
		return err
	}
	if underWay {
		return nil
	}
	if err := e.Host.ResetFailed(ctx, unit); err != nil {
		return err
	}
	if err = e.Host.Start(ctx, unit); err == nil {
		return nil
	}
	last := e.lastWords(ctx, unit)
	if last != "" {
		err = fmt.Errorf("%w: %s", err, last)
	}
	return explain(unit, err)
}

// awaitJob waits for the end of a job that is under way, and says whether one was
// and has ended well.
func (e *Env) awaitJob(ctx context.Context, unit string) (bool, error) {
	tick := time.NewTicker(jobTick)
	defer tick.Stop()
	for seen := false; ; seen = true {
		u, err := e.Host.Unit(ctx, unit)
		if err != nil {
			return false, err
		}
		if u.Active != "activating" || u.Sub == "auto-restart" {
			return seen && u.Active != "failed", nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}

// jobTick is how often a job that somebody else has started is looked at.
const jobTick = 200 * time.Millisecond

// lastWords is the last line that a unit has written to the journal.
func (e *Env) lastWords(ctx context.Context, unit string) string {
	out, err := e.Host.Run(ctx, host.Command{Args: []string{"journalctl", "_SYSTEMD_UNIT=" + unit, "--no-pager", "--lines=2", "--output=cat"}})
	if err != nil {
		return ""
	}
	return strings.Join(strings.Fields(string(out.Stdout)), " ")
}

// firstDrill restores the first snapshot in a scratch Vault. Until that has been
// done nobody knows whether the backups are any good.
type firstDrill struct{ *Env }

func (firstDrill) ID() string    { return "first-drill" }
func (firstDrill) Title() string { return "first drill: the snapshot restored" }

func (s firstDrill) Check(context.Context) (engine.Diff, error) {
	if len(s.Config.Backup.To) == 0 || !hasUnit(machine.UnitDrill) {
		return nil, nil
	}
	there, err := s.exists(DrillReport)
	if err != nil || there {
		// A drill that has failed since is the doctor's to tell.
		return nil, err
	}
	return engine.Diff{{What: "drill", To: "a Vault restored from the newest snapshot, compared, thrown away", Slow: true, Apply: func(ctx context.Context) error {
		return s.runJob(ctx, machine.UnitDrill)
	}}}, nil
}

func hasUnit(name string) bool {
	_, err := systemd.Unit(name)
	return err == nil
}
