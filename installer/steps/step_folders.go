package steps

import (
	"context"

	"strongroom.example/installer/engine"
)

// folders makes what systemd doesn't: the daemons' own state, log and run
// folders are made by their units.
type folders struct{ *Env }

func (folders) ID() string    { return "folders" }
func (folders) Title() string { return "folders" }

func (s folders) Check(context.Context) (engine.Diff, error) {
	var c collect
	c.add(s.dir(etc, root(0o755)))
	c.add(s.dir(tlsDir, root(0o700)))
	c.add(s.dir(credentialDir, root(0o700)))
	// The jobs' state lies below it, each in a folder of its own.
	c.add(s.dir(StateDir, root(0o755)))
	c.add(s.dir(EscrowDir, root(0o700)))
	c.add(s.dir("/usr/local/lib/strongroom", root(0o755)))
	c.add(s.dir(pluginDir, root(0o755)))
	return c.done()
}
