package snapshot

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// lay writes a file below a folder, and makes what it lies in.
func lay(t *testing.T, path string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte("theirs"), 0o600)); err != nil {
		t.Fatal(err)
	}
}

// asNobody runs f, which must not end the test, without root's right to read
// everything.
func asNobody(t *testing.T, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		f()
		return
	}
	done := make(chan error, 1)
	go func() {
		// The thread is not given back to the others: it has lost its rights.
		runtime.LockOSThread()
		err := unix.Setfsuid(65534)
		if err == nil {
			f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// public is a temporary folder that everybody may write in.
func public(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := errors.Join(os.Chmod(filepath.Dir(dir), 0o755), os.Chmod(dir, 0o777)); err != nil { //nolint:gosec // for the test's other user
		t.Fatal(err)
	}
	return dir
}

func publicDir(t *testing.T) *Dir {
	t.Helper()
	d, err := NewDir(public(t))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// A disk's own root is a place, as docs/backup.md has it: lost+found and what
// else lies there is a stranger's, readable or not.
func TestDirPassesStrangersOver(t *testing.T) {
	k, d := newKeys(t), publicDir(t)
	taken, err := Take(t.Context(), takeOptions(t, k, bytesSource(buildArchive(t, archiveSpec{})), d))
	if err != nil {
		t.Fatal(err)
	}
	strangers := []string{
		"lost+found/#12", "private/x", ".Trash-1000/files/x", "notes.txt", "System Volume Information/x",
		testCluster + "/README", testCluster + "/deeper/" + taken.Manifest.ID[len(testCluster)+1:] + ".json",
		"a/b/c/20261124T151500Z-1a2b3c4d.snap.age",
	}
	for _, s := range strangers {
		lay(t, filepath.Join(d.root, s))
	}
	for _, f := range []string{"lost+found", "private"} {
		if err := os.Chmod(filepath.Join(d.root, f), 0); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = os.Chmod(filepath.Join(d.root, f), 0o700) }()
	}
	chown(t, filepath.Join(d.root, testCluster))
	v := verifyOptions(t, k, d)
	v.StateDir = public(t)
	asNobody(t, func() {
		for _, cluster := range []string{"", testCluster} {
			if all, err := List(t.Context(), d, cluster); err != nil || len(all) != 1 || all[0].ID.String() != taken.Manifest.ID {
				t.Errorf("cluster %q: listed %+v, %v", cluster, all, err)
			}
		}
		if rec, err := Verify(t.Context(), v); err != nil || rec.ID != taken.Manifest.ID {
			t.Errorf("verified %+v, %v", rec, err)
		}
		if _, err := Prune(t.Context(), PruneOptions{Destination: d, ClusterID: testCluster, Policy: DefaultPolicy, Now: clock(testTime)}); err != nil {
			t.Errorf("prune: %v", err)
		}
	})
	for _, s := range strangers {
		if _, err := os.Lstat(filepath.Join(d.root, s)); err != nil {
			t.Errorf("%v", err)
		}
	}
}

// What cannot be looked into is not empty.
func TestDirOfAClusterThatCannotBeRead(t *testing.T) {
	k, d := newKeys(t), publicDir(t)
	if _, err := Take(t.Context(), takeOptions(t, k, bytesSource(buildArchive(t, archiveSpec{})), d)); err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(d.root, testCluster)
	if err := os.Chmod(folder, 0); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.Chmod(folder, 0o700) }()
	asNobody(t, func() {
		for _, cluster := range []string{"", testCluster} {
			if _, err := List(t.Context(), d, cluster); !errors.Is(err, ErrDenied) {
				t.Errorf("cluster %q: got %v, want %v", cluster, err, ErrDenied)
			}
		}
	})
}

// A disk that is unmounted while a job runs holds nothing that could be told of.
func TestDirThatIsGone(t *testing.T) {
	d := newTestDir(t)
	put(t, d, "c/x", []byte("x"))
	if err := os.RemoveAll(d.root); err != nil {
		t.Fatal(err)
	}
	_, perr := d.Put(t.Context(), "c/y", strings.NewReader("y"))
	_, gerr := d.Get(t.Context(), "c/x")
	_, serr := d.Stat(t.Context(), "c/x")
	_, lerr := d.List(t.Context(), "")
	_, cerr := d.List(t.Context(), "c/")
	_, werr := d.Sweep(t.Context(), time.Now())
	for verb, err := range map[string]error{"put": perr, "get": gerr, "stat": serr, "list": lerr, "list c/": cerr, "sweep": werr} {
		if !errors.Is(err, ErrPlace) || errors.Is(err, ErrNotFound) {
			t.Errorf("%s: got %v, want %v", verb, err, ErrPlace)
		}
	}
}

// Other programs use names like ours for what is under way.
func TestDirSweepsWhatItHasLeft(t *testing.T) {
	d := newTestDir(t)
	const base = "20261124T151500Z-1a2b3c4d"
	put(t, d, testCluster+"/"+base+".json", []byte("x"))
	const random = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	left := testCluster + "/." + base + ".snap.age" + tmpMark + random
	strangers := []string{
		"photos/.holiday.jpg.upload-123", "deep/er/." + base + ".snap.age" + tmpMark + random, ".x" + tmpMark + random,
		testCluster + "/.notes.upload-1", testCluster + "/." + base + ".snap.age" + tmpMark + "123", testCluster + "/" + base + ".snap.age" + tmpMark + random,
	}
	for _, s := range append(strangers, left) {
		lay(t, filepath.Join(d.root, s))
	}
	for _, tt := range []struct {
		before time.Time
		want   int
	}{{time.Now().Add(-time.Hour), 0}, {time.Now().Add(time.Hour), 1}} {
		if n, err := d.Sweep(t.Context(), tt.before); n != tt.want || err != nil {
			t.Errorf("swept %d, %v, want %d", n, err, tt.want)
		}
	}
	if _, err := os.Lstat(filepath.Join(d.root, left)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s: %v", left, err)
	}
	for _, s := range strangers {
		if _, err := os.Lstat(filepath.Join(d.root, s)); err != nil {
			t.Errorf("%v", err)
		}
	}
	if got := get(t, d, testCluster+"/"+base+".json"); string(got) != "x" {
		t.Errorf("the object is now %q", got)
	}
}

// Whatever the umask of who stores first, the group can go on; the place itself is
// left as it is.
func TestDirModes(t *testing.T) {
	d := newTestDir(t)
	if err := os.Chmod(d.root, 0o750|fs.ModeSetgid); err != nil {
		t.Fatal(err)
	}
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	put(t, d, "c/x", []byte("x"))
	for path, want := range map[string]fs.FileMode{
		d.root: 0o750 | fs.ModeSetgid | fs.ModeDir, filepath.Join(d.root, "c"): 0o770 | fs.ModeSetgid | fs.ModeDir, filepath.Join(d.root, "c/x"): 0o640,
	} {
		if fi, err := os.Lstat(path); err != nil || fi.Mode() != want {
			t.Errorf("%s: %v, %v; want %v", path, fi.Mode(), err, want)
		}
	}
}

// chown gives a folder with its files to nobody, so that asNobody may write there.
func chown(t *testing.T, dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range append(files, dir) {
		if err := os.Lchown(f, 65534, -1); err != nil {
			t.Fatal(err)
		}
	}
}

// What is no plain file is refused at once under an object's name, too: a pipe would be
// waited for, and a device has no end.
func TestDirReadsPlainFilesAlone(t *testing.T) {
	d := publicDir(t)
	name := testCluster + "/20261124T151500Z-1a2b3c4d" + suffixProof
	path := filepath.Join(d.root, name)
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	for what, lay := range map[string]func() error{
		"a pipe":   func() error { return unix.Mkfifo(path, 0o600) },
		"a device": func() error { return os.Symlink("/dev/zero", path) },
		"a folder": func() error { return os.Mkdir(path, 0o700) },
	} {
		if err := lay(); err != nil {
			t.Fatal(err)
		}
		if rc, err := d.Get(t.Context(), name); !errors.Is(err, errNoFile) || errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v, %v", what, rc, err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}
