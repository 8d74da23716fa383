package steps

import (
	"context"
	"path"

	"strongroom.example/appliance/base/fault"
	"strongroom.example/config/machine"
	"strongroom.example/installer/engine"
)

// programs installs what the installer carries.
type programs struct{ *Env }

func (programs) ID() string    { return "programs" }
func (programs) Title() string { return "appliance and plugin" }

func (s programs) Check(context.Context) (engine.Diff, error) {
	var c collect
	for name, to := range map[string]string{
		machine.ProgramName: path.Join(machine.BinDir, machine.ProgramName),
		machine.PluginName:  path.Join(machine.PluginDir, machine.PluginFile(s.Version)),
	} {
		p, err := s.Payload.Program(name)
		if err != nil {
			return nil, &fault.Error{Code: fault.Failed, Err: err, Hint: "build the installer with: make build"}
		}
		c.add(s.file(to, source{p.Size, p.SHA256, p.Open}, root(0o755)))
	}
	return c.done()
}
