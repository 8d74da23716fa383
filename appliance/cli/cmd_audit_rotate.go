package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/base/statefile"
	"strongroom.example/appliance/base/words"
	"strongroom.example/appliance/watch/audit"
	"strongroom.example/config"
	"strongroom.example/config/machine"
)

type auditRotateOptions struct {
	config, dir, state, unit, pidFile string
	force, json                       bool
	wait                              time.Duration
}

func auditRotateCommand() *cobra.Command {
	var o auditRotateOptions
	c := &cobra.Command{
		Use:   "rotate [FOLDER]",
		Short: "Rotate the audit logs that are due, and keep the disk from filling up",
		Long: `Renames each log that is large or old enough, has Vault open it anew (SIGHUP),
compresses what was rotated, deletes what is too old or too much, and looks at
the disk. No entry is lost, whatever interrupts it. The limits are in the table
[audit] of the configuration file.

When the disk is used up to full_percent the oldest compressed logs are deleted
before their time, since Vault would stop; so are those beyond keep_mb. Each such
deletion is noted down before it is done, and told once, with the time that is lost.

Exit code 3: logs were deleted before their time, the disk is used beyond
warn_percent, or a log is executable.`,
		Example: `  strongroom audit rotate
  strongroom audit rotate --force`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := subject(c, args, "audit-logs", &o.dir); err != nil {
				return err
			}
			return runAuditRotate(c, o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.config, "config", machine.ConfigFile, "configuration file with the table [audit]")
	f.StringVar(&o.dir, "audit-logs", machine.AuditDir, "folder of the audit logs, *.log")
	f.StringVar(&o.state, "state", "", "folder of the job's state (default: systemd's, else "+machine.AuditState+")")
	f.StringVar(&o.unit, "unit", machine.UnitVault, "systemd's unit of Vault")
	f.StringVar(&o.pidFile, "pid-file", "", "file with Vault's process id, in place of a unit")
	f.DurationVar(&o.wait, "wait", audit.DefaultWait, "how long Vault has to open a log again")
	f.BoolVar(&o.force, "force", false, "do it all the same: rotate every log that is not empty")
	f.BoolVar(&o.json, "json", false, "print JSON")
	return c
}

func runAuditRotate(c *cobra.Command, o auditRotateOptions) error {
	conf, err := config.LoadAudit(o.config)
	if err != nil {
		return &Error{Code: ExitUsage, Err: err, Hint: "see docs/monitoring.md for the table [audit]"}
	}
	signal := audit.SignalUnit(o.unit)
	if o.pidFile != "" {
		signal = audit.SignalPIDFile(o.pidFile)
	}
	rep, err := audit.Rotate(c.Context(), audit.Options{
		Dir: o.dir, StateDir: stateDir(o.state, machine.AuditState), Signal: signal, Force: o.force, Wait: o.wait,
		Doubt: clockDoubt(c),
		Tell: func(lost []audit.Loss) {
			for _, l := range lost {
				journal(c, journalError, "%s", l)
			}
		},
		Policy: audit.Policy{
			Size: int64(conf.RotateMB) << 20, Age: conf.RotateAfter,
			Keep: conf.Keep, KeepBytes: int64(conf.KeepMB) << 20,
			Warn: float64(conf.WarnPercent), Full: float64(conf.FullPercent),
		},
	})
	if o.json {
		err = errors.Join(err, printJSON(c, rep))
	} else {
		printAudit(c, rep)
	}
	err = auditError(rep, conf, o.dir, err)
	if err != nil && rep.Level == audit.LevelWarn {
		journal(c, journalWarning, "%v", err)
	}
	return err
}

func printAudit(c *cobra.Command, rep audit.Report) {
	w := c.OutOrStdout()
	for _, name := range rep.Rotated {
		fmt.Fprintf(w, "rotated %s\n", name)
	}
	for _, name := range rep.Deleted {
		fmt.Fprintf(w, "deleted %s\n", name)
	}
	if rep.Disk.Total > 0 {
		fmt.Fprintf(w, "%d logs, %d rotated ones with %s, disk used to %.0f%%\n", len(rep.Logs), rep.Kept, words.Size(rep.KeptBytes), rep.Disk.Percent())
	}
}

func theirTime(n int) string {
	if n == 1 {
		return "its time"
	}
	return "their time"
}

// spanOf is the whole time that losses are of.
func spanOf(lost []audit.Loss) string {
	all := lost[0]
	for _, l := range lost {
		if l.From.IsZero() || l.From.Before(all.From) {
			all.From = l.From
		}
		if l.Until.After(all.Until) {
			all.Until = l.Until
		}
	}
	return all.Span()
}

// auditError gives the exit code and what to do.
func auditError(rep audit.Report, conf config.Audit, dir string, err error) error {
	hint := "make room on the disk of " + dir + ", or keep fewer logs (keep, keep_mb in [audit])"
	switch {
	case errors.Is(err, audit.ErrExecutable):
		return &Error{Code: ExitDrift, Err: err, Hint: `Vault will not unseal with it: disable the device and enable it again with mode=0600`}
	case errors.Is(err, audit.ErrNotReopened):
		return &Error{Code: ExitFailed, Err: err, Hint: "see strongroom status and journalctl -u vault; the next run tries again"}
	case errors.Is(err, statefile.ErrBusy), errors.Is(err, context.Canceled):
		return &Error{Code: ExitFailed, Err: err, Hint: "the timer tries again"}
	case err != nil:
		return err
	case rep.Level == audit.LevelFull:
		return &Error{Code: ExitDrift, Err: fmt.Errorf("the disk of %q is used to %.0f%% and no rotated log is left to delete: Vault stops when it is full", dir, rep.Disk.Percent()), Hint: hint}
	case len(rep.Lost) > 0:
		return &Error{Code: ExitDrift, Err: fmt.Errorf("%s deleted before %s, which keep gives: lost is %s", words.Count(len(rep.Lost), "audit log"), theirTime(len(rep.Lost)), spanOf(rep.Lost)), Hint: hint}
	case rep.Level == audit.LevelWarn:
		return &Error{Code: ExitDrift, Err: fmt.Errorf("the disk of %q is used to %.0f%%, the warning is at %d%%", dir, rep.Disk.Percent(), conf.WarnPercent), Hint: hint}
	}
	return nil
}

// clockDoubt says in the journal why the clock is not to be believed.
func clockDoubt(c *cobra.Command) func() error {
	return func() error {
		err := snapshot.ClockDoubt("", time.Now())
		if err != nil {
			journal(c, journalWarning, "%v: no audit log is taken for too old", err)
		}
		return err
	}
}
