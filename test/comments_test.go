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

// Every exported name says what it is: functions, types, constants and variables
// (a group may have one comment), methods of exported types and of interfaces.
// What implements an interface on a type of no name outside is described there.
func TestExportedNamesHaveComments(t *testing.T) {
	seen := 0
	for _, folder := range []string{"appliance", "config", "installer", "plugin", "systemd"} {
		err := filepath.WalkDir(filepath.Join("..", folder), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			set := token.NewFileSet()
			f, err := parser.ParseFile(set, path, nil, parser.ParseComments)
			if err != nil {
				return err
			}
			for name, says := range exported(f) {
				seen++
				if !says {
					t.Errorf("%s: %s has no comment", set.Position(name.Pos()), name.Name)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if seen < 1000 {
		t.Fatalf("only %d exported names were seen: the test looks in the wrong place", seen)
	}
}

// exported are the exported names of a file, and whether they have a comment.
func exported(f *ast.File) map[*ast.Ident]bool {
	out := map[*ast.Ident]bool{}
	add := func(name *ast.Ident, comments ...*ast.CommentGroup) {
		if !name.IsExported() {
			return
		}
		out[name] = false
		for _, c := range comments {
			out[name] = out[name] || c != nil
		}
	}
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if of := receiver(d); of == "" || ast.IsExported(of) {
				add(d.Name, d.Doc)
			}
		case *ast.GenDecl:
			for _, s := range d.Specs {
				switch s := s.(type) {
				case *ast.ValueSpec:
					for _, n := range s.Names {
						add(n, d.Doc, s.Doc, s.Comment)
					}
				case *ast.TypeSpec:
					add(s.Name, d.Doc, s.Doc, s.Comment)
					face, ok := s.Type.(*ast.InterfaceType)
					if !ok || !s.Name.IsExported() {
						continue
					}
					for _, m := range face.Methods.List {
						for _, n := range m.Names {
							add(n, m.Doc, m.Comment)
						}
					}
				}
			}
		}
	}
	return out
}

// receiver is the name of a method's type; empty for a function.
func receiver(d *ast.FuncDecl) string {
	if d.Recv == nil {
		return ""
	}
	t := d.Recv.List[0].Type
	if p, ok := t.(*ast.StarExpr); ok {
		t = p.X
	}
	if g, ok := t.(*ast.IndexExpr); ok {
		t = g.X
	}
	if id, ok := t.(*ast.Ident); ok {
		return id.Name
	}
	return ""
}
