package upgrade

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"testing"

	"strongroom.example/config"
	"strongroom.example/config/machine"
	"strongroom.example/installer/engine"
	"strongroom.example/installer/host"
	"strongroom.example/installer/steps"
)

// more are changes of a new version beyond programs: of the machine's settings, of a job's
// role, of which units run.
type more struct {
	*world
	*steps.Env
}

func (more) ID() string    { return "more" }
func (more) Title() string { return "more" }

func (s more) Check(context.Context) (engine.Diff, error) {
	return engine.Diff{{What: "settings", To: "new", Apply: func(ctx context.Context) error {
		h := s.Env.Host
		for _, f := range []string{machine.SysctlFile, machine.HistoryFile} {
			if err := h.Write(f, strings.NewReader("new"), host.Attr{Mode: 0o644}); err != nil {
				return err
			}
		}
		return errors.Join(
			h.Write(machine.UnitDir+"/strongroom-new.timer", strings.NewReader("new"), host.Attr{Mode: 0o644}),
			h.ReloadUnits(ctx), h.Enable(ctx, "strongroom-new.timer", "strongroom-audit.timer"), h.Start(ctx, "strongroom-new.timer"), h.Start(ctx, "strongroom-audit.timer"),
			h.Disable(ctx, "strongroom-drill.timer"), h.Stop(ctx, "strongroom-drill.timer"),
			mortal{s.world}.PutRole(ctx, config.PolicyDoctor, map[string]any{"token_ttl": 1}))
	}}}, nil
}

// The old installer finds nothing to do after a rollback: settings, roles and units are as
// they were.
func TestRollbackOfSettings(t *testing.T) {
	w := newWorld(t)
	for _, d := range []string{"/etc/sysctl.d", "/etc/profile.d"} {
		w.Files[d] = &host.Node{Info: host.Info{Type: fs.ModeDir}}
	}
	w.Files[machine.SysctlFile] = &host.Node{Data: []byte("old")}
	loaded := ""
	w.Commands["sysctl"] = func(c host.Command, _ []byte) (host.Output, error) {
		b, err := w.ReadFile(c.Args[len(c.Args)-1])
		loaded = string(b)
		return host.Output{}, err
	}
	states := map[string]host.Unit{
		"strongroom-audit.timer": {Load: "loaded", Active: "inactive", Enabled: "disabled"},
		"strongroom-drill.timer": {Load: "loaded", Active: "active", Enabled: "enabled"},
	}
	for name, u := range states {
		w.Units[name] = &u
		w.Files[machine.UnitDir+"/"+name] = &host.Node{Data: []byte("[Timer]\n")}
	}
	s := w.load()
	s.Roles = map[string]map[string]any{config.PolicyDoctor: {"token_ttl": 600.0}}
	w.put(s)

	u, out := w.upgrade(newStrongroom, newPlugin, "")
	with := u.Steps
	u.Steps = func(e *steps.Env) []engine.Step { return append(with(e), more{w, e}) }
	// The step goes on to differ when the engine looks again, and so fails.
	if err := u.Run(t.Context()); !errors.Is(err, ErrRolledBack) {
		t.Fatalf("%v\n%s", err, out)
	}
	if got := string(w.Files[machine.SysctlFile].Data); got != "old" || loaded != "old" {
		t.Errorf("sysctl's file is %q, and in force is %q", got, loaded)
	}
	if w.Files[machine.HistoryFile] != nil || w.Files[machine.UnitDir+"/strongroom-new.timer"] != nil {
		t.Error("files of the new version are left")
	}
	for name, was := range states {
		if now := w.Units[name]; now.Active != was.Active || now.Enabled != was.Enabled {
			t.Errorf("%s is %s and %s, it was %s and %s", name, now.Active, now.Enabled, was.Active, was.Enabled)
		}
	}
	if now := w.Units["strongroom-new.timer"]; now != nil && (now.Active == "active" || now.Enabled == "enabled") {
		t.Errorf("the new timer: %+v", *now)
	}
	if got := w.load().Roles[config.PolicyDoctor]["token_ttl"]; got != 600.0 {
		t.Errorf("the role's token_ttl is %v", got)
	}
}
