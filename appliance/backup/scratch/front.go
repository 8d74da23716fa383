package scratch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"strongroom.example/appliance/base/atomicfile"
	"strongroom.example/appliance/base/proc"
	"strongroom.example/appliance/base/vaultapi"
	"strongroom.example/config"
)

// frontDrain is short: who uses a scratch Vault is the one who stops it.
const frontDrain = 2 * time.Second

// StartFront starts the front on the address given in Options, with its
// internal CA, and returns once a request through it reaches Vault.
func (v *Vault) StartFront(ctx context.Context) (*proc.Child, error) {
	l := v.Layout
	host, _, err := net.SplitHostPort(v.opts.FrontAddress)
	if err != nil {
		return nil, fmt.Errorf("front's address: %w", err)
	}
	crt, key := l.LinkClient()
	c := config.DefaultFront()
	c.Listen = []string{v.opts.FrontAddress}
	c.Names = []string{host, "localhost"}
	c.Storage = l.Front()
	c.UI = v.opts.UI
	c.Issuer = config.TLSInternal
	c.RootFile = l.FrontRoot()
	c.Metrics = l.FrontMetrics()
	c.Drain = frontDrain
	c.Vault = config.FrontVault{Address: v.TCPAddress, CAFile: l.LinkCA(), CertFile: crt, KeyFile: key}
	var text bytes.Buffer
	if err := c.Encode(&text); err != nil {
		return nil, err
	}
	if err := atomicfile.Write(l.FrontConfig(), text.Bytes(), 0o600); err != nil {
		return nil, err
	}
	child, err := v.set.Start(proc.Spec{
		Name:    "front",
		Path:    v.opts.Programs.Strongroom,
		Args:    []string{"front", "--config", l.FrontConfig()},
		Env:     []string{"TMPDIR=" + l.Run(), "XDG_CONFIG_HOME=" + l.Run()},
		LogFile: l.Log("front"),
		Grace:   2 * frontDrain,
	})
	if err != nil {
		return nil, err
	}
	err = child.WaitUp(ctx, func(ctx context.Context) error {
		if err := waitFile(ctx, l.FrontRoot()); err != nil {
			return err
		}
		client, err := vaultapi.New(vaultapi.Options{Address: "https://" + v.opts.FrontAddress, CACert: l.FrontRoot()})
		if err != nil {
			return err
		}
		return client.WaitActive(ctx)
	})
	return child, err
}

// waitFile returns once path is there. The front writes it at once and whole.
func waitFile(ctx context.Context, path string) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %q: %w", path, context.Cause(ctx))
		case <-tick.C:
		}
	}
}
