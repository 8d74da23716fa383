package audit

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"strongroom.example/appliance/base/atomicfile"
	"strongroom.example/appliance/base/dirfs"
	"strongroom.example/appliance/base/statefile"
)

var start = time.Date(2026, 11, 24, 15, 0, 0, 0, time.UTC)

// fakeVault writes to its logs as Vault's file audit device does: it holds the
// files open, and opens them by name again when it is asked to.
type fakeVault struct {
	t   *testing.T
	dir string
	now time.Time

	mu    sync.Mutex
	files map[string]*os.File
	n     map[string]int // lines written
	deaf  bool           // doesn't open them again
	off   bool
}

func newVault(t *testing.T, names ...string) *fakeVault {
	t.Helper()
	v := &fakeVault{t: t, dir: t.TempDir(), now: start, files: map[string]*os.File{}, n: map[string]int{}}
	for _, n := range names {
		v.files[n] = nil
	}
	if err := v.open(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, f := range v.files {
			_ = f.Close()
		}
	})
	return v
}

func (v *fakeVault) open() error {
	for n, f := range v.files {
		_ = f.Close()
		f, err := os.OpenFile(filepath.Join(v.dir, n), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err == nil {
			err = atomicfile.LikeFolder(v.dir, f)
		}
		if err != nil {
			return err
		}
		v.files[n] = f
	}
	return nil
}

func (v *fakeVault) signal(context.Context) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.off {
		return ErrNotRunning
	}
	if v.deaf {
		return nil
	}
	return v.open()
}

// write adds a line to every log.
func (v *fakeVault) write(count int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for range count {
		for n, f := range v.files {
			v.n[n]++
			if _, err := fmt.Fprintf(f, "{\"request\":{\"id\":\"%s-%d\"},\"time\":%q}\n", n, v.n[n], v.now.Format(time.RFC3339Nano)); err != nil {
				v.t.Error(err)
			}
		}
	}
}

// whole fails the test unless every line ever written to base is there once,
// in order.
func (v *fakeVault) whole(base string) {
	v.t.Helper()
	dir, err := dirfs.Open(v.dir)
	if err != nil {
		v.t.Fatal(err)
	}
	defer dir.Close()
	files, err := scan(dir)
	if err != nil {
		v.t.Fatal(err)
	}
	var text bytes.Buffer
	for _, f := range files {
		if f.base != base {
			continue
		}
		if !f.gz && !f.live() && slices.ContainsFunc(files, func(g logFile) bool { return g.name == f.name+".gz" }) {
			continue // the same, compressed
		}
		text.Write(v.content(f.name))
	}
	i := 0
	for s := bufio.NewScanner(&text); s.Scan(); {
		i++
		if want := fmt.Sprintf("{\"request\":{\"id\":\"%s-%d\"}", base, i); !strings.HasPrefix(s.Text(), want) {
			v.t.Fatalf("%s: line %d is %s", base, i, s.Text())
		}
	}
	if i != v.n[base] {
		v.t.Fatalf("%s: %d lines of %d", base, i, v.n[base])
	}
}

func (v *fakeVault) content(name string) []byte {
	v.t.Helper()
	f, err := os.Open(filepath.Join(v.dir, name))
	if err != nil {
		v.t.Fatal(err)
	}
	defer f.Close()
	var r io.Reader = f
	if strings.HasSuffix(name, ".gz") {
		if r, err = gzip.NewReader(f); err != nil {
			v.t.Fatal(err)
		}
	}
	b, err := io.ReadAll(r)
	if err != nil {
		v.t.Fatal(err)
	}
	return b
}

func (v *fakeVault) names() []string {
	v.t.Helper()
	entries, err := os.ReadDir(v.dir)
	if err != nil {
		v.t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func (v *fakeVault) options(state string) Options {
	return Options{
		Dir: v.dir, Signal: v.signal, StateDir: state,
		Policy: Policy{Size: 1000, Age: 24 * time.Hour, Keep: 90 * 24 * time.Hour, KeepBytes: 1 << 20, Warn: 80, Full: 92},
		Wait:   time.Minute,
		Now:    func() time.Time { return v.now },
		Usage:  func(string) (Usage, error) { return Usage{Used: 10, Total: 100}, nil },
	}
}

func TestRotate(t *testing.T) {
	v := newVault(t, "audit-1.log", "audit-2.log")
	o := v.options(t.TempDir())
	rotate := func() Report {
		t.Helper()
		rep, err := Rotate(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		for n := range v.files {
			v.whole(n)
		}
		stored, err := LoadReport(o.StateDir)
		if err != nil || stored.At != rep.At || stored.Level != rep.Level {
			t.Fatalf("stored %+v, %v", stored, err)
		}
		return rep
	}
	v.write(2)
	if rep := rotate(); len(rep.Rotated) != 0 || len(rep.Logs) != 2 || rep.Logs[0].Since != start || rep.Level != LevelOK {
		t.Errorf("small and new: %+v", rep)
	}
	v.write(50)
	want := []string{"audit-1.log", "audit-1.log.20261124T150000Z.gz", "audit-2.log", "audit-2.log.20261124T150000Z.gz"}
	if rep := rotate(); len(rep.Rotated) != 2 || rep.Kept != 2 || !slices.Equal(v.names(), want) {
		t.Errorf("large: %+v, folder %q", rep, v.names())
	}
	for _, n := range want {
		fi, err := os.Stat(filepath.Join(v.dir, n))
		if err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v", n, fi.Mode(), err)
		}
	}
	// The same second again: another name.
	v.write(50)
	if rep := rotate(); len(rep.Rotated) != 2 || rep.Rotated[0] != "audit-1.log.20261124T150000Z-2" {
		t.Errorf("twice in a second: %+v", rep)
	}
	v.write(1)
	v.now = start.Add(24*time.Hour - time.Second)
	if rep := rotate(); len(rep.Rotated) != 0 {
		t.Errorf("a second too young: %+v", rep)
	}
	v.now = start.Add(24 * time.Hour)
	if rep := rotate(); len(rep.Rotated) != 2 {
		t.Errorf("old: %+v", rep)
	}
	if rep := rotate(); len(rep.Rotated) != 0 {
		t.Errorf("nothing in it, and rotated: %+v", rep)
	}
	v.write(1)
	o.Force = true
	if rep := rotate(); len(rep.Rotated) != 2 {
		t.Errorf("forced: %+v", rep)
	}
}

func TestUnderLoad(t *testing.T) {
	v := newVault(t, "a.log", "b.log")
	o := v.options(t.TempDir())
	o.Force, o.Policy.KeepBytes = true, 1<<30
	var writers sync.WaitGroup
	for range 4 {
		writers.Go(func() {
			for range 500 {
				v.write(1)
			}
		})
	}
	done := make(chan struct{})
	go func() {
		writers.Wait()
		close(done)
	}()
	rotations := 0
	for ended := false; !ended; {
		select {
		case <-done:
			ended = true
		default:
		}
		rep, err := Rotate(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		rotations += len(rep.Rotated)
	}
	if rotations < 2 {
		t.Errorf("%d rotations", rotations)
	}
	v.whole("a.log")
	v.whole("b.log")
}

func TestVaultDoesNotReopen(t *testing.T) {
	v := newVault(t, "a.log", "b.log")
	o := v.options(t.TempDir())
	o.Force = true
	o.Now, o.Wait = time.Now, 200*time.Millisecond
	v.write(50)
	v.deaf = true
	rep, err := Rotate(t.Context(), o)
	if !errors.Is(err, ErrNotReopened) || rep.Failure == "" {
		t.Errorf("error %v, report %+v", err, rep)
	}
	// The second log is not touched when the first one failed.
	if got := v.names(); !slices.Equal(got, []string{"a.log", "b.log"}) {
		t.Errorf("folder %q", got)
	}
	v.write(1) // goes on under the old name
	v.whole("a.log")
	// A sealed or standby Vault writes nothing and opens nothing: no fault.
	o.Now = func() time.Time { return time.Now().Add(idle + time.Minute) }
	if rep, err := Rotate(t.Context(), o); err != nil || len(rep.Rotated) != 0 {
		t.Errorf("idle: %+v, %v", rep, err)
	}
	v.deaf, o.Wait = false, time.Minute
	if rep, err := Rotate(t.Context(), o); err != nil || len(rep.Rotated) != 2 {
		t.Errorf("after that: %+v, %v", rep, err)
	}
	v.whole("a.log")
}

func TestVaultIsNotRunning(t *testing.T) {
	v := newVault(t, "a.log", "b.log")
	o := v.options(t.TempDir())
	v.write(50)
	v.off = true
	if rep, err := Rotate(t.Context(), o); err != nil || len(rep.Rotated) != 2 {
		t.Fatalf("%+v, %v", rep, err)
	}
	v.off = false
	if err := v.open(); err != nil {
		t.Fatal(err)
	}
	v.write(1)
	if _, err := Rotate(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	v.whole("a.log")
	v.whole("b.log")
	if got := v.names(); len(got) != 4 || !strings.HasSuffix(got[1], ".gz") {
		t.Errorf("folder %q", got)
	}
}

func TestSignalFails(t *testing.T) {
	v := newVault(t, "a.log")
	o := v.options(t.TempDir())
	denied := errors.New("denied")
	o.Signal = func(context.Context) error { return denied }
	v.write(50)
	if _, err := Rotate(t.Context(), o); !errors.Is(err, denied) {
		t.Errorf("error %v", err)
	}
	if got := v.names(); !slices.Equal(got, []string{"a.log"}) {
		t.Errorf("folder %q", got)
	}
}

func TestExecutable(t *testing.T) {
	v := newVault(t, "a.log")
	if err := os.Chmod(filepath.Join(v.dir, "a.log"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Rotate(t.Context(), v.options(t.TempDir())); !errors.Is(err, ErrExecutable) {
		t.Errorf("error %v", err)
	}
}

func TestBusy(t *testing.T) {
	v := newVault(t, "a.log")
	o := v.options(t.TempDir())
	unlock, err := lock(o.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if _, err := Rotate(t.Context(), o); !errors.Is(err, statefile.ErrBusy) {
		t.Errorf("error %v", err)
	}
}

// dying lets the first n calls through; then the process is as good as dead.
type dying struct {
	files
	left int
}

var errDead = errors.New("killed")

func (d *dying) step() error {
	if d.left--; d.left < 0 {
		return errDead
	}
	return nil
}

func (d *dying) RenameNew(old, new string) error {
	if err := d.step(); err != nil {
		return err
	}
	return d.files.RenameNew(old, new)
}

func (d *dying) Remove(path string) error {
	if err := d.step(); err != nil {
		return err
	}
	return d.files.Remove(path)
}

func (d *dying) Sync() error {
	if err := d.step(); err != nil {
		return err
	}
	return d.files.Sync()
}

func (d *dying) Create(path string) (newFile, error) {
	if err := d.step(); err != nil {
		return nil, err
	}
	f, err := d.files.Create(path)
	return &dyingFile{f, d}, err
}

type dyingFile struct {
	newFile
	d *dying
}

func (f *dyingFile) Write(p []byte) (int, error) {
	if err := f.d.step(); err != nil {
		return 0, err
	}
	return f.newFile.Write(p)
}

func (f *dyingFile) Commit() error {
	if err := f.d.step(); err != nil {
		return err
	}
	return f.newFile.Commit()
}

// Abort of a dead process does nothing: its temporary file stays.
func (f *dyingFile) Abort() {
	if f.d.left >= 0 {
		f.newFile.Abort()
	}
}

func TestKilledAtEveryStep(t *testing.T) {
	for n := 0; ; n++ {
		v := newVault(t, "a.log", "b.log")
		o := v.options(t.TempDir())
		v.write(50)
		d := &dying{left: n}
		o.files = func(dir *dirfs.Dir) files {
			d.files = osFiles{dir}
			return d
		}
		signal := o.Signal
		o.Signal = func(ctx context.Context) error {
			if err := d.step(); err != nil {
				return err
			}
			return signal(ctx)
		}
		_, err := Rotate(t.Context(), o)
		v.write(3)
		v.whole("a.log")
		v.whole("b.log")
		if err == nil && d.left >= 0 {
			if n < 10 {
				t.Fatalf("only %d steps", n)
			}
			return
		}
		o.files, o.Signal = nil, signal
		v.now = v.now.Add(time.Minute)
		if _, err := Rotate(t.Context(), o); err != nil {
			t.Fatalf("step %d: the run after it: %v", n, err)
		}
		v.write(1)
		v.whole("a.log")
		v.whole("b.log")
		for _, name := range v.names() {
			if f, ok := parseName(name); !ok || !f.live() && !f.gz {
				t.Errorf("step %d left %q", n, name)
			}
		}
	}
}

func TestForeignFiles(t *testing.T) {
	v := newVault(t, "a.log")
	for _, name := range []string{"a.log.1", "notes", "x.log.20269999T000000Z", ".hidden.log"} {
		if err := os.WriteFile(filepath.Join(v.dir, name), []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(v.dir, "link.log")); err != nil {
		t.Fatal(err)
	}
	o := v.options(t.TempDir())
	o.Force, o.Policy.KeepBytes, o.Policy.Keep = true, 0, 0
	o.Usage = func(string) (Usage, error) { return Usage{99, 100}, nil }
	v.write(1)
	if _, err := Rotate(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a.log.1", "notes", "x.log.20269999T000000Z", ".hidden.log", "link.log"} {
		if _, err := os.Lstat(filepath.Join(v.dir, name)); errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is gone", name)
		}
	}
}

// Run by hand as root, it leaves nothing that the job, of Vault's user, can't
// read or replace.
func TestRootLeavesItsFilesToTheFoldersOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root gives files away")
	}
	v := newVault(t, "audit-1.log")
	v.write(3)
	state := t.TempDir()
	for dir, id := range map[string]int{v.dir: 4711, state: 4712} {
		if err := os.Chown(dir, id, id+100); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(filepath.Join(v.dir, "audit-1.log"), 4711, 4811); err != nil {
		t.Fatal(err)
	}
	rep, err := Rotate(t.Context(), Options{Dir: v.dir, StateDir: state, Signal: v.signal, Force: true, Now: func() time.Time { return start },
		Policy: Policy{Size: 1 << 20, Age: time.Hour, Keep: time.Hour, KeepBytes: 1 << 20, Warn: 100, Full: 100}})
	if err != nil || len(rep.Rotated) != 1 {
		t.Fatalf("%+v, %v", rep, err)
	}
	for path, id := range map[string]int{
		filepath.Join(v.dir, rep.Rotated[0]+".gz"): 4711,
		filepath.Join(state, stateFile):            4712,
		filepath.Join(state, ".rotate.lock"):       4712,
	} {
		info, err := os.Lstat(path)
		if err != nil {
			t.Error(err)
			continue
		}
		if st := info.Sys().(*syscall.Stat_t); int(st.Uid) != id || int(st.Gid) != id+100 {
			t.Errorf("%s is of %d:%d, want %d:%d", path, st.Uid, st.Gid, id, id+100)
		}
	}
}
