package e2e

import (
	"fmt"
	"strings"
	"testing"

	"strongroom.example/test/vaulttest"
)

// What no program can be started with, and what would steer one, is refused by
// the variable's name, by the real program and the real kernel.
func TestDotenvLimitsOfEnvironments(t *testing.T) {
	s := vaulttest.New(t)
	if err := s.Root.EnableKV2(t.Context(), "secret"); err != nil {
		t.Fatal(err)
	}
	put := func(path string, fields map[string]any) {
		t.Helper()
		if _, err := vaulttest.API(s.Root).Logical().WriteWithContext(t.Context(), "secret/data/"+path, map[string]any{"data": fields}); err != nil {
			t.Fatal(err)
		}
	}
	put("limits/big/certificate", map[string]any{"value": strings.Repeat("inv-7777", 25<<10)})
	put("limits/big/small", map[string]any{"value": "inv-small-77"})
	put("limits/steer/ld-preload", map[string]any{"value": "/tmp/inv-77.so"})
	put("limits/steer/token", map[string]any{"value": "inv-token-77"})
	put("limits/lines/key", map[string]any{"value": "inv-line-1\ninv-line-2"})
	for i := range 10 {
		fields := map[string]any{}
		for f := range 7 {
			fields[fmt.Sprintf("f%d", f)] = strings.Repeat("inv-7777", 12<<10)
		}
		put(fmt.Sprintf("limits/all/x%d", i), fields)
	}
	o := newOperator(t, s, t.TempDir(), map[string]string{"a": "inv-7777", "b": "inv-small-77", "c": "/tmp/inv-77.so", "d": "inv-token-77", "e": "inv-line-1", "f": "inv-line-2"})
	for _, tt := range []struct {
		name string
		code int
		says string
		args []string
	}{
		{"one too large", 1, "CERTIFICATE (204800 bytes)", []string{"exec", "--app", "limits", "--env", "big", "--", "true"}},
		{"all too large", 1, "the largest secrets are X", []string{"exec", "--app", "limits", "--env", "all", "--", "true"}},
		{"steering", 4, "LD_PRELOAD", []string{"exec", "--app", "limits", "--env", "steer", "--", "true"}},
		{"steering, printed", 4, "LD_PRELOAD", []string{"print", "--app", "limits", "--env", "steer", "--output", "x.env"}},
		{"steering, named", 0, "", []string{"print", "--app", "limits", "--env", "steer", "--allow-name", "LD_PRELOAD", "--output", "x.env"}},
		{"an end of line for docker", 1, "KEY (an end of line in it)", []string{"print", "--app", "limits", "--env", "lines", "--format", "docker", "--output", "y.env"}},
		{"and for systemd", 0, "", []string{"print", "--app", "limits", "--env", "lines", "--format", "systemd", "--output", "y.env"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if out := o.must(tt.code, append([]string{"env"}, tt.args...)...); !strings.Contains(out, tt.says) {
				t.Errorf("it does not say %q: %s", tt.says, out)
			}
		})
	}
}
