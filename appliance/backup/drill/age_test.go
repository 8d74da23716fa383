package drill

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"strongroom.example/appliance/backup/drill/report"
	"strongroom.example/appliance/backup/snapshot"
)

// A clock in doubt, then or now, decides nothing: that is not passed, and not failed.
func TestClockInDoubtDecidesNothing(t *testing.T) {
	manifest := snapshot.Manifest{ClusterID: cluster, Canary: &snapshot.Canary{Version: 4, SHA256: snapshot.CanarySum(canaryValue)}}
	then := manifest
	then.ClockInDoubt = true
	for name, tt := range map[string]struct {
		now      string
		manifest snapshot.Manifest
	}{"now": {"says the test", manifest}, "when it was taken": {"", then}} {
		r := newTestRun(t, sound())
		r.fetched.ClockDoubt = tt.now
		if err := r.outcome(r.look(t.Context(), tt.manifest)); !errors.Is(err, ErrTooOld) {
			t.Errorf("%s: %v", name, err)
		}
		if got := r.rep.Verdict(); got != "UNDECIDED" || !strings.Contains(r.rep.Text(), ": UNDECIDED\n") {
			t.Errorf("%s: %s\n%s", name, got, r.rep.Text())
		}
	}
}

// Only where nothing else failed a later snapshot may do better.
func TestTooOldAlone(t *testing.T) {
	for name, tt := range map[string]struct {
		checks []report.Check
		tooOld bool
		again  bool
	}{
		"old":                 {[]report.Check{{Name: "age", Verdict: report.Fail}}, true, true},
		"undecided":           {[]report.Check{{Name: "age", Verdict: report.Undecided}}, false, true},
		"another check":       {[]report.Check{{Name: "engine", Verdict: report.Fail}}, false, false},
		"old and another one": {[]report.Check{{Name: "age", Verdict: report.Fail}, {Name: "engine", Verdict: report.Fail}}, true, false},
		"both undecided":      {[]report.Check{{Name: "age", Verdict: report.Undecided}, {Name: "engine", Verdict: report.Fail}}, false, false},
	} {
		r := newTestRun(t, sound())
		r.rep.Checks, r.tooOld = tt.checks, tt.tooOld
		if err := r.outcome(nil); !errors.Is(err, ErrFailed) || errors.Is(err, ErrTooOld) != tt.again {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A snapshot that somebody has chosen proves nothing of the quarter's: neither its
// report, nor what it takes away of a failure.
func TestChosenIsNotTheQuarters(t *testing.T) {
	s := newPlace(t)
	id, err := snapshot.ParseID(s.take(t, cluster, noon, true))
	if err != nil {
		t.Fatal(err)
	}
	state := t.TempDir()
	if err := RecordFetchFailure(state, noon, errors.New("no route")); err != nil {
		t.Fatal(err)
	}
	f, err := Fetch(t.Context(), FetchOptions{Destinations: []snapshot.Destination{s}, ID: id, StateDir: state})
	if err != nil || !f.Chosen {
		t.Fatalf("%+v, %v", f, err)
	}
	if failed, err := report.LastFetchFailure(state); err != nil || failed == nil {
		t.Errorf("the failure is forgotten: %+v, %v", failed, err)
	}
	r := newTestRun(t, sound())
	r.fetched = f
	r.describe()
	r.rep.Passed = true
	if err := store(state, r.rep, nil); err != nil || r.rep.Kind != report.KindChosen {
		t.Fatalf("%q, %v", r.rep.Kind, err)
	}
	if last, err := report.Last(state); err != nil || last != nil {
		t.Errorf("it is the last drill: %+v, %v", last, err)
	}
	if last, err := LastPassed(state); err != nil || last != nil {
		t.Errorf("it is the last drill that passed: %+v, %v", last, err)
	}
	gone, err := snapshot.ParseID(cluster + "/20200101T000000Z-00000000")
	if err != nil {
		t.Fatal(err)
	}
	// Nor by its failure, also where nothing was fetched.
	for _, o := range []FetchOptions{
		{Destinations: []snapshot.Destination{s}, ID: gone}, {Destinations: []snapshot.Destination{newPlace(t)}, Cluster: cluster, Chosen: true},
	} {
		if rep, err := FetchAndRun(t.Context(), o, Options{StateDir: state}); err == nil || rep == nil || rep.Kind != report.KindChosen {
			t.Errorf("%+v, %v", rep, err)
		}
		if last, err := report.Last(state); err != nil || last != nil {
			t.Errorf("what was chosen and failed is the last drill: %+v, %v", last, err)
		}
	}
	j := FetchJob{StateDir: t.TempDir(), Chosen: true, Now: time.Now, Options: func(context.Context) (FetchOptions, error) { return FetchOptions{}, errors.New("bad configuration") }}
	if _, err := j.Run(t.Context()); err == nil {
		t.Error("it passed")
	}
	if failed, err := report.LastFetchFailure(j.StateDir); err != nil || failed != nil {
		t.Errorf("its failure is the quarter's: %+v, %v", failed, err)
	}
}

// After a start a drill waits for a snapshot that is not too old, and no longer than it
// may; then it takes what there is.
func TestWaitForAFreshSnapshot(t *testing.T) {
	s := newPlace(t)
	now := noon.Add(5 * time.Hour)
	old := s.take(t, cluster, noon, true)
	for _, tt := range []struct {
		name    string
		fresh   int // look after which there is a fresh one; 0: never
		wait    time.Duration
		looks   int
		fetched string
	}{
		{"none comes", 0, time.Hour, 60, old},
		{"nobody waits", 0, 0, 0, old},
		{"one comes", 3, time.Hour, 3, ""},
		{"there is one", 0, time.Hour, 0, ""},
	} {
		looks := 0
		newer := tt.fetched
		j := FetchJob{
			StateDir: t.TempDir(), Fresh: 2 * time.Hour, Wait: tt.wait, Now: func() time.Time { return now },
			Pause: func(_ context.Context, d time.Duration) error {
				if looks++; looks == tt.fresh {
					newer = s.take(t, cluster, now.Add(-time.Minute), true)
				}
				now = now.Add(d)
				return nil
			},
		}
		j.Options = func(context.Context) (FetchOptions, error) {
			return FetchOptions{Destinations: []snapshot.Destination{s}, Cluster: cluster, StateDir: j.StateDir, Now: j.Now, Doubt: func() error { return nil }}, nil
		}
		f, err := j.Run(t.Context())
		if err != nil || looks != tt.looks || newer != "" && f.ID != newer {
			t.Errorf("%s: %d looks, %+v, %v", tt.name, looks, f, err)
		}
	}
}
