package test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// otherWords are those that users are not to meet: docs/commands.md says which
// one each of them is here. Vault's own, and the kernel's, stay theirs.
var otherWords = []struct {
	word  *regexp.Regexp
	now   string
	stays *regexp.Regexp
}{
	{regexp.MustCompile(`(?i)\binitializ`), "initialis…", regexp.MustCompile(`"initialized"|strongroom_vault_initialized|Failed to initialize TCTI context`)},
	{regexp.MustCompile(`(?i)\bdirector(y|ies)\b`), "folder", regexp.MustCompile(`ACME director|No such file or directory|^(is a|not a) directory$|^directory not empty$|--no-target-directory|https://\S+/directory`)},
}

// One word for a thing in what users read: in help, errors and notes, which are
// the texts of more than one word.
func TestOneWordForAThing(t *testing.T) {
	texts := 0
	for _, top := range []string{"../appliance", "../installer", "../config"} {
		err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			set := token.NewFileSet()
			file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				lit, ok := n.(*ast.BasicLit)
				if !ok || lit.Kind != token.STRING {
					return true
				}
				text, err := strconv.Unquote(lit.Value)
				if err != nil || !strings.Contains(text, " ") {
					return true
				}
				texts++
				for _, w := range otherWords {
					if found := w.word.FindString(text); found != "" && !w.stays.MatchString(text) {
						t.Errorf("%s: %q is %q here: %q", set.Position(lit.Pos()), found, w.now, text)
					}
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if texts < 2000 {
		t.Errorf("only %d texts found", texts)
	}
}
