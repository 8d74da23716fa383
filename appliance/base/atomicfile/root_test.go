package atomicfile

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestOpenRootTakesFoldersAlone(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]error{dir: nil, pipe: syscall.ENOTDIR, "/dev/zero": syscall.ENOTDIR, filepath.Join(dir, "none"): syscall.ENOENT} {
		root, err := OpenRoot(path)
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", path, err, want)
		}
		if err == nil && root.Close() != nil {
			t.Error("it does not close")
		}
	}
}

// What is no file stays what it is: as root a rename would put a file in its place.
func TestOnlyFilesAreReplaced(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	for _, err := range []error{
		syscall.Mkfifo(path("pipe"), 0o600),
		os.Symlink("/dev/null", path("link")),
		os.WriteFile(path("file"), []byte("old"), 0o600),
		os.Symlink(path("file"), path("link to a file")),
		os.Symlink(path("none"), path("link to nothing")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	socket, err := net.Listen("unix", path("socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	for _, p := range []string{path("pipe"), path("link"), path("socket"), "/dev/null", "/dev/stdin", "/proc/self/environ"} {
		before, err := os.Lstat(p)
		if err != nil {
			t.Fatal(err)
		}
		if err := Write(p, []byte("new"), 0o600); err == nil || !strings.Contains(err.Error(), p) || !strings.Contains(err.Error(), "nothing was written") {
			t.Errorf("%s: %v", p, err)
		}
		if after, err := os.Lstat(p); err != nil || after.Mode() != before.Mode() {
			t.Errorf("%s is another: %v, %v", p, after, err)
		}
	}
	for _, p := range []string{path("file"), path("link to a file"), path("link to nothing"), path("new")} {
		if err := Write(p, []byte("new"), 0o600); err != nil {
			t.Errorf("%s: %v", p, err)
		}
	}
}
