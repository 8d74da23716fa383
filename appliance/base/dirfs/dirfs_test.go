package dirfs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func open(t *testing.T, dir string) *Dir {
	t.Helper()
	d, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestNamesAreSingle(t *testing.T) {
	top := t.TempDir()
	put(t, filepath.Join(top, "outside"), "x")
	dir := filepath.Join(top, "in")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	d := open(t, dir)
	for _, name := range []string{"", ".", "..", "../outside", "/etc/passwd", "a/../../outside", "a\x00b"} {
		_, err := d.Open(name)
		_, lerr := d.Lstat(name)
		_, cerr := d.Create(name)
		for what, err := range map[string]error{"open": err, "lstat": lerr, "create": cerr, "remove": d.Remove(name), "from": d.RenameNew(name, "b"), "to": d.RenameNew("b", name)} {
			if !errors.Is(err, fs.ErrInvalid) {
				t.Errorf("%s of %q: %v", what, name, err)
			}
		}
	}
}

func TestOpensPlainFilesOnly(t *testing.T) {
	top := t.TempDir()
	dir := filepath.Join(top, "in")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(top, "secret"), "x")
	at := func(name string) string { return filepath.Join(dir, name) }
	put(t, at("plain"), "x")
	put(t, at("other"), "x")
	for what, err := range map[string]error{
		"link": os.Symlink("../secret", at("link")), "inside": os.Symlink("plain", at("inside")), "second": os.Link(filepath.Join(top, "secret"), at("second")),
		"pipe": unix.Mkfifo(at("pipe"), 0o600), "folder": os.Mkdir(at("folder"), 0o700),
	} {
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(at("other"), 4711, 0); err != nil {
			t.Fatal(err)
		}
	} else if err := os.Remove(at("other")); err != nil {
		t.Fatal(err)
	}
	d := open(t, dir)
	names, err := d.Names()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		f, err := d.Open(name)
		info, lerr := d.Lstat(name)
		if plain := name == "plain"; (err == nil) != plain || !plain && !errors.Is(err, ErrNotOurs) || lerr != nil || info.Plain != plain {
			t.Errorf("%s: %v, %+v, %v", name, err, info, lerr)
		}
		if err == nil {
			_ = f.Close()
		}
	}
}

func TestCreate(t *testing.T) {
	dir := t.TempDir()
	if os.Geteuid() == 0 {
		if err := os.Chown(dir, 4711, 4712); err != nil {
			t.Fatal(err)
		}
	}
	d := open(t, dir)
	write := func(name string) *File {
		f, err := d.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(f.Abort)
		if _, err := f.WriteString("x"); err != nil {
			t.Fatal(err)
		}
		return f
	}
	if err := write("a").Commit(); err != nil {
		t.Fatal(err)
	}
	if info, err := d.Lstat("a"); err != nil || !info.Plain || info.Mode != 0o600 {
		t.Errorf("%+v, %v", info, err)
	}
	if err := write("a").Commit(); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a name that is taken: %v", err)
	}
	// The folder's owner puts another file in the place of what is under way.
	f := write("b")
	tmp := filepath.Join(dir, f.tmp)
	if err := os.Remove(tmp); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", tmp); err != nil {
		t.Fatal(err)
	}
	if err := f.Commit(); !errors.Is(err, ErrNotOurs) {
		t.Errorf("another file under way: %v", err)
	}
	write("c").Abort()
	if names, err := d.Names(); err != nil || len(names) != 1 {
		t.Errorf("left: %q, %v", names, err)
	}
}

func TestWayToAFolder(t *testing.T) {
	top := t.TempDir()
	real := filepath.Join(top, "real")
	if err := os.MkdirAll(filepath.Join(real, "deep"), 0o755); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(top, "file"), "x")
	for name, to := range map[string]string{"absolute": real, "relative": "real", "loop": "loop", "dangling": "nowhere", "tofile": "file"} {
		if err := os.Symlink(to, filepath.Join(top, name)); err != nil {
			t.Fatal(err)
		}
	}
	// A link that root has put in root's folder is a disk elsewhere.
	for _, dir := range []string{"real/deep", "absolute/deep", "relative/deep", "relative", "real/./deep/"} {
		d := open(t, filepath.Join(top, dir))
		if _, err := d.Names(); err != nil {
			t.Errorf("%s: %v", dir, err)
		}
	}
	for dir, want := range map[string]error{"loop": unix.ELOOP, "dangling": fs.ErrNotExist, "file": unix.ENOTDIR, "tofile": unix.ENOTDIR, "none/x": fs.ErrNotExist} {
		if _, err := Open(filepath.Join(top, dir)); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", dir, err, want)
		}
	}
	// One where somebody else can have put it is not.
	if err := os.Chmod(top, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(filepath.Join(top, "relative", "deep")); !errors.Is(err, unix.ELOOP) {
		t.Errorf("a link in a folder that everybody writes: %v", err)
	}
}
