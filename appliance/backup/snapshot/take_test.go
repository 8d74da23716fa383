package snapshot

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"filippo.io/age"

	"strongroom.example/appliance/base/pause"
	"strongroom.example/appliance/base/statefile"
)

func TestTakeAndVerify(t *testing.T) {
	k, d1, d2 := newKeys(t), newMem("one"), newMem("two")
	raw := buildArchive(t, archiveSpec{state: randomBytes(300_000, 2)})
	o := takeOptions(t, k, bytesSource(raw), d1, d2)
	taken, err := Take(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	m := taken.Manifest
	if m.RaftIndex != 42 || m.RaftTerm != 3 || m.StateSize != 300_000 || !m.SealedSums || m.Snapshot.PlainSHA256 != sha256Hex(raw) {
		t.Errorf("manifest %+v does not describe the archive", m)
	}
	if !slices.Equal(taken.Held, []string{"one", "two"}) {
		t.Errorf("held by %q", taken.Held)
	}
	for _, d := range []*mem{d1, d2} {
		rec, err := Verify(t.Context(), verifyOptions(t, k, d))
		if err != nil {
			t.Fatal(err)
		}
		if rec.ID != m.ID {
			t.Errorf("verified %q, took %q", rec.ID, m.ID)
		}
	}
	// What is inside is what Vault gave, for age and Vault alone.
	r, err := age.Decrypt(strings.NewReader(d1.copy()[m.Snapshot.Name]), k.identity)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, raw) {
		t.Errorf("decrypted %d bytes, %v; want the archive of %d", len(got), err, len(raw))
	}
	s, err := LoadTakeState(o.StateDir)
	if err != nil || s.Failure != nil || s.Last["two"].ID != m.ID {
		t.Errorf("state %+v, %v", s, err)
	}
}

func TestTakeRefusesBadArchives(t *testing.T) {
	whole := buildArchive(t, archiveSpec{state: randomBytes(200_000, 3)})
	flipped := bytes.Clone(whole)
	flipped[len(flipped)/2] ^= 1
	tests := []struct {
		name string
		raw  []byte
		want error
	}{
		{"truncated", whole[:len(whole)-1], ErrTruncated},
		{"cut in the middle", whole[:len(whole)/2], ErrTruncated},
		{"empty", nil, ErrTruncated},
		{"corrupt", flipped, ErrCorrupt},
		{"an error page", []byte(`{"errors":["permission denied"]}`), ErrCorrupt},
		{"trailing", append(bytes.Clone(whole), "x"...), ErrTrailing},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k, d := newKeys(t), newMem("mem")
			good := takeOptions(t, k, bytesSource(whole), d)
			if _, err := Take(t.Context(), good); err != nil {
				t.Fatal(err)
			}
			before, last := d.copy(), mustTakeState(t, good.StateDir).Last
			bad := good
			bad.Source = bytesSource(tt.raw)
			if _, err := Take(t.Context(), bad); !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			if !maps.Equal(before, d.copy()) {
				t.Error("the destination has changed")
			}
			s := mustTakeState(t, good.StateDir)
			if !maps.Equal(last, s.Last) || s.Failure == nil {
				t.Errorf("state %+v, want the last good snapshot and a failure", s)
			}
		})
	}
}

func mustTakeState(t *testing.T, dir string) TakeState {
	t.Helper()
	s, err := LoadTakeState(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// failing lets the nth operation of a destination fail, reads and writes of the
// streams included. Everything after it fails too, as after a crash, when
// forever is set.
type failing struct {
	*mem
	n       int
	forever bool
	err     error

	mu    sync.Mutex // manifests are read side by side
	calls int
}

func (f *failing) fail() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	if f.calls == f.n || (f.forever && f.calls > f.n) {
		return f.err
	}
	return nil
}

func (f *failing) Put(ctx context.Context, name string, r io.Reader) (ObjectInfo, error) {
	if err := f.fail(); err != nil {
		return ObjectInfo{}, err
	}
	info, err := f.mem.Put(ctx, name, readFunc(func(p []byte) (int, error) {
		if err := f.fail(); err != nil {
			return 0, err
		}
		return r.Read(p)
	}))
	if err != nil {
		return info, err
	}
	// The answer that is lost: stored, and yet an error.
	return info, f.fail()
}

func (f *failing) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	if err := f.fail(); err != nil {
		return nil, err
	}
	rc, err := f.mem.Get(ctx, name)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(readFunc(func(p []byte) (int, error) {
		if err := f.fail(); err != nil {
			return 0, err
		}
		return rc.Read(p)
	})), nil
}

func (f *failing) Stat(ctx context.Context, name string) (ObjectInfo, error) {
	if err := f.fail(); err != nil {
		return ObjectInfo{}, err
	}
	return f.mem.Stat(ctx, name)
}

func (f *failing) List(ctx context.Context, prefix string) ([]ObjectInfo, error) {
	if err := f.fail(); err != nil {
		return nil, err
	}
	return f.mem.List(ctx, prefix)
}

func (f *failing) Delete(ctx context.Context, name string) error {
	if err := f.fail(); err != nil {
		return err
	}
	return f.mem.Delete(ctx, name)
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

var errDisk = errors.New("input/output error")

// For every n: let the nth call of the destination fail, once or from then on,
// and see that the older snapshot is untouched and that no snapshot is listed
// as complete that does not verify.
func TestTakeFailsAtEveryCall(t *testing.T) {
	for _, fault := range []error{errDisk, io.ErrUnexpectedEOF} {
		for _, forever := range []bool{false, true} {
			runTakeCrashes(t, fault, forever)
		}
	}
}

func runTakeCrashes(t *testing.T, fault error, forever bool) {
	k := newKeys(t)
	raw := buildArchive(t, archiveSpec{state: randomBytes(100_000, 4)})
	dir := filepath.Join(t.TempDir(), "front")
	if err := os.WriteFile(dir, []byte("certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	for n := 1; ; n++ {
		d := newMem("mem")
		first := takeOptions(t, k, bytesSource(raw), d)
		if _, err := Take(t.Context(), first); err != nil {
			t.Fatal(err)
		}
		old := d.copy()

		f := &failing{mem: d, n: n, forever: forever, err: fault}
		o := first
		o.Destinations = []Destination{f}
		o.Files = FilesFrom(dir)
		taken, err := Take(t.Context(), o)
		if f.calls < n {
			if err != nil {
				t.Fatalf("nothing failed, and yet: %v", err)
			}
			if n < 20 {
				t.Fatalf("only %d calls: the test does not test", n)
			}
			return
		}
		checkAfterCrash(t, d, k, old, taken, err, n)
	}
}

func checkAfterCrash(t *testing.T, d *mem, k keys, old map[string]string, taken Taken, err error, n int) {
	t.Helper()
	for name, data := range old {
		if d.copy()[name] != data {
			t.Fatalf("call %d: the older snapshot's %q has changed", n, name)
		}
	}
	if err == nil {
		t.Fatalf("call %d failed, and Take did not say so", n)
	}
	if len(taken.Held) > 0 {
		t.Fatalf("call %d: failed and yet held by %q", n, taken.Held)
	}
	entries, lerr := List(t.Context(), d, testCluster)
	if lerr != nil {
		t.Fatal(lerr)
	}
	for _, e := range entries {
		if !e.Complete {
			continue
		}
		v := verifyOptions(t, k, d)
		v.ID = e.ID
		if _, err := Verify(t.Context(), v); err != nil {
			t.Fatalf("call %d: %s is complete and does not verify: %v", n, e.ID, err)
		}
	}
}

// For every n: the source fails after n writes.
func TestTakeSourceFailsAtEveryWrite(t *testing.T) {
	k, d := newKeys(t), newMem("mem")
	raw := buildArchive(t, archiveSpec{state: randomBytes(20_000, 5)})
	for n := 0; n*700 < len(raw)+700; n++ {
		for _, fault := range []error{errDisk, io.ErrUnexpectedEOF, io.EOF} {
			o := takeOptions(t, k, sourceFunc(func(ctx context.Context, w io.Writer) error {
				if err := bytesSource(raw[:min(n*700, len(raw))]).Snapshot(ctx, w); err != nil {
					return err
				}
				return fault
			}), d)
			if _, err := Take(t.Context(), o); !errors.Is(err, fault) && !errors.Is(err, ErrTruncated) {
				t.Fatalf("write %d: got %v, want %v", n, err, fault)
			}
			if len(d.copy()) > 0 {
				t.Fatalf("write %d: something was stored", n)
			}
		}
	}
}

type sourceFunc func(context.Context, io.Writer) error

func (f sourceFunc) Snapshot(ctx context.Context, w io.Writer) error { return f(ctx, w) }

func TestTakeGoesOnWithoutABrokenDestination(t *testing.T) {
	k, good := newKeys(t), newMem("good")
	raw := buildArchive(t, archiveSpec{state: randomBytes(300_000, 6)})
	for n := 1; n < 12; n++ {
		bad := &failing{mem: newMem("bad"), n: n, forever: true, err: ErrFull}
		o := takeOptions(t, k, bytesSource(raw), bad, good)
		taken, err := Take(t.Context(), o)
		if !errors.Is(err, ErrFull) {
			t.Fatalf("call %d: got %v, want %v", n, err, ErrFull)
		}
		if !slices.Equal(taken.Held, []string{"good"}) {
			t.Fatalf("call %d: held by %q", n, taken.Held)
		}
		if _, err := Verify(t.Context(), verifyOptions(t, k, good)); err != nil {
			t.Fatalf("call %d: %v", n, err)
		}
		good.objects = map[string][]byte{}
	}
}

// stuck takes nothing and only ends with its context.
type stuck struct{ *mem }

func (s stuck) Put(ctx context.Context, _ string, _ io.Reader) (ObjectInfo, error) {
	<-ctx.Done()
	return ObjectInfo{}, context.Cause(ctx)
}

// What a place does not take is given up; nobody waits for it.
func TestTakeDropsAStalledDestination(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, good := newKeys(t), newMem("good")
		o := takeOptions(t, k, bytesSource(buildArchive(t, archiveSpec{})), stuck{newMem("stuck")}, good)
		taken, err := Take(t.Context(), o)
		if !errors.Is(err, ErrStalled) || !slices.Equal(taken.Held, []string{"good"}) {
			t.Fatalf("held by %q, error %v; want good, %v", taken.Held, err, ErrStalled)
		}
	})
}

// deaf does not even end with its context, as what hangs in the kernel.
type deaf struct {
	*mem
	never chan struct{}
}

func (d deaf) Put(context.Context, string, io.Reader) (ObjectInfo, error) {
	<-d.never
	return ObjectInfo{}, errDisk
}

func TestTakeLeavesBehindWhatDoesNotEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := deaf{newMem("deaf"), make(chan struct{})}
		defer close(d.never)
		k, good := newKeys(t), newMem("good")
		taken, err := Take(t.Context(), takeOptions(t, k, bytesSource(buildArchive(t, archiveSpec{})), d, good))
		if !errors.Is(err, ErrStalled) || !slices.Equal(taken.Held, []string{"good"}) {
			t.Fatalf("held by %q, error %v; want good, %v", taken.Held, err, ErrStalled)
		}
	})
}

// slow takes one byte a minute; reader says whether that shows by what it reads, or
// only by what it tells (Moved), as where a part of many megabytes is under way, or
// the whole is read back.
type slow struct {
	*mem
	reader bool
	moved  atomic.Int64
}

func (s *slow) Moved() int64 { return s.moved.Load() }

func (s *slow) Put(ctx context.Context, name string, r io.Reader) (ObjectInfo, error) {
	if !strings.HasSuffix(name, suffixSnap) {
		return s.mem.Put(ctx, name, r)
	}
	minute := func() error { return pause.For(ctx, time.Minute) }
	if s.reader {
		return s.mem.Put(ctx, name, readFunc(func(p []byte) (int, error) {
			if err := minute(); err != nil {
				return 0, err
			}
			return r.Read(p[:min(len(p), 50)])
		}))
	}
	for range 300 {
		if err := minute(); err != nil {
			return ObjectInfo{}, err
		}
		s.moved.Add(1)
	}
	return s.mem.Put(ctx, name, r)
}

// Slow is not stalled, and nobody waits for it: the other place has its snapshot
// recorded before the slow one is through, and one whose time ends takes nothing
// from the other.
func TestTakeOfASlowDestination(t *testing.T) {
	for _, reader := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			k, good, bad := newKeys(t), newMem("good"), &slow{mem: newMem("slow"), reader: reader}
			o := takeOptions(t, k, bytesSource(buildArchive(t, archiveSpec{})), bad, good)
			o.Stall = 2 * time.Minute
			early := make(chan TakeState, 1)
			time.AfterFunc(30*time.Second, func() {
				s, err := LoadTakeState(o.StateDir)
				if err != nil {
					t.Error(err)
				}
				early <- s
			})
			taken, err := Take(t.Context(), o)
			if err != nil || !slices.Equal(taken.Held, []string{"slow", "good"}) {
				t.Errorf("held by %q, error %v", taken.Held, err)
			}
			if s := <-early; s.Last["good"].ID != taken.Manifest.ID || s.Last["slow"].ID != "" {
				t.Errorf("after half a minute: %+v", s)
			}
			// What one reads back is what was sent.
			for _, d := range []Destination{good, bad} {
				if _, err := Verify(t.Context(), verifyOptions(t, k, d)); err != nil {
					t.Error(err)
				}
			}

			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
			defer cancel()
			taken, err = Take(ctx, o)
			if !errors.Is(err, context.DeadlineExceeded) || !slices.Equal(taken.Held, []string{"good"}) {
				t.Errorf("when time is up: held by %q, error %v", taken.Held, err)
			}
			if all, err := List(t.Context(), bad, ""); err != nil || len(all) != 1 {
				t.Errorf("the slow one holds %+v, %v", all, err)
			}
		})
	}
}

// The files beside a snapshot are worth less than it.
func TestTakeWithoutItsFiles(t *testing.T) {
	k, d := newKeys(t), newMem("mem")
	o := takeOptions(t, k, bytesSource(buildArchive(t, archiveSpec{})), d)
	o.Files = func(_ context.Context, w io.Writer) error {
		_, err := w.Write([]byte("half"))
		return errors.Join(errDisk, err)
	}
	taken, err := Take(t.Context(), o)
	if !errors.Is(err, errDisk) || !strings.Contains(err.Error(), "without the files") || !slices.Equal(taken.Held, []string{"mem"}) {
		t.Fatalf("held by %q, error %v", taken.Held, err)
	}
	if s := mustTakeState(t, o.StateDir); s.Failure == nil || s.Last["mem"].ID != taken.Manifest.ID {
		t.Errorf("state %+v", s)
	}
	if rec, err := Verify(t.Context(), verifyOptions(t, k, d)); err != nil || rec.ID != taken.Manifest.ID || taken.Manifest.Files != nil {
		t.Errorf("verified %+v, %v", rec, err)
	}
}

// Room on this machine is Vault's, too: before it is gone, the take ends, says where
// it is missing, and nothing is stored or left.
func TestTakeLeavesRoom(t *testing.T) {
	k, d := newKeys(t), newMem("mem")
	o := takeOptions(t, k, bytesSource(buildArchive(t, archiveSpec{state: randomBytes(3*lookEvery, 31)})), d)
	looked := 0
	o.leave = func(f *os.File) error {
		if looked++; looked == 2 {
			return fmt.Errorf("%w on this machine", ErrFull)
		}
		return leaveRoom(f)
	}
	if _, err := Take(t.Context(), o); !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "this machine") {
		t.Errorf("got %v, want %v", err, ErrFull)
	}
	left, err := filepath.Glob(filepath.Join(o.StateDir, ".spool*"))
	if err != nil || len(left) > 0 || len(d.copy()) > 0 {
		t.Errorf("left %q, %v; stored %d", left, err, len(d.copy()))
	}
}

func TestTakeIsCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	k, d := newKeys(t), newMem("mem")
	raw := buildArchive(t, archiveSpec{})
	o := takeOptions(t, k, sourceFunc(func(ctx context.Context, w io.Writer) error {
		err := bytesSource(raw).Snapshot(ctx, w)
		cancel() // at the worst time: all is written, nothing is committed
		return err
	}), d)
	if _, err := Take(ctx, o); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want %v", err, context.Canceled)
	}
	if len(d.copy()) > 0 {
		t.Error("something was stored")
	}
}

// Two machines with broken random numbers: the second must not touch what the
// first has stored.
func TestTakeLeavesATakenNameAlone(t *testing.T) {
	k, d := newKeys(t), newMem("mem")
	o := takeOptions(t, k, bytesSource(buildArchive(t, archiveSpec{})), d)
	for i := range 2 {
		o.Rand, o.Now = bytes.NewReader(make([]byte, 4)), clock(testTime)
		before := d.copy()
		_, err := Take(t.Context(), o)
		if i == 1 && (!errors.Is(err, ErrExists) || !maps.Equal(before, d.copy())) {
			t.Errorf("got %v, want %v and nothing changed", err, ErrExists)
		}
	}
	if _, err := Verify(t.Context(), verifyOptions(t, k, d)); err != nil {
		t.Error(err)
	}
}

func TestTakeRunsOnce(t *testing.T) {
	k, d := newKeys(t), newMem("mem")
	raw := bytesSource(buildArchive(t, archiveSpec{}))
	var inner error
	o := takeOptions(t, k, raw, d)
	second := o
	o.Source = sourceFunc(func(ctx context.Context, w io.Writer) error {
		_, inner = Take(ctx, second)
		return raw.Snapshot(ctx, w)
	})
	if _, err := Take(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(inner, statefile.ErrBusy) {
		t.Errorf("the second run got %v, want %v", inner, statefile.ErrBusy)
	}
}

func TestTakeChecksItsOptions(t *testing.T) {
	k, d := newKeys(t), newMem("mem")
	tests := []struct {
		name string
		edit func(*TakeOptions)
	}{
		{"no source", func(o *TakeOptions) { o.Source = nil }},
		{"no recipient", func(o *TakeOptions) { o.Recipients = nil }},
		{"no destination", func(o *TakeOptions) { o.Destinations = nil }},
		{"a destination twice", func(o *TakeOptions) { o.Destinations = []Destination{d, d} }},
		{"no state directory", func(o *TakeOptions) { o.StateDir = "" }},
		{"a state directory that is not there", func(o *TakeOptions) { o.StateDir = "/nonexistent" }},
		{"a bad cluster id", func(o *TakeOptions) { o.Vault.ClusterID = "../../etc" }},
		{"no cluster id", func(o *TakeOptions) { o.Vault.ClusterID = "" }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := takeOptions(t, k, bytesSource(buildArchive(t, archiveSpec{})), d)
			tt.edit(&o)
			if _, err := Take(t.Context(), o); err == nil {
				t.Error("accepted")
			}
			if len(d.copy()) > 0 {
				t.Error("something was stored")
			}
		})
	}
}

func TestTakeReplacesASpoiltState(t *testing.T) {
	k, d := newKeys(t), newMem("mem")
	o := takeOptions(t, k, bytesSource(buildArchive(t, archiveSpec{})), d)
	if err := os.WriteFile(filepath.Join(o.StateDir, takeStateFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	taken, err := Take(t.Context(), o)
	if !errors.Is(err, statefile.ErrCorrupt) || len(taken.Held) != 1 {
		t.Fatalf("held by %q, error %v; want a snapshot and a word on the state", taken.Held, err)
	}
	if s := mustTakeState(t, o.StateDir); s.Last["mem"].ID != taken.Manifest.ID {
		t.Errorf("state %+v", s)
	}
}

func TestTakeWithFiles(t *testing.T) {
	root := t.TempDir()
	for name, data := range map[string]string{"acme/key.pem": "KEY", "appliance.toml": "x = 1\n"} {
		p := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o700), os.WriteFile(p, []byte(data), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/etc/shadow", filepath.Join(root, "acme/link")); err != nil {
		t.Fatal(err)
	}
	k, d := newKeys(t), newMem("mem")
	o := takeOptions(t, k, bytesSource(buildArchive(t, archiveSpec{})), d)
	o.Files = FilesFrom(root, filepath.Join(root, "not-there-yet"))
	taken, err := Take(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(t.Context(), verifyOptions(t, k, d)); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	err = Open(t.Context(), d, *taken.Manifest.Files, []age.Identity{k.identity}, func(r io.Reader) error {
		tr := tar.NewReader(r)
		for {
			h, err := tr.Next()
			if err == io.EOF {
				return nil
			}
			if err != nil {
				return err
			}
			b, err := io.ReadAll(tr)
			if err != nil {
				return err
			}
			if h.Typeflag != tar.TypeDir {
				got["/"+h.Name] = string(b)
			}
		}
	})
	want := map[string]string{root + "/acme/key.pem": "KEY", root + "/appliance.toml": "x = 1\n"}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}
