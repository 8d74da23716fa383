package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

// storage is a Vault whose raft index grows, under a lineage.
type storage struct {
	lineage *Lineage
	index   uint64
}

// takeAt takes a snapshot of it, by a clock of its own, and verifies it.
func (s *storage) takeAt(t *testing.T, d Destination, k keys, at time.Time, verify bool) ID {
	t.Helper()
	s.index += 10
	o := takeOptions(t, k, bytesSource(buildArchive(t, archiveSpec{index: s.index})), d)
	o.Now, o.Lineage = func() time.Time { return at }, s.lineage
	taken, err := Take(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	id := mustID(t, taken.Manifest.ID)
	if verify {
		v := verifyOptions(t, k, d)
		v.ID = id
		if _, err := Verify(t.Context(), v); err != nil {
			t.Fatal(err)
		}
	}
	return id
}

// Whatever the clocks said, the newest is what Vault wrote last: for verify, prune,
// and who restores.
func TestNewestAsksNoDate(t *testing.T) {
	const year = 365 * 24 * time.Hour
	for name, offsets := range map[string][]time.Duration{
		"right":                     {0, time.Hour, 2 * time.Hour},
		"ahead, then right":         {-time.Hour, 3 * year, 0},
		"behind, then right":        {-2 * time.Hour, -6 * year, 0},
		"right, then a day back":    {-time.Hour, 0, -24 * time.Hour},
		"ahead, behind, then right": {4 * year, -4 * year, 0},
		"only ever ahead":           {2 * year, 3 * year, 4 * year},
	} {
		t.Run(name, func(t *testing.T) {
			k, d := newKeys(t), newMem("mem")
			var s storage
			var ids []ID
			for _, off := range offsets {
				ids = append(ids, s.takeAt(t, d, k, testTime.Add(off), true))
			}
			last := ids[len(ids)-1]
			if m, err := NewestVerified(t.Context(), d, testCluster); err != nil || m.ID != last.String() {
				t.Errorf("newest verified is %q, %v; want %s", m.ID, err, last)
			}
			if rec, err := Verify(t.Context(), verifyOptions(t, k, d)); err != nil || rec.ID != last.String() {
				t.Errorf("verified %q, %v; want %s", rec.ID, err, last)
			}
			res, err := Prune(t.Context(), pruneOptions(d, Policy{Hourly: 1}))
			if err != nil {
				t.Fatal(err)
			}
			for _, dec := range res.Decisions {
				if future := dec.Entry.ID.Time().After(testTime.Add(time.Hour)); !dec.Keep && (dec.Entry.ID == last || future) {
					t.Errorf("%s is deleted: %s", dec.Entry.ID, dec.Why)
				}
			}
			if m, err := NewestVerified(t.Context(), d, testCluster); err != nil || m.ID != last.String() {
				t.Errorf("after prune: newest verified is %q, %v; want %s", m.ID, err, last)
			}
		})
	}
}

// After a restore of an older one onto a fresh machine the old one's raft index, and its
// clock, may be ahead: what the new machine writes is newer all the same.
func TestNewestAfterARestoreElsewhere(t *testing.T) {
	k, d := newKeys(t), newMem("mem")
	old := storage{lineage: &Lineage{ID: "a", Epoch: 1}}
	left := old.takeAt(t, d, k, testTime.Add(-3*time.Hour), true)
	for i := range 5 {
		old.takeAt(t, d, k, testTime.Add(time.Duration(i)*time.Hour), true) // abandoned
	}
	fresh := storage{lineage: &Lineage{ID: "b", Epoch: 2, Parent: "a", Left: 10}, index: 11}
	first := fresh.takeAt(t, d, k, testTime.Add(-2*time.Hour), true)
	if m, err := NewestVerified(t.Context(), d, testCluster); err != nil || m.ID != first.String() {
		t.Errorf("newest verified is %q, %v; want %s", m.ID, err, first)
	}
	// The abandoned machine goes on, and changes nothing.
	old.takeAt(t, d, k, testTime.Add(9*time.Hour), true)
	if id, err := newest(t.Context(), d, testCluster); err != nil || id != first {
		t.Errorf("newest is %s, %v; want %s", id, err, first)
	}
	res, err := Prune(t.Context(), pruneOptions(d, Policy{Hourly: 1}))
	if err != nil || !slices.ContainsFunc(res.Decisions, func(d Decision) bool { return d.Entry.ID == first && d.Keep }) {
		t.Errorf("%+v, %v", res, err)
	}
	// What an earlier version wrote names none, and is the oldest.
	before := storage{index: 1000}
	before.takeAt(t, d, k, testTime.Add(10*time.Hour), true)
	if id, err := newest(t.Context(), d, testCluster); err != nil || id != first || id == left {
		t.Errorf("newest is %s, %v; want %s", id, err, first)
	}
}

// Two machines restored from the same: nobody can tell whose is newer, so nothing is
// chosen and nothing deleted until somebody says so.
func TestRivals(t *testing.T) {
	k, d := newKeys(t), newMem("mem")
	b, c := storage{lineage: &Lineage{ID: "b", Epoch: 2}}, storage{lineage: &Lineage{ID: "c", Epoch: 2}, index: 3}
	mine := b.takeAt(t, d, k, testTime, true)
	other := c.takeAt(t, d, k, testTime.Add(time.Minute), true)
	before := len(d.copy())
	for what, err := range map[string]error{
		"verify": func() error { _, err := Verify(t.Context(), verifyOptions(t, k, d)); return err }(),
		"newest": func() error { _, err := NewestVerified(t.Context(), d, testCluster); return err }(),
		"prune":  func() error { _, err := Prune(t.Context(), pruneOptions(d, Policy{Hourly: 1})); return err }(),
	} {
		if !errors.Is(err, ErrLineages) || !strings.Contains(err.Error(), mine.String()) || !strings.Contains(err.Error(), other.String()) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if len(d.copy()) != before {
		t.Error("something is gone")
	}
	if err := Retire(t.Context(), d, other, testTime); err != nil {
		t.Fatal(err)
	}
	if m, err := NewestVerified(t.Context(), d, testCluster); err != nil || m.ID != mine.String() {
		t.Errorf("newest verified is %q, %v; want %s", m.ID, err, mine)
	}
}

// A retired one is chosen by nobody, and goes; the last good one stays.
func TestRetire(t *testing.T) {
	k, d := newKeys(t), newMem("mem")
	var s storage
	good := s.takeAt(t, d, k, testTime, true)
	if err := Retire(t.Context(), d, good, testTime); !errors.Is(err, ErrLast) {
		t.Fatalf("the only one: %v", err)
	}
	unverified := s.takeAt(t, d, k, testTime.Add(time.Minute), false)
	if err := Retire(t.Context(), d, good, testTime); !errors.Is(err, ErrLast) {
		t.Fatalf("the only verified one: %v", err)
	}
	ahead := s.takeAt(t, d, k, testTime.AddDate(4, 0, 0), true)
	if err := Retire(t.Context(), d, ID{testCluster, "20300101T000000Z-00000000"}, testTime); !errors.Is(err, ErrNoSnapshot) {
		t.Errorf("none: %v", err)
	}
	for range 2 { // again is as good as once
		if err := Retire(t.Context(), d, ahead, testTime); err != nil {
			t.Fatal(err)
		}
	}
	if id, err := newest(t.Context(), d, testCluster); err != nil || id != unverified {
		t.Errorf("newest is %s, %v", id, err)
	}
	if m, err := NewestVerified(t.Context(), d, testCluster); err != nil || m.ID != good.String() {
		t.Errorf("newest verified is %q, %v", m.ID, err)
	}
	res, err := Prune(t.Context(), pruneOptions(d, Policy{Hourly: 9}))
	if err != nil || res.Deleted != 1 {
		t.Fatalf("%+v, %v", res, err)
	}
	for name := range d.copy() {
		if strings.HasPrefix(name, ahead.String()) {
			t.Errorf("%s is left", name)
		}
	}
}

// While the clock is in doubt nothing goes, whatever the policy says; and after some
// runs that is a failure, which ends with the doubt.
func TestNothingGoesWhileTheClockIsInDoubt(t *testing.T) {
	k, d := newKeys(t), newMem("mem")
	var s storage
	for i := range 3 {
		s.takeAt(t, d, k, testTime.AddDate(-3+i, 0, 0), true)
	}
	before := d.copy()
	wrong := fmt.Errorf("%w: says the test", ErrClock)
	o := pruneOptions(d, Policy{Hourly: 1})
	o.Doubt = func() error { return wrong }
	res, err := Prune(t.Context(), o)
	if err != nil || !errors.Is(res.Doubt, ErrClock) || res.Deleted != 0 || len(d.copy()) != len(before) || res.Decisions[0].Why != KeepClock {
		t.Fatalf("%+v, %v", res, err)
	}
	v := verifyOptions(t, k, d)
	v.Doubt = o.Doubt
	for run := 1; run <= doubtedRuns+1; run++ {
		if _, err := Verify(t.Context(), v); errors.Is(err, ErrClock) != (run > doubtedRuns) {
			t.Errorf("run %d: %v", run, err)
		}
		if s, err := LoadVerifyState(v.StateDir); err != nil || s.ClockDoubted != run {
			t.Errorf("run %d: %+v, %v", run, s, err)
		}
	}
	v.Doubt = nil
	if _, err := Verify(t.Context(), v); err != nil {
		t.Error(err)
	}
	if s, err := LoadVerifyState(v.StateDir); err != nil || s.ClockDoubted != 0 {
		t.Errorf("%+v, %v", s, err)
	}
}

// What was taken by a clock in doubt says so, can be the newest, and never goes.
func TestTakenByAClockInDoubt(t *testing.T) {
	k, d := newKeys(t), newMem("mem")
	var s storage
	o := takeOptions(t, k, bytesSource(buildArchive(t, archiveSpec{index: 500})), d)
	o.Now, o.Doubt = func() time.Time { return testTime.AddDate(-5, 0, 0) }, func() error { return ErrClock }
	taken, err := Take(t.Context(), o)
	if err != nil || !taken.Manifest.ClockInDoubt {
		t.Fatalf("%+v, %v", taken.Manifest, err)
	}
	v := verifyOptions(t, k, d)
	v.TakeStateDir = o.StateDir
	if rec, err := Verify(t.Context(), v); err != nil || !rec.ClockInDoubt {
		t.Errorf("%+v, %v", rec, err)
	}
	s.takeAt(t, d, k, testTime.AddDate(-1, 0, 0), true)
	if m, err := NewestVerified(t.Context(), d, testCluster); err != nil || m.ID != taken.Manifest.ID {
		t.Errorf("newest verified is %q, %v", m.ID, err)
	}
	s.index = 1000
	s.takeAt(t, d, k, testTime, true)
	res, err := Prune(t.Context(), pruneOptions(d, Policy{Hourly: 1}))
	if err != nil || res.Deleted != 1 || !slices.ContainsFunc(res.Decisions, func(d Decision) bool { return d.Why == KeepDoubted }) {
		t.Errorf("%+v, %v", res, err)
	}
}

func TestClockDoubt(t *testing.T) {
	dir := t.TempDir()
	ahead := TakeState{Format: stateFormat, Last: map[string]TakenRecord{"mem": {ID: "x", TakenAt: testTime.Add(time.Hour)}}}
	if err := ahead.save(dir); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name                string
		synchronised, known bool
		state               string
		now                 time.Time
		doubt               bool
	}{
		{"synchronised", true, true, dir, testTime, false},
		{"not synchronised", false, true, dir, testTime.Add(2 * time.Hour), true},
		{"nobody knows, and what was stored is before", false, false, dir, testTime.Add(2 * time.Hour), false},
		{"nobody knows, and what was stored is after", false, false, dir, testTime, true},
		{"nobody knows, within what clocks differ by", false, false, dir, testTime.Add(59*time.Minute + 30*time.Second), false},
		{"nobody knows anything", false, false, "", testTime, false},
		{"nothing was stored", false, false, t.TempDir(), testTime, false},
	} {
		err := clockDoubt(tt.state, tt.now, func() (bool, bool) { return tt.synchronised, tt.known })
		if errors.Is(err, ErrClock) != tt.doubt {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// refusing gives everything but some objects.
type refusing struct {
	*mem
	name string
	err  error
}

func (r refusing) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	if name == r.name {
		return nil, r.err
	}
	return r.mem.Get(ctx, name)
}

// One manifest that cannot be read hides no other snapshot; what nobody can say
// anything of is told and stays.
func TestOneUnreadManifest(t *testing.T) {
	k, d := newKeys(t), newMem("mem")
	var s storage
	bad := s.takeAt(t, d, k, testTime.AddDate(-3, 0, 0), true)
	s.takeAt(t, d, k, testTime.AddDate(-2, 0, 0), true)
	good := s.takeAt(t, d, k, testTime, true)
	r := refusing{d, bad.object(suffixManifest), fmt.Errorf("%w: says the test", ErrDenied)}
	if m, err := NewestVerified(t.Context(), r, testCluster); err != nil || m.ID != good.String() {
		t.Errorf("newest verified is %q, %v", m.ID, err)
	}
	res, err := Prune(t.Context(), pruneOptions(r, Policy{Hourly: 1}))
	if !errors.Is(err, ErrDenied) || res.Deleted != 1 || res.Decisions[0].Why != KeepUnread {
		t.Errorf("%+v, %v", res, err)
	}
	r.err = fmt.Errorf("%w: says the test", ErrUnreachable)
	if _, err := InOrder(t.Context(), r, testCluster); !errors.Is(err, ErrUnreachable) {
		t.Errorf("a place that is gone: %v", err)
	}
	// A damaged one is worth nothing, and goes when its time is over.
	d.objects[bad.object(suffixManifest)] = []byte("{")
	if res, err := Prune(t.Context(), pruneOptions(d, Policy{Hourly: 1})); err != nil || res.Deleted != 1 {
		t.Errorf("%+v, %v", res, err)
	}
}
