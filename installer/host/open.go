package host

import (
	"context"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"

	"strongroom.example/appliance/base/systembus"
)

// Open gives the machine that this runs on. The connection to systemd outlives
// ctx: what is put back after an interrupt goes over it too.
func Open(ctx context.Context) (h *Host, closing func(), err error) {
	return open(ctx, systembus.ConnectRoot)
}

func open(ctx context.Context, connect func(context.Context) (*dbus.Conn, error)) (h *Host, closing func(), err error) {
	conn, err := connect(context.WithoutCancel(ctx))
	if err != nil {
		return nil, nil, err
	}
	services := &OSServices{conn}
	return &Host{
		FS: OSFS{Root: "/"}, Accounts: OSAccounts{Root: "/", Runner: OSRunner{}},
		Runner: OSRunner{}, Services: services, Now: time.Now,
	}, services.Close, nil
}
