package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"strongroom.example/config"
)

// An unmounted disk leaves a folder of the same name, which is not taken for it: neither
// by take nor by verify. What is there stays untouched, and the other place is served.
func TestDiskThatIsNotMounted(t *testing.T) {
	k, src := newKeys(t), bytesSource(buildArchive(t, archiveSpec{}))
	disk, other := t.TempDir(), newMem("other")
	path := filepath.Join(t.TempDir(), "mnt")
	mount := func() {
		t.Helper()
		if err := errors.Join(os.RemoveAll(path), os.Symlink(disk, path)); err != nil {
			t.Fatal(err)
		}
	}
	unmount := func() {
		t.Helper()
		if err := errors.Join(os.RemoveAll(path), os.Mkdir(path, 0o700)); err != nil {
			t.Fatal(err)
		}
	}
	mount()
	place := func() Destination { return NewPlace(config.BackupTo{Type: config.BackupDir, Path: path}, nil) }
	o := takeOptions(t, k, src, place(), other)
	take := func() (Taken, error) {
		o.Destinations = []Destination{place(), other}
		return Take(t.Context(), o)
	}
	verify := func() error {
		v := verifyOptions(t, k, nil)
		v.ClusterID, v.TakeStateDir = "", o.StateDir
		_, err := VerifyPlaces(t.Context(), []Destination{place(), other}, v)
		return err
	}
	if _, err := take(); err != nil {
		t.Fatal(err)
	}
	if err := verify(); err != nil {
		t.Fatal(err)
	}
	unmount()
	taken, err := take()
	if !errors.Is(err, ErrPlace) || !errors.Is(err, ErrMounted) || !slices.Equal(taken.Held, []string{"other"}) {
		t.Errorf("unmounted: held by %q, %v", taken.Held, err)
	}
	if left, err := os.ReadDir(path); err != nil || len(left) > 0 {
		t.Errorf("it has stored on the wrong disk: %v, %v", left, err)
	}
	if err := verify(); !errors.Is(err, ErrMounted) {
		t.Errorf("verify: %v", err)
	}
	mount()
	if _, err := take(); err != nil {
		t.Errorf("mounted again: %v", err)
	}

	// Another disk, with a marker of its own, is another place, until the operator says so.
	first := disk
	disk = t.TempDir()
	if err := os.WriteFile(filepath.Join(disk, MarkerFile), []byte(`{"id":"another"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	mount()
	if _, err := take(); !errors.Is(err, ErrMounted) {
		t.Errorf("another disk: %v", err)
	}
	o.AdoptPlaces = true
	if _, err := take(); err != nil {
		t.Errorf("adopted: %v", err)
	}
	o.AdoptPlaces, disk = false, first
	mount()
	if _, err := take(); !errors.Is(err, ErrMounted) {
		t.Errorf("the first one again: %v", err)
	}
}

// A place of an earlier version has no marker: it gets one where what was stored last is
// there. A machine that knows nothing takes what it finds.
func TestPlaceWithoutAMarker(t *testing.T) {
	k, src := newKeys(t), bytesSource(buildArchive(t, archiveSpec{}))
	dir := t.TempDir()
	d, err := NewDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	o := takeOptions(t, k, src, d)
	first, err := Take(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	s, err := LoadTakeState(o.StateDir)
	if err != nil || s.Markers[d.Name()] == "" {
		t.Fatalf("%+v, %v", s, err)
	}
	forget := func() {
		t.Helper()
		s.Markers = nil
		if err := errors.Join(s.save(o.StateDir), os.Remove(filepath.Join(dir, MarkerFile))); err != nil {
			t.Fatal(err)
		}
	}
	forget()
	if _, err := Take(t.Context(), o); err != nil {
		t.Errorf("what was stored last is there: %v", err)
	}
	forget()
	if err := os.RemoveAll(filepath.Join(dir, testCluster)); err != nil {
		t.Fatal(err)
	}
	if _, err := Take(t.Context(), o); !errors.Is(err, ErrMounted) || !strings.Contains(err.Error(), first.Manifest.ID) {
		t.Errorf("what was stored last is gone: %v", err)
	}
	fresh := takeOptions(t, k, src, d)
	if _, err := Take(t.Context(), fresh); err != nil {
		t.Errorf("a machine that knows nothing: %v", err)
	}
	again := takeOptions(t, k, src, d)
	if _, err := Take(t.Context(), again); err != nil {
		t.Errorf("another one, which finds a marker: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, MarkerFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Take(t.Context(), again); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a damaged marker: %v", err)
	}
}

// One fault is one alert: of a place that the taking job could not reach either it has
// told. What is wrong with a place is remembered until that place is good again.
func TestOneFaultIsToldOnce(t *testing.T) {
	k, src := newKeys(t), bytesSource(buildArchive(t, archiveSpec{}))
	good, sick := newMem("good"), &failing{mem: newMem("sick"), n: 1, err: fmt.Errorf("%w: says the test", ErrUnreachable)}
	o := takeOptions(t, k, src, good, sick)
	if _, err := Take(t.Context(), o); !errors.Is(err, ErrUnreachable) {
		t.Fatal(err)
	}
	if s, err := LoadTakeState(o.StateDir); err != nil || len(s.Failures) != 1 || s.Failures["sick"].Error == "" {
		t.Errorf("%+v, %v", s, err)
	}
	verify := func(passOver bool, places ...Destination) (VerifyState, error) {
		v := verifyOptions(t, k, nil)
		v.ClusterID, v.TakeStateDir, v.PassOver = testCluster, o.StateDir, passOver
		_, err := VerifyPlaces(t.Context(), places, v)
		s, lerr := LoadVerifyState(v.StateDir)
		if lerr != nil {
			t.Fatal(lerr)
		}
		return s, err
	}
	sick.n, sick.calls = 1, 0
	if s, err := verify(true, good, sick); err != nil || s.Failure != nil || s.Failures["sick"].Error == "" || s.LastGood["good"].ID == "" {
		t.Errorf("%+v, %v", s, err)
	}
	sick.calls = 0
	if _, err := verify(false, good, sick); !errors.Is(err, ErrUnreachable) {
		t.Errorf("by hand: %v", err)
	}
	sick.calls = 0
	if _, err := verify(true, sick); err == nil {
		t.Error("nothing could be asked, and that is well")
	}
	// Another fault is told.
	sick.calls, sick.err = 0, ErrCorrupt
	if _, err := verify(true, good, sick); !errors.Is(err, ErrCorrupt) {
		t.Errorf("another fault: %v", err)
	}
}

// A place that is not asked keeps its failure, until that is long gone.
func TestFailureOfAnotherPlace(t *testing.T) {
	a, b := newMem("a"), newMem("b")
	at := testTime
	all := settle(nil, at, []Destination{a, b}, map[string]error{"a": ErrFull, "b": ErrDenied})
	all = settle(all, at.Add(time.Hour), []Destination{b}, nil)
	if len(all) != 1 || all["a"].Error == "" {
		t.Errorf("%+v", all)
	}
	if all = settle(all, at.Add(48*time.Hour), []Destination{b}, nil); len(all) != 0 {
		t.Errorf("%+v", all)
	}
}

// Files that are named and not there are no empty archive that passes for them; a link is
// followed where it is what was named.
func TestFilesThatAreLinks(t *testing.T) {
	dir := t.TempDir()
	lay(t, filepath.Join(dir, "real", "key"))
	link, dead := filepath.Join(dir, "link"), filepath.Join(dir, "dead")
	if err := errors.Join(os.Symlink(filepath.Join(dir, "real"), link), os.Symlink(filepath.Join(dir, "none"), dead)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		paths []string
		want  string
		fails bool
	}{
		{"a link", []string{link}, "real/key", false},
		{"a link to a file", []string{filepath.Join(link, "key")}, "real/key", false},
		{"a link that leads nowhere", []string{link, dead}, "", true},
		{"a typing error", []string{filepath.Join(dir, "rael")}, "", true},
		{"one that is not there yet", []string{link, filepath.Join(dir, "later")}, "real/key", false},
		{"none", nil, "", false},
	} {
		var b bytes.Buffer
		err := FilesFrom(tt.paths...)(t.Context(), &b)
		if (err != nil) != tt.fails || !strings.Contains(b.String(), tt.want) {
			t.Errorf("%s: %v, %d bytes", tt.name, err, b.Len())
		}
	}
}
