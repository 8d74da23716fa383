package test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// vaultapi is the only door to Vault: how a refusal is read, what is repeated and
// what is absent stands there alone. Whoever asks with HashiCorp's client takes a
// 404 for nothing sooner or later. The engine is not one of those who ask.
func TestOneDoorToVault(t *testing.T) {
	for _, top := range []string{"../appliance", "../installer", "../config"} {
		files := 0
		err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") {
				return err
			}
			files++
			f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
			if err != nil {
				return err
			}
			for _, i := range f.Imports {
				if strings.HasPrefix(i.Path.Value, `"github.com/hashicorp/vault/api`) {
					t.Errorf("%s imports %s: use vaultapi, and in tests below test/ vaulttest.API", path, i.Path.Value)
				}
			}
			return nil
		})
		if err != nil || files == 0 {
			t.Fatalf("%s: %d files, %v", top, files, err)
		}
	}
}
