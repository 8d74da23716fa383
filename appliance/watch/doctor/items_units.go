package doctor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"strongroom.example/appliance/backup/drill/report"
	"strongroom.example/appliance/base/credential"
	"strongroom.example/appliance/base/signing"
	"strongroom.example/appliance/watch/evidence"
	"strongroom.example/config"
	"strongroom.example/config/machine"
)

// maxExposure is what systemd-analyze(1) may give a service.
const maxExposure = 1.5

// ownUnits are the appliance's units on this machine, by what the folder holds.
func (e *exam) ownUnits(suffix string) ([]string, error) {
	names, err := e.Machine.ReadDir(machine.UnitDir)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(names, func(n string) bool {
		return !strings.HasSuffix(n, suffix) || !machine.IsUnit(n)
	}), nil
}

var exposureLine = regexp.MustCompile(`Overall exposure level for (\S+): ([0-9.]+)`)

func sandboxes(ctx context.Context, e *exam) {
	names, err := e.ownUnits(".service")
	if err != nil {
		e.unseen(machine.UnitDir, err)
		return
	}
	var all []string
	for _, n := range names {
		// A template is asked about by an instance.
		asked := strings.Replace(n, "@.", "@doctor.", 1)
		out, err := e.Machine.Run(ctx, "systemd-analyze", "security", "--no-pager", asked)
		m := exposureLine.FindSubmatch(out)
		if m == nil {
			if err == nil {
				err = errors.New("no score in the answer")
			}
			e.unseen("systemd-analyze security "+asked, err)
			continue
		}
		score, err := strconv.ParseFloat(string(m[2]), 64)
		if err != nil {
			e.unseen("systemd-analyze security "+asked, err)
			continue
		}
		all = append(all, fmt.Sprintf("%s %.1f", n, score))
		if score > maxExposure {
			e.fail("systemctl cat "+n+" shows drop-ins that loosen it; "+reinstall, "%s has the exposure %.1f, at most %.1f is wanted", n, score, maxExposure)
		}
	}
	e.foundAll(all, "systemd-analyze security", "")
}

func daemonsRun(ctx context.Context, e *exam) {
	var up []string
	for _, n := range []string{machine.UnitKMSSocket, machine.UnitKMS, machine.UnitVault, machine.UnitFrontHTTPS, machine.UnitFrontHTTP, machine.UnitFront, machine.UnitFirewall} {
		if n == machine.UnitFirewall && e.NoConfig != nil {
			e.notAsked("whether "+n+" is to run", e.NoConfig)
			continue
		}
		if n == machine.UnitFirewall && !e.Config.Firewall.Manage {
			continue
		}
		if e.enabled(ctx, n) {
			up = append(up, n)
		}
	}
	e.areUp(up)
}

func (e *exam) areUp(units []string) { e.foundAll(units, "systemctl show", "enabled and active: ") }

// foundAll answers with names, a few on each line of evidence.
func (e *exam) foundAll(names []string, looked, what string) {
	e.got.yes = true
	for chunk := range slices.Chunk(names, 6) {
		e.found(len(chunk), looked, "%s%s", what, strings.Join(chunk, ", "))
	}
}

func timersArmed(ctx context.Context, e *exam) {
	var up []string
	timers, err := e.ownUnits(".timer")
	if err != nil {
		e.unseen(machine.UnitDir, err)
	}
	paths, err := e.ownUnits(".path")
	if err != nil {
		e.unseen(machine.UnitDir, err)
	}
	for _, n := range append(timers, paths...) {
		// Without a place for backups their jobs could only fail, and the item
		// backup-drill says so.
		if e.NoConfig == nil && len(e.Config.Backup.To) == 0 && machine.IsBackupUnit(n) {
			continue
		}
		if n == machine.UnitFrontCertificatePath && e.Config.TLS.Mode != config.TLSFiles {
			continue // it watches the operator's own certificate, and there is none
		}
		if e.enabled(ctx, n) {
			up = append(up, n)
		}
	}
	e.areUp(up)
}

func noneFailed(ctx context.Context, e *exam) {
	out, err := e.Machine.Run(ctx, "systemctl", "list-units", "--state=failed", "--plain", "--no-legend", "--no-pager")
	if err != nil {
		e.unseen("systemctl list-units --state=failed", err)
		return
	}
	var failed []string
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) == 0 || f[0] == machine.UnitDoctor {
			continue // its failure is what this report is about
		}
		remedy := "journalctl -u " + f[0] + "; remove the cause, then systemctl start " + f[0]
		if machine.IsUnit(f[0]) {
			e.fail(remedy, "%s has failed", f[0])
		} else {
			e.warn(remedy, "%s has failed", f[0])
		}
		failed = append(failed, f[0])
	}
	e.yes("systemctl list-units --state=failed", "%s", orNone(failed))
}

// enabled wants a unit enabled and active, now and after a boot.
func (e *exam) enabled(ctx context.Context, name string) bool {
	p, err := e.show(ctx, name, "LoadState", "UnitFileState", "ActiveState")
	if err != nil {
		e.unseen(name, err)
		return false
	}
	switch {
	case p["LoadState"] == "masked":
		e.fail("systemctl unmask "+name, "%s is masked", name)
	case p["LoadState"] != "loaded":
		e.fail(reinstall, "%s is %s", name, p["LoadState"])
	case name == machine.UnitKMS && p["ActiveState"] != "active" && e.cannotOpen(ctx):
	case p["UnitFileState"] != "enabled" || p["ActiveState"] != "active":
		e.fail("systemctl enable --now "+name, "%s is %s and %s", name, p["UnitFileState"], p["ActiveState"]).
			fix(run("systemctl", "enable", "--now", name), "systemctl enable --now %s", name)
	default:
		return true
	}
	return false
}

// cannotOpen says why the KMS, which does not run, cannot open its master key.
func (e *exam) cannotOpen(ctx context.Context) bool {
	why := evidence.ReadSealing(ctx, e.Machine.Run, credential.LockoutLeft)
	if why == nil {
		return false
	}
	e.fail(credential.Hint(why), "%s does not run: %v", machine.UnitKMS, why)
	return true
}

func backupRecent(_ context.Context, e *exam) {
	now := e.Machine.Now()
	b, err := evidence.ReadBackup(e.Places)
	switch {
	case errors.Is(err, evidence.ErrNone) && len(e.Config.Backup.To) == 0 && e.NoConfig == nil:
		e.fail("name a place in [backup] of appliance.toml: docs/backup.md", "no place for backups is configured")
	case errors.Is(err, evidence.ErrNone):
		e.fail("systemctl start strongroom-snapshot; docs/backup.md", "no backup was ever taken")
	case err != nil:
		e.unseen("state of the backups", err)
	default:
		e.judgeBackup(b, now)
	}
}

func (e *exam) judgeBackup(b evidence.Backup, now time.Time) {
	const remedy = "journalctl -u strongroom-snapshot -u strongroom-verify; docs/backup.md"
	if b.StandsBy() {
		since := now.Sub(*b.Standby).Round(time.Second)
		e.yes(e.Places.Snapshot, "the leader of the cluster takes the backups, this node stood aside %v ago", since)
		switch {
		case evidence.FromTheFuture(since):
			e.fail(clockRemedy, "the job that takes backups, or stands aside, last ran %v after now", -since)
		case since > evidence.BackupStale:
			e.fail(remedy, "the job that takes backups, or stands aside, last ran %v ago", since)
		case since > evidence.BackupLate:
			e.warn(remedy, "the job that takes backups, or stands aside, last ran %v ago: once an hour is wanted", since)
		}
		return
	}
	if b.TakenAt.IsZero() {
		e.fail(remedy, "no backup was ever verified")
	} else {
		age := now.Sub(b.TakenAt).Round(time.Second)
		e.yes(e.Places.Verify, "newest verified: %s, %v old, in %s", b.ID, age, strings.Join(slices.Sorted(maps.Keys(b.Places)), " and "))
		for _, place := range slices.Sorted(maps.Keys(b.Places)) {
			if until, held := b.Locked[place]; held && until.After(now) {
				e.yes(e.Places.Verify, "%s: nobody can delete the newest one before %s (object lock)", place, until.Format(time.RFC3339))
			} else {
				e.saw(e.Places.Verify, "%s: who can write there can delete all of it (no object lock)", place)
			}
		}
		switch {
		case age > evidence.BackupStale:
			e.fail(remedy, "the newest verified backup is %v old", age)
		case age > evidence.BackupLate:
			e.warn(remedy, "the newest verified backup is %v old: one an hour is wanted", age)
		case evidence.FromTheFuture(age):
			e.fail(clockRemedy, "the newest verified backup is from the future (%v)", -age)
		case b.InDoubt:
			e.fail(clockRemedy, "the newest verified backup was taken by a clock in doubt: nobody knows how old it is")
		}
	}
	if b.ClockDoubted > 0 {
		e.warn(clockRemedy, "the clock was in doubt at the last %d checks of a backup: nothing is deleted", b.ClockDoubted)
	}
	if f := b.TakeFailure; f != nil {
		e.fail(remedy, "the last backup failed at %s: %s", f.At.Format(time.RFC3339), f.Error)
	}
	if f := b.VerifyFailure; f != nil {
		e.fail(remedy, "the last check of a backup failed at %s: %s", f.At.Format(time.RFC3339), f.Error)
	}
	if f := b.CanaryFailure; f != nil {
		e.fail("journalctl -u strongroom-snapshot; docs/drill.md", "the last backup has no canary, a drill of it will fail: %s: %s", f.At.Format(time.RFC3339), f.Error)
	}
}

// clockRemedy: with the next backup that is taken by a right clock it is over.
const clockRemedy = "timedatectl timesync-status; then systemctl start strongroom-snapshot; docs/backup.md"

const drillRemedy = "systemctl start strongroom-drill; docs/drill.md"

func drillFetched(_ context.Context, e *exam) {
	switch f, err := evidence.ReadFetchFailure(e.Places); {
	case err == nil:
		e.fail(drillRemedy, "the last drill could not begin, at %s: %s", f.At.Format(time.RFC3339), f.Error)
	case errors.Is(err, evidence.ErrNone):
		e.yes(e.Places.Drill, "no fetch has failed since the last drill")
	default:
		e.unseen("the last fetch for a drill", err)
	}
}

func drillPassed(_ context.Context, e *exam) {
	d, err := evidence.ReadDrill(e.Places)
	switch {
	case errors.Is(err, evidence.ErrNone):
		e.fail(drillRemedy, "no drill was ever done: nobody knows whether a backup restores")
		return
	case err != nil:
		e.unseen("report of the drill", err)
		return
	}
	age := e.Machine.Now().Sub(d.FinishedAt).Round(time.Second)
	e.yes(report.LastPath(e.Places.Drill), "%s %v ago, passed %t, RPO %v, RTO %v", d.Kind, age, d.Passed, d.RPO(), d.RTO())
	if !d.Passed {
		e.fail("strongroom drill; docs/drill.md", "the last drill did not pass")
	}
	if evidence.FromTheFuture(age) {
		e.fail(clockRemedy+"; "+drillRemedy, "the last drill was %v after now: nobody knows when", -age)
	}
	if age > evidence.DrillLate {
		e.fail(drillRemedy, "the last drill was %d days ago: one a quarter is wanted", int(age.Hours()/24))
	}
}

func drillSigned(_ context.Context, e *exam) {
	switch err := evidence.DrillSignature(e.Places, e.DrillKey); {
	case err == nil:
		e.yes(e.DrillKey, "the report's signature is good")
	case errors.Is(err, signing.ErrNotSigned):
		e.fail(drillRemedy, "the report of the last drill is not signed: it may be anybody's")
	case errors.Is(err, signing.ErrSignature):
		e.fail(drillRemedy+"; find out who has changed it", "%s", plain(err))
	case errors.Is(err, evidence.ErrNone):
		e.moot(report.LastPath(e.Places.Drill), "there is no report")
	case errors.Is(err, os.ErrNotExist):
		e.fail(reinstall, "the key that signs drills is missing: %s", e.DrillKey)
	default:
		e.unseen("the report's signature", err)
	}
}

func escrowConfirmed(_ context.Context, e *exam) {
	s, err := evidence.ReadEscrow(e.Places)
	switch {
	case errors.Is(err, evidence.ErrNone):
		e.fail("strongroom-installer install", "there is no escrow: nobody could rebuild this machine")
		return
	case err != nil:
		e.unseen(e.Places.Escrow, err)
		return
	}
	const remedy = "copy it off the machine, then: strongroom escrow challenge, answer it there, strongroom escrow confirm (docs/escrow.md)"
	for _, f := range s.Files {
		switch {
		case f.Confirmed():
			e.found(1, f.File, "opened off this machine on %s (%s)", f.ConfirmedAt.UTC().Format("2006-01-02"), f.By)
		case f.Replaced:
			e.fail(remedy, "%s is another one than was confirmed", f.File)
		case f.OnDisk:
			e.fail(remedy, "%s was never opened off this machine: the copy on this disk may be the only one", f.File)
		default:
			e.fail(remedy, "%s was never opened off this machine, and is no longer on it", f.File)
		}
	}
}
