package snapshot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"golang.org/x/sys/unix"

	"strongroom.example/config"
)

// The suite that every Destination passes, the tests' own fake included.
func TestDestinationConformance(t *testing.T) {
	v := startVersity(t)
	v.bucket(t, "plain", false)
	v.bucket(t, "locks", true)
	v.bucket(t, "prefixed", false)
	kinds := []struct {
		name string
		new  func(t *testing.T) Destination
	}{
		{"mem", func(*testing.T) Destination { return newMem("mem") }},
		{"dir", func(t *testing.T) Destination { return newTestDir(t) }},
		{"a folder as it is configured", func(t *testing.T) Destination {
			return NewPlace(config.BackupTo{Type: config.BackupDir, Path: t.TempDir()}, nil)
		}},
		{"s3", func(t *testing.T) Destination { return v.open(t, S3Config{Bucket: "plain", PartSize: minPart}) }},
		{"s3 with versions and object lock", func(t *testing.T) Destination {
			return v.open(t, S3Config{Bucket: "locks", PartSize: minPart})
		}},
		{"s3 below a prefix", func(t *testing.T) Destination {
			return v.open(t, S3Config{Bucket: "prefixed", Prefix: "a/b", PartSize: minPart})
		}},
	}
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) { conform(t, k.new(t)) })
	}
}

func newTestDir(t testing.TB) *Dir {
	t.Helper()
	d, err := NewDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func conform(t *testing.T, d Destination) {
	sizes := map[string]int{
		"c/empty": 0, "c/one": 1, "c/small": 1000,
		"c/part-1": minPart - 1, "c/part": minPart, "c/part+1": minPart + 1,
		"c/parts": 2*minPart + 4711,
	}
	for name, size := range sizes {
		name = strings.ReplaceAll(name, "+", "p")
		t.Run("put and get "+name, func(t *testing.T) { conformRoundTrip(t, d, name, size) })
	}
	t.Run("refuses to overwrite", func(t *testing.T) { conformExists(t, d) })
	t.Run("stores nothing of a broken stream", func(t *testing.T) { conformBroken(t, d) })
	t.Run("stores nothing after a cancel", func(t *testing.T) { conformCancel(t, d) })
	t.Run("says when there is nothing", func(t *testing.T) { conformMissing(t, d) })
	t.Run("refuses names that lead elsewhere", func(t *testing.T) { conformNames(t, d) })
	t.Run("lists", func(t *testing.T) { conformList(t, d) })
	t.Run("deletes", func(t *testing.T) { conformDelete(t, d) })
	t.Run("takes and verifies snapshots", func(t *testing.T) { conformSnapshot(t, d) })
}

func put(t *testing.T, d Destination, name string, data []byte) ObjectInfo {
	t.Helper()
	info, err := d.Put(t.Context(), name, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func get(t *testing.T, d Destination, name string) []byte {
	t.Helper()
	rc, err := d.Get(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	b, err := io.ReadAll(rc)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func absent(t *testing.T, d Destination, name string) {
	t.Helper()
	if _, err := d.Stat(t.Context(), name); !errors.Is(err, ErrNotFound) {
		t.Errorf("%q: got %v, want %v", name, err, ErrNotFound)
	}
	if rc, err := d.Get(t.Context(), name); !errors.Is(err, ErrNotFound) {
		t.Errorf("get %q: got %v, want %v", name, err, ErrNotFound)
		if err == nil {
			rc.Close()
		}
	}
	all, err := d.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range all {
		if o.Name == name {
			t.Errorf("%q is listed", name)
		}
	}
}

func conformRoundTrip(t *testing.T, d Destination, name string, size int) {
	data := randomBytes(size, 11)
	// Small reads: nothing may depend on how the stream is cut.
	info, err := d.Put(t.Context(), name, iotest.HalfReader(bytes.NewReader(data)))
	if err != nil {
		t.Fatal(err)
	}
	stat, err := d.Stat(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range []ObjectInfo{info, stat} {
		if i.Name != name || i.Size != int64(size) || i.ModTime.IsZero() || !i.LockedUntil.IsZero() {
			t.Errorf("got %+v, want %q with %d bytes", i, name, size)
		}
	}
	if got := get(t, d, name); hexSum(got) != hexSum(data) {
		t.Errorf("got %d other bytes back", len(got))
	}
}

func conformExists(t *testing.T, d Destination) {
	put(t, d, "x/first", []byte("first"))
	if _, err := d.Put(t.Context(), "x/first", strings.NewReader("second")); !errors.Is(err, ErrExists) {
		t.Errorf("got %v, want %v", err, ErrExists)
	}
	if got := get(t, d, "x/first"); string(got) != "first" {
		t.Errorf("now it is %q", got)
	}
}

func conformBroken(t *testing.T, d Destination) {
	// io.ErrUnexpectedEOF is what a broken connection gives and what careless
	// loops take for the end.
	for i, fault := range []error{errDisk, io.ErrUnexpectedEOF} {
		for _, size := range []int{0, 1, 1000, minPart, minPart + 1, 2 * minPart} {
			name := fmt.Sprintf("broken/%d-%d", i, size)
			r := io.MultiReader(bytes.NewReader(randomBytes(size, 12)), iotest.ErrReader(fault))
			if _, err := d.Put(t.Context(), name, r); !errors.Is(err, fault) {
				t.Errorf("%s: got %v, want %v", name, err, fault)
			}
			absent(t, d, name)
		}
	}
	if s, ok := d.(Sweeper); ok {
		if n, err := s.Sweep(t.Context(), time.Now().Add(time.Hour)); err != nil || n != 0 {
			t.Errorf("%d remains of broken uploads, %v", n, err)
		}
	}
}

func conformCancel(t *testing.T, d Destination) {
	ctx, cancel := context.WithCancel(t.Context())
	r := io.MultiReader(bytes.NewReader(randomBytes(minPart+5, 13)), readFunc(func([]byte) (int, error) {
		cancel()
		return 0, ctx.Err()
	}))
	if _, err := d.Put(ctx, "cancelled/x", r); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	absent(t, d, "cancelled/x")
	if _, err := d.List(ctx, ""); !errors.Is(err, context.Canceled) {
		t.Errorf("list: got %v, want %v", err, context.Canceled)
	}
}

func conformMissing(t *testing.T, d Destination) {
	absent(t, d, "missing/x")
	if err := d.Delete(t.Context(), "missing/x"); err != nil {
		t.Errorf("delete: %v", err)
	}
}

func conformNames(t *testing.T, d Destination) {
	for _, name := range []string{"", "/", "..", "../x", "a/../x", "/etc/x", "a//b", ".hidden", "a/.hidden", "a\x00b", "a b", strings.Repeat("x", 300)} {
		if _, err := d.Put(t.Context(), name, strings.NewReader("x")); err == nil {
			t.Errorf("put %q was accepted", name)
		}
		if rc, err := d.Get(t.Context(), name); err == nil {
			rc.Close()
			t.Errorf("get %q was accepted", name)
		}
		if err := d.Delete(t.Context(), name); err == nil {
			t.Errorf("delete %q was accepted", name)
		}
	}
}

func conformList(t *testing.T, d Destination) {
	for _, name := range []string{"l/b", "l/a", "l/a.json", "lx/a"} {
		put(t, d, name, []byte(name))
	}
	tests := []struct {
		prefix string
		want   []string
	}{
		{"l/", []string{"l/a", "l/a.json", "l/b"}},
		{"l/a", []string{"l/a", "l/a.json"}},
		{"nothing/", nil},
	}
	for _, tt := range tests {
		got, err := d.List(t.Context(), tt.prefix)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, o := range got {
			names = append(names, o.Name)
			if o.Size != int64(len(o.Name)) || o.ModTime.IsZero() {
				t.Errorf("listed as %+v", o)
			}
		}
		if strings.Join(names, " ") != strings.Join(tt.want, " ") {
			t.Errorf("list %q: got %q, want %q", tt.prefix, names, tt.want)
		}
	}
}

func conformDelete(t *testing.T, d Destination) {
	// The name that begins like the other must survive.
	put(t, d, "d/a", []byte("a"))
	put(t, d, "d/a.json", []byte("b"))
	for range 2 {
		if err := d.Delete(t.Context(), "d/a"); err != nil {
			t.Fatal(err)
		}
	}
	absent(t, d, "d/a")
	if got := get(t, d, "d/a.json"); string(got) != "b" {
		t.Errorf("the other object is now %q", got)
	}
	// And the name can be used again.
	put(t, d, "d/a", []byte("again"))
}

func conformSnapshot(t *testing.T, d Destination) {
	k := newKeys(t)
	raw := buildArchive(t, archiveSpec{state: randomBytes(minPart+1000, 14)})
	o := takeOptions(t, k, bytesSource(raw), d)
	taken, err := Take(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	rec, err := Verify(t.Context(), verifyOptions(t, k, d))
	if err != nil || rec.ID != taken.Manifest.ID {
		t.Fatalf("verified %q, %v", rec.ID, err)
	}
	// A bad archive leaves no trace.
	before, err := d.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	o.Source = bytesSource(raw[:len(raw)-1])
	if _, err := Take(t.Context(), o); !errors.Is(err, ErrTruncated) {
		t.Fatalf("got %v, want %v", err, ErrTruncated)
	}
	after, err := d.List(t.Context(), "")
	if err != nil || len(before) != len(after) {
		t.Errorf("%d objects became %d, %v", len(before), len(after), err)
	}
}

func TestDirMustBeThere(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(t.TempDir(), "not-mounted"), file} {
		// Not "not found": that would be said of an object.
		if _, err := NewDir(path); !errors.Is(err, ErrPlace) || errors.Is(err, ErrNotFound) {
			t.Errorf("%q: got %v, want %v", path, err, ErrPlace)
		}
	}
}

// failingFS lets the nth file system call fail.
type failingFS struct {
	osFS
	n, calls int
	err      error
}

func (f *failingFS) fail() error {
	if f.calls++; f.calls == f.n {
		return f.err
	}
	return nil
}

func (f *failingFS) Mkdir(path string) error {
	return errors.Join(f.fail(), f.osFS.Mkdir(path))
}

func (f *failingFS) CreateTemp(dir, pattern string) (dirFile, error) {
	if err := f.fail(); err != nil {
		return nil, err
	}
	file, err := f.osFS.CreateTemp(dir, pattern)
	return &failingFile{file, f}, err
}

func (f *failingFS) RenameNew(old, name string) error {
	if err := f.fail(); err != nil {
		return err
	}
	return f.osFS.RenameNew(old, name)
}

func (f *failingFS) SyncDir(path string) error {
	return errors.Join(f.fail(), f.osFS.SyncDir(path))
}

type failingFile struct {
	dirFile
	fs *failingFS
}

func (f *failingFile) Write(p []byte) (int, error) {
	if err := f.fs.fail(); err != nil {
		n, _ := f.dirFile.Write(p[:len(p)/2]) // a full disk takes a part
		return n, err
	}
	return f.dirFile.Write(p)
}

func (f *failingFile) Sync() error  { return errors.Join(f.fs.fail(), f.dirFile.Sync()) }
func (f *failingFile) Close() error { return errors.Join(f.fs.fail(), f.dirFile.Close()) }

// For every n: the nth file system call of a Put fails, the disk being full.
func TestDirPutFailsAtEveryCall(t *testing.T) {
	data := randomBytes(100_000, 15)
	for n := 1; ; n++ {
		d := newTestDir(t)
		put(t, d, "old/x", []byte("old"))
		f := &failingFS{n: n, err: &os.PathError{Op: "write", Path: "x", Err: unix.ENOSPC}}
		d.fs = f
		_, err := d.Put(t.Context(), "new/x", iotest.HalfReader(bytes.NewReader(data)))
		if f.calls < n {
			if err != nil || n < 8 {
				t.Fatalf("%d calls, %v", f.calls, err)
			}
			return
		}
		if !errors.Is(err, ErrFull) {
			t.Fatalf("call %d: got %v, want %v", n, err, ErrFull)
		}
		absent(t, d, "new/x")
		if got := get(t, d, "old/x"); string(got) != "old" {
			t.Fatalf("call %d: the older object is now %q", n, got)
		}
		if left, err := filepath.Glob(filepath.Join(d.root, "new", ".*")); err != nil || len(left) > 0 {
			t.Fatalf("call %d: left %q, %v", n, left, err)
		}
	}
}
