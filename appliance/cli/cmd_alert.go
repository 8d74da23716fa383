package cli

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/base/credential"
	"strongroom.example/appliance/watch/alert"
	"strongroom.example/config"
	"strongroom.example/config/machine"
)

type alertOptions struct {
	config, state string
	lines         int
	test          bool
}

func alertCommand() *cobra.Command {
	var o alertOptions
	c := &cobra.Command{
		Use:   "alert UNIT",
		Short: "Tell by webhook and e-mail that a unit has failed",
		Long: `Tells whom the table [alert] of the configuration file names that a unit has
failed, with the last lines of its journal, in which secrets are masked. The
units call it by OnFailure=. The same failure of the same unit is told again
only after the time that "repeat" gives.

Each way is tried for about three minutes. Exit code 1: one of them failed; 4:
one of them could not be tried, for want of a good credential.`,
		Example: `  strongroom alert --test strongroom-snapshot.service`,
		Args:    cobra.ExactArgs(1),
		RunE:    func(c *cobra.Command, args []string) error { return runAlert(c, o, args[0]) },
	}
	f := c.Flags()
	f.StringVar(&o.config, "config", machine.ConfigFile, "configuration file with the table [alert]")
	f.StringVar(&o.state, "state", "", "folder of the job's state (default: systemd's, else "+machine.AlertState+")")
	f.IntVar(&o.lines, "lines", 20, "lines of the journal to send, 0 for none")
	f.BoolVar(&o.test, "test", false, "say that it is a test, whatever was told before")
	return c
}

func runAlert(c *cobra.Command, o alertOptions, unit string) error {
	if !alert.IsUnit(unit) {
		return &Error{Code: ExitUsage, Err: fmt.Errorf("%q is not the name of a unit", unit), Hint: "such as strongroom-snapshot.service"}
	}
	conf, err := config.LoadAlert(o.config)
	if err != nil {
		err = &Error{Code: ExitUsage, Err: err, Hint: "see docs/monitoring.md for the table [alert]"}
		// A file that has just been spoilt may be why the unit failed.
		if conf = alertWithoutFile(); conf.WebhookFile == "" {
			return err
		}
		journal(c, journalError, "%v; the webhook that systemd passes is told", err)
	}
	// A way that can't be opened must not silence the other.
	channels, secrets, broken := alert.Open(conf, credential.Read)
	if broken != nil {
		broken = &Error{Code: ExitOperator, Err: broken, Hint: "see docs/monitoring.md for the table [alert]"}
	}
	if len(channels) == 0 && broken != nil {
		return broken
	}
	if len(channels) == 0 {
		journal(c, journalWarning, "%s failed, and nobody is told: the table [alert] of %s names neither a webhook nor mail", unit, o.config)
		return nil
	}
	e, invocation := alert.Failed(unit, hostName(), time.Now(), os.Getenv)
	if o.test {
		e.Result, e.Status = "only a test", ""
	} else {
		e = e.WithJournal(c.Context(), invocation, o.lines, secrets...)
	}
	dir := stateDir(o.state, machine.AlertState)
	var serr error
	if !o.test {
		var due bool
		serr = alert.UpdateSaid(c.Context(), dir, func(said *alert.Said) {
			if last := said.LastTold(unit); !last.IsZero() {
				e.Mended = alert.Succeeded(c.Context(), unit, last)
			}
			due, e.Unsaid = said.Due(e, conf.Repeat)
		})
		if !due {
			fmt.Fprintf(c.OutOrStdout(), "%s failed the same way less than %v ago: not told again\n", unit, conf.Repeat)
			return cmp.Or(broken, serr)
		}
	}
	told, err := alert.Send(c.Context(), e, channels, nil)
	if told > 0 && !o.test {
		serr = errors.Join(serr, alert.UpdateSaid(c.Context(), dir, func(said *alert.Said) { said.Told(e) }))
	}
	if err != nil {
		journal(c, journalError, "%s failed, and not everybody could be told: %v", unit, err)
		if broken != nil {
			return &Error{Code: ExitOperator, Err: errors.Join(broken, err), Hint: "see docs/monitoring.md for the table [alert], and check the network"}
		}
		return &Error{Code: ExitFailed, Err: err, Hint: "check the table [alert], its credentials, and the network"}
	}
	fmt.Fprintf(c.OutOrStdout(), "told of %s in %d ways\n", unit, told)
	return cmp.Or(broken, serr)
}

// alertWithoutFile tells the webhook that systemd passes, where the
// configuration can't be read.
func alertWithoutFile() config.Alert {
	conf := config.DefaultAlert()
	for _, name := range []string{machine.CredAlertWebhook, machine.CredBackupWebhook} {
		if data, err := credential.Read(name); err == nil && len(bytes.TrimSpace(data)) > 0 {
			conf.WebhookFile = name
			break
		}
	}
	return conf
}
