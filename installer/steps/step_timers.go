package steps

import (
	"bytes"
	"context"
	"errors"
	"path"
	"slices"
	"strings"

	"strongroom.example/config"
	"strongroom.example/config/machine"
	"strongroom.example/installer/engine"
	"strongroom.example/systemd"
)

// timers has the jobs started when they are due: their timers, paths and
// sockets are enabled and active. Without a place for backups those of the
// backup jobs are not, since they could only fail; nor is the watch over a
// certificate of the operator's, where there is none.
type timers struct{ *Env }

func (timers) ID() string    { return "timers" }
func (timers) Title() string { return "timers of the jobs" }

// triggers are the units that start jobs: all that are no services, but for the
// daemons' own sockets.
func (e *Env) triggers() (wanted, unwanted []string) {
	daemon := map[string]bool{}
	for _, name := range (services{e}).running() {
		daemon[name] = true
	}
	for _, name := range systemd.Names() {
		if path.Ext(name) == ".service" || daemon[name] || strings.Contains(name, "@.") {
			continue
		}
		if machine.IsBackupUnit(name) && len(e.Config.Backup.To) == 0 || name == machine.UnitFrontCertificatePath && e.Config.TLS.Mode != config.TLSFiles {
			unwanted = append(unwanted, name)
		} else {
			wanted = append(wanted, name)
		}
	}
	return wanted, unwanted
}

func (s timers) Check(ctx context.Context) (engine.Diff, error) {
	wanted, unwanted := s.triggers()
	var diff engine.Diff
	for _, name := range wanted {
		u, err := s.Host.Unit(ctx, name)
		if err != nil {
			return nil, err
		}
		if u.Enabled != "enabled" && installable(name) {
			diff = append(diff, engine.Change{What: name, From: u.Enabled, To: "enabled at boot",
				Apply: func(ctx context.Context) error { return s.Host.Enable(ctx, name) }})
		}
		if u.Active != "active" {
			diff = append(diff, engine.Change{What: name, From: u.Active, To: "started",
				Apply: func(ctx context.Context) error { return explain(name, s.startNoted(ctx, name, s.Host.Start)) }})
			continue
		}
		file, err := s.stale(ctx, name, u)
		if err != nil {
			return nil, err
		}
		if file != "" {
			diff = append(diff, engine.Change{What: name, From: "has not read " + file, To: "restarted",
				Apply: func(ctx context.Context) error { return explain(name, s.restartTrigger(ctx, name)) }})
		}
	}
	further, err := s.further(ctx)
	if err != nil {
		return nil, err
	}
	diff = append(diff, further...)
	for _, name := range unwanted {
		u, err := s.Host.Unit(ctx, name)
		if err != nil {
			return nil, err
		}
		why := ": there is no place for backups"
		if !machine.IsBackupUnit(name) {
			why = ": tls.mode is not " + config.TLSFiles
		}
		if u.Enabled == "enabled" {
			diff = append(diff, engine.Change{What: name, From: "enabled", To: "disabled" + why,
				Apply: func(ctx context.Context) error { return s.Host.Disable(ctx, name) }})
		}
		if u.Active != "inactive" {
			diff = append(diff, engine.Change{What: name, From: u.Active, To: "stopped" + why,
				Apply: func(ctx context.Context) error {
					return errors.Join(s.Host.Stop(ctx, name), s.Host.ResetFailed(ctx, name))
				}})
		}
		// What it started last, on the way here, has failed for what is no longer wanted.
		job := strings.TrimSuffix(name, path.Ext(name)) + ".service"
		started, err := s.Host.Unit(ctx, job)
		if err != nil {
			return nil, err
		}
		if started.Load == "loaded" && started.Active != "inactive" && started.Active != "active" {
			diff = append(diff, engine.Change{What: job, From: started.Active, To: "stopped" + why,
				Apply: func(ctx context.Context) error {
					return errors.Join(s.Host.Stop(ctx, job), s.Host.ResetFailed(ctx, job))
				}})
		}
	}
	return diff, nil
}

// installable says whether a unit says by what it is started at boot.
func installable(name string) bool {
	b, err := systemd.Unit(name)
	return err == nil && bytes.Contains(b, []byte("\n[Install]\n"))
}

// restartTrigger restarts a timer, path or socket. A socket's service holds its
// descriptor and is stopped first; the next connection starts it.
func (s timers) restartTrigger(ctx context.Context, name string) error {
	if base, ok := strings.CutSuffix(name, ".socket"); ok {
		if err := s.Host.Stop(ctx, base+".service"); err != nil {
			return err
		}
	}
	return s.startNoted(context.WithoutCancel(ctx), name, s.Host.Restart)
}

// further are the daemons that a socket starts. One that runs is restarted where it has
// not read what is there now, the logins that were just made among it.
func (s timers) further(ctx context.Context) (diff engine.Diff, err error) {
	for _, name := range systemd.Daemons() {
		if slices.Contains(services(s).running(), name) {
			continue
		}
		u, err := s.Host.Unit(ctx, name)
		if err != nil {
			return nil, err
		}
		if u.Active != "active" {
			continue
		}
		file, err := s.stale(ctx, name, u)
		if err != nil {
			return nil, err
		}
		if file != "" {
			diff = append(diff, engine.Change{What: name, From: "has not read " + file, To: "restarted",
				Apply: func(ctx context.Context) error { return explain(name, s.startNoted(ctx, name, s.Host.Restart)) }})
		}
	}
	return diff, nil
}
