package snapshot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// entriesAt makes entries from times like "2026-11-24 15:00 v" (verified),
// without v (complete), or with i (incomplete).
func entriesAt(t *testing.T, specs ...string) []Entry {
	t.Helper()
	var out []Entry
	for _, s := range specs {
		text, flag, _ := strings.Cut(s, " /")
		at, err := time.Parse("2006-01-02 15:04", text)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, Entry{
			ID:       ID{testCluster, at.Format(stampLayout) + "-00000000"},
			Complete: flag != "i", Verified: flag == "v", ModTime: at,
		})
	}
	return out
}

func TestPolicy(t *testing.T) {
	// A Tuesday.
	now := time.Date(2026, 11, 24, 15, 30, 0, 0, time.UTC)
	tests := []struct {
		name   string
		policy Policy
		have   []string
		anchor int // index, -1 for none
		want   []string
	}{
		{"hours: the newest of each, and not one hour more", Policy{Hourly: 2}, []string{
			"2026-11-24 13:59 /v", "2026-11-24 14:00 /v", "2026-11-24 14:50 /v", "2026-11-24 15:00 /v", "2026-11-24 15:10 /v",
		}, 4, []string{"expired", "expired", "hourly", "expired", "newest verified"}},
		{"a verified one goes before a newer one", Policy{Hourly: 3}, []string{
			"2026-11-24 14:10 /v", "2026-11-24 14:50", "2026-11-24 15:10 /v",
		}, 2, []string{"hourly", "expired", "newest verified"}},
		{"an unverified one is better than none", Policy{Hourly: 3}, []string{
			"2026-11-24 14:10", "2026-11-24 14:50", "2026-11-24 15:10 /v",
		}, 2, []string{"expired", "hourly", "newest verified"}},
		{"days", Policy{Daily: 2}, []string{
			"2026-11-22 23:59 /v", "2026-11-23 00:00 /v", "2026-11-23 23:59 /v", "2026-11-24 00:00 /v",
		}, 3, []string{"expired", "expired", "daily", "newest verified"}},
		{"weeks begin on Monday", Policy{Weekly: 2}, []string{
			"2026-11-15 23:59 /v", "2026-11-16 00:00 /v", "2026-11-22 23:59 /v", "2026-11-23 00:00 /v", "2026-11-24 10:00 /v",
		}, 4, []string{"expired", "expired", "weekly", "expired", "newest verified"}},
		{"months go over the year", Policy{Monthly: 3}, []string{
			"2025-11-30 23:59 /v", "2025-12-01 00:00 /v", "2026-01-31 12:00 /v", "2026-11-24 10:00 /v",
		}, 3, []string{"expired", "monthly", "monthly", "newest verified"}},
		{"the newest verified one stays, however old", Policy{Hourly: 1}, []string{
			"2020-01-01 00:00 /v", "2021-01-01 00:00 /v", "2022-01-01 00:00",
		}, 1, []string{"expired", "newest verified", "newer than the newest verified"}},
		{"nothing verified: nothing goes", Policy{Hourly: 1}, []string{
			"2020-01-01 00:00", "2021-01-01 00:00",
		}, -1, []string{"nothing is verified yet", "nothing is verified yet"}},
		{"a proof that does not hold is none", Policy{Hourly: 1}, []string{
			"2020-01-01 00:00 /v", "2021-01-01 00:00 /v",
		}, -1, []string{"nothing is verified yet", "nothing is verified yet"}},
		{"incomplete ones go after a day", Policy{Hourly: 1}, []string{
			"2026-11-23 15:00 /i", "2026-11-23 16:00 /i", "2026-11-24 15:00 /v",
		}, 2, []string{"incomplete", "may be under way", "newest verified"}},
		{"incomplete ones go where nothing is verified, too", Policy{Hourly: 1}, []string{
			"2026-11-20 15:00 /i", "2026-11-24 15:00",
		}, -1, []string{"incomplete", "nothing is verified yet"}},
		{"a machine that was off keeps what it had", Policy{Hourly: 2, Daily: 3}, []string{
			"2024-05-01 10:00 /v", "2024-05-02 11:00 /v", "2024-05-02 12:00 /v", "2026-11-24 15:10 /v",
		}, 3, []string{"daily", "expired", "hourly", "newest verified"}},
		{"one from the future stays, and counts for no period", Policy{Hourly: 2}, []string{
			"2026-11-24 14:00 /v", "2026-11-24 15:00 /v", "2027-11-25 15:00 /v", "2027-11-25 16:00 /v",
		}, 3, []string{"hourly", "hourly", "from the future", "from the future"}},
		{"one from the future stays", Policy{Hourly: 1}, []string{
			"2026-11-24 15:00 /v", "2026-11-25 15:00", "2026-11-26 15:00 /i",
		}, 0, []string{"newest verified", "from the future", "from the future"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			entries := entriesAt(t, tt.have...)
			var anchor ID
			if tt.anchor >= 0 {
				anchor = entries[tt.anchor].ID
			}
			var got []string
			for _, d := range tt.policy.decide(entries, anchor, now) {
				got = append(got, d.Why)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}

func TestPolicyValidate(t *testing.T) {
	for _, p := range []Policy{{}, {Hourly: -1, Daily: 3}} {
		if p.Validate() == nil {
			t.Errorf("%+v was accepted", p)
		}
	}
	if err := DefaultPolicy.Validate(); err != nil {
		t.Error(err)
	}
}

// Two years of an hourly job with random gaps and failures, pruned after every
// snapshot: what is kept stays bounded, and at any time there is a verified
// snapshot no older than there could be.
func TestPolicyOverYears(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var kept []Entry
	now := time.Date(2025, 1, 1, 0, 7, 0, 0, time.UTC)
	var anchor ID
	years := 2
	if testing.Short() {
		years = 1
	}
	for range years * 365 * 24 {
		now = now.Add(time.Hour)
		if r.IntN(10) == 0 {
			continue
		}
		e := Entry{ID: ID{testCluster, now.Format(stampLayout) + "-00000000"}, Complete: r.IntN(20) > 0, ModTime: now}
		if e.Verified = e.Complete && r.IntN(10) > 0; e.Verified {
			anchor = e.ID
		}
		kept = append(kept, e)
		var next []Entry
		for _, d := range DefaultPolicy.decide(kept, anchor, now) {
			if d.Keep {
				next = append(next, d.Entry)
			}
		}
		kept = next
		if anchor != (ID{}) && !slices.ContainsFunc(kept, func(e Entry) bool { return e.ID == anchor }) {
			t.Fatalf("%s: the newest verified one is gone", now)
		}
		if len(kept) > 48+31+13+24+30 {
			t.Fatalf("%s: %d snapshots are kept", now, len(kept))
		}
	}
	months := map[string]bool{}
	for _, e := range kept {
		months[e.ID.Base[:6]] = true
	}
	if len(months) < 12*years {
		t.Errorf("snapshots of %d months, want %d", len(months), 12*years)
	}
}

// A clock that is years ahead, or behind, for some takes and goes right again: the
// history of before stays.
func TestPolicyOfAWrongClock(t *testing.T) {
	right := time.Date(2026, 11, 24, 15, 30, 0, 0, time.UTC)
	for _, wrong := range []time.Duration{4 * 365 * 24 * time.Hour, 26 * time.Hour, -26 * time.Hour, -6 * 365 * 24 * time.Hour} {
		var all []Entry
		add := func(at time.Time) ID {
			id := ID{testCluster, at.Format(stampLayout) + "-00000000"}
			all = append(all, Entry{ID: id, Complete: true, Verified: true, ModTime: at})
			slices.SortFunc(all, func(a, b Entry) int { return strings.Compare(a.ID.Base, b.ID.Base) })
			return id
		}
		prune := func(anchor ID, now time.Time) {
			var kept []Entry
			for _, d := range DefaultPolicy.decide(all, anchor, now) {
				if d.Keep {
					kept = append(kept, d.Entry)
				}
			}
			all = kept
		}
		for h := 40 * 24; h > 0; h-- {
			add(right.Add(-time.Duration(h) * time.Hour))
		}
		prune(all[len(all)-1].ID, right)
		before := slices.Clone(all)
		for i := range 3 {
			at := right.Add(wrong + time.Duration(i)*30*time.Minute)
			prune(add(at), at)
		}
		// Each of the three takes the place of at most one of each period.
		gone := 0
		for _, e := range before {
			if !slices.ContainsFunc(all, func(a Entry) bool { return a.ID == e.ID }) {
				gone++
			}
		}
		if gone > 4 {
			t.Errorf("a clock that is wrong by %s: %d of %d are gone", wrong, gone, len(before))
		}
		last := before[len(before)-1].ID
		prune(all[len(all)-1].ID, right.Add(time.Hour))
		if !slices.ContainsFunc(all, func(a Entry) bool { return a.ID == last }) {
			t.Errorf("a clock that was wrong by %s: the newest one of before is gone", wrong)
		}
	}
}

// A listing that leaves things out deletes nothing that is there.
func TestPruneAsksTwice(t *testing.T) {
	k, d := newKeys(t), newMem("mem")
	old := aged(t, d, k, testTime.AddDate(-3, 0, 0), true)
	good := aged(t, d, k, testTime, true)
	before := d.copy()
	for name, hidden := range map[string]func(string) bool{
		"manifests":     func(n string) bool { return strings.HasSuffix(n, suffixManifest) && !strings.HasSuffix(n, suffixProof) },
		"an old one's":  func(n string) bool { return n == old.object(suffixManifest) },
		"the snapshots": func(n string) bool { return strings.HasSuffix(n, suffixSnap) },
	} {
		if _, err := Prune(t.Context(), pruneOptions(forgetful{d, hidden}, Policy{Hourly: 2})); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !maps.Equal(d.copy(), before) {
			t.Fatalf("%s: something is gone", name)
		}
	}
	// And the one that all others go for is looked at, not believed.
	short := before[good.object(suffixSnap)]
	d.objects[good.object(suffixSnap)] = []byte(short[1:])
	if _, err := Prune(t.Context(), pruneOptions(d, Policy{Hourly: 1})); !errors.Is(err, ErrMismatch) || len(d.copy()) != len(before) {
		t.Errorf("the newest verified one is cut: %v, and %d of %d are left", err, len(d.copy()), len(before))
	}
}

// forgetful leaves things out of its listings.
type forgetful struct {
	*mem
	hidden func(name string) bool
}

func (f forgetful) List(ctx context.Context, prefix string) ([]ObjectInfo, error) {
	all, err := f.mem.List(ctx, prefix)
	return slices.DeleteFunc(all, func(o ObjectInfo) bool { return f.hidden(o.Name) }), err
}

// aged puts a snapshot of a given time into d.
func aged(t *testing.T, d *mem, k keys, at time.Time, verify bool) ID {
	t.Helper()
	now := d.now
	d.now = func() time.Time { return at }
	defer func() { d.now = now }()
	o := takeOptions(t, k, bytesSource(buildArchive(t, archiveSpec{})), d)
	o.Now = func() time.Time { return at }
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

func pruneOptions(d Destination, p Policy) PruneOptions {
	return PruneOptions{Destination: d, ClusterID: testCluster, Policy: p, Now: func() time.Time { return testTime.Add(time.Hour) }}
}

func TestPrune(t *testing.T) {
	k, d := newKeys(t), newMem("mem")
	old := aged(t, d, k, testTime.AddDate(-3, 0, 0), true)
	good := aged(t, d, k, testTime, true)
	newer := aged(t, d, k, testTime.Add(time.Minute), false)
	d.objects[testCluster+"/notes.txt"] = []byte("somebody else's")
	d.objects["other/20200101T000000Z-00000000.snap.age"] = []byte("another cluster's")

	o := pruneOptions(d, Policy{Hourly: 1})
	o.DryRun = true
	before := d.copy()
	res, err := Prune(t.Context(), o)
	if err != nil || res.Deleted != 0 || len(d.copy()) != len(before) {
		t.Fatalf("a dry run deleted %d, %v", res.Deleted, err)
	}
	o.DryRun = false
	if res, err = Prune(t.Context(), o); err != nil || res.Deleted != 1 {
		t.Fatalf("deleted %d, %v, want 1", res.Deleted, err)
	}
	for name := range before {
		_, there := d.copy()[name]
		if gone := strings.HasPrefix(name, old.String()); there == gone {
			t.Errorf("%q: there %t", name, there)
		}
	}
	m, err := NewestVerified(t.Context(), d, testCluster)
	if err != nil || m.ID != good.String() || newer == good {
		t.Errorf("newest verified %q, %v, want %q", m.ID, err, good)
	}
}

func TestPruneHonoursObjectLock(t *testing.T) {
	for _, suffix := range []string{suffixProof, suffixManifest, suffixSnap} {
		k, d := newKeys(t), newMem("mem")
		d.now = func() time.Time { return testTime.Add(time.Hour) }
		old := aged(t, d, k, testTime.AddDate(-3, 0, 0), true)
		aged(t, d, k, testTime, true)
		d.locked[old.object(suffix)] = testTime.AddDate(1, 0, 0)
		before := d.copy()
		res, err := Prune(t.Context(), pruneOptions(d, Policy{Hourly: 1}))
		if err != nil || res.Deleted != 0 || len(d.copy()) != len(before) {
			t.Errorf("%s locked: deleted %d, %d objects of %d left, %v", suffix, res.Deleted, len(d.copy()), len(before), err)
		}
		if w := res.Decisions[0].Why; w != KeepLocked {
			t.Errorf("%s locked: reported as %q", suffix, w)
		}
	}
}

// A proof that somebody copied from another snapshot protects nothing else
// from being the newest verified one.
func TestPruneDoesNotTrustAForeignProof(t *testing.T) {
	k, d := newKeys(t), newMem("mem")
	good := aged(t, d, k, testTime.AddDate(-1, 0, 0), true)
	bad := aged(t, d, k, testTime, false)
	var rec VerifiedRecord
	if err := json.Unmarshal(d.objects[good.object(suffixProof)], &rec); err != nil {
		t.Fatal(err)
	}
	rec.ID = bad.String()
	text, err := json.Marshal(rec)
	if err != nil {
		t.Fatal(err)
	}
	d.objects[bad.object(suffixProof)] = text
	if _, err := Prune(t.Context(), pruneOptions(d, Policy{Hourly: 1})); err != nil {
		t.Fatal(err)
	}
	if _, ok := d.objects[good.object(suffixSnap)]; !ok {
		t.Error("the newest verified snapshot was deleted")
	}
	if m, err := NewestVerified(t.Context(), d, testCluster); err != nil || m.ID != good.String() {
		t.Errorf("newest verified %q, %v", m.ID, err)
	}
}

// For every n: let the nth call of the destination fail. The newest verified
// snapshot stays, and nothing is ever listed as verified that does not verify.
func TestPruneFailsAtEveryCall(t *testing.T) {
	for n := 1; ; n++ {
		k, d := newKeys(t), newMem("mem")
		for i := range 3 {
			aged(t, d, k, testTime.AddDate(-3+i, 0, 0), true)
		}
		good := aged(t, d, k, testTime, true)
		f := &failing{mem: d, n: n, err: errDisk}
		_, err := Prune(t.Context(), pruneOptions(f, Policy{Hourly: 1}))
		if f.calls < n {
			if err != nil || n < 15 {
				t.Fatalf("%d calls, %v", f.calls, err)
			}
			return
		}
		if !errors.Is(err, errDisk) {
			t.Fatalf("call %d: got %v, want %v", n, err, errDisk)
		}
		entries, err := List(t.Context(), d, testCluster)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			v := verifyOptions(t, k, d)
			v.ID = e.ID
			if _, err := Verify(t.Context(), v); e.Complete && err != nil {
				t.Fatalf("call %d: %s does not verify: %v", n, e.ID, err)
			}
		}
		if !slices.ContainsFunc(entries, func(e Entry) bool { return e.ID == good && e.Verified }) {
			t.Fatalf("call %d: the newest verified one is gone: %s", n, fmt.Sprint(entries))
		}
	}
}
