package steps

import (
	"context"
	"path"

	"strongroom.example/installer/engine"
	"strongroom.example/installer/payload"
)

// programs installs what the installer carries.
type programs struct{ *Env }

func (programs) ID() string    { return "programs" }
func (programs) Title() string { return "appliance and plugin" }

// pluginFile is the plugin's file name: with its version, so that versions
// stand side by side and the one in use is never overwritten.
func pluginFile(version string) string { return payload.Plugin + "-" + version }

func (s programs) Check(context.Context) (engine.Diff, error) {
	var c collect
	for name, to := range map[string]string{
		payload.Strongroom: path.Join(binDir, payload.Strongroom),
		payload.Plugin:     path.Join(pluginDir, pluginFile(s.Version)),
	} {
		p, err := s.Payload.Program(name)
		if err != nil {
			return nil, &engine.Error{Code: engine.ExitFailed, Err: err, Hint: "build the installer with: make build"}
		}
		c.add(s.file(to, source{p.Size, p.SHA256, p.Open}, root(0o755)))
	}
	return c.done()
}
