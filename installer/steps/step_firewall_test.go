package steps

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"strongroom/config"
	"strongroom/installer/host"
)

// stoppable runs nothing any more once its context has ended, like the real ones.
type stoppable struct{ host.Runner }

func (h stoppable) Run(ctx context.Context, c host.Command) (host.Output, error) {
	if err := ctx.Err(); err != nil {
		return host.Output{}, err
	}
	return h.Runner.Run(ctx, c)
}

// stoppableServices are the same of systemd's.
type stoppableServices struct{ host.Services }

func (h stoppableServices) Unit(ctx context.Context, name string) (host.Unit, error) {
	if err := ctx.Err(); err != nil {
		return host.Unit{}, err
	}
	return h.Services.Unit(ctx, name)
}

func (h stoppableServices) Stop(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return h.Services.Stop(ctx, name)
}

// Ctrl-C in place of an answer takes the rules back at once.
func TestFirewallStoppedAtTheQuestion(t *testing.T) {
	v := newVPS(t)
	e := v.env()
	ctx, stop := context.WithCancel(t.Context())
	var inForce string
	e.Host.Runner = stoppable{e.Host.Runner}
	e.Host.Services = stoppableServices{e.Host.Services}
	e.Confirm = func(ctx context.Context, _ config.Firewall, _ time.Duration) error {
		inForce = v.nft
		stop()
		return ctx.Err()
	}
	var out bytes.Buffer
	if _, err := v.engine(e, &out).Install(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v", err)
	}
	if inForce == "" || v.nft != "" {
		t.Error("the rules were not in force, or were not taken back")
	}
	if u := v.Units[rollbackUnit+".timer"]; u != nil && u.Active == "active" {
		t.Error("the rollback is still armed")
	}
}

// Rules that can't be taken back leave the timer armed.
func TestFirewallUndoFails(t *testing.T) {
	v := newVPS(t)
	e := v.env()
	e.Confirm = func(context.Context, config.Firewall, time.Duration) error {
		v.Commands["nft"] = func(host.Command, []byte) (host.Output, error) { return host.Output{}, errors.New("busy") }
		return errors.New("no")
	}
	var out bytes.Buffer
	if _, err := v.engine(e, &out).Install(t.Context()); err == nil {
		t.Error("no error")
	}
	if u := v.Units[rollbackUnit+".timer"]; u == nil || u.Active != "active" {
		t.Error("nothing takes the rules back any more")
	}
}
