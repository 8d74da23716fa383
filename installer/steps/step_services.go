package steps

import (
	"context"
	"errors"

	"strongroom.example/appliance/base/fault"
	"strongroom.example/config/machine"
	"strongroom.example/installer/engine"
)

// services has the daemons enabled and running with what is on disk now.
type services struct{ *Env }

func (services) ID() string    { return "services" }
func (services) Title() string { return "daemons: KMS, Vault, front" }

// running are the units in the order of their start.
func (s services) running() []string {
	return []string{machine.UnitKMSSocket, machine.UnitKMS, machine.UnitVault, machine.UnitFrontHTTPS, machine.UnitFrontHTTP, machine.UnitFront}
}

func (s services) Check(ctx context.Context) (engine.Diff, error) {
	var diff engine.Diff
	stopped := false // the front, for a socket of its own
	for _, name := range s.running() {
		u, err := s.Host.Unit(ctx, name)
		if err != nil {
			return nil, err
		}
		if u.Enabled != "enabled" {
			diff = append(diff, engine.Change{What: name, From: u.Enabled, To: "enabled at boot",
				Apply: func(ctx context.Context) error { return s.Host.Enable(ctx, name) }})
		}
		if u.Active != "active" {
			diff = append(diff, engine.Change{What: name, From: u.Active, To: "started",
				Apply: func(ctx context.Context) error { return s.start(ctx, name) }})
			continue
		}
		if stopped && (name == machine.UnitFront || socketOfFront(name)) {
			continue // restarted with it
		}
		file, err := s.stale(ctx, name, u)
		if err != nil {
			return nil, err
		}
		if file != "" {
			stopped = stopped || socketOfFront(name)
			diff = append(diff, engine.Change{What: name, From: "has not read " + file, To: "restarted",
				Apply: func(ctx context.Context) error { return s.restart(ctx, name) }})
		}
	}
	return diff, nil
}

func (s services) start(ctx context.Context, name string) error {
	return explain(name, s.startNoted(ctx, name, s.Host.Start))
}

// socketOfFront says whether a unit is one of those that hold the front's ports.
func socketOfFront(name string) bool {
	return name == machine.UnitFrontHTTPS || name == machine.UnitFrontHTTP
}

// restart restarts a unit. A socket can't be restarted under its running service: that is
// stopped first, and started again whoever wants an end in between.
func (s services) restart(ctx context.Context, name string) error {
	if !socketOfFront(name) {
		return explain(name, s.startNoted(ctx, name, s.Host.Restart))
	}
	if err := s.Host.StopTogether(ctx, machine.UnitFront, machine.UnitFrontHTTPS, machine.UnitFrontHTTP); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	return errors.Join(s.start(ctx, machine.UnitFrontHTTPS), s.start(ctx, machine.UnitFrontHTTP), s.start(ctx, machine.UnitFront))
}

func explain(name string, err error) error {
	if err == nil {
		return nil
	}
	return &fault.Error{Code: fault.Failed, Err: err, Hint: "see journalctl -u " + name + ", remove the cause, and run the same command again"}
}
