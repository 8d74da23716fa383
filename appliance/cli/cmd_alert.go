package cli

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
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
	if !unitName(unit) {
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
	channels, secrets, broken := alertChannels(conf)
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
	e := alertEvent(c.Context(), unit, o, secrets)
	dir := stateDir(o.state, machine.AlertState)
	said, serr := alert.LoadSaid(dir)
	if !o.test {
		due, unsaid := said.Due(e, conf.Repeat)
		if !due {
			fmt.Fprintf(c.OutOrStdout(), "%s failed the same way less than %v ago: not told again\n", unit, conf.Repeat)
			return cmp.Or(broken, errors.Join(serr, said.Save(dir)))
		}
		e.Unsaid = unsaid
	}
	told, err := alert.Send(c.Context(), e, channels, nil)
	if told > 0 && !o.test {
		said.Told(e)
		serr = errors.Join(serr, said.Save(dir))
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

// alertEvent is what systemd tells of the failure (systemd.exec(5),
// $MONITOR_SERVICE_RESULT and others), and the journal.
func alertEvent(ctx context.Context, unit string, o alertOptions, secrets []string) alert.Event {
	e := alert.Event{Unit: unit, Host: hostName(), At: time.Now(), Result: "failed"}
	if o.test {
		e.Result = "only a test"
		return e
	}
	invocation := ""
	if os.Getenv("MONITOR_UNIT") == unit {
		if r := os.Getenv("MONITOR_SERVICE_RESULT"); r != "" {
			e.Result, e.Status = r, os.Getenv("MONITOR_EXIT_STATUS")
		}
		// systemd 252 says so of an exit status that isn't 0.
		if e.Result == "success" {
			e.Result = "exit-code"
		}
		invocation = os.Getenv("MONITOR_INVOCATION_ID")
	}
	if o.lines > 0 {
		lines, err := alert.Journal(ctx, unit, invocation, o.lines, secrets...)
		if err != nil {
			lines = []string{"(the journal could not be read: " + err.Error() + ")"}
		}
		e.Lines = lines
	}
	return e
}

// alertChannels opens the ways that the configuration names, and gives the
// secrets in them, so that no journal line can carry these outside. The error is
// of those that could not be opened. A credential of systemd's that is empty
// stands for one that isn't there.
func alertChannels(conf config.Alert) ([]alert.Channel, []string, error) {
	var out []alert.Channel
	var secrets []string
	var errs []error
	if conf.WebhookFile != "" {
		hook, known, err := alertWebhook(conf.WebhookFile)
		secrets = append(secrets, known...)
		if err == nil {
			out = append(out, hook)
		}
		errs = append(errs, err)
	}
	if conf.Mail.Server != "" {
		mail, known, err := alertMail(conf.Mail)
		secrets = append(secrets, known...)
		if err == nil {
			out = append(out, mail)
		}
		errs = append(errs, err)
	}
	return out, secrets, errors.Join(errs...)
}

func alertWebhook(file string) (alert.Channel, []string, error) {
	data, err := credential.Read(file)
	if err != nil {
		return nil, nil, err
	}
	secrets := []string{string(data)}
	hook, err := alert.NewWebhook(string(data))
	if err != nil {
		return nil, secrets, fmt.Errorf("webhook file %q: %w", file, err)
	}
	return hook, secrets, nil
}

func alertMail(conf config.AlertMail) (alert.Channel, []string, error) {
	var user, password string
	var secrets []string
	if conf.Credentials != "" {
		data, err := credential.Read(conf.Credentials)
		if err != nil {
			return nil, nil, err
		}
		if user, password, err = config.DecodePair(conf.Credentials, data, "username", "password"); err != nil {
			return nil, nil, err
		}
		secrets = append(secrets, password)
	}
	mail, err := alert.NewMail(conf, user, password)
	if err != nil {
		return nil, secrets, err
	}
	return mail, secrets, nil
}

// unitName keeps options and patterns out of journalctl's arguments.
func unitName(s string) bool {
	return s != "" && len(s) < 256 && s[0] != '-' && strings.Contains(s, ".") &&
		strings.Trim(s, `abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:-_.@\`) == ""
}
