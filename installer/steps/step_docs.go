package steps

import (
	"context"
	"path"

	"strongroom.example/config/machine"
	"strongroom.example/docs"
	"strongroom.example/installer/engine"
)

// pages puts the documentation on the machine: hints name its pages, and say so where
// there may be no network.
type pages struct{ *Env }

func (pages) ID() string    { return "docs" }
func (pages) Title() string { return "documentation" }

func (s pages) Check(context.Context) (engine.Diff, error) {
	var c collect
	c.add(s.dir(machine.DocDir, root(0o755)))
	for _, name := range docs.Names() {
		text, err := docs.Page(name)
		if err != nil {
			return nil, err
		}
		c.add(s.file(path.Join(machine.DocDir, name), bytesSource(text), root(0o644)))
	}
	return c.done()
}
