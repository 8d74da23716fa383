package snapshot

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

// clocks are what a machine's clock did between five things that it wrote.
var clocks = map[string][]time.Duration{
	"right":                       {0, time.Hour, 2 * time.Hour, 3 * time.Hour, 4 * time.Hour},
	"ahead, then right":           {0, 9000 * time.Hour, 9001 * time.Hour, 3 * time.Hour, 4 * time.Hour},
	"behind, then right":          {0, -9000 * time.Hour, -8999 * time.Hour, 3 * time.Hour, 4 * time.Hour},
	"ahead, behind, then right":   {0, 9000 * time.Hour, -9000 * time.Hour, 3 * time.Hour, 4 * time.Hour},
	"behind at the end":           {0, time.Hour, 2 * time.Hour, 3 * time.Hour, -9000 * time.Hour},
	"ahead from the start":        {9000 * time.Hour, 9001 * time.Hour, 2 * time.Hour, 3 * time.Hour, 4 * time.Hour},
	"a year back and back again":  {0, time.Hour, -9000 * time.Hour, 2 * time.Hour, 3 * time.Hour},
	"one second, five times over": {0, 0, 0, 0, 0},
}

// Of what a restore has replaced the last ones stay, whatever the clock said, and never
// does the one go that was kept just now.
func TestKeepLastAsksNoDate(t *testing.T) {
	for name, offsets := range clocks {
		for _, by := range []string{"lineage", "index", "another cluster"} {
			t.Run(name+", by "+by, func(t *testing.T) {
				k, d := newKeys(t), newMem("mem")
				var ids []ID
				for i, off := range offsets {
					s := storage{index: uint64(100 * (i + 1))} //nolint:gosec // small
					if by == "lineage" {                       // each restore goes back in the index
						s = storage{index: uint64(1000 - 100*i), lineage: &Lineage{ID: "l" + string(rune('a'+i)), Epoch: int64(i)}} //nolint:gosec // small
					}
					if last := i == len(offsets)-1; last && by == "another cluster" {
						s.index = 1
					}
					ids = append(ids, s.takeAt(t, d, k, testTime.Add(off), false))
				}
				last := ids[len(ids)-1]
				d.objects[ID{testCluster, "20261124T000000Z-00000000"}.object(suffixSnap)] = []byte("left by a kill")
				gone, err := KeepLast(t.Context(), d, 2, last, testTime)
				if err != nil || gone != 4 {
					t.Errorf("%d are gone, %v", gone, err)
				}
				left, err := List(t.Context(), d, "")
				if err != nil {
					t.Fatal(err)
				}
				var got []ID
				for _, e := range left {
					got = append(got, e.ID)
				}
				if !slices.Contains(got, last) || len(got) != 2 || by != "another cluster" && !slices.Contains(got, ids[3]) {
					t.Errorf("left %v of %v", got, ids)
				}
			})
		}
	}
}

// Retention, whatever the clock did: what was written last is there afterwards, and so is
// all that the policy has room for.
func TestRetentionAsksNoDateForTheNewest(t *testing.T) {
	for name, offsets := range clocks {
		for _, now := range []time.Duration{-9100 * time.Hour, 5 * time.Hour, 9100 * time.Hour} {
			t.Run(name+", looked at "+now.String(), func(t *testing.T) {
				k, d := newKeys(t), newMem("mem")
				var s storage
				var ids []ID
				for _, off := range offsets {
					ids = append(ids, s.takeAt(t, d, k, testTime.Add(off), true))
				}
				for range 3 { // and again: nothing more goes
					o := pruneOptions(d, Policy{Hourly: 2})
					o.Now = func() time.Time { return testTime.Add(now) }
					res, err := Prune(t.Context(), o)
					if err != nil {
						t.Fatal(err)
					}
					for _, dec := range res.Decisions {
						if dec.Entry.InDoubt(o.Now()) && !dec.Keep {
							t.Errorf("%s, dated after now, is deleted", dec.Entry.ID)
						}
					}
				}
				m, err := NewestVerified(t.Context(), d, testCluster)
				if err != nil || m.ID != ids[len(ids)-1].String() {
					t.Errorf("the newest is %s, %v; want %s", m.ID, err, ids[len(ids)-1])
				}
				left, err := List(t.Context(), d, testCluster)
				if err != nil || len(left) < 2 && name != "one second, five times over" {
					t.Errorf("%d are left, %v", len(left), err)
				}
			})
		}
	}
}

// Of an hour in which the clock went back the one stays that was written last.
func TestBestOfAPeriodIsTheNewest(t *testing.T) {
	k, d := newKeys(t), newMem("mem")
	var s storage
	first := s.takeAt(t, d, k, testTime.Add(40*time.Minute), true)
	second := s.takeAt(t, d, k, testTime.Add(10*time.Minute), true)
	s.takeAt(t, d, k, testTime.Add(2*time.Hour), true)
	entries, err := InOrder(t.Context(), d, testCluster)
	if err != nil {
		t.Fatal(err)
	}
	hour := func(at time.Time) time.Time { return at.Truncate(time.Hour) }
	slices.SortFunc(entries, func(a, b Entry) int { return a.ID.Time().Compare(b.ID.Time()) })
	if got := bestOf(entries, 2, hour); len(got) != 2 || got[1] != second {
		t.Errorf("%v, want %s and not %s", got, second, first)
	}
}

// One whose manifest is damaged has an hour of its own; no good one goes for it.
func TestADamagedManifestTakesNoHour(t *testing.T) {
	k, d := newKeys(t), newMem("mem")
	var s storage
	good := s.takeAt(t, d, k, testTime, true)
	bad := s.takeAt(t, d, k, testTime.Add(time.Hour), true)
	s.takeAt(t, d, k, testTime.Add(2*time.Hour), true)
	d.objects[bad.object(suffixManifest)] = []byte("{")
	o := pruneOptions(d, Policy{Hourly: 2})
	o.Now = func() time.Time { return testTime.Add(5 * time.Hour) }
	if _, err := Prune(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Stat(t.Context(), good.object(suffixSnap)); err != nil {
		t.Errorf("the last but one of the good is gone: %v", err)
	}
}

// A place that lists by halves hides the newest from verify and shows it to prune: what
// was read back in the same run stays all the same, as the newest may have rotted.
func TestWhatWasReadBackJustNowStays(t *testing.T) {
	k, d := newKeys(t), newMem("mem")
	var s storage
	good := s.takeAt(t, d, k, testTime, true)
	s.takeAt(t, d, k, testTime.Add(time.Minute), true)
	hiding := &hides{mem: d, good: good, hidden: true}
	v := verifyOptions(t, k, hiding)
	v.Then = func(ctx context.Context, _ Destination, _ string, read ID) error {
		hiding.hidden = false
		o := pruneOptions(hiding, Policy{Hourly: 1})
		o.Good = read
		_, err := Prune(ctx, o)
		return err
	}
	if rec, err := Verify(t.Context(), v); err != nil || rec.ID != good.String() {
		t.Fatalf("verified %s, %v", rec.ID, err)
	}
	if _, err := d.Stat(t.Context(), good.object(suffixSnap)); err != nil {
		t.Errorf("what was read back is gone: %v", err)
	}
}

// hides lists one snapshot alone, while it does.
type hides struct {
	*mem
	good   ID
	hidden bool
}

func (h *hides) List(ctx context.Context, prefix string) ([]ObjectInfo, error) {
	all, err := h.mem.List(ctx, prefix)
	return slices.DeleteFunc(all, func(o ObjectInfo) bool { return h.hidden && !strings.HasPrefix(o.Name, h.good.String()) }), err
}

// What verify finds damaged is proven no more: else prune deletes the good one of the
// same hour for it, and restore tries it first.
func TestAProofOfWhatIsDamagedIsWithdrawn(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(d *mem, id ID)
		again  bool // only the first look fails
		locked bool
		gone   bool
	}{
		"a byte":          {func(d *mem, id ID) { d.objects[id.object(suffixSnap)][50] ^= 1 }, false, false, true},
		"cut":             {func(d *mem, id ID) { d.objects[id.object(suffixSnap)] = d.objects[id.object(suffixSnap)][:50] }, false, false, true},
		"object lock":     {func(d *mem, id ID) { d.objects[id.object(suffixSnap)][50] ^= 1 }, false, true, false},
		"at one look":     {func(*mem, ID) {}, true, false, false},
		"another's fault": {func(d *mem, id ID) { delete(d.objects, id.object(suffixSnap)) }, false, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			k, d := newKeys(t), newMem("mem")
			var s storage
			good := s.takeAt(t, d, k, testTime, true)
			bad := s.takeAt(t, d, k, testTime.Add(time.Minute), true)
			for object, data := range d.objects {
				d.objects[object] = slices.Clone(data)
			}
			c.damage(d, bad)
			if c.locked {
				d.locked[bad.object(suffixProof)] = testTime.AddDate(1, 0, 0)
			}
			v := verifyOptions(t, k, d)
			v.ID = bad
			if c.again {
				v.Destination = &oneBadLook{mem: d, name: bad.object(suffixSnap)}
			}
			pruned := false
			v.Then = func(ctx context.Context, _ Destination, _ string, _ ID) error {
				pruned = true
				_, err := Prune(ctx, pruneOptions(d, Policy{Hourly: 1}))
				return err
			}
			if _, err := Verify(t.Context(), v); (err == nil) != c.again {
				t.Errorf("verify: %v", err)
			}
			if _, err := d.Stat(t.Context(), bad.object(suffixProof)); errors.Is(err, ErrNotFound) != c.gone {
				t.Errorf("the proof: %v", err)
			}
			if _, err := d.Stat(t.Context(), good.object(suffixSnap)); err != nil && !c.again || pruned == c.locked {
				t.Errorf("the good one: %v; pruned %t", err, pruned)
			}
		})
	}
}

// oneBadLook gives other bytes at the first look.
type oneBadLook struct {
	*mem
	name string
	seen bool
}

func (o *oneBadLook) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	if name == o.name && !o.seen {
		o.seen = true
		return io.NopCloser(bytes.NewReader(make([]byte, len(o.objects[name])))), nil
	}
	return o.mem.Get(ctx, name)
}

// Nothing goes for the sake of one that has rotted since its proof: whoever prunes without
// having verified reads it, by the manifest's sums and no key.
func TestPruneReadsWhatOthersGoFor(t *testing.T) {
	for name, c := range map[string]struct {
		spoil string // the object's suffix
		cut   bool
		good  bool // it was read back a moment ago
		want  error
	}{
		"sound":               {},
		"verified just now":   {good: true},
		"the snapshot rotted": {spoil: suffixSnap, want: ErrCorrupt},
		"its files rotted":    {spoil: suffixFiles, want: ErrCorrupt},
		"cut":                 {spoil: suffixSnap, cut: true, want: ErrMismatch},
	} {
		t.Run(name, func(t *testing.T) {
			k, d := newKeys(t), &watchedPlace{mem: newMem("mem")}
			var ids []ID
			for i := range 3 {
				o := takeOptions(t, k, bytesSource(buildArchive(t, archiveSpec{index: uint64(i + 1)})), d)
				o.Now = clock(testTime.Add(time.Duration(i) * time.Minute))
				o.Files = func(_ context.Context, w io.Writer) error { return tar.NewWriter(w).Close() }
				taken, err := Take(t.Context(), o)
				if err != nil {
					t.Fatal(err)
				}
				ids = append(ids, mustID(t, taken.Manifest.ID))
				v := verifyOptions(t, k, d)
				v.ID = ids[i]
				if _, err := Verify(t.Context(), v); err != nil {
					t.Fatal(err)
				}
			}
			newest := ids[2]
			if c.spoil != "" {
				data := []byte(d.copy()[newest.object(c.spoil)])
				if data[len(data)/2] ^= 1; c.cut {
					data = data[:len(data)-1]
				}
				d.objects[newest.object(c.spoil)] = data
			}
			d.since()
			o := PruneOptions{Destination: d, ClusterID: testCluster, Policy: Policy{Hourly: 1}, Now: clock(testTime.Add(time.Hour))}
			if c.good {
				o.Good = newest
			}
			res, err := Prune(t.Context(), o)
			if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
				t.Errorf("%v, want %v", err, c.want)
			}
			want := 2
			if c.want != nil {
				want = 0
			}
			if res.Deleted != want {
				t.Errorf("%d deleted, want %d", res.Deleted, want)
			}
			if read := len(d.since()) > 0; read == (c.good || c.cut) {
				t.Errorf("it was read: %v", read)
			}
			if c.want != nil {
				return
			}
			if _, err := Prune(t.Context(), o); err != nil || len(d.since()) > 0 {
				t.Errorf("nothing goes, and it was read again: %v", err)
			}
		})
	}
}
