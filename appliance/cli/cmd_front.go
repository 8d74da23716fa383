package cli

import (
	"context"
	"errors"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"strongroom/appliance/front"
)

func frontCommand() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "front",
		Short: "Serve Vault to the outside over TLS",
		Long: `Ends TLS, keeps its certificate alive, and passes to Vault what the outside may
ask: everything but sys/, of which only an allow-list passes.

It runs until SIGTERM or SIGINT and then lets requests in flight finish.`,
		Example: "  strongroom front --config /etc/strongroom/front.toml",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if file == "" {
				return &Error{Code: ExitUsage, Err: errors.New("no --config"), Hint: "see " + c.CommandPath() + " --help"}
			}
			cfg, err := front.Load(file)
			if err != nil {
				return &Error{Code: ExitUsage, Err: err, Hint: "see docs/certificates.md for the keys"}
			}
			log := daemonLog()
			return front.Run(c.Context(), cfg, front.Hooks{
				Ready: func(alive func(context.Context) error) {
					notify(log, daemon.SdNotifyReady)
					go watchdog(c.Context(), log, alive)
				},
				Stopping: func() { notify(log, daemon.SdNotifyStopping) },
			})
		},
	}
	c.Flags().StringVar(&file, "config", "", "configuration file (TOML)")
	return c
}
