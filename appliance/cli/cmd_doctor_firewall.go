package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/base/pause"
	"strongroom.example/appliance/base/words"
	"strongroom.example/appliance/watch/alert"
	"strongroom.example/appliance/watch/doctor"
	"strongroom.example/config"
	"strongroom.example/config/machine"
)

// doctorFirewallCommand is the look of every minute; it is not for people.
func doctorFirewallCommand() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:    "firewall FOLDER",
		Short:  "Look whether the firewall is in force, and note it down",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			a, err := config.Load(file)
			if err == nil && !a.Firewall.Manage {
				return nil // the rules are the operator's own
			}
			told, err := config.LoadAlert(file)
			if err != nil {
				told = config.DefaultAlert() // whatever is spoilt, it is told
			}
			news := 0
			w, err := doctor.WatchFirewall(c.Context(), doctor.OSMachine{}, args[0], told.Repeat, pause.For, func(due []alert.Fault) {
				news = len(due)
				for _, f := range due {
					journal(c, journalError, "%s: %s", f.Text, f.Hint)
				}
			})
			if err != nil {
				return err
			}
			if news > 0 {
				return &Error{Code: ExitDrift, Err: fmt.Errorf("%s of the firewall", words.Count(len(w.Faults), "fault")), Hint: w.Faults[0].Hint}
			}
			return nil
		},
	}
	c.Flags().StringVar(&file, "config", machine.ConfigFile, "configuration file of the appliance")
	return c
}
