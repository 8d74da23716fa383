package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/base/daemon"
	"strongroom.example/appliance/base/statefile"
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
	c.AddCommand(frontCertificateCommand(), frontNewRootCommand())
	return c
}

func frontNewRootCommand() *cobra.Command {
	var file string
	var yes bool
	c := &cobra.Command{
		Use:   "new-root",
		Short: "Give up the internal CA's root, so that the front makes another",
		Long: `Moves the root, and all that it has signed, aside within the front's storage. The
front makes another at its next start, and every client must be given that one:
none trusts the front before. Stop the front first, and run it as the front's user.

For a root that is damaged or has leaked. Nothing else replaces one: where a backup
has it, restore it from there.`,
		Example: `  systemctl stop strongroom-front
  runuser -u strongroom-front -- strongroom front new-root --yes
  systemctl start strongroom-front`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := frontConfig(c, file)
			if err != nil {
				return err
			}
			if !yes {
				return &Error{Code: ExitOperator, Err: errors.New("no client trusts the front until it is given the new root; nothing was changed"), Hint: "say --yes if that is meant"}
			}
			if err := asOwner(c, cfg.Storage); err != nil {
				return err
			}
			moved, err := front.NewRoot(cfg, time.Now())
			for _, line := range moved {
				fmt.Fprintln(c.OutOrStdout(), line)
			}
			if errors.Is(err, statefile.ErrBusy) {
				return &Error{Code: ExitOperator, Err: err, Hint: "systemctl stop strongroom-front"}
			}
			if err == nil {
				fmt.Fprintf(c.OutOrStdout(), "The front makes another root at its next start. Give it to every client: %s\n", cfg.RootFile)
			}
			return err
		},
	}
	c.Flags().StringVar(&file, "config", machine.FrontTOML, "configuration file of the front")
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask, and do it")
	return c
}

// asOwner refuses who does not own folder: a link in a service's folder could lead root
// anywhere.
func asOwner(c *cobra.Command, folder string) error {
	fi, err := os.Lstat(folder)
	if err != nil {
		return err
	}
	owner := fi.Sys().(*syscall.Stat_t).Uid
	if int(owner) == os.Geteuid() {
		return nil
	}
	name := strconv.Itoa(int(owner))
	if u, err := user.LookupId(name); err == nil {
		name = u.Username
	}
	return &Error{Code: ExitOperator, Err: fmt.Errorf("%q is the folder of %s; nothing was changed", folder, name),
		Hint: "runuser -u " + name + " -- " + c.CommandPath() + " --yes"}
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
