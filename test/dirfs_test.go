package test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// throughDirfs are packages that root runs in folders of a service's user: what they
// do there is done through appliance/base/dirfs, so that no link, pipe or second name
// leads them elsewhere.
var throughDirfs = []string{"appliance/watch/audit"}

// guarded are the only files in their packages that open one by its whole path in
// such a folder, each without following a link and with a look at what it has opened.
var guarded = map[string][]string{
	"appliance/base/statefile": {"lock.go", "statefile.go"},
	"appliance/watch/doctor":   {"osmachine.go"},
}

// inRoots may call the package os by path: what they work on lies in root's folders,
// in the caller's own, or they run as the folder's user. A package that is not here
// and begins to wants a row, or dirfs.
var inRoots = map[string]string{
	"appliance/backup/drill":             "its work folder; what it keeps goes through os.Root",
	"appliance/backup/isolate":           "/proc and mounts",
	"appliance/backup/restore":           "unpacks through os.Root; a file of the caller's",
	"appliance/backup/restorepath":       "a room of its own, below root's folder",
	"appliance/backup/scratch":           "a folder of its own",
	"appliance/backup/snapshot":          "places, by the job's user; files within one root; the mark of a rotation by dirfs",
	"appliance/base/atomicfile":          "the floor below",
	"appliance/base/credential":          "the TPM's device; root's folder of credentials, and the caller's files",
	"appliance/base/credential/credtest": "a test's own folder",
	"appliance/base/dirfs":               "itself",
	"appliance/base/proc":                "/proc",
	"appliance/base/vaultapi":            "the caller's own token and certificates",
	"appliance/cli":                      "the caller's files",
	"appliance/base/wayin":               "a folder of root's own in /run, removed without following a link",
	"appliance/demo":                     "a folder of its own",
	"appliance/secrets/apps":             "a folder of the caller's",
	"appliance/secrets/migrate":          "a tree of the caller's",
	"appliance/serve/front":              "the front runs as the owner",
	"appliance/serve/kms":                "the caller's files; the socket's folder is its own",
	"installer/cli":                      "the caller's files",
	"installer/engine":                   "the journal, in root's folder",
	"installer/host":                     "the machine: O_NOFOLLOW where it gives away",
	"installer/steps":                    "a folder of its own",
	"installer/upgrade":                  "root's folder",
}

var byPath = map[string][]string{
	"os": {"Open", "OpenFile", "OpenRoot", "Create", "CreateTemp", "Rename", "Chown", "Lchown", "Chmod", "Chtimes", "Remove", "RemoveAll", "ReadFile", "WriteFile", "ReadDir",
		"Truncate", "Link", "Symlink", "Mkdir", "MkdirAll", "MkdirTemp", "Stat", "Lstat", "Readlink"},
	"unix":       {"Open", "Openat", "Rename", "Renameat", "Renameat2", "Chown", "Lchown", "Chmod", "Fchownat", "Fchmodat", "Unlink", "Unlinkat", "Link", "Symlink", "Mkdir"},
	"atomicfile": {"Write", "Create", "CreateIn", "Rewrite", "Copy", "Sweep", "ReadSmall"},
}

// writes are those of byPath that change or give away what they are led to.
var writes = []string{"Create", "OpenFile", "Rename", "Chown", "Lchown", "Chmod", "RemoveAll", "WriteFile", "Truncate", "Link", "Symlink", "Rewrite", "Renameat2", "Fchownat"}

// pathCalls gives a package's files to the calls by path in each.
func pathCalls(t *testing.T, dir string) map[string][]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]string{}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		tree, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(tree, func(n ast.Node) bool {
			s, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if x, ok := s.X.(*ast.Ident); ok && slices.Contains(byPath[x.Name], s.Sel.Name) {
				name := filepath.Base(file)
				out[name] = append(out[name], x.Name+"."+s.Sel.Name)
			}
			return true
		})
	}
	return out
}

// Whoever writes a call by path into a package that root runs in another's folder is
// told here.
func TestRootInOthersFolders(t *testing.T) {
	found := 0
	for _, top := range []string{"appliance", "installer"} {
		err := filepath.WalkDir(filepath.Join("..", top), func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.IsDir() {
				return err
			}
			dir := strings.TrimPrefix(filepath.ToSlash(path), "../")
			strict := slices.Contains(throughDirfs, dir)
			for file, calls := range pathCalls(t, dir) {
				found++
				for _, call := range calls {
					_, name, _ := strings.Cut(call, ".")
					switch {
					case strict && (file != "vault.go" || call != "os.ReadFile"): // the pid file that the caller names
						t.Errorf("%s/%s calls %s: root works there in a folder of a service's user, through appliance/base/dirfs", dir, file, call)
					case slices.Contains(guarded[dir], file), inRoots[dir] != "", strict:
					case slices.Contains(writes, name):
						t.Errorf("%s/%s calls %s: a row in this test says in whose folders, or it goes through appliance/base/dirfs", dir, file, call)
					}
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if found < 20 {
		t.Errorf("only %d files call anything by path: the walk does not see them", found)
	}
}

func TestGuardedFilesAreThere(t *testing.T) {
	for dir, files := range guarded {
		calls := pathCalls(t, dir)
		for _, f := range files {
			if calls[f] == nil {
				t.Errorf("%s/%s opens nothing by path any more: its row can go", dir, f)
			}
		}
	}
	for dir := range inRoots {
		if len(pathCalls(t, dir)) == 0 {
			t.Errorf("%s calls nothing by path any more: its row can go", dir)
		}
	}
}
