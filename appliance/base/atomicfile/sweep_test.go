package atomicfile

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A sweep takes what a killed writer of the same path has left, and nothing else: not
// what somebody writes at this moment, nor a file of somebody's own.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	f, err := Create(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	under := filepath.Base(f.tmp.Name())
	others := []string{".f.tmp-", ".f.tmp-old", ".f.tmp-1.txt", ".g.tmp-1", "f.tmp-1"}
	for _, name := range append(others, ".f.tmp-1", ".f.tmp-4294967295") {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	outside := filepath.Join(t.TempDir(), "outside")
	if err := errors.Join(os.Symlink(outside, filepath.Join(dir, ".f.tmp-2")), os.Mkdir(filepath.Join(dir, ".f.tmp-3"), 0o700)); err != nil {
		t.Fatal(err)
	}
	if err := Sweep(path); err != nil {
		t.Fatal(err)
	}
	onlySet(t, dir, append(others, under, ".f.tmp-2", ".f.tmp-3")...)
	if err := f.Commit(); err != nil {
		t.Fatal(err)
	}
	onlySet(t, dir, append(others, "f", ".f.tmp-2", ".f.tmp-3")...)
	for _, in := range []string{"none", "f"} {
		if err := Sweep(filepath.Join(dir, in, "f")); err != nil {
			t.Errorf("no folder: %v", err)
		}
	}
}

func onlySet(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	left := map[string]bool{}
	for _, name := range want {
		left[name] = true
	}
	for _, e := range entries {
		if !left[e.Name()] {
			t.Errorf("%s is there", e.Name())
		}
		delete(left, e.Name())
	}
	for name := range left {
		t.Errorf("%s has gone", name)
	}
}

// Two who write and sweep the same path at once never take the other's file away.
func TestSweepBesideWriters(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	done := make(chan error)
	for range 4 {
		go func() {
			for range 50 {
				if err := errors.Join(Sweep(path), Write(path, []byte("whole"), 0o600)); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	onlyEntry(t, filepath.Dir(path), "f")
}

// The longest name that a file can have can be written.
func TestLongestName(t *testing.T) {
	dir := t.TempDir()
	name := strings.Repeat("e", 255)
	if err := Write(filepath.Join(dir, name), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	onlyEntry(t, dir, name)
}

// What people look after stays theirs when it is written anew.
func TestRewrite(t *testing.T) {
	dir := t.TempDir()
	path, link := filepath.Join(dir, "f"), filepath.Join(dir, "link")
	if err := errors.Join(os.WriteFile(path, []byte("old"), 0o600), os.Chmod(path, 0o660), os.Symlink("f", link), os.WriteFile(filepath.Join(dir, ".f.tmp-1"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(path, 4711, 33); err != nil {
			t.Fatal(err)
		}
	}
	attribute := unix.Setxattr(path, "user.note", []byte("kept"), 0)
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := Rewrite(link, []byte("new"), 0o644); err != nil {
		t.Fatal(err)
	}
	after, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	a, b := before.Sys().(*syscall.Stat_t), after.Sys().(*syscall.Stat_t)
	if a.Mode != b.Mode || a.Uid != b.Uid || a.Gid != b.Gid {
		t.Errorf("mode %o, owner %d:%d; was %o, %d:%d", b.Mode, b.Uid, b.Gid, a.Mode, a.Uid, a.Gid)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "new" {
		t.Errorf("%q, %v", got, err)
	}
	value := make([]byte, 10)
	if n, err := unix.Getxattr(path, "user.note", value); attribute == nil && (err != nil || string(value[:max(n, 0)]) != "kept") {
		t.Errorf("attribute: %v", err)
	}
	onlyEntry(t, dir, "f", "link")
	// One that is not there has the mode that is asked for.
	if err := Rewrite(filepath.Join(dir, "g"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(filepath.Join(dir, "g")); err != nil || st.Mode() != 0o644 {
		t.Errorf("%v, %v", st, err)
	}
}
