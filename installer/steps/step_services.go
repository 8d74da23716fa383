package steps

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"time"

	"strongroom.example/appliance/base/fault"
	"strongroom.example/config/machine"
	"strongroom.example/installer/engine"
)

// services has the daemons enabled and running with what is on disk now.
type services struct{ *Env }

func (services) ID() string    { return "services" }
func (services) Title() string { return "daemons: KMS, Vault, front" }

// service is a unit and the files that it has read when it started.
type service struct {
	name  string
	reads []string
}

// running are the units in the order of their start.
func (s services) running() []service {
	strongroom := path.Join(machine.BinDir, machine.ProgramName)
	unit := func(name string) string { return path.Join(machine.UnitDir, name) }
	sockets := func(names ...string) []service {
		var out []service
		for _, n := range names {
			out = append(out, service{n, []string{unit(n)}})
		}
		return out
	}
	list := sockets(machine.UnitKMSSocket)
	list = append(list,
		service{machine.UnitKMS, []string{strongroom, machine.MasterKeyFile, unit(machine.UnitKMS), machine.DropInPath(machine.UnitKMS, "vault-uid")}},
		service{machine.UnitVault, []string{machine.VaultProgram, machine.VaultHCL, machine.EpochFile, machine.TLSDir + "/ca.crt", machine.TLSDir + "/server.crt", machine.TLSDir + "/server.key", unit(machine.UnitVault)}},
	)
	list = append(list, sockets(machine.UnitFrontHTTPS, machine.UnitFrontHTTP)...)
	front := service{machine.UnitFront, []string{strongroom, machine.FrontTOML, machine.TLSDir + "/ca.crt", machine.TLSDir + "/front.crt", machine.TLSDir + "/front.key",
		unit(machine.UnitFront), machine.DropInPath(machine.UnitFront, frontDropInName)}}
	for _, name := range s.frontCredentials() {
		front.reads = append(front.reads, machine.CredentialFile(name))
	}
	return append(list, front)
}

func (s services) Check(ctx context.Context) (engine.Diff, error) {
	var diff engine.Diff
	stopped := false // the front, for a socket of its own
	for _, svc := range s.running() {
		u, err := s.Host.Unit(ctx, svc.name)
		if err != nil {
			return nil, err
		}
		if u.Enabled != "enabled" {
			diff = append(diff, engine.Change{What: svc.name, From: u.Enabled, To: "enabled at boot",
				Apply: func(ctx context.Context) error { return s.Host.Enable(ctx, svc.name) }})
		}
		if u.Active != "active" {
			diff = append(diff, engine.Change{What: svc.name, From: u.Active, To: "started",
				Apply: func(ctx context.Context) error { return s.start(ctx, svc.name) }})
			continue
		}
		if svc.name == machine.UnitFront && stopped {
			diff = append(diff, engine.Change{What: svc.name, From: "stopped for its sockets", To: "started",
				Apply: func(ctx context.Context) error { return s.start(ctx, svc.name) }})
			continue
		}
		newer, err := s.newer(svc.reads, u.Since)
		if err != nil {
			return nil, err
		}
		if newer != "" {
			stopped = stopped || socketOfFront(svc.name)
			diff = append(diff, engine.Change{What: svc.name, From: "older than " + newer, To: "restarted",
				Apply: func(ctx context.Context) error { return s.restart(ctx, svc.name) }})
		}
	}
	return diff, nil
}

// newer names a file that has changed since the time, or "".
func (s services) newer(files []string, since time.Time) (string, error) {
	for _, f := range files {
		info, err := s.Host.Stat(f)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		if info.ModTime.After(since) {
			return f, nil
		}
	}
	return "", nil
}

func (s services) start(ctx context.Context, name string) error {
	return explain(name, s.Host.Start(ctx, name))
}

// socketOfFront says whether a unit is one of those that hold the front's ports.
func socketOfFront(name string) bool {
	return name == machine.UnitFrontHTTPS || name == machine.UnitFrontHTTP
}

// restart restarts a unit; a socket's front is left stopped, for Check to start
// after all of them.
func (s services) restart(ctx context.Context, name string) error {
	// A socket can't be restarted under its running service.
	if socketOfFront(name) {
		if err := s.Host.Stop(ctx, machine.UnitFront); err != nil {
			return err
		}
	}
	return explain(name, s.Host.Restart(ctx, name))
}

func explain(name string, err error) error {
	if err == nil {
		return nil
	}
	return &fault.Error{Code: fault.Failed, Err: err, Hint: "see journalctl -u " + name + ", remove the cause, and run the same command again"}
}
