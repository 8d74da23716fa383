package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/base/daemon"
	"strongroom.example/appliance/serve/front"
	"strongroom.example/config"
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
			cfg, err := frontConfig(c, file)
			if err != nil {
				return err
			}
			if err := aloneToNotify(); err != nil {
				return err
			}
			log := daemon.Log(os.Stderr)
			return front.Run(c.Context(), cfg, front.Hooks{
				Ready: func(alive func(context.Context) error) {
					daemon.Ready(log)
					go daemon.Watchdog(c.Context(), log, alive)
				},
				Stopping: func() { daemon.Stopping(log) },
			})
		},
	}
	c.Flags().StringVar(&file, "config", "", "configuration file of the front")
	c.AddCommand(frontCertificateCommand())
	return c
}

func frontConfig(c *cobra.Command, file string) (front.Config, error) {
	if file == "" {
		return front.Config{}, &Error{Code: ExitUsage, Err: errors.New("no --config"), Hint: "see " + c.CommandPath() + " --help"}
	}
	cfg, err := config.LoadFront(file)
	if err != nil {
		return cfg, &Error{Code: ExitUsage, Err: err, Hint: "see docs/certificates.md for the keys"}
	}
	return cfg, nil
}

const (
	notifySocket = "NOTIFY_SOCKET" // sd_notify(3)
	ourSocket    = "STRONGROOM_NOTIFY_SOCKET"
)

// aloneToNotify keeps Caddy from talking to systemd: it says READY=1 even after
// a failed start, and before there is a certificate. It looks for the socket
// while the program's packages are initialised, so this process starts itself
// once more, under the same pid, with the variable under another name.
func aloneToNotify() error {
	if moved, ok := os.LookupEnv(ourSocket); ok {
		return errors.Join(os.Unsetenv(ourSocket), os.Setenv(notifySocket, moved))
	}
	socket, ok := os.LookupEnv(notifySocket)
	if !ok {
		return nil
	}
	if err := errors.Join(os.Unsetenv(notifySocket), os.Setenv(ourSocket, socket)); err != nil {
		return err
	}
	exe, err := os.Executable()
	if err == nil {
		err = syscall.Exec(exe, os.Args, os.Environ())
	}
	return fmt.Errorf("start without Caddy's notifications: %w", err)
}
