package systembus

import (
	"context"
	"errors"
	"fmt"
)

// Reload has a running service read its configuration again, and waits for systemd's
// part of that. It takes root.
func Reload(ctx context.Context, unit string) error {
	c, err := ConnectRoot(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	done := make(chan string, 1)
	if _, err := c.ReloadUnitContext(ctx, unit, "replace", done); err != nil {
		return fmt.Errorf("reload %s: %w", unit, err)
	}
	select {
	case <-ctx.Done():
		return fmt.Errorf("reload %s: %w", unit, context.Cause(ctx))
	case result, ok := <-done:
		if !ok {
			return fmt.Errorf("reload %s: %w", unit, errors.New("the connection to systemd was lost"))
		}
		if result != "done" {
			return fmt.Errorf("reload %s: systemd says %q; see journalctl -u %s", unit, result, unit)
		}
		return nil
	}
}
