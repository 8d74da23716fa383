// Package test holds what is true of the repository as a whole.
package test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

// module is the import path that all of ours begin with.
const module = "strongroom.example/"

// rule says what packages below a folder may import of the project. A longer
// folder's rule goes before a shorter one's.
type rule struct {
	from    string
	allowed []string // folders; the package's own folder is always allowed
}

// rules are the picture in docs/architecture.md.
var rules = []rule{
	{"plugin", nil},
	{"config", nil},
	{"systemd", nil},
	{"appliance", []string{"config"}},
	{"installer", []string{
		"config", "systemd",
		"appliance/atomicfile", "appliance/apps", "appliance/escrow", "appliance/kms",
		"appliance/dnscheck", "appliance/localtls", "appliance/restore", "appliance/snapshot", "appliance/vaultapi",
	}},
	// Nobody imports installer or test; they are in no list.
	{"test", []string{"appliance", "config", "installer", "plugin", "systemd"}},
}

// outside says which foreign modules a folder may import, where it matters
// that there be few. The standard library is always allowed.
var outside = map[string][]string{
	"systemd": nil,
	"config":  {"github.com/BurntSushi/toml"},
}

// forbidden must never be in our programs: what exists for the tests only.
var forbidden = []string{
	"github.com/hashicorp/vault/vault", "github.com/hashicorp/vault/command",
	"github.com/letsencrypt/pebble", "github.com/versity/versitygw",
}

type goPackage struct {
	ImportPath string
	Imports    []string
	Deps       []string
	Standard   bool
}

func list(t *testing.T, args ...string) []goPackage {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Imports,Deps,Standard"}, args...)...)
	cmd.Dir = ".."
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v: %s", err, stderr.String())
	}
	var all []goPackage
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func below(path, folder string) bool {
	return path == folder || strings.HasPrefix(path, folder+"/")
}

func ruleFor(path string) (rule, bool) {
	for _, r := range rules {
		if below(path, r.from) {
			return r, true
		}
	}
	return rule{}, false
}

// violation says what is wrong with from importing to; both are import paths.
func violation(from, to string) string {
	from, ours := strings.CutPrefix(from, module)
	if !ours {
		return ""
	}
	r, ok := ruleFor(from)
	if !ok {
		return "there is no import rule for it: add one to rules and to docs/architecture.md"
	}
	to, ours = strings.CutPrefix(to, module)
	if !ours {
		allowed, limited := outside[r.from]
		if limited && strings.Contains(strings.Split(to, "/")[0], ".") {
			for _, a := range allowed {
				if below(to, a) {
					return ""
				}
			}
			return "may import the standard library and " + strings.Join(allowed, ", ") + " only"
		}
		return ""
	}
	if below(to, r.from) {
		return ""
	}
	for _, a := range r.allowed {
		if below(to, a) {
			return ""
		}
	}
	return "may not import it"
}

func TestImportRules(t *testing.T) {
	checked := 0
	for _, p := range list(t, "./...") {
		for _, to := range p.Imports {
			checked++
			if v := violation(p.ImportPath, to); v != "" {
				t.Errorf("%s imports %s: %s", p.ImportPath, to, v)
			}
		}
	}
	if checked < 100 {
		t.Fatalf("only %d imports were seen: the test looks in the wrong place", checked)
	}
}

func TestViolations(t *testing.T) {
	tests := []struct {
		from, to string
		bad      bool
	}{
		{"strongroom.example/plugin", "strongroom.example/plugin/lifecycle", false},
		{"strongroom.example/plugin", "strongroom.example/config", true},
		{"strongroom.example/plugin", "github.com/hashicorp/vault/sdk/logical", false},
		{"strongroom.example/config", "github.com/BurntSushi/toml", false},
		{"strongroom.example/config", "github.com/spf13/cobra", true},
		{"strongroom.example/systemd", "embed", false},
		{"strongroom.example/systemd", "github.com/BurntSushi/toml", true},
		{"strongroom.example/appliance/front", "strongroom.example/appliance/kms", false},
		{"strongroom.example/appliance/front", "strongroom.example/config", false},
		{"strongroom.example/appliance/front", "strongroom.example/plugin", true},
		{"strongroom.example/appliance/front", "strongroom.example/installer/host", true},
		{"strongroom.example/installer/steps", "strongroom.example/appliance/vaultapi", false},
		{"strongroom.example/installer/steps", "strongroom.example/appliance/front", true},
		{"strongroom.example/appliance/kms", "strongroom.example/test/vaulttest", true},
		{"strongroom.example/newfolder", "fmt", true},
	}
	for _, tt := range tests {
		if got := violation(tt.from, tt.to); (got != "") != tt.bad {
			t.Errorf("%s → %s: %q, want bad=%t", tt.from, tt.to, got, tt.bad)
		}
	}
}

// The tools of the tests stay out of the programs.
func TestProgramsWithoutTestTools(t *testing.T) {
	programs := list(t, "./appliance/cmd/...", "./installer/cmd/...", "./plugin/cmd/...")
	if len(programs) != 3 {
		t.Fatalf("%d programs, want 3", len(programs))
	}
	for _, p := range programs {
		for _, dep := range p.Deps {
			for _, f := range forbidden {
				if below(dep, f) {
					t.Errorf("%s depends on %s", p.ImportPath, dep)
				}
			}
			if below(dep, module+"test") {
				t.Errorf("%s depends on %s", p.ImportPath, dep)
			}
		}
	}
}
