// Package test holds what is true of the repository as a whole.
package test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// modulePath is what all of our import paths begin with, as go.mod says it:
// scripts/rename-module changes it.
func modulePath(t testing.TB) string {
	t.Helper()
	mod, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	path, ok := strings.CutPrefix(strings.SplitN(string(mod), "\n", 2)[0], "module ")
	if !ok {
		t.Fatal("go.mod does not begin with its module's path")
	}
	return strings.TrimSpace(path)
}

// rule says what packages below a folder may import of the project. Where a folder
// of a rule lies in another's, its rule stands first.
type rule struct {
	from    string
	allowed []string // folders; the package's own folder is always allowed
}

// rules are the picture in docs/architecture.md.
var rules = []rule{
	// A leaf that the engine and the appliance share.
	{"plugin/condition", nil},
	{"plugin", nil},
	// The names of the installed machine.
	{"config/machine", nil},
	{"config", nil},
	// The pages, which are no programs.
	{"docs", nil},
	{"systemd", []string{"config/machine"}},
	// The floors of the appliance: nothing imports what lies above it.
	{"appliance/base", []string{"config"}},
	{"appliance/serve", []string{"config", "appliance/base"}},
	{"appliance/secrets", []string{"config", "appliance/base"}},
	{"appliance/backup", []string{"config", "appliance/base", "appliance/serve"}},
	{"appliance/watch", []string{"config", "appliance/base", "appliance/serve", "appliance/backup", "plugin/condition"}},
	{"appliance/demo", []string{"config", "appliance/base", "appliance/serve", "appliance/backup"}},
	{"appliance/cli", []string{
		"config", "appliance/base", "appliance/serve", "appliance/secrets", "appliance/backup", "appliance/watch", "appliance/demo",
	}},
	{"appliance/cmd", []string{"appliance/base", "appliance/cli"}},
	{"installer", []string{
		"config", "systemd", "docs", "appliance/base",
		"appliance/serve/dnscheck", "appliance/serve/escrow", "appliance/serve/kms", "appliance/serve/localtls",
		"appliance/backup/drill/report", "appliance/backup/restore", "appliance/backup/snapshot",
	}},
	// Nobody imports installer or test; they are in no list.
	{"test", []string{"appliance", "config", "installer", "plugin", "systemd"}},
}

// outside says which foreign modules a folder may import, where it matters
// that there be few. The standard library is always allowed.
var outside = map[string][]string{
	"systemd":        nil,
	"config/machine": nil,
	// The others are what a recipient is parsed with: config check must know.
	"config": {"github.com/BurntSushi/toml", "filippo.io/age", "golang.org/x/crypto/ssh"},
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

// violation says what is wrong with from importing to, where from is a folder
// of ours and to is one too, or, with foreign, another's import path.
func violation(from, to string, foreign bool) string {
	r, ok := ruleFor(from)
	if !ok {
		return "there is no import rule for it: add one to rules and to docs/architecture.md"
	}
	if foreign {
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
	module := modulePath(t) + "/"
	for _, p := range list(t, "./...") {
		from, ours := strings.CutPrefix(p.ImportPath, module)
		if !ours {
			t.Fatalf("%s is not below %s", p.ImportPath, module)
		}
		for _, path := range p.Imports {
			checked++
			to, ours := strings.CutPrefix(path, module)
			if v := violation(from, to, !ours); v != "" {
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
		foreign  bool
		bad      bool
	}{
		{"plugin", "plugin/lifecycle", false, false},
		{"plugin", "plugin/condition", false, false},
		{"plugin/condition", "plugin/lifecycle", false, true},
		{"plugin", "config", false, true},
		{"plugin", "github.com/hashicorp/vault/sdk/logical", true, false},
		{"config", "github.com/BurntSushi/toml", true, false},
		{"config", "filippo.io/age/agessh", true, false},
		{"config", "github.com/spf13/cobra", true, true},
		{"config", "config/machine", false, false},
		{"config/machine", "config", false, true},
		{"config/machine", "github.com/BurntSushi/toml", true, true},
		{"systemd", "config/machine", false, false},
		{"systemd", "config", false, true},
		{"systemd", "embed", true, false},
		{"systemd", "github.com/BurntSushi/toml", true, true},
		{"appliance/serve/front", "appliance/base/atomicfile", false, false},
		{"appliance/serve/front", "appliance/serve/kms", false, false},
		{"appliance/serve/front", "config", false, false},
		{"appliance/serve/front", "plugin", false, true},
		{"appliance/serve/front", "installer/host", false, true},
		{"appliance/serve/front", "appliance/secrets/apps", false, true},
		{"appliance/base/vaultapi", "appliance/serve/kms", false, true},
		{"appliance/secrets/apps", "appliance/serve/kms", false, true},
		{"appliance/backup/drill", "appliance/serve/kms", false, false},
		{"appliance/backup/drill", "appliance/watch/alert", false, true},
		{"appliance/watch/status", "appliance/backup/drill", false, false},
		{"appliance/watch/status", "appliance/secrets/apps", false, true},
		{"appliance/watch/status", "plugin/condition", false, false},
		{"appliance/watch/status", "plugin/lifecycle", false, true},
		{"appliance/demo", "appliance/watch/status", false, true},
		{"appliance/cli", "appliance/watch/status", false, false},
		{"appliance/newroom", "appliance/base/atomicfile", false, true},
		{"installer/steps", "appliance/base/vaultapi", false, false},
		{"installer/steps", "appliance/serve/front", false, true},
		{"installer/steps", "appliance/backup/drill/report", false, false},
		{"installer/steps", "appliance/backup/drill", false, true},
		{"appliance/serve/kms", "test/vaulttest", false, true},
		{"newfolder", "fmt", true, true},
	}
	for _, tt := range tests {
		if got := violation(tt.from, tt.to, tt.foreign); (got != "") != tt.bad {
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
			if below(dep, modulePath(t)+"/test") {
				t.Errorf("%s depends on %s", p.ImportPath, dep)
			}
		}
	}
}
