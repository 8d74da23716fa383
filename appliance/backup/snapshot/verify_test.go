package snapshot

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"filippo.io/age"
)

// taken is a destination with one verified snapshot and a second one not yet
// verified.
type takenTwice struct {
	k          keys
	d          *mem
	opts       VerifyOptions
	takeState  string
	good, next Manifest
}

func takeTwice(t testing.TB) takenTwice {
	t.Helper()
	w := takenTwice{k: newKeys(t), d: newMem("mem")}
	o := takeOptions(t, w.k, bytesSource(buildArchive(t, archiveSpec{})), w.d)
	w.takeState = o.StateDir
	w.opts = verifyOptions(t, w.k, w.d)
	var taken [2]Taken
	for i := range taken {
		var err error
		if taken[i], err = Take(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			if _, err := Verify(t.Context(), w.opts); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.good, w.next = taken[0].Manifest, taken[1].Manifest
	return w
}

// refused runs Verify and checks that it fails with want and leaves the last
// good record and every object as they were.
func (w takenTwice) refused(t *testing.T, want error) {
	t.Helper()
	before := w.d.copy()
	if _, err := Verify(t.Context(), w.opts); !errors.Is(err, want) {
		t.Fatalf("got %v, want %v", err, want)
	}
	if !maps.Equal(before, w.d.copy()) {
		t.Fatal("a failed verification changed the destination")
	}
	s, err := LoadVerifyState(w.opts.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	if s.LastGood["mem"].ID != w.good.ID || s.Failure == nil {
		t.Fatalf("state %+v, want %s as the last good one and a failure", s, w.good.ID)
	}
}

func (w takenTwice) edit(name string, f func([]byte) []byte) {
	w.d.objects[name] = f(bytes.Clone(w.d.objects[name]))
}

func TestVerifyRecordsTheNewest(t *testing.T) {
	w := takeTwice(t)
	rec, err := Verify(t.Context(), w.opts)
	if err != nil || rec.ID != w.next.ID {
		t.Fatalf("verified %q, %v, want %q", rec.ID, err, w.next.ID)
	}
	// Looking at an old one again does not make it the newest.
	w.opts.ID = mustID(t, w.good.ID)
	if _, err := Verify(t.Context(), w.opts); err != nil {
		t.Fatal(err)
	}
	s, err := LoadVerifyState(w.opts.StateDir)
	if err != nil || s.LastGood["mem"].ID != w.next.ID || s.Failure != nil {
		t.Errorf("state %+v, %v", s, err)
	}
	proof, err := ReadProof(t.Context(), w.d, mustID(t, w.next.ID))
	if err != nil || proof != rec {
		t.Errorf("proof %+v, %v, want %+v", proof, err, rec)
	}
}

func mustID(t testing.TB, s string) ID {
	t.Helper()
	id, err := ParseID(s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestVerifyRefuses(t *testing.T) {
	manifest := func(f func(*Manifest)) func(*testing.T, *takenTwice) {
		return func(t *testing.T, w *takenTwice) {
			m := w.next
			f(&m)
			b, err := m.encode(nil)
			if err != nil {
				t.Fatal(err)
			}
			w.d.objects[mustID(t, w.next.ID).object(suffixManifest)] = b
		}
	}
	tests := []struct {
		name string
		edit func(*testing.T, *takenTwice)
		want error
	}{
		{"the wrong identity", func(t *testing.T, w *takenTwice) { w.opts.Identities = []age.Identity{newKeys(t).identity} }, ErrWrongIdentity},
		{"bytes behind", func(_ *testing.T, w *takenTwice) {
			w.edit(w.next.Snapshot.Name, func(b []byte) []byte { return append(b, 0) })
		}, ErrTrailing},
		{"the object gone", func(_ *testing.T, w *takenTwice) {
			delete(w.d.objects, w.next.Snapshot.Name)
			w.opts.ID = mustID(t, w.next.ID)
		}, ErrNotFound},
		{"the manifest gone", func(t *testing.T, w *takenTwice) {
			w.opts.ID = mustID(t, w.next.ID)
			delete(w.d.objects, w.opts.ID.object(suffixManifest))
		}, ErrIncomplete},
		{"a manifest of other bytes", manifest(func(m *Manifest) { m.Snapshot.SHA256 = strings.Repeat("0", 64) }), ErrCorrupt},
		{"a manifest of other content", manifest(func(m *Manifest) { m.Snapshot.PlainSHA256 = strings.Repeat("0", 64) }), ErrMismatch},
		{"a manifest of another raft index", manifest(func(m *Manifest) { m.RaftIndex++ }), ErrMismatch},
		{"a manifest of more bytes", manifest(func(m *Manifest) { m.Snapshot.Size++ }), ErrTruncated},
		{"a manifest of fewer bytes", manifest(func(m *Manifest) { m.Snapshot.Size-- }), ErrTrailing},
		{"a manifest that points elsewhere", manifest(func(m *Manifest) { m.Snapshot.Name = "other.snap.age" }), ErrCorrupt},
		{"a manifest of another snapshot", manifest(func(m *Manifest) { m.ID = testCluster + "/20200101T000000Z-00000000" }), ErrCorrupt},
		{"a manifest of a later format", manifest(func(m *Manifest) { m.Format = 2 }), ErrCorrupt},
		{"a manifest without end", func(_ *testing.T, w *takenTwice) {
			w.d.objects[mustID(t, w.next.ID).object(suffixManifest)] = bytes.Repeat([]byte(" "), 1<<20)
		}, ErrCorrupt},
		{"a snapshot that somebody else made with the same public key", func(t *testing.T, w *takenTwice) {
			forge(t, w)
			w.opts.TakeStateDir = w.takeState
		}, ErrMismatch},
		{"another cluster's snapshot asked for", func(t *testing.T, w *takenTwice) {
			w.opts.ID = mustID(t, strings.Replace(w.next.ID, testCluster, "other", 1))
		}, ErrWrongCluster},
		{"another cluster's snapshot under this one's name", manifest(func(m *Manifest) { m.ClusterID = "other" }), ErrCorrupt},
		{"no snapshot of the cluster", func(t *testing.T, w *takenTwice) { w.opts.ClusterID = "other" }, ErrNoSnapshot},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := takeTwice(t)
			tt.edit(t, &w)
			w.refused(t, tt.want)
		})
	}
}

// forge replaces the newest snapshot by another sound one, made with nothing
// but the public key.
func forge(t *testing.T, w *takenTwice) {
	t.Helper()
	d := newMem("mem")
	o := takeOptions(t, w.k, bytesSource(buildArchive(t, archiveSpec{index: 99})), d)
	taken, err := Take(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	m := taken.Manifest
	ciphertext := d.objects[m.Snapshot.Name]
	m.ID, m.Snapshot.Name, m.TakenAt = w.next.ID, w.next.Snapshot.Name, w.next.TakenAt
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	w.d.objects[m.Snapshot.Name] = ciphertext
	w.d.objects[mustID(t, m.ID).object(suffixManifest)] = text
}

func TestVerifyCorruptAtEveryByte(t *testing.T) {
	w := takeTwice(t)
	whole := w.d.objects[w.next.Snapshot.Name]
	for n := range len(whole) {
		bad := bytes.Clone(whole)
		bad[n] ^= 1
		w.d.objects[w.next.Snapshot.Name] = bad
		if err := checkStored(t.Context(), w.d, w.next, w.opts.Identities); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("byte %d: got %v, want %v", n, err, ErrCorrupt)
		}
	}
	w.refused(t, ErrCorrupt)
}

func TestVerifyTruncatedAtEveryLength(t *testing.T) {
	w := takeTwice(t)
	whole := w.d.objects[w.next.Snapshot.Name]
	for n := range len(whole) {
		w.d.objects[w.next.Snapshot.Name] = whole[:n]
		if err := checkStored(t.Context(), w.d, w.next, w.opts.Identities); !errors.Is(err, ErrTruncated) {
			t.Fatalf("%d bytes: got %v, want %v", n, err, ErrTruncated)
		}
	}
	w.refused(t, ErrTruncated)
}

// For every n: let the nth call or read of the destination fail.
func TestVerifyFailsAtEveryCall(t *testing.T) {
	for n := 1; ; n++ {
		w := takeTwice(t)
		f := &failing{mem: w.d, n: n, err: io.ErrUnexpectedEOF}
		w.opts.Destination = f
		_, err := Verify(t.Context(), w.opts)
		s, serr := LoadVerifyState(w.opts.StateDir)
		if serr != nil {
			t.Fatal(serr)
		}
		if f.calls < n {
			if err != nil || n < 10 {
				t.Fatalf("%d calls, %v", n, err)
			}
			return
		}
		if err == nil || s.LastGood["mem"].ID != w.good.ID || s.Failure == nil {
			t.Fatalf("call %d failed: got %v, state %+v", n, err, s)
		}
		// And the next run mends it, a half-written proof included.
		w.opts.Destination = w.d
		if _, err := Verify(t.Context(), w.opts); err != nil {
			t.Fatalf("after call %d failed: %v", n, err)
		}
	}
}

func TestVerifyNeedsAWritableState(t *testing.T) {
	w := takeTwice(t)
	// The rename onto a directory fails, for root too.
	path := filepath.Join(w.opts.StateDir, verifyStateFile)
	if err := errors.Join(os.Remove(path), os.MkdirAll(filepath.Join(path, "x"), 0o700)); err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(t.Context(), w.opts); err == nil {
		t.Error("verified without a record")
	}
}

func TestOpenGivesNothingBeforeItIsProven(t *testing.T) {
	w := takeTwice(t)
	w.edit(w.next.Snapshot.Name, func(b []byte) []byte { b[len(b)-1] ^= 1; return b })
	err := Open(t.Context(), w.d, w.next.Snapshot, w.opts.Identities, func(r io.Reader) error {
		_, err := io.Copy(io.Discard, r)
		return err
	})
	if !errors.Is(err, ErrCorrupt) {
		t.Errorf("got %v, want %v", err, ErrCorrupt)
	}
}

func TestVerifyIsCancelled(t *testing.T) {
	w := takeTwice(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Verify(ctx, w.opts); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
}

func FuzzParseManifest(f *testing.F) {
	w := takeTwice(f)
	b, err := w.good.encode(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseManifest(b)
		if err != nil {
			return
		}
		again, err := m.encode(nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseManifest(again); err != nil {
			t.Fatalf("accepted once only: %v", err)
		}
	})
}

func FuzzSplitObject(f *testing.F) {
	f.Add(testCluster + "/20261124T151500Z-1a2b3c4d.ok.json")
	f.Add("a/b/../c.json")
	f.Fuzz(func(t *testing.T, s string) {
		id, suffix, ok := splitObject(s)
		if !ok {
			return
		}
		if id.object(suffix) != s || checkName(s) != nil || id.Time().After(time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)) {
			t.Fatalf("%q became %v and %q", s, id, suffix)
		}
	})
}

// What this machine stored last is what is verified: a name that sorts later, from
// when the clock was ahead, does not hide it; and where it is gone somebody has
// deleted it.
func TestVerifyWhatWasStoredLast(t *testing.T) {
	k, d := newKeys(t), newMem("mem")
	o := takeOptions(t, k, bytesSource(buildArchive(t, archiveSpec{})), d)
	take := func(at time.Time) ID {
		t.Helper()
		o.Now = func() time.Time { return at }
		taken, err := Take(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		return mustID(t, taken.Manifest.ID)
	}
	ahead := take(testTime.AddDate(4, 0, 0))
	last := take(testTime)
	v := verifyOptions(t, k, d)
	v.TakeStateDir = o.StateDir
	rec, err := Verify(t.Context(), v)
	if err != nil || rec.ID != last.String() {
		t.Fatalf("verified %s, %v; want %s", rec.ID, err, last)
	}
	// That one is then the last good one, too.
	later := v
	later.ID = ahead
	if _, err := Verify(t.Context(), later); err != nil {
		t.Fatal(err)
	}
	if rec, err = Verify(t.Context(), v); err != nil || rec.ID != last.String() {
		t.Fatalf("verified %s, %v; want %s", rec.ID, err, last)
	}
	if s, err := LoadVerifyState(v.StateDir); err != nil || s.LastGood["mem"].ID != last.String() {
		t.Errorf("state %+v, %v", s, err)
	}
	for _, suffix := range []string{suffixSnap, suffixManifest, suffixProof} {
		delete(d.objects, last.object(suffix))
	}
	if rec, err := Verify(t.Context(), v); !errors.Is(err, ErrNoSnapshot) || !strings.Contains(err.Error(), last.String()) {
		t.Errorf("the last one was deleted: %+v, %v", rec, err)
	}
	// A node that stands by has not stored anything of late.
	if err := RecordStandby(o.StateDir, testTime); err != nil {
		t.Fatal(err)
	}
	if rec, err := Verify(t.Context(), v); err != nil || rec.ID != ahead.String() {
		t.Errorf("on a standby: verified %s, %v", rec.ID, err)
	}
}

// Each place for itself: one that moves nothing holds nobody up, its failure stays
// beside the other's success, and what follows happens where it can.
func TestVerifyPlacesAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, good, hangs, spoilt := newKeys(t), newMem("good"), newMem("hangs"), newMem("spoilt")
		taken, err := Take(t.Context(), takeOptions(t, k, bytesSource(buildArchive(t, archiveSpec{})), good, hangs, spoilt))
		if err != nil {
			t.Fatal(err)
		}
		spoilt.objects[taken.Manifest.Snapshot.Name][100] ^= 1
		v := verifyOptions(t, k, nil)
		var mu sync.Mutex
		var then []string
		v.Then = func(_ context.Context, d Destination, cluster string, _ ID) error {
			mu.Lock()
			defer mu.Unlock()
			then = append(then, d.Name())
			return nil
		}
		early := make(chan VerifyState, 1)
		time.AfterFunc(time.Second, func() {
			s, err := LoadVerifyState(v.StateDir)
			if err != nil {
				t.Error(err)
			}
			early <- s
		})
		ok, err := VerifyPlaces(t.Context(), []Destination{silent{hangs}, spoilt, good}, v)
		if !errors.Is(err, ErrStalled) || !errors.Is(err, ErrCorrupt) || len(ok) != 1 || ok["good"].ID != taken.Manifest.ID {
			t.Errorf("good %+v, %v", ok, err)
		}
		if s := <-early; s.LastGood["good"].ID != taken.Manifest.ID {
			t.Errorf("after a second: %+v", s)
		}
		slices.Sort(then)
		if !slices.Equal(then, []string{"good", "spoilt"}) {
			t.Errorf("what follows happened in %q", then)
		}
		s, err := LoadVerifyState(v.StateDir)
		if err != nil || s.Failure == nil || len(s.Failures) != 2 || s.Failures["good"].Error != "" || !strings.Contains(s.Failures["hangs"].Error, ErrStalled.Error()) {
			t.Errorf("state %+v, %v", s, err)
		}
		// Another one's success ends no failure.
		if _, err := VerifyPlaces(t.Context(), []Destination{good, silent{hangs}}, v); err == nil {
			t.Error("no error")
		}
		if s, err := LoadVerifyState(v.StateDir); err != nil || s.Failure == nil || len(s.Failures) != 1 {
			t.Errorf("state %+v, %v", s, err)
		}
	})
}

// silent answers no question.
type silent struct{ *mem }

func (s silent) Get(ctx context.Context, _ string) (io.ReadCloser, error) {
	<-ctx.Done()
	return nil, context.Cause(ctx)
}

func (s silent) List(ctx context.Context, _ string) ([]ObjectInfo, error) {
	<-ctx.Done()
	return nil, context.Cause(ctx)
}
