// Package systembus is the way to systemd over D-Bus: by sockets whose places do not
// depend on anybody's environment.
//
// It asks nothing itself.
package systembus

import (
	"context"
	"fmt"
	"os"
	"strconv"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
)

// bus is the system's: D-Bus specification, "Well-known Message Bus Instances". The
// library would take another from $DBUS_SYSTEM_BUS_ADDRESS.
const bus = "unix:path=/run/dbus/system_bus_socket"

// Connect connects over the system bus, as any user may.
func Connect(ctx context.Context) (*dbus.Conn, error) { return At(ctx, bus) }

// ConnectRoot connects by systemd's own socket, which root may use and which is there
// before the bus is; over the bus where that is not to be had.
func ConnectRoot(ctx context.Context) (*dbus.Conn, error) {
	if c, err := dbus.NewSystemdConnectionContext(ctx); err == nil {
		return c, nil
	}
	return Connect(ctx)
}

// At connects over the bus at an address, as the D-Bus specification has addresses.
func At(ctx context.Context, address string) (*dbus.Conn, error) {
	c, err := dbus.NewConnection(func() (*godbus.Conn, error) {
		conn, err := open(ctx, address)
		if err != nil {
			return nil, err
		}
		if err := conn.Hello(); err != nil {
			_ = conn.Close()
			return nil, err
		}
		return conn, nil
	})
	if err != nil {
		return nil, fmt.Errorf("connect to systemd at %s: %w", address, err)
	}
	return c, nil
}

// open connects and says who we are, by number: a name would have to be looked up,
// and any other way would look into a home folder.
func open(ctx context.Context, address string) (*godbus.Conn, error) {
	conn, err := godbus.Dial(address, godbus.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	if err := conn.Auth([]godbus.Auth{godbus.AuthExternal(strconv.Itoa(os.Getuid()))}); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}
