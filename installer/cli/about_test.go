package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"strongroom.example/appliance/base/fault"
)

// The configuration may be the argument, and does what the flag does.
func TestConfigurationAsTheArgument(t *testing.T) {
	file := filepath.Join(t.TempDir(), "appliance.toml")
	if err := os.WriteFile(file, []byte("unheard_of = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, verb := range [][]string{{"cloud-init", "--url", "https://downloads.example.com/x"}, {"plan"}, {"install"}} {
		call := func(args ...string) (int, string) {
			c := New("1.0.0", "test")
			var out bytes.Buffer
			c.SetOut(&out)
			c.SetErr(&out)
			c.SetIn(strings.NewReader(""))
			c.SetArgs(append(append([]string{}, verb...), args...))
			code := Report(&out, c.ExecuteContext(t.Context()))
			return code, out.String()
		}
		byFlag, said := call("--config", file)
		byArgument, says := call(file)
		if byFlag != byArgument || said != says || byFlag != fault.Usage || !strings.Contains(says, "unheard_of") && os.Geteuid() == 0 {
			t.Errorf("%s: by the flag %d: %s\nby the argument %d: %s", verb, byFlag, said, byArgument, says)
		}
		for _, bad := range [][]string{{"--config", file, file}, {file, file}, {""}} {
			if code, says := call(bad...); code != fault.Usage {
				t.Errorf("%s %q: %d\n%s", verb, bad, code, says)
			}
		}
	}
}
