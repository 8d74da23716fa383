package systembus

import (
	"context"
	"fmt"
)

// ClockSynchronised asks systemd-timedated whether the kernel's clock is synchronised, for
// those whose sandbox hides it (ProtectClock=).
func ClockSynchronised(ctx context.Context) (bool, error) {
	conn, err := open(ctx, bus)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	if err := conn.Hello(); err != nil {
		return false, fmt.Errorf("connect to the system bus: %w", err)
	}
	const service, path = "org.freedesktop.timedate1", "/org/freedesktop/timedate1"
	v, err := conn.Object(service, path).GetProperty(service + ".NTPSynchronized")
	if err != nil {
		return false, fmt.Errorf("ask %s: %w", service, err)
	}
	is, ok := v.Value().(bool)
	if !ok {
		return false, fmt.Errorf("ask %s: it answers %s", service, v.Signature())
	}
	return is, nil
}
