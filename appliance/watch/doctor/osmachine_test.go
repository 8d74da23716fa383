package doctor

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestOSMachine(t *testing.T) {
	root := t.TempDir()
	m := OSMachine{Root: root}
	write(t, filepath.Join(root, "f"), []byte("old"))
	if err := os.Symlink("f", filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	if err := m.SetMode("/f", 0o640); err != nil {
		t.Fatal(err)
	}
	// Replaced, it keeps its mode and owner.
	if err := m.Replace("/f", []byte("new")); err != nil {
		t.Fatal(err)
	}
	info, err := m.Stat("/f")
	if err != nil || info.Mode != 0o640 || info.Size != 3 || info.Type != 0 {
		t.Errorf("%+v, %v", info, err)
	}
	if got, err := m.Sum("/f"); err != nil || got != sum("new") {
		t.Errorf("sum %s, %v", got, err)
	}
	// A link is looked at and never followed by what changes anything: whoever
	// can put one there must not choose what root changes.
	if info, err := m.Stat("/link"); err != nil || info.Type != fs.ModeSymlink {
		t.Errorf("link: %+v, %v", info, err)
	}
	if err := m.SetMode("/link", 0o777); err == nil {
		t.Error("the mode of a link's target was changed")
	}
	if err := m.Replace("/link", []byte("x")); err == nil {
		t.Error("a link was replaced")
	}
	if names, err := m.ReadDir("/"); err != nil || strings.Join(names, " ") != "f link" {
		t.Errorf("names %q, %v", names, err)
	}
	if _, err := m.ReadFile("/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that isn't there: %v", err)
	}
}

// A second name is how whoever owns a folder has root change a file of another's.
func TestSetModeOfASecondName(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "passwd"), []byte("x"))
	if err := os.Link(filepath.Join(root, "passwd"), filepath.Join(root, "audit.log")); err != nil {
		t.Fatal(err)
	}
	if err := (OSMachine{Root: root}).SetMode("/audit.log", 0o640); err == nil {
		t.Error("it changes the mode of a file that has another name")
	}
}

// Whoever owns the folder of a file can put a link in its place between the look
// and the change.
func TestSetModeOfAFileThatBecomesALink(t *testing.T) {
	root := t.TempDir()
	file, victim := filepath.Join(root, "audit.log"), filepath.Join(root, "shadow")
	write(t, file, []byte("log"))
	write(t, victim, []byte("secret"))
	err := OSMachine{Root: root}.setMode("/audit.log", 0o644, func() {
		if err := errors.Join(os.Rename(file, file+".1"), os.Symlink("shadow", file)); err != nil {
			t.Fatal(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]fs.FileMode{victim: 0o600, file + ".1": 0o644} {
		if info, err := os.Lstat(p); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v, want %v", p, info, err, want)
		}
	}
}

func TestRun(t *testing.T) {
	t.Setenv("VAULT_TOKEN", token)
	m := OSMachine{}
	out, err := m.Run(t.Context(), "env")
	if err != nil || strings.Contains(string(out), token) || !strings.Contains(string(out), "LC_ALL=") {
		t.Errorf("a command's environment: %s, %v", out, err)
	}
	if _, err := m.Run(t.Context(), "no-such-program-here"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no such program: %v", err)
	}
	if _, err := m.Run(t.Context(), "ls", "/no/such/folder"); err == nil || !strings.Contains(err.Error(), "/no/such/folder") {
		t.Errorf("a command's own words: %v", err)
	}
	// What prints without end is cut, and not kept.
	out, err = m.Run(t.Context(), "head", "-c", "20000000", "/dev/zero")
	if err != nil || len(out) != maxRead {
		t.Errorf("%d bytes, %v", len(out), err)
	}
}

// A command without an end is ended when its reader has had enough time.
func TestStream(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got := &enough{left: 1 << 20, done: cancel}
	err := OSMachine{}.Stream(ctx, got, "yes", "vault")
	if !errors.Is(err, context.Canceled) || got.left > 0 {
		t.Errorf("%d bytes are missing, %v", got.left, err)
	}
	if err := (OSMachine{}).Stream(t.Context(), io.Discard, "sh", "-c", "echo why >&2; exit 3"); err == nil || !strings.Contains(err.Error(), "why") {
		t.Errorf("a command that fails: %v", err)
	}
}

// enough is done once it has been written so much.
type enough struct {
	left int
	done func()
}

func (e *enough) Write(p []byte) (int, error) {
	if e.left -= len(p); e.left <= 0 {
		e.done()
	}
	return len(p), nil
}
