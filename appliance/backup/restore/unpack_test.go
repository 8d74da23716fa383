package restore

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"strongroom.example/appliance/backup/snapshot"
)

var then = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

// member is one entry of a test's archive.
type member struct {
	name string
	mode int64
	body string
	kind byte
	link string
	user string
}

func tarOf(t testing.TB, members ...member) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		if m.kind == 0 {
			m.kind = tar.TypeReg
		}
		if err := w.WriteHeader(&tar.Header{Name: m.name, Mode: m.mode, Size: int64(len(m.body)), Typeflag: m.kind, Linkname: m.link, ModTime: then, Uid: 4711, Uname: m.user}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, m.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// filesOf is an archive as it comes from a destination.
func filesOf(t testing.TB, archive []byte) (*Files, error) {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w, err := age.Encrypt(&b, id.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(archive); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "x.files.age")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := FilesFromFile(t.Context(), path, []age.Identity{id})
	if err == nil {
		t.Cleanup(func() { _ = f.Close() })
	}
	return f, err
}

func good() []member {
	return []member{
		{name: "etc/strongroom/", mode: 0o750, kind: tar.TypeDir},
		{name: "etc/strongroom/appliance.toml", mode: 0o644, body: "domain"},
		{name: "var/lib/front/key", mode: 0o4600, body: "certificate"},
	}
}

func TestUnpack(t *testing.T) {
	f, err := filesOf(t, tarOf(t, good()...))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	o := UnpackOptions{Root: dir}
	u, err := f.Unpack(t.Context(), o)
	if err != nil || len(u.New) != 2 {
		t.Fatalf("%+v, %v", u, err)
	}
	for name, want := range map[string]struct {
		body string
		mode fs.FileMode
	}{"etc/strongroom/appliance.toml": {"domain", 0o644}, "var/lib/front/key": {"certificate", 0o600}} {
		fi, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		body, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || string(body) != want.body || fi.Mode() != want.mode || !fi.ModTime().Equal(then) {
			t.Errorf("%s: %q, %v, %v, %v", name, body, fi.Mode(), fi.ModTime(), err)
		}
	}
	if fi, err := os.Stat(filepath.Join(dir, "etc/strongroom")); err != nil || fi.Mode().Perm() != 0o750 {
		t.Errorf("folder: %v, %v", fi, err)
	}
	if u, err := f.Unpack(t.Context(), o); err != nil || len(u.Same) != 2 || len(u.New)+len(u.Replaced)+len(u.Newer) != 0 {
		t.Errorf("again: %+v, %v", u, err)
	}

	// An older file is replaced, a newer one only when told so.
	key := filepath.Join(dir, "var/lib/front/key")
	change := func(body string, at time.Time) {
		t.Helper()
		if err := errors.Join(os.WriteFile(key, []byte(body), 0o600), os.Chtimes(key, at, at)); err != nil {
			t.Fatal(err)
		}
	}
	change("older", then.Add(-time.Hour))
	if u, err := f.Unpack(t.Context(), o); err != nil || !slices.Equal(u.Replaced, []string{"var/lib/front/key"}) {
		t.Errorf("older: %+v, %v", u, err)
	}
	change("renewed", then.Add(time.Hour))
	if err := os.Remove(filepath.Join(dir, "etc/strongroom/appliance.toml")); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Unpack(t.Context(), o); !errors.Is(err, ErrNewer) {
		t.Errorf("newer: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "etc/strongroom/appliance.toml")); err == nil {
		t.Error("something was written although a newer file was in the way")
	}
	o.Overwrite = true
	if _, err := f.Unpack(t.Context(), o); err != nil {
		t.Error(err)
	}
	if body, _ := os.ReadFile(key); string(body) != "certificate" {
		t.Errorf("overwritten: %q", body)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*", "*", "*", ".*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestUnpackOnlyWhatIsWanted(t *testing.T) {
	f, err := filesOf(t, tarOf(t, good()...))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if _, err := f.Unpack(t.Context(), UnpackOptions{Root: dir, Want: func(n string) bool { return strings.HasPrefix(n, "var/") }}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "etc")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("etc: %v", err)
	}
	if b, err := f.Read(t.Context(), "etc/strongroom/appliance.toml", 100); err != nil || string(b) != "domain" {
		t.Errorf("read: %q, %v", b, err)
	}
	if _, err := f.Read(t.Context(), "etc/strongroom/appliance.toml", 3); err == nil {
		t.Error("read more than allowed")
	}
	if _, err := f.Read(t.Context(), "etc/none", 100); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("read what is not there: %v", err)
	}
}

// What no snapshot job writes is refused before anything is unpacked.
func TestUnsafeArchives(t *testing.T) {
	for _, c := range []struct {
		name string
		bad  member
	}{
		{"out of the folder", member{name: "../evil", body: "x"}},
		{"out of the folder, deep", member{name: "etc/../../evil", body: "x"}},
		{"absolute", member{name: "/etc/evil", body: "x"}},
		{"not clean", member{name: "etc/./evil", body: "x"}},
		{"a link", member{name: "etc/evil", kind: tar.TypeSymlink, link: "/etc/passwd"}},
		{"a hard link", member{name: "etc/evil", kind: tar.TypeLink, link: "etc/strongroom/appliance.toml"}},
		{"a device", member{name: "etc/evil", kind: tar.TypeBlock}},
		{"a pipe", member{name: "etc/evil", kind: tar.TypeFifo}},
		{"twice", member{name: "var/lib/front/key", body: "x"}},
		{"nothing", member{name: "./", kind: tar.TypeDir}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := filesOf(t, tarOf(t, append(good(), c.bad)...)); !errors.Is(err, ErrUnsafe) {
				t.Errorf("error %v", err)
			}
		})
	}
}

// Links that are on the disk already lead nowhere else.
func TestUnpackFollowsNoLinkOut(t *testing.T) {
	f, err := filesOf(t, tarOf(t, good()...))
	if err != nil {
		t.Fatal(err)
	}
	outside := t.TempDir()
	for _, link := range []string{"var", "var/lib/front/key"} {
		dir := t.TempDir()
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(link)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(outside, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Unpack(t.Context(), UnpackOptions{Root: dir, Overwrite: true}); err == nil {
			t.Errorf("%s: unpacked through a link", link)
		}
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
		t.Errorf("outside: %v, %v", left, err)
	}
}

func TestDamagedFilesArchive(t *testing.T) {
	whole := tarOf(t, good()...)
	for _, c := range []struct {
		name string
		data []byte
		want error
	}{
		{"cut", whole[:700], snapshot.ErrCorrupt},
		{"no archive", bytes.Repeat([]byte("x"), 600), snapshot.ErrCorrupt},
	} {
		if _, err := filesOf(t, c.data); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if _, err := FetchFiles(t.Context(), Choice{}, nil, t.TempDir()); !errors.Is(err, ErrNoFiles) {
		t.Errorf("without files: %v", err)
	}
}

// From a destination, through the manifest's sums.
func TestFetchFiles(t *testing.T) {
	s := newStore(t)
	s.opts.Files = func(_ context.Context, w io.Writer) error {
		_, err := w.Write(tarOf(t, good()...))
		return err
	}
	c, err := ByID(t.Context(), []snapshot.Destination{s.dest}, s.take(t, time.Now(), false))
	if err != nil {
		t.Fatal(err)
	}
	f, err := FetchFiles(t.Context(), c, []age.Identity{s.id}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if list, err := f.List(t.Context()); err != nil || len(list) != 3 {
		t.Errorf("%v, %v", list, err)
	}
	other, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := FetchFiles(t.Context(), c, []age.Identity{other}, t.TempDir()); !errors.Is(err, snapshot.ErrWrongIdentity) {
		t.Errorf("wrong identity: %v", err)
	}
	path := filepath.Join(s.path, c.Manifest.Files.Name)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)-1] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := FetchFiles(t.Context(), c, []age.Identity{s.id}, t.TempDir()); !errors.Is(err, snapshot.ErrCorrupt) {
		t.Errorf("damaged: %v", err)
	}
}

// Whatever an archive says, nothing appears beside the folder it goes to.
func FuzzUnpack(f *testing.F) {
	f.Add(tarOf(f, good()...))
	f.Add(tarOf(f, member{name: "../x", body: "x"}))
	f.Add(tarOf(f, member{name: "a/b", body: "x"}, member{name: "a", body: "y"}))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<16 {
			return
		}
		files, err := filesOf(t, data)
		if err != nil {
			return
		}
		base := t.TempDir()
		dir := filepath.Join(base, "root")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		_, _ = files.Unpack(t.Context(), UnpackOptions{Root: dir})
		if entries, err := os.ReadDir(base); err != nil || len(entries) != 1 {
			t.Fatalf("beside the folder: %v, %v", entries, err)
		}
	})
}
