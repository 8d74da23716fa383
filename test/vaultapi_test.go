package test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// How a refusal of Vault's is read stands in vaultapi alone: whoever compares
// statuses elsewhere takes a 404 for nothing sooner or later.
func TestRefusalsAreReadInOnePlace(t *testing.T) {
	for _, top := range []string{"../appliance", "../installer"} {
		err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.Contains(path, "/base/vaultapi/") {
				return err
			}
			text, err := os.ReadFile(path)
			if strings.Contains(string(text), "api.ResponseError") {
				t.Errorf("%s reads Vault's refusals by itself: use vaultapi's Is… functions", path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
