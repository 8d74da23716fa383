package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"strongroom.example/test/vaulttest"
)

// programs are what make build makes.
var programs = []string{"strongroom", "vault-plugin-secrets-apikeys", "strongroom-installer"}

// clone puts what is committed into an empty folder.
func clone(t *testing.T) string {
	t.Helper()
	root := vaulttest.Root(t)
	if out, err := exec.Command("git", "-C", root, "rev-parse", "HEAD").CombinedOutput(); err != nil {
		t.Skipf("not in a git checkout with a commit: %v: %s", err, out)
	}
	dir := filepath.Join(t.TempDir(), "clone")
	if out, err := exec.Command("git", "clone", "--quiet", root, dir).CombinedOutput(); err != nil {
		t.Fatalf("git clone: %v: %s", err, out)
	}
	return dir
}

// A clone in an empty folder builds, and two of them give the same bytes.
func TestCloneBuildsReproducibly(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("builds the programs twice: not with -short")
	}
	first, second := clone(t), clone(t)
	for _, dir := range []string{first, second} {
		cmd := exec.Command("make", "build")
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("make build: %v\n%s", err, out)
		}
	}
	version, err := os.ReadFile(filepath.Join(first, "VERSION"))
	if err != nil {
		t.Fatal(err)
	}
	commit, err := exec.Command("git", "-C", first, "rev-parse", "--short=12", "HEAD").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range programs {
		a, err := os.ReadFile(filepath.Join(first, "bin", name))
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(second, "bin", name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a, b) {
			t.Errorf("two builds of %s differ", name)
		}
		if bytes.Contains(a, []byte(first)) {
			t.Errorf("%s holds the path it was built in", name)
		}
		out, err := exec.Command(filepath.Join(first, "bin", name), "--version").CombinedOutput()
		want := name + " " + strings.TrimSpace(string(version)) + " (" + strings.TrimSpace(string(commit)) + ")\n"
		if err != nil || string(out) != want {
			t.Errorf("--version prints %q, %v; want %q", out, err, want)
		}
		if out, err := exec.Command("file", "-b", filepath.Join(first, "bin", name)).Output(); err == nil {
			if !strings.Contains(string(out), "statically linked") || strings.Contains(string(out), "not stripped") {
				t.Errorf("%s is not static and stripped: %s", name, out)
			}
		}
	}
}

func TestMakeWithoutGo(t *testing.T) {
	t.Parallel()
	for _, target := range []string{"build", "vault", "demo", "test"} {
		t.Run(target, func(t *testing.T) {
			bin := t.TempDir()
			for _, tool := range []string{"bash", "cat", "git", "echo", "test", "printf"} {
				path, err := exec.LookPath(tool)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.Symlink(path, filepath.Join(bin, tool)); err != nil {
					t.Fatal(err)
				}
			}
			makePath, err := exec.LookPath("make")
			if err != nil {
				t.Fatal(err)
			}
			dir := clone(t)
			cmd := exec.Command(makePath, target)
			cmd.Dir = dir
			cmd.Env = []string{"PATH=" + bin}
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), "Go is not installed") {
				t.Errorf("want a message about Go, got %v:\n%s", err, out)
			}
			if _, err := os.Stat(filepath.Join(dir, "bin")); err == nil {
				t.Error("a bin folder is left behind")
			}
		})
	}
}
