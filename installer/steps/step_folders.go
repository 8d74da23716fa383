package steps

import (
	"context"

	"strongroom.example/config/machine"
	"strongroom.example/installer/engine"
)

// folders makes what systemd doesn't: the daemons' own state, log and run
// folders are made by their units.
type folders struct{ *Env }

func (folders) ID() string    { return "folders" }
func (folders) Title() string { return "folders" }

func (s folders) Check(context.Context) (engine.Diff, error) {
	var c collect
	c.add(s.dir(machine.Etc, root(0o755)))
	c.add(s.dir(machine.TLSDir, root(0o700)))
	c.add(s.dir(machine.CredentialDir, root(0o700)))
	// The jobs' state lies below it, each in a folder of its own.
	c.add(s.dir(machine.StateDir, root(0o755)))
	c.add(s.dir(machine.EscrowDir, root(0o700)))
	c.add(s.dir(machine.LibDir, root(0o755)))
	c.add(s.dir(machine.PluginDir, root(0o755)))
	return c.done()
}
