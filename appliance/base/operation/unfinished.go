package operation

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"strongroom.example/config/machine"
)

// Stopped is an operation that has changed the machine and has not ended.
type Stopped struct {
	What string // "the upgrade of 2026-12-01 09:00:00 was stopped while switching"
	// Command ends it.
	Command string
}

// Untouched are the phases of an upgrade in which the machine is as it was.
func Untouched() []string { return []string{"staging", "snapshot", "rehearsal", "keeping"} }

// Unfinished finds what was stopped on this machine: by its records, which are root's.
// Whether somebody is at work on it now, Held says. A record that can't be read is an
// error: nobody knows then.
func Unfinished(read func(path string) ([]byte, error)) ([]Stopped, error) {
	var out []Stopped
	var errs []error
	for _, look := range []func(func(string) ([]byte, error)) (*Stopped, error){upgradeStopped, restoreStopped} {
		s, err := look(read)
		errs = append(errs, err)
		if s != nil {
			out = append(out, *s)
		}
	}
	if len(out) == 0 {
		// An upgrade and a restore write the same journal, and are to be ended by their own.
		s, err := installStopped(read)
		errs = append(errs, err)
		if s != nil {
			out = append(out, *s)
		}
	}
	return out, errors.Join(errs...)
}

func upgradeStopped(read func(string) ([]byte, error)) (*Stopped, error) {
	var r struct {
		Started time.Time `json:"started"`
		Phase   string    `json:"phase"`
	}
	there, err := record(read, machine.UpgradeRecord, &r)
	if err != nil || !there || slices.Contains(Untouched(), r.Phase) {
		return nil, err
	}
	return &Stopped{fmt.Sprintf("the upgrade of %s was stopped while %s", r.Started.Format(time.DateTime), r.Phase),
		machine.InstallerName + " upgrade (the same command again), or " + machine.InstallerName + " upgrade --rollback"}, nil
}

func restoreStopped(read func(string) ([]byte, error)) (*Stopped, error) {
	var r struct {
		Began    time.Time `json:"began"`
		ID       string    `json:"id"`
		Finished time.Time `json:"finished"`
	}
	there, err := record(read, machine.RecoveryRecord, &r)
	if err != nil || !there || !r.Finished.IsZero() {
		return nil, err
	}
	return &Stopped{fmt.Sprintf("the restore of %s, begun %s, was stopped", r.ID, r.Began.Format(time.DateTime)), machine.InstallerName + " restore (the same command again)"}, nil
}

// installStopped looks at the last run in the journal. One that has failed has said so.
func installStopped(read func(string) ([]byte, error)) (*Stopped, error) {
	b, err := read(machine.InstallJournal)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var last *Stopped
	lines := bufio.NewScanner(bytes.NewReader(b))
	lines.Buffer(nil, len(b)+1)
	for lines.Scan() {
		var e struct {
			Time  time.Time `json:"time"`
			Event string    `json:"event"`
			Step  string    `json:"step"`
		}
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			continue // a crash has cut it off
		}
		switch e.Event {
		case "run":
			last = &Stopped{fmt.Sprintf("the installation of %s was stopped", e.Time.Format(time.DateTime)), machine.InstallerName + " install (the same command again)"}
		case "begin":
			if last != nil {
				last.What = fmt.Sprintf("the installation of %s was stopped in its step %q", e.Time.Format(time.DateTime), e.Step)
			}
		case "done", "failed":
			last = nil
		}
	}
	return last, lines.Err()
}

func record(read func(string) ([]byte, error), path string, into any) (bool, error) {
	b, err := read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil {
		err = json.Unmarshal(b, into)
	}
	if err != nil {
		return false, fmt.Errorf("%q: %w", path, err)
	}
	return true, nil
}
