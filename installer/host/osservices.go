package host

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
)

// OSServices speaks to systemd over D-Bus. Close it when done.
type OSServices struct{ conn *dbus.Conn }

var _ Services = (*OSServices)(nil)

// Close ends the connection.
func (o *OSServices) Close() { o.conn.Close() }

// Unit implements Services.
func (o *OSServices) Unit(ctx context.Context, name string) (Unit, error) {
	p, err := o.conn.GetUnitPropertiesContext(ctx, name)
	if err != nil {
		return Unit{}, fmt.Errorf("unit %q: %w", name, err)
	}
	u := Unit{}
	u.Load, _ = p["LoadState"].(string)
	u.Active, _ = p["ActiveState"].(string)
	u.Sub, _ = p["SubState"].(string)
	u.Enabled, _ = p["UnitFileState"].(string)
	u.NeedsReload, _ = p["NeedDaemonReload"].(bool)
	if id, ok := p["InvocationID"].([]byte); ok {
		u.Invocation = hex.EncodeToString(id)
	}
	if usec, ok := p["ActiveEnterTimestamp"].(uint64); ok && usec > 0 {
		u.Since = time.UnixMicro(int64(usec))
	}
	if usec, ok := p["StateChangeTimestamp"].(uint64); ok && usec > 0 {
		u.Changed = time.UnixMicro(int64(usec))
	}
	return u, nil
}

// ReloadUnits implements Services.
func (o *OSServices) ReloadUnits(ctx context.Context) error {
	if err := o.conn.ReloadContext(ctx); err != nil {
		return fmt.Errorf("reload systemd's units: %w", err)
	}
	return nil
}

// Enable implements Services.
func (o *OSServices) Enable(ctx context.Context, names ...string) error {
	if _, _, err := o.conn.EnableUnitFilesContext(ctx, names, false, true); err != nil {
		return fmt.Errorf("enable %q: %w", names, err)
	}
	// Without it systemd goes on to show a loaded unit's old state.
	return o.ReloadUnits(ctx)
}

// Disable implements Services.
func (o *OSServices) Disable(ctx context.Context, names ...string) error {
	if _, err := o.conn.DisableUnitFilesContext(ctx, names, false); err != nil {
		return fmt.Errorf("disable %q: %w", names, err)
	}
	return o.ReloadUnits(ctx)
}

// Start implements Services.
func (o *OSServices) Start(ctx context.Context, name string) error {
	return job(ctx, "start", name, o.conn.StartUnitContext)
}

// Stop implements Services. One that is under way is waited for, also after an
// interrupt: who puts things back must not find the unit still active and see it
// end afterwards. systemd bounds it (TimeoutStopSec=).
func (o *OSServices) Stop(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("stop %s: %w", name, err)
	}
	return job(context.WithoutCancel(ctx), "stop", name, o.conn.StopUnitContext)
}

// StopTogether implements Services. A connection that comes in between would start the
// service anew, and a start job replace the stop: those that nothing replaces are queued
// for all of them before the first is waited for.
func (o *OSServices) StopTogether(ctx context.Context, names ...string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("stop %q: %w", names, err)
	}
	ctx = context.WithoutCancel(ctx)
	var errs []error
	results := make([]chan string, len(names))
	for i, name := range names {
		done := make(chan string, 1)
		if _, err := o.conn.StopUnitContext(ctx, name, "replace-irreversibly", done); err != nil {
			errs = append(errs, fmt.Errorf("stop %s: %w", name, err))
			continue
		}
		results[i] = done
	}
	for i, done := range results {
		if done == nil {
			continue
		}
		errs = append(errs, outcome("stop", names[i], done))
	}
	return errors.Join(errs...)
}

// outcome waits for a job's result.
func outcome(verb, name string, done <-chan string) error {
	switch result, ok := <-done; {
	case !ok:
		return fmt.Errorf("%s %s: %w", verb, name, errors.New("connection to systemd was lost"))
	case result != "done":
		return fmt.Errorf("%s %s: systemd says %q; see journalctl -u %s", verb, name, result, name)
	}
	return nil
}

// Restart implements Services.
func (o *OSServices) Restart(ctx context.Context, name string) error {
	return job(ctx, "restart", name, o.conn.RestartUnitContext)
}

// ReloadService implements Services.
func (o *OSServices) ReloadService(ctx context.Context, name string) error {
	return job(ctx, "reload", name, o.conn.ReloadUnitContext)
}

// ResetFailed implements Services. systemd doesn't know units that are not
// loaded, and they have not failed.
func (o *OSServices) ResetFailed(ctx context.Context, name string) error {
	err := o.conn.ResetFailedUnitContext(ctx, name)
	var e godbus.Error
	if errors.As(err, &e) && e.Name == "org.freedesktop.systemd1.NoSuchUnit" {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reset-failed %s: %w", name, err)
	}
	return nil
}

// job waits for a job's result: "done", or why not.
func job(ctx context.Context, verb, name string, call func(context.Context, string, string, chan<- string) (int, error)) error {
	done := make(chan string, 1)
	if _, err := call(ctx, name, "replace", done); err != nil {
		return fmt.Errorf("%s %s: %w", verb, name, err)
	}
	select {
	case <-ctx.Done():
		return fmt.Errorf("%s %s: %w", verb, name, ctx.Err())
	case result, ok := <-done:
		if !ok {
			return fmt.Errorf("%s %s: %w", verb, name, errors.New("connection to systemd was lost"))
		}
		if result != "done" {
			return fmt.Errorf("%s %s: systemd says %q; see journalctl -u %s", verb, name, result, name)
		}
		return nil
	}
}
