package cli

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"strongroom.example/appliance/base/fault"
	"strongroom.example/config/machine"
	"strongroom.example/installer/host"
	"strongroom.example/installer/recover"
	"strongroom.example/installer/steps"
)

// The machine of an unfinished recovery is left to restore, which would take
// what another verb has made there for its own.
func TestUnfinishedRecovery(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root: the installer's lock can't be had")
	}
	const began = `{"format":1,"began":"2026-11-24T15:00:00Z","id":"c/x","from":"/mnt/backup"`
	for _, c := range []struct {
		name, state string
		refused     bool
	}{
		{"begun", began + `}`, true},
		{"restored, not finished", began + `,"restored":"2026-11-24T15:01:00Z"}`, true},
		{"finished", began + `,"finished":"2026-11-24T15:02:00Z"}`, false},
		{"spoilt", `{`, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := host.NewMemory().Host()
			for path, text := range map[string]string{
				recover.StatePath: c.state,
				// What install and upgrade refuse next, before their first change.
				machine.ManifestFile:           `{"version":"0.0.1"}`,
				machine.BinDir + "/strongroom": "x",
			} {
				dir := ""
				for _, part := range strings.Split(path[1:strings.LastIndex(path, "/")], "/") {
					dir += "/" + part
					if err := h.Mkdir(dir, host.Attr{Mode: 0o700}); err != nil {
						t.Fatal(err)
					}
				}
				if err := h.Write(path, strings.NewReader(text), host.Attr{Mode: 0o600}); err != nil {
					t.Fatal(err)
				}
			}
			o := upgradeOptions{options: options{version: "1.0.0", yes: true, out: io.Discard}}
			env := &steps.Env{Host: h, Version: "1.0.0"}
			for verb, err := range map[string]error{"install": o.install(t.Context(), env), "upgrade": o.upgradeWith(t.Context(), env)} {
				var failed *fault.Error
				if err == nil {
					t.Fatalf("%s went on", verb)
				}
				refused := errors.As(err, &failed) && failed.Code == fault.Operator && strings.Contains(err.Error(), "recovery from c/x") && strings.Contains(failed.Hint, "restore")
				if refused != c.refused {
					t.Errorf("%s: %v", verb, err)
				}
			}
		})
	}
}

// A recovery doesn't ask for the domain's record, which still points to the old
// machine.
func TestRestoreLeavesTheRecord(t *testing.T) {
	o := restoreOptions{options: options{version: "1.0.0"}}
	o.from(restoreCommand("1.0.0"))
	if !o.skipDNS {
		t.Error("restore asks where the domain points to")
	}
}
