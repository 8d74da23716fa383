package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/base/statefile"
	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/appliance/base/words"
	"strongroom.example/appliance/watch/alert"
	"strongroom.example/appliance/watch/audit"
	"strongroom.example/config"
	"strongroom.example/config/machine"
)

type auditWatchOptions struct {
	config, dir, state, rotation, address string
	json                                  bool
}

func auditWatchCommand() *cobra.Command {
	var o auditWatchOptions
	c := &cobra.Command{
		Use:   "watch [FOLDER]",
		Short: "Look whether the audit logs are there, as they were, and written",
		Long: `Compares the audit logs with the ledger of what must be there: a file that is
gone, another, shorter or changed is a loss, whoever did it; so is what "audit
rotate" deletes before its time. Then it makes a request that Vault must log, and
looks whether each log has grown. The timer does it every minute.

Exit code 3: something new was found, or what was found lasts and is to be told
again. A loss that was told stays in strongroom status until "audit acknowledge", or
until it would be too old to be kept.`,
		Example: `  strongroom audit watch
  strongroom audit watch --json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := subject(c, args, "audit-logs", &o.dir); err != nil {
				return err
			}
			return runAuditWatch(c, o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.config, "config", machine.ConfigFile, "configuration file with the table [audit]")
	f.StringVar(&o.dir, "audit-logs", machine.AuditDir, "folder of the audit logs, *.log")
	f.StringVar(&o.state, "state", "", "folder of the job's state (default: systemd's, else "+machine.AuditWatchState+")")
	f.StringVar(&o.rotation, "rotation-state", machine.AuditState, "folder of the state of audit rotate")
	f.StringVar(&o.address, "address", machine.VaultAddress, "Vault's address, https://… or unix:///… (empty: Vault is not asked)")
	f.BoolVar(&o.json, "json", false, "print JSON")
	return c
}

func runAuditWatch(c *cobra.Command, o auditWatchOptions) error {
	conf, err := config.LoadAudit(o.config)
	if err != nil {
		// A file that has just been spoilt hides no loss.
		conf = config.DefaultAudit()
		journal(c, journalError, "%v; the defaults are used", err)
	}
	told, terr := config.LoadAlert(o.config)
	if terr != nil {
		told = config.DefaultAlert()
	}
	var ask func(context.Context) audit.Answer
	if o.address != "" {
		client, err := vaultapi.New(vaultapi.Options{Address: o.address})
		if err != nil {
			return &Error{Code: ExitUsage, Err: err}
		}
		ask = audit.AskVault(client)
	}
	news := 0
	l, err := audit.Watch(c.Context(), audit.WatchOptions{
		Dir: o.dir, StateDir: stateDir(o.state, machine.AuditWatchState), Deletions: o.rotation, Keep: conf.Keep, Repeat: told.Repeat, Ask: ask,
		Doubt: clockDoubt(c),
		Tell: func(losses []audit.Loss, faults []alert.Fault) {
			news = len(losses) + len(faults)
			for _, l := range losses {
				journal(c, journalError, "%s", l)
			}
			for _, f := range faults {
				journal(c, journalError, "%s: %s", f.Text, f.Hint)
			}
		},
	})
	if err != nil {
		if errors.Is(err, statefile.ErrBusy) || errors.Is(err, context.Canceled) {
			return &Error{Code: ExitFailed, Err: err, Hint: "the timer tries again"}
		}
		return err
	}
	if o.json {
		if err := printJSON(c, l); err != nil {
			return err
		}
	} else {
		printLedger(c, l)
	}
	if news == 0 {
		return nil
	}
	return &Error{Code: ExitDrift, Err: fmt.Errorf("%s and %s of the audit logs are new, or last", words.Count(len(l.Losses), "loss"), words.Count(len(l.Faults), "fault")), Hint: "strongroom status; docs/monitoring.md, audit logs"}
}

func printLedger(c *cobra.Command, l audit.Ledger) {
	w := c.OutOrStdout()
	for _, x := range l.Losses {
		fmt.Fprintf(w, "lost   %s (since %s)\n", x, x.At.UTC().Format(time.RFC3339))
	}
	for _, f := range l.Faults {
		fmt.Fprintf(w, "fault  %s (since %s)\n       → %s\n", f.Text, f.Since.UTC().Format(time.RFC3339), f.Hint)
	}
	fmt.Fprintf(w, "%d of %d logs are written, %s kept, watched since %s\n", len(l.Written), len(l.Logs), words.Count(len(l.Files), "file"), l.Begun.UTC().Format(time.RFC3339))
}

// auditAcknowledgeCommand takes losses off the screen.
func auditAcknowledgeCommand() *cobra.Command {
	var dir, state string
	c := &cobra.Command{
		Use:   "acknowledge [FOLDER]",
		Short: "Say that the losses of audit history were seen",
		Long: `Prints what was lost of the audit history and shows it no more. A log that is not
there, or that Vault does not write to, is not missed any longer: so after a device
was taken away for good.`,
		Example: `  strongroom audit acknowledge`,
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := subject(c, args, "audit-logs", &dir); err != nil {
				return err
			}
			lost, err := audit.Acknowledge(stateDir(state, machine.AuditWatchState), dir)
			if errors.Is(err, statefile.ErrNone) {
				return &Error{Code: ExitFailed, Err: err, Hint: "systemctl start strongroom-audit-watch makes it"}
			}
			if err != nil {
				return err
			}
			for _, l := range lost {
				fmt.Fprintf(c.OutOrStdout(), "%s\n", l)
			}
			fmt.Fprintf(c.OutOrStdout(), "acknowledged: %s\n", words.Count(len(lost), "loss"))
			return nil
		},
	}
	c.Flags().StringVar(&dir, "audit-logs", machine.AuditDir, "folder of the audit logs")
	c.Flags().StringVar(&state, "state", "", "folder of the job's state (default: systemd's, else "+machine.AuditWatchState+")")
	return c
}
