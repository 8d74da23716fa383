package snapshot

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"strongroom.example/appliance/base/pause"
)

// watchedPlace notes which snapshots are read, and holds who reads one up.
type watchedPlace struct {
	*mem
	mu   sync.Mutex
	read []string
	hold chan struct{} // nil: nobody
}

func (p *watchedPlace) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	if id, suffix, _ := splitObject(name); suffix == suffixSnap {
		p.mu.Lock()
		p.read = append(p.read, id.Base)
		hold := p.hold
		p.mu.Unlock()
		if hold != nil {
			select {
			case <-hold:
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		}
	}
	return p.mem.Get(ctx, name)
}

// since gives what was read since it was last asked.
func (p *watchedPlace) since() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := p.read
	p.read = nil
	return out
}

// besideWorld is a machine with two places.
type besideWorld struct {
	keys
	t         *testing.T
	a, b      *watchedPlace
	state     string
	verifying VerifyOptions
	index     uint64
}

func newBesideWorld(t *testing.T) *besideWorld {
	w := &besideWorld{keys: newKeys(t), t: t, a: &watchedPlace{mem: newMem("a")}, b: &watchedPlace{mem: newMem("b")}, state: t.TempDir()}
	w.verifying = verifyOptions(t, w.keys, nil)
	w.verifying.TakeStateDir, w.verifying.ClusterID, w.verifying.Beside = w.state, testCluster, true
	w.verifying.Now, w.verifying.Doubt, w.verifying.Stall = time.Now, func() error { return nil }, time.Hour
	return w
}

// notes has the taking job note something that is of no place.
func (w *besideWorld) notes() {
	w.t.Helper()
	s, err := LoadTakeState(w.state)
	if s.CanaryFailure == nil {
		s.CanaryFailure = &Failure{At: time.Now(), Error: "a note"}
	} else {
		s.CanaryFailure = nil
	}
	if err := errors.Join(err, s.save(w.state)); err != nil {
		w.t.Fatal(err)
	}
}

// passes lets the bubble's clock go on.
func (w *besideWorld) passes(d time.Duration) {
	w.t.Helper()
	if err := pause.For(w.t.Context(), d); err != nil {
		w.t.Fatal(err)
	}
}

// take stores to some places; began is when the job did, now when zero.
func (w *besideWorld) take(began time.Time, to ...Destination) string {
	w.t.Helper()
	w.passes(time.Second)
	w.index += 10
	o := takeOptions(w.t, w.keys, bytesSource(buildArchive(w.t, archiveSpec{index: w.index})), to...)
	o.StateDir, o.Now, o.Began = w.state, time.Now, began
	taken, err := Take(w.t.Context(), o)
	if err != nil {
		w.t.Fatal(err)
	}
	return mustID(w.t, taken.Manifest.ID).Base
}

func (w *besideWorld) verify() {
	w.t.Helper()
	w.passes(time.Second)
	if _, err := VerifyPlaces(w.t.Context(), []Destination{w.a, w.b}, w.verifying); err != nil {
		w.t.Error(err)
	}
}

func (w *besideWorld) wasRead(what string, a, b []string) {
	w.t.Helper()
	if gotA, gotB := w.a.since(), w.b.since(); !slices.Equal(gotA, a) || !slices.Equal(gotB, b) {
		w.t.Errorf("%s: read %q and %q, want %q and %q", what, gotA, gotB, a, b)
	}
}

// Each place is read back when it has taken a snapshot, and once for each take.
func TestVerifyBesideATake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newBesideWorld(t)
		first := w.take(time.Time{}, w.a, w.b)
		w.verify()
		w.wasRead("the first take", []string{first}, []string{first})
		w.notes()
		w.verify()
		w.wasRead("started again by the same take", nil, nil)
		w.verify()
		w.wasRead("by a person", []string{first}, []string{first})

		w.passes(time.Hour)
		began := time.Now()
		second := w.take(began, w.a)
		w.verify()
		w.wasRead("b still takes", []string{second}, []string{first})
		if good, err := LoadVerifyState(w.verifying.StateDir); err != nil || mustID(t, good.LastGood["a"].ID).Base != second {
			t.Errorf("%+v, %v", good, err)
		}
		late := w.take(began, w.b) // as a later try of the same job does
		w.verify()
		w.wasRead("b has taken it", nil, []string{late})
		w.notes()
		w.verify()
		w.wasRead("the end of the job", nil, nil)

		w.passes(time.Hour)
		if err := RecordTakeFailure(w.state, time.Now(), time.Now(), errors.New("Vault is sealed")); err != nil {
			t.Fatal(err)
		}
		w.verify()
		w.wasRead("a job that came to nothing", []string{second}, []string{late})
		w.notes()
		w.verify()
		w.wasRead("its end", nil, nil)
	})
}

// What is not known to have been read since the take began is read.
func TestVerifyBesideIsSure(t *testing.T) {
	for name, spoil := range map[string]func(w *besideWorld, s *VerifyState, taken *TakeState){
		"verified after now": func(_ *besideWorld, s *VerifyState, _ *TakeState) {
			s.LastGood["a"] = at(s.LastGood["a"], time.Now().Add(time.Hour))
		},
		"verified before it began": func(_ *besideWorld, s *VerifyState, taken *TakeState) {
			s.LastGood["a"] = at(s.LastGood["a"], taken.Began.Add(-1))
		},
		"it failed": func(_ *besideWorld, s *VerifyState, _ *TakeState) {
			s.Failures = map[string]Failure{"a": {At: time.Now(), Error: "x"}}
		},
		"nothing is known": func(_ *besideWorld, s *VerifyState, _ *TakeState) { delete(s.LastGood, "a") },
		"another manifest": func(_ *besideWorld, s *VerifyState, _ *TakeState) {
			rec := s.LastGood["a"]
			rec.ManifestSHA256 = "0"
			s.LastGood["a"] = rec
		},
		"no news":           func(_ *besideWorld, _ *VerifyState, taken *TakeState) { taken.CanaryFailure = nil },
		"a state of before": func(_ *besideWorld, _ *VerifyState, taken *TakeState) { taken.Began = time.Time{} },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newBesideWorld(t)
				id := w.take(time.Time{}, w.a, w.b)
				w.verify()
				w.a.since()
				good, gerr := LoadVerifyState(w.verifying.StateDir)
				taken, terr := LoadTakeState(w.state)
				taken.CanaryFailure = &Failure{At: time.Now(), Error: "news"}
				spoil(w, &good, &taken)
				if err := errors.Join(gerr, terr, good.save(w.verifying.StateDir), taken.save(w.state)); err != nil {
					t.Fatal(err)
				}
				w.verify()
				if got := w.a.since(); !slices.Equal(got, []string{id}) {
					t.Errorf("read %q", got)
				}
			})
		})
	}
}

func at(r VerifiedRecord, t time.Time) VerifiedRecord {
	r.VerifiedAt = t
	return r
}

// While one place is read for hours, the other's next snapshots are verified and pruned;
// then the slow one's newest is, too.
func TestVerifyWaitsForNoSickPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newBesideWorld(t)
		var pruned []string
		var mu sync.Mutex
		w.verifying.Then = func(_ context.Context, d Destination, _ string, good ID) error {
			mu.Lock()
			defer mu.Unlock()
			pruned = append(pruned, d.Name()+" "+good.Base)
			return nil
		}
		first := w.take(time.Time{}, w.a, w.b)
		w.b.hold = make(chan struct{})
		done := make(chan struct{})
		go func() { defer close(done); w.verify() }()
		var all []string
		for range 3 {
			w.passes(10 * time.Minute)
			all = append(all, w.take(time.Time{}, w.a, w.b))
			w.passes(time.Minute)
			good, err := LoadVerifyState(w.verifying.StateDir)
			if err != nil || mustID(t, good.LastGood["a"].ID).Base != all[len(all)-1] || good.LastGood["b"].ID != "" {
				t.Fatalf("%+v, %v", good.LastGood, err)
			}
		}
		w.b.mu.Lock()
		close(w.b.hold)
		w.b.hold = nil
		w.b.mu.Unlock()
		<-done
		w.wasRead("in one run", append([]string{first}, all...), []string{first, all[2]})
		mu.Lock()
		defer mu.Unlock()
		want := []string{"a " + first, "a " + all[0], "a " + all[1], "a " + all[2], "b " + all[2], "b " + first}
		if slices.Sort(pruned); !slices.Equal(pruned, sorted(want)) {
			t.Errorf("pruned %q, want %q", pruned, sorted(want))
		}
	})
}

func sorted(s []string) []string { slices.Sort(s); return s }
