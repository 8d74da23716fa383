package test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	appliance "strongroom.example/appliance/cli"

	"strongroom.example/appliance/base/fault"
	installer "strongroom.example/installer/cli"
)

// Both programs end in the same way, and say so in the same words.
func TestBothProgramsEndAlike(t *testing.T) {
	for name, long := range map[string]string{"strongroom": appliance.New("dev").Long, "strongroom-installer": installer.New("dev", "").Long} {
		if !strings.Contains(long, fault.Codes) {
			t.Errorf("%s --help does not say: %s", name, fault.Codes)
		}
	}
	exits := regexp.MustCompile(`\bos\.Exit\(`)
	codes := regexp.MustCompile(`\bExit(Failed|Usage|Drift|Operator)\s*=\s*\d`)
	for _, top := range []string{"appliance", "installer"} {
		err := filepath.WalkDir("../"+top, func(p string, _ fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(p) != ".go" || strings.HasSuffix(p, "_test.go") {
				return err
			}
			b, err := os.ReadFile(p)
			if exits.Match(b) && filepath.Base(p) != "main.go" {
				t.Errorf("%s exits by itself: return an error", p)
			}
			if codes.Match(b) {
				t.Errorf("%s has exit codes of its own: they are base/fault's", p)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
