package steps

import (
	"strings"
	"testing"

	"strongroom.example/appliance/base/fault"
	"strongroom.example/config/machine"
	"strongroom.example/installer/host"
)

func TestOtherVersion(t *testing.T) {
	for _, c := range []struct {
		name  string
		files map[string]string
		want  string // in the error
	}{
		{"fresh machine", nil, ""},
		{"same version", map[string]string{machine.ManifestFile: `{"format":1,"version":"1.1.0"}`, "/usr/local/bin/strongroom": "x"}, ""},
		{"older", map[string]string{machine.ManifestFile: `{"format":1,"version":"1.0.0"}`, "/usr/local/bin/strongroom": "x"}, "version 1.0.0 is installed here"},
		{"newer", map[string]string{machine.ManifestFile: `{"format":1,"version":"1.2.0"}`, "/usr/local/bin/strongroom": "x"}, "this installer is version 1.1.0"},
		{"uninstalled, data kept", map[string]string{machine.ManifestFile: `{"format":1,"version":"1.0.0"}`}, ""},
		{"of a later format", map[string]string{machine.ManifestFile: `{"format":2,"version":"1.1.0"}`, "/usr/local/bin/strongroom": "x"}, "format 2, this program reads 1"},
		{"of no format", map[string]string{machine.ManifestFile: `{}`, "/usr/local/bin/strongroom": "x"}, "format 0"},
		{"an empty list", map[string]string{machine.ManifestFile: ``}, machine.ManifestFile},
		{"a spoilt list", map[string]string{machine.ManifestFile: `{`}, machine.ManifestFile},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := host.NewMemory()
			for path, content := range c.files {
				m.Files[path] = &host.Node{Info: host.Info{Attr: host.Attr{Mode: 0o644}}, Data: []byte(content)}
			}
			err := OtherVersion(&host.Host{FS: m}, "1.1.0")
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error %v, want one with %q", err, c.want)
			}
			if e, ok := err.(*fault.Error); ok && (e.Code != fault.Operator || strings.Contains(e.Hint, "upgrade") != (c.name == "older")) {
				t.Errorf("exit code %d, hint %q", e.Code, e.Hint) // an older installer can't upgrade
			}
		})
	}
}
