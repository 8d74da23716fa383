package systembus

import (
	"context"
	"errors"
	"fmt"

	"github.com/coreos/go-systemd/v22/dbus"
)

// Reload has a running service read its configuration again, and waits for systemd's
// part of that. It takes root.
func Reload(ctx context.Context, unit string) error {
	return job(ctx, "reload", unit, (*dbus.Conn).ReloadUnitContext)
}

// Restart stops a service and starts it again, and waits until systemd says that it
// runs. It takes root.
func Restart(ctx context.Context, unit string) error {
	return job(ctx, "restart", unit, (*dbus.Conn).RestartUnitContext)
}

func job(ctx context.Context, what, unit string, begin func(*dbus.Conn, context.Context, string, string, chan<- string) (int, error)) error {
	c, err := ConnectRoot(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	done := make(chan string, 1)
	if _, err := begin(c, ctx, unit, "replace", done); err != nil {
		return fmt.Errorf("%s %s: %w", what, unit, err)
	}
	select {
	case <-ctx.Done():
		return fmt.Errorf("%s %s: %w", what, unit, context.Cause(ctx))
	case result, ok := <-done:
		if !ok {
			return fmt.Errorf("%s %s: %w", what, unit, errors.New("the connection to systemd was lost"))
		}
		if result != "done" {
			return fmt.Errorf("%s %s: systemd says %q; see journalctl -u %s", what, unit, result, unit)
		}
		return nil
	}
}
