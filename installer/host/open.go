package host

import (
	"context"
	"time"
)

// Open gives the machine that this runs on. The connection to systemd outlives
// ctx: what is put back after an interrupt goes over it too.
func Open(ctx context.Context) (h *Host, closing func(), err error) {
	services, err := NewOSServices(context.WithoutCancel(ctx))
	if err != nil {
		return nil, nil, err
	}
	return &Host{
		FS: OSFS{Root: "/"}, Accounts: OSAccounts{Root: "/", Runner: OSRunner{}},
		Runner: OSRunner{}, Services: services, Now: time.Now,
	}, services.Close, nil
}
