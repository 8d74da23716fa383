package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/base/daemon"
	"strongroom.example/appliance/base/pause"
	"strongroom.example/appliance/serve/kms"
	"strongroom.example/config/machine"
)

type kmsOptions struct {
	socket  string
	keyFile string
	keyName string
	allow   []uint
}

func kmsCommand() *cobra.Command {
	var o kmsOptions
	c := &cobra.Command{
		Use:   "kms",
		Short: "Answer Vault's auto-unseal on a unix socket",
		Long: `Answers the two calls that Vault's seal "transit" makes, on a unix socket and to
the allowed uids only. The master key comes from --key-file or, under systemd,
from the credential "master-key"; the socket from --socket or from systemd.

It runs until SIGTERM or SIGINT. A key that is missing, truncated, damaged or
still encrypted ends it with exit code 4.`,
		Example: "  strongroom kms --socket /run/strongroom-kms/kms.sock --allow-uid 998",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.validate(); err != nil {
				return &Error{Code: ExitUsage, Err: err, Hint: "see " + c.CommandPath() + " --help"}
			}
			return runKMS(c.Context(), o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.socket, "socket", "", "path of the unix socket (default: the one systemd passes)")
	f.StringVar(&o.keyFile, "key-file", "", "file with the master key, mode 0600, or - for standard input (default: systemd's credential)")
	f.StringVar(&o.keyName, "key-name", kms.DefaultKeyName, "key_name of Vault's seal stanza")
	f.UintSliceVar(&o.allow, "allow-uid", nil, "uid that may connect, repeatable (default: this process's own)")
	c.AddCommand(kmsRotateCommand(machine.OperationLock), kmsExportCommand(), kmsImportCommand(machine.OperationLock), kmsFingerprintCommand())
	return c
}

func (o *kmsOptions) validate() error {
	var errs []error
	for _, uid := range o.allow {
		// 65534 is what the kernel shows for any uid that it cannot map, as
		// inside PrivateUsers=: allowing it would allow everyone.
		if uid == 65534 || uid >= 1<<32-1 {
			errs = append(errs, fmt.Errorf("--allow-uid %d names nobody", uid))
		}
	}
	if o.keyName == "" || filepath.Base(o.keyName) != o.keyName {
		errs = append(errs, fmt.Errorf("--key-name %q is not a single name", o.keyName))
	}
	return errors.Join(errs...)
}

func runKMS(ctx context.Context, o kmsOptions) error {
	log := daemon.Log(os.Stderr)
	for _, err := range kms.Harden() {
		log.Warn("memory is less protected than it could be", "error", err)
	}
	// A process that answers a few calls a day trades CPU for memory.
	debug.SetGCPercent(20)

	keys, err := loadMasterKey(o.keyFile)
	if err != nil {
		return masterKeyFault(err)
	}
	allow := allowedUIDs(o.allow)
	ln, err := daemon.Listener(o.socket, func(path string) (net.Listener, error) { return kms.ListenFor(path, allow) })
	if err != nil {
		return socketFault(err, "--socket PATH")
	}
	srv := &kms.Server{Keyset: keys, KeyName: o.keyName, Allow: allow, Log: log}
	// The listener queues connections from here on, so READY is true already.
	log.Info("kms is ready", "socket", ln.Addr().String(), "keyset", keys.Fingerprint(), "version", keys.Primary(), "allowed_uids", fmt.Sprint(allow))
	daemon.Ready(log)
	go func() {
		if err := kms.StayThin(ctx, pause.For); err != nil {
			log.Warn("memory use stays higher than it need be", "error", err)
		}
	}()
	go daemon.Watchdog(ctx, log, func(context.Context) error { return keys.SelfTest() })
	err = srv.Serve(ctx, ln)
	daemon.Stopping(log)
	return err
}

func allowedUIDs(given []uint) []uint32 {
	if len(given) == 0 {
		return []uint32{uint32(os.Geteuid())}
	}
	uids := make([]uint32, 0, len(given))
	for _, u := range given {
		uids = append(uids, uint32(u))
	}
	return uids
}
