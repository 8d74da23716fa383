package drill

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"strongroom.example/appliance/backup/drill/report"
	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/base/statefile"
)

// A fetch that failed for good stays known until one succeeds, and the drill that
// has nothing to work on says why.
func TestFetchFailure(t *testing.T) {
	dir := t.TempDir()
	if f, err := report.LastFetchFailure(dir); f != nil || err != nil {
		t.Fatalf("before any: %+v, %v", f, err)
	}
	if err := RecordFetchFailure(dir, noon, errors.New("bucket: no route; token=PLANTED-canary")); err != nil {
		t.Fatal(err)
	}
	f, err := report.LastFetchFailure(dir)
	if err != nil || !f.At.Equal(noon) || !strings.Contains(f.Error, "no route") || strings.Contains(f.Error, "PLANTED") {
		t.Fatalf("%+v, %v", f, err)
	}
	if fi, err := os.Stat(report.FetchFailurePath(dir)); err != nil || fi.Mode().Perm() != 0o640 {
		t.Errorf("%v, %v", fi, err)
	}
	r, err := Run(t.Context(), Options{StateDir: dir, Now: func() time.Time { return noon.Add(time.Minute) }})
	if !errors.Is(err, ErrNotFetched) || !strings.Contains(r.Failure, "failed at 2026-11-24T12:00:00Z: bucket: no route") {
		t.Errorf("the drill: %+v, %v", r, err)
	}
	o := FetchOptions{Destinations: []snapshot.Destination{down{}}, Cluster: cluster, StateDir: dir}
	if _, err := Fetch(t.Context(), o); err == nil {
		t.Fatal("no error")
	}
	if f, err := report.LastFetchFailure(dir); f == nil || err != nil {
		t.Errorf("after another failure: %+v, %v", f, err)
	}
	p := newPlace(t)
	p.take(t, cluster, noon, true)
	o.Destinations = []snapshot.Destination{p}
	if _, err := Fetch(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if f, err := report.LastFetchFailure(dir); f != nil || err != nil {
		t.Errorf("after a good one: %+v, %v", f, err)
	}
	if err := os.WriteFile(report.FetchFailurePath(dir), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := report.LastFetchFailure(dir); err == nil {
		t.Error("a damaged note is taken")
	}
}

// What is under way counts, not what failed beside it.
func TestFetchFailureBesideADrill(t *testing.T) {
	dir := t.TempDir()
	unlock, err := lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if err := RecordFetchFailure(dir, noon, statefile.ErrBusy); err != nil {
		t.Error(err)
	}
	if f, err := report.LastFetchFailure(dir); f != nil || err != nil {
		t.Errorf("%+v, %v", f, err)
	}
}
