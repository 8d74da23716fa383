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
		"mail logins":      {`toml:"password"`, nil},
	} {
		if got := standsIn(t, c.pattern); !slices.Equal(got, c.want) {
			t.Errorf("%s: in %q, want %q", name, got, c.want)
		}
	}
}
