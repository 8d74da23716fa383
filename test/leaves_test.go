package test

import (
	"strings"
	"testing"
)

const caddy = "github.com/caddyserver/"

// Who only reads what the parts have left behind carries none of the parts.
func TestReadersWithoutCaddy(t *testing.T) {
	readers := list(t, "./appliance/watch/...", "./appliance/backup/drill/report")
	if len(readers) < 7 {
		t.Fatalf("only %d packages were seen: the test looks in the wrong place", len(readers))
	}
	for _, p := range readers {
		for _, dep := range p.Deps {
			if strings.HasPrefix(dep, caddy) {
				t.Errorf("%s depends on %s", p.ImportPath, dep)
			}
		}
	}
	// What the test would see if there were any.
	for _, p := range list(t, "./appliance/serve/front") {
		if !strings.Contains(strings.Join(p.Deps, "\n"), "\n"+caddy) {
			t.Errorf("%s does not depend on %s: the test looks for the wrong name", p.ImportPath, caddy)
		}
	}
}

// Leaves import nothing of the project, or, above the ground floor, nothing but of
// that, so that everybody may import them.
func TestLeaves(t *testing.T) {
	ours := modulePath(t) + "/"
	base := ours + "appliance/base/"
	for _, p := range list(t, "./appliance/backup/drill/report", "./appliance/base/mask", "./config/machine") {
		for _, dep := range p.Deps {
			if strings.HasPrefix(dep, ours) && (strings.HasPrefix(p.ImportPath, base) || !strings.HasPrefix(dep, base)) {
				t.Errorf("%s depends on %s", p.ImportPath, dep)
			}
		}
	}
}
