package test

import (
	"go/ast"
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

// Vault 2.x and OpenBao refuse generate-root to whoever has no token, so only the door
// that opens it for the recovery keys may ask: vaultapi.Tokenless.Recovery.
func TestOneWayInForRecoveryKeys(t *testing.T) {
	asks := map[string]bool{"GenerateRoot": true, "RecoveryKeysSuffice": true}
	seen := 0
	for _, top := range []string{"../appliance", "../installer"} {
		err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(f, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				s, ok := call.Fun.(*ast.SelectorExpr)
				if !ok || !asks[s.Sel.Name] {
					return true
				}
				seen++
				if x, ok := s.X.(*ast.Ident); filepath.Base(filepath.Dir(path)) != "wayin" && !(ok && x.Name == "door") {
					t.Errorf("%s asks %s of Vault itself: ask wayin.Door", path, s.Sel.Name)
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if seen < 4 {
		t.Errorf("%d calls were found", seen)
	}
}
