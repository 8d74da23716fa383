package atomicfile

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// The file that takes another's place has its mode, owner, group and attributes,
// and nothing of the folder it was made in; until then it is its owner's alone.
func TestLike(t *testing.T) {
	dir := t.TempDir()
	stage := filepath.Join(dir, "stage")
	if err := os.Mkdir(stage, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "f")
	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o642); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(path, 4711, 33); err != nil {
			t.Fatal(err)
		}
	}
	attribute := unix.Setxattr(path, "user.note", []byte("kept"), 0)
	if attribute != nil && !errors.Is(attribute, unix.ENOTSUP) {
		t.Fatal(attribute)
	}
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := CreateIn(stage, path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Abort()
	f.Like(path)
	if _, err := f.Write([]byte("new")); err != nil {
		t.Fatal(err)
	}
	if st, err := f.tmp.Stat(); err != nil || st.Mode().Perm() != 0o600 || filepath.Dir(f.tmp.Name()) != stage {
		t.Fatalf("under way: %v, %v, %s", st.Mode(), err, f.tmp.Name())
	}
	if err := f.Ready(); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(f.tmp.Name()); err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("ready: %v, %v", st.Mode(), err)
	}
	if got, _ := os.ReadFile(path); string(got) != "old" {
		t.Fatalf("ready, and the file holds %q", got)
	}
	if err := f.Commit(); err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	a, b := before.Sys().(*syscall.Stat_t), after.Sys().(*syscall.Stat_t)
	if a.Mode != b.Mode || a.Uid != b.Uid || a.Gid != b.Gid || a.Ino == b.Ino {
		t.Errorf("mode %o, owner %d:%d; was %o, %d:%d", b.Mode, b.Uid, b.Gid, a.Mode, a.Uid, a.Gid)
	}
	if attribute == nil {
		value := make([]byte, 10)
		if n, err := unix.Getxattr(path, "user.note", value); err != nil || string(value[:max(n, 0)]) != "kept" {
			t.Errorf("attribute: %v", err)
		}
	}
	onlyEntry(t, stage)
}

// Mode and attributes that are given for themselves come with the Commit.
func TestModeAndAttributes(t *testing.T) {
	dir := t.TempDir()
	from, path := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	if err := os.WriteFile(from, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if all, err := Attributes(from); err != nil || len(all) != 0 {
		t.Errorf("a file without any: %v, %v", all, err)
	}
	want := map[string]string{}
	switch err := unix.Setxattr(from, "user.note", []byte("kept"), 0); {
	case err == nil:
		want["user.note"] = "kept"
	case !errors.Is(err, unix.ENOTSUP):
		t.Fatal(err)
	}
	all, err := Attributes(from)
	if err != nil || !maps.Equal(all, want) {
		t.Fatalf("%v, %v", all, err)
	}
	f, err := Create(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Abort()
	f.Mode(0o640)
	f.Attributes(all)
	if err := f.Commit(); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	if got, err := Attributes(path); err != nil || !maps.Equal(got, want) {
		t.Errorf("attributes %v, %v", got, err)
	}
	if _, err := Attributes(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("of no file: %v", err)
	}
}
