package test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// standsIn are the files of the project, tests left out, that hold what matches.
func standsIn(t *testing.T, pattern string) []string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	var found []string
	for _, folder := range []string{"appliance", "config", "installer", "systemd"} {
		err := filepath.WalkDir("../"+folder, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			if re.Match(text) {
				found = append(found, strings.TrimPrefix(path, "../"))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return found
}

// What was parsed or opened in several places, differently, has one.
func TestOnePlaceEach(t *testing.T) {
	for name, c := range map[string]struct {
		pattern string
		want    []string
	}{
		"recipients":       {`ParseX25519Recipient\(|ParseHybridRecipient\(|agessh\.ParseRecipient\(|ssh\.ParseAuthorizedKey\(`, []string{"config/recipient/recipient.go"}},
		"buckets opened":   {`S3Config\{|[^.]\bNewS3\(`, []string{"appliance/backup/snapshot/place.go", "appliance/backup/snapshot/s3_config.go"}},
		"key pairs":        {`"secret_key"|toml:"secret_key"`, []string{"appliance/backup/snapshot/place.go"}},
		"accounts at a CA": {`"mac_key"|toml:"mac_key"`, []string{"appliance/base/credential/pair.go"}},
		"counts of things": {`"[^"]*%d %ss[^"]*"`, []string{"appliance/base/words/words.go"}},
		"sizes for people": {`"KiB", "MiB"`, []string{"appliance/base/words/words.go"}},
		"colours":          {`x1b\[3[0-9]m`, []string{"appliance/base/words/colour.go"}},
		"signals":          {`signal\.Notify`, []string{"appliance/base/program/program.go"}},
		"folders opened":   {`os\.OpenRoot\(`, []string{"appliance/base/atomicfile/root.go"}},
		"mail logins":      {`toml:"password"`, nil},
	} {
		if got := standsIn(t, c.pattern); !slices.Equal(got, c.want) {
			t.Errorf("%s: in %q, want %q", name, got, c.want)
		}
	}
}

// What people name on a command line may be a device without an end: it is read
// by config.Read, credential.Read or atomicfile.ReadSmall, which have one.
func TestNamedFilesAreBounded(t *testing.T) {
	var found []string
	for _, file := range standsIn(t, `os\.ReadFile\(`) {
		if strings.Contains(file, "/cli/") {
			found = append(found, file)
		}
	}
	if want := []string{"installer/cli/session.go"}; !slices.Equal(found, want) { // it reads /proc
		t.Errorf("os.ReadFile in %q, want %q", found, want)
	}
}
