package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func onlyEntry(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if len(got) != len(want) {
		t.Fatalf("folder holds %q, want %q", got, want)
	}
}

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	for _, content := range []string{"first, longer", "second"} {
		if err := Write(path, []byte(content), 0o640); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != content {
			t.Fatalf("read back %q, %v", got, err)
		}
		st, err := os.Stat(path)
		if err != nil || st.Mode().Perm() != fs.FileMode(0o640) {
			t.Fatalf("mode %v, %v", st.Mode(), err)
		}
	}
	onlyEntry(t, dir, "f")
}

func TestInvisibleUntilCommit(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := Write(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Create(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("new")); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(path); string(got) != "old" {
		t.Fatalf("before the commit the file holds %q", got)
	}
	f.Abort()
	f.Abort()
	if err := f.Commit(); err == nil {
		t.Fatal("a commit after an abort must fail")
	}
	if got, _ := os.ReadFile(path); string(got) != "old" {
		t.Fatalf("after the abort the file holds %q", got)
	}
	onlyEntry(t, dir, "f")
}

func TestFailuresLeaveNothing(t *testing.T) {
	t.Run("no folder", func(t *testing.T) {
		if err := Write(filepath.Join(t.TempDir(), "none", "f"), nil, 0o600); err == nil {
			t.Fatal("want an error")
		}
	})
	t.Run("rename refused", func(t *testing.T) {
		dir := t.TempDir()
		path := filepath.Join(dir, "f")
		// A folder that is not empty cannot be replaced by a file.
		if err := os.MkdirAll(filepath.Join(path, "sub"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := Write(path, []byte("x"), 0o600); err == nil {
			t.Fatal("want an error")
		}
		onlyEntry(t, dir, "f")
	})
	t.Run("disk full", func(t *testing.T) {
		dir := t.TempDir()
		f, err := Create(filepath.Join(dir, "f"), 0o600)
		if err != nil {
			t.Fatal(err)
		}
		full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		if err != nil {
			t.Skip("no /dev/full here:", err)
		}
		real := f.tmp
		f.tmp = full
		if _, err := f.Write([]byte("x")); err == nil {
			t.Fatal("want no space left")
		}
		f.tmp = real
		f.Abort()
		onlyEntry(t, dir)
	})
}

func TestCopy(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	if err := Copy(from, to, 0o500); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of nothing: %v", err)
	}
	onlyEntry(t, dir)
	if err := os.WriteFile(from, []byte("program"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Copy(from, to, 0o500); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(to)
	fi, statErr := os.Stat(to)
	if err != nil || statErr != nil || string(b) != "program" || fi.Mode() != 0o500 {
		t.Errorf("%q, %v, %v", b, err, statErr)
	}
	onlyEntry(t, dir, "from", "to")
}
