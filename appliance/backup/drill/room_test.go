package drill

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"strongroom.example/appliance/backup/drill/report"
	"strongroom.example/appliance/backup/snapshot"
)

// strangers makes a state folder of another user's, in one of root's.
func strangers(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root drills by hand")
	}
	dir := filepath.Join(t.TempDir(), "drill")
	if err := os.Mkdir(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, 64123, 64124); err != nil {
		t.Fatal(err)
	}
	return dir
}

// By hand, root neither writes through what the owner of the state folder has put
// there, nor keeps anything where he could put it.
func TestByHandStaysOutOfAnothersFolder(t *testing.T) {
	dir := strangers(t)
	outside := filepath.Join(filepath.Dir(dir), "outside")
	if err := os.Mkdir(outside, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, link := range []string{fetchedDir(dir), workDir(dir), fetchedFile(dir)} {
		if err := os.Symlink(outside, link); err != nil {
			t.Fatal(err)
		}
	}
	// What a drill that was killed has left.
	if err := os.MkdirAll(filepath.Join(workDir(roomBeside(dir)), "vault"), 0o700); err != nil {
		t.Fatal(err)
	}
	p := newPlace(t)
	p.take(t, cluster, noon, true)
	watched := watch{Destination: p, dir: dir}
	r, err := FetchAndRun(t.Context(), FetchOptions{Destinations: []snapshot.Destination{&watched}, Cluster: cluster}, Options{StateDir: dir, SigningKey: testKey(1)})
	// Without the drill's key it ends once all is fetched.
	if err == nil || r == nil || r.Snapshot.ID == "" {
		t.Fatalf("%+v, %v", r, err)
	}
	if !watched.roomy || strings.Join(watched.seen, " ") != ".drill.lock" {
		t.Errorf("during the fetch: a room of root's own: %t; in the state folder: %q", watched.roomy, watched.seen)
	}
	for folder, want := range map[string]int{outside: 0, roomBeside(dir): -1} {
		left, err := os.ReadDir(folder)
		if want < 0 && !os.IsNotExist(err) || want == 0 && (err != nil || len(left) > 0) {
			t.Errorf("%q: %d files, %v", folder, len(left), err)
		}
	}
	if last, err := report.Last(dir); err != nil || last == nil || last.Snapshot.ID != r.Snapshot.ID {
		t.Errorf("the report: %+v, %v", last, err)
	}
}

// watch notes what is where while it is read.
type watch struct {
	snapshot.Destination
	dir   string
	seen  []string
	roomy bool
}

func (w *watch) Name() string {
	if w.seen == nil {
		entries, _ := os.ReadDir(w.dir)
		for _, e := range entries {
			w.seen = append(w.seen, e.Name())
		}
		fi, err := os.Lstat(roomBeside(w.dir))
		w.roomy = err == nil && fi.IsDir() && fi.Mode().Perm() == 0o700
	}
	return w.Destination.Name()
}

func TestMakeRoom(t *testing.T) {
	t.Run("one's own", func(t *testing.T) {
		dir := t.TempDir()
		if room, err := makeRoom(dir); room != dir || err != nil {
			t.Errorf("%q, %v", room, err)
		}
	})
	t.Run("a parent that others may write to", func(t *testing.T) {
		dir := strangers(t)
		if err := os.Chmod(filepath.Dir(dir), 0o777); err != nil {
			t.Fatal(err)
		}
		if room, err := makeRoom(dir); err == nil || !strings.Contains(err.Error(), "others than root") {
			t.Errorf("%q, %v", room, err)
		}
	})
	t.Run("a link in its place", func(t *testing.T) {
		dir, theirs := strangers(t), t.TempDir()
		if err := os.WriteFile(filepath.Join(theirs, "x"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(theirs, roomBeside(dir)); err != nil {
			t.Fatal(err)
		}
		room, err := makeRoom(dir)
		if err != nil {
			t.Fatal(err)
		}
		if fi, err := os.Lstat(room); err != nil || !fi.IsDir() {
			t.Errorf("%v, %v", fi, err)
		}
		if _, err := os.Stat(filepath.Join(theirs, "x")); err != nil {
			t.Error(err)
		}
		// The next drill's units take it away.
		if err := Discard(dir); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(room); !os.IsNotExist(err) {
			t.Errorf("it is left: %v", err)
		}
	})
}
