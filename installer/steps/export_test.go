package steps

import (
	"bytes"
	"testing"

	"strongroom.example/config"
	"strongroom.example/installer/host"
)

// Installed is a machine in memory after an installation, without the steps that
// speak to Vault; state tells how it is now, fresh is how it was before.
func Installed(t *testing.T) (m *host.Memory, cfg config.Appliance, fresh map[string]string, state func() map[string]string) {
	t.Helper()
	v := newVPS(t)
	fresh = v.state()
	var out bytes.Buffer
	e := v.env()
	if _, err := v.engine(e, &out).Install(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	return v.Memory, e.Config, fresh, v.state
}
