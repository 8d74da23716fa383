package steps

import (
	"bytes"
	"testing"
	"time"

	"strongroom.example/config/machine"
)

func TestRestartAfterChange(t *testing.T) {
	v := newVPS(t)
	var out bytes.Buffer
	if _, err := v.engine(v.env(), &out).Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	since := map[string]time.Time{}
	for _, svc := range (services{v.env()}).running() {
		since[svc.name] = v.Units[svc.name].Since
	}
	e := v.env()
	e.Config.Vault.LogLevel = "debug"
	if _, err := v.engine(e, &out).Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, svc := range (services{v.env()}).running() {
		restarted := v.Units[svc.name].Since.After(since[svc.name])
		if restarted != (svc.name == machine.UnitVault) {
			t.Errorf("%s: restarted = %v after a change of Vault's configuration", svc.name, restarted)
		}
	}
}
