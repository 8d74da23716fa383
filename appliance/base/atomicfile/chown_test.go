package atomicfile

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

type owner struct {
	asked    bool
	uid, gid int
}

func (o *owner) Chown(uid, gid int) error { *o = owner{true, uid, gid}; return nil }

// What root writes into another's folder is the other's; anybody else, and root
// in its own folder, changes nothing.
func TestHeir(t *testing.T) {
	for name, tt := range map[string]struct {
		euid, egid, uid, gid int
		want                 owner
	}{
		"root, of another":            {0, 0, 1234, 1235, owner{true, 1234, 1235}},
		"root, of another, its group": {0, 0, 1234, 0, owner{true, 1234, 0}},
		"root, of another group":      {0, 0, 0, 1235, owner{true, -1, 1235}},
		"root with that group":        {0, 1235, 0, 1235, owner{}},
		"root's own":                  {0, 0, 0, 0, owner{}},
		"nobody special, its own":     {1000, 1000, 1000, 1000, owner{}},
		"nobody special, of another":  {1000, 1000, 1234, 1235, owner{}},
		"nobody special, root's":      {1000, 1000, 0, 0, owner{}},
	} {
		t.Run(name, func(t *testing.T) {
			uid, gid, changes := heir(tt.euid, tt.egid, tt.uid, tt.gid)
			if got := (owner{changes, uid, gid}); got != tt.want {
				t.Errorf("%+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestLikeFolder(t *testing.T) {
	dir := t.TempDir()
	var got owner
	if err := LikeFolder(dir, &got); err != nil || got.asked {
		t.Errorf("our own: %+v, %v", got, err)
	}
	if err := LikeFolder(filepath.Join(dir, "none"), &got); !errors.Is(err, os.ErrNotExist) || got.asked {
		t.Errorf("no folder: %+v, %v", got, err)
	}
	if os.Geteuid() != 0 {
		return
	}
	if err := os.Chown(dir, 1234, 1235); err != nil {
		t.Fatal(err)
	}
	if err := LikeFolder(dir, &got); err != nil || got != (owner{true, 1234, 1235}) {
		t.Errorf("another's: %+v, %v", got, err)
	}
}

// A file has its owner before it has its name; one that cannot be given away
// does not appear.
func TestChown(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	f, err := Create(path, 0o640)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Abort()
	uid, gid := os.Geteuid(), os.Getegid()
	if uid == 0 {
		uid, gid = 1234, 1235
	}
	if err := f.Chown(uid, gid); err != nil {
		t.Fatal(err)
	}
	onlyEntry(t, dir, f.tmp.Name())
	if err := f.Commit(); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if s := st.Sys().(*syscall.Stat_t); int(s.Uid) != uid || int(s.Gid) != gid || st.Mode().Perm() != 0o640 {
		t.Errorf("of %d:%d, mode %v", s.Uid, s.Gid, st.Mode())
	}
	if err := f.Chown(uid, gid); err == nil {
		t.Error("a file that is done was given away")
	}
}

func TestSyncDir(t *testing.T) {
	if err := SyncDir(t.TempDir()); err != nil {
		t.Error(err)
	}
	if err := SyncDir(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
}

// A commit of what could not be made durable fails, and leaves the old file.
func TestCommitFails(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := Write(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Create(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.tmp.Close(); err != nil { // the disk is gone
		t.Fatal(err)
	}
	if err := f.Commit(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("committed: %v", err)
	}
	if got, _ := os.ReadFile(path); string(got) != "old" {
		t.Errorf("the file holds %q", got)
	}
	onlyEntry(t, dir, "f")
}
