package test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// copyTree copies what git would track of the repository to a new folder.
func copyTree(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	to := t.TempDir()
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		switch {
		case rel == ".":
			return nil
		case rel == "bin" || rel == "python" || strings.HasPrefix(d.Name(), "."):
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case d.IsDir():
			return os.Mkdir(filepath.Join(to, rel), 0o755)
		case !d.Type().IsRegular() || strings.HasPrefix(rel, filepath.Join("installer", "payload", "bin")) && d.Name() != "README":
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), data, info.Mode().Perm())
	})
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// Whoever publishes the repository gives the module its real path: all of it
// still builds, and nothing remembers the old one.
func TestRenameModule(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles all of our packages anew")
	}
	dir := copyTree(t)
	run := func(name string, args ...string) (string, error) {
		cmd := exec.Command(name, args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOFLAGS=-trimpath -mod=readonly")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	old := modulePath(t)
	const renamed = "git.example.org/Team-1/strongroom.v2"
	for range 2 { // the second finds nothing to do
		if out, err := run("scripts/rename-module", renamed); err != nil {
			t.Fatalf("rename-module: %v: %s", err, out)
		}
	}
	if out, err := run("grep", "-rIl", "--include=*.go", "--include=go.mod", "--include=*.md", "-e", `"`+old+"/", "-e", "module "+old, "-e", old+"/plugin", "."); err == nil {
		t.Fatalf("the old path is still in:\n%s", out)
	}
	if out, err := run("go", "build", "./..."); err != nil {
		t.Fatalf("go build: %v: %s", err, out)
	}
	if out, err := run("go", "vet", "./test/...", "./config/..."); err != nil {
		t.Fatalf("go vet: %v: %s", err, out)
	}
	// And back: the way is the same from any path to any other.
	if out, err := run("scripts/rename-module", old); err != nil {
		t.Fatalf("rename-module: %v: %s", err, out)
	}
	if out, err := exec.Command("diff", "-rq", "--exclude=.*", "--exclude=bin", "--exclude=python", "..", dir).CombinedOutput(); err != nil {
		t.Errorf("there and back is not where it began: %s", out)
	}

	for _, bad := range []string{"", "strongroom", "Example.com/x", "example.com//x", "example.com/x/", "https://example.com/x", "example.com/x y", "-x.y", "example.com/.."} {
		if out, err := run("scripts/rename-module", bad); err == nil {
			t.Errorf("%q was taken: %s", bad, out)
		}
	}
	if got, err := os.ReadFile(filepath.Join(dir, "go.mod")); err != nil || !strings.HasPrefix(string(got), "module "+old+"\n") {
		t.Errorf("a refused path changed go.mod: %v", err)
	}
}
