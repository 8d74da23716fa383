package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/base/daemon"
	"strongroom.example/appliance/serve/authority"
	"strongroom.example/appliance/serve/front"
	"strongroom.example/config"
	"strongroom.example/config/machine"
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
	c.AddCommand(frontCertificateCommand(), frontAuthorityCommand(), frontNewRootCommand())
	return c
}

// frontAuthorityCommand is what systemd starts for who asks at machine.AuthoritySocket.
func frontAuthorityCommand() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:    "authority",
		Hidden: true,
		Short:  "Sign an intermediate certificate of the internal CA for the front",
		Args:   cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := frontConfig(c, file)
			if err != nil {
				return err
			}
			return authority.Serve(struct {
				io.Reader
				io.Writer
			}{c.InOrStdin(), c.OutOrStdout()}, machine.AuthorityDir, cfg.Names, time.Now())
		},
	}
	c.Flags().StringVar(&file, "config", machine.FrontTOML, "configuration file of the front")
	return c
}

func frontNewRootCommand() *cobra.Command {
	var file string
	var yes bool
	c := &cobra.Command{
		Use:   "new-root",
		Short: "Give up the internal CA's root, so that the front makes another",
		Long: `Retires the root, and all that it has signed. There is another when the front is
started anew, and every client must be given that one: none trusts the front before.

For a root that is damaged or has leaked. Nothing else replaces one: where a backup
has it, restore it from there.`,
		Example: `  strongroom front new-root --yes
  systemctl restart strongroom-front`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := frontConfig(c, file)
			if err != nil {
				return err
			}
			switch {
			case cfg.Authority == "":
				return &Error{Code: ExitUsage, Err: fmt.Errorf("%q names no authority: there is no root to give up", file)}
			case os.Geteuid() != 0:
				return &Error{Code: ExitOperator, Err: errors.New("the root is root's; nothing was changed"), Hint: "run it as root"}
			case !yes:
				return &Error{Code: ExitOperator, Err: errors.New("no client trusts the front until it is given the new root; nothing was changed"), Hint: "say --yes if that is meant"}
			}
			if err := front.NewRoot(cfg, machine.AuthorityDir, time.Now()); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "The root is given up; it stays in %s. There is another when the front is started anew (systemctl restart %s). Give that one to every client: %s\n",
				machine.AuthorityDir, machine.UnitFront, cfg.RootFile)
			return nil
		},
	}
	c.Flags().StringVar(&file, "config", machine.FrontTOML, "configuration file of the front")
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask, and do it")
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
