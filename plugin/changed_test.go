package apikeys

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestRotationTouchesTheChangedFile(t *testing.T) {
	w := newWorld(t, remoteCaps())
	changed := filepath.Join(t.TempDir(), "rotated")
	w.changed = changed
	w.start()
	there := func() bool {
		t.Helper()
		fi, err := os.Lstat(changed)
		if errors.Is(err, fs.ErrNotExist) {
			return false
		}
		if err != nil || fi.Mode() != 0o600 || fi.Size() != 0 {
			t.Fatalf("%v, %v", fi, err)
		}
		return true
	}
	if there() {
		t.Error("touched before there was a key")
	}
	w.localKey("k", nil)
	if !there() {
		t.Error("the first version is not worth a snapshot")
	}
	if err := os.Remove(changed); err != nil {
		t.Fatal(err)
	}
	w.read("creds/k", nil)
	w.read("status", nil)
	if there() {
		t.Error("touched by reads")
	}
	w.write("rotate/k", nil)
	if !there() {
		t.Error("not touched by a rotation")
	}
	// A file that is there gets younger.
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(changed, old, old); err != nil {
		t.Fatal(err)
	}
	w.write("rotate/k", nil)
	if fi, err := os.Stat(changed); err != nil || time.Since(fi.ModTime()) > 30*time.Minute {
		t.Errorf("%v, %v", fi, err)
	}
}

func TestChangedFileCannotBeWritten(t *testing.T) {
	w := newWorld(t, remoteCaps())
	w.changed = filepath.Join(t.TempDir(), "no", "such", "folder")
	w.start()
	w.localKey("k", nil)
	w.write("rotate/k", nil)
	if v := w.version("k"); v != 2 {
		t.Errorf("version %d: the rotation did not hold", v)
	}
}
