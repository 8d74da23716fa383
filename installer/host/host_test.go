package host

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// me are the attributes that any user may give to his own files.
func me(mode fs.FileMode) Attr { return Attr{Mode: mode, UID: os.Getuid(), GID: os.Getgid()} }

func TestFSConformance(t *testing.T) {
	for name, open := range map[string]func(t *testing.T) FS{
		"memory": func(*testing.T) FS { return NewMemory() },
		"os":     func(t *testing.T) FS { return OSFS{Root: t.TempDir()} },
	} {
		t.Run(name, func(t *testing.T) { testFS(t, open) })
	}
}

func testFS(t *testing.T, open func(*testing.T) FS) {
	write := func(t *testing.T, f FS, p, content string, a Attr) {
		t.Helper()
		if err := f.Write(p, strings.NewReader(content), a); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("write replaces content and attributes", func(t *testing.T) {
		f := open(t)
		for _, c := range []struct {
			content string
			mode    fs.FileMode
		}{{"a longer first content", 0o600}, {"second", 0o640}, {"third", 0o444}} {
			write(t, f, "/f", c.content, me(c.mode))
			b, err := f.ReadFile("/f")
			if err != nil || string(b) != c.content {
				t.Errorf("content = %q, %v", b, err)
			}
			info, err := f.Stat("/f")
			if err != nil || info.Attr != me(c.mode) || info.Type != 0 || info.Size != int64(len(c.content)) {
				t.Errorf("info = %+v, %v", info, err)
			}
		}
		if names, err := f.ReadDir("/"); err != nil || !slices.Equal(names, []string{"f"}) {
			t.Errorf("folder holds %q, %v", names, err)
		}
		r, err := f.Open("/f")
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if b, err := io.ReadAll(r); err != nil || string(b) != "third" {
			t.Errorf("read %q, %v", b, err)
		}
	})
	t.Run("a reader that fails leaves the old file", func(t *testing.T) {
		f := open(t)
		write(t, f, "/f", "old", me(0o600))
		err := f.Write("/f", io.MultiReader(strings.NewReader("half"), brokenReader{}), me(0o600))
		if !errors.Is(err, errReader) {
			t.Errorf("error = %v", err)
		}
		if b, err := f.ReadFile("/f"); err != nil || string(b) != "old" {
			t.Errorf("content = %q, %v", b, err)
		}
		if names, _ := f.ReadDir("/"); !slices.Equal(names, []string{"f"}) {
			t.Errorf("folder holds %q", names)
		}
	})
	t.Run("missing", func(t *testing.T) {
		f := open(t)
		_, err1 := f.Stat("/no")
		_, err2 := f.ReadFile("/no")
		_, err3 := f.ReadDir("/no")
		_, err4 := f.Open("/no")
		for i, err := range []error{err1, err2, err3, err4,
			f.SetAttr("/no", me(0o600)),
			f.Mkdir("/no/dir", me(0o700)),
			f.Write("/no/f", strings.NewReader(""), me(0o600))} {
			if !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("call %d: error = %v, want not-exist", i, err)
			}
		}
		if err := f.Remove("/no"); err != nil {
			t.Errorf("remove of what isn't there: %v", err)
		}
		if err := f.RemoveAll("/no"); err != nil {
			t.Errorf("remove all of what isn't there: %v", err)
		}
	})
	t.Run("folders", func(t *testing.T) {
		f := open(t)
		for _, mode := range []fs.FileMode{0o755, 0o700} { // made, then changed
			if err := f.Mkdir("/d", me(mode)); err != nil {
				t.Fatal(err)
			}
			if info, err := f.Stat("/d"); err != nil || info.Attr != me(mode) || info.Type != fs.ModeDir {
				t.Errorf("info = %+v, %v", info, err)
			}
		}
		write(t, f, "/d/b", "", me(0o600))
		write(t, f, "/d/a", "", me(0o600))
		if names, err := f.ReadDir("/d"); err != nil || !slices.Equal(names, []string{"a", "b"}) {
			t.Errorf("folder holds %q, %v", names, err)
		}
		if err := f.Remove("/d"); err == nil {
			t.Error("a folder that isn't empty was removed")
		}
		if err := f.Mkdir("/d/a", me(0o700)); err == nil {
			t.Error("a folder was made in place of a file")
		}
		if err := f.Write("/d", strings.NewReader(""), me(0o600)); err == nil {
			t.Error("a file was written in place of a folder")
		}
		if err := f.RemoveAll("/d"); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Stat("/d/a"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("after removal: %v", err)
		}
		if err := f.RemoveAll("/"); err == nil {
			t.Error("/ was removed")
		}
	})
	t.Run("links", func(t *testing.T) {
		f := open(t)
		for _, target := range []string{"/one", "/two"} {
			if err := f.Symlink(target, "/l"); err != nil {
				t.Fatal(err)
			}
			if info, err := f.Stat("/l"); err != nil || info.Type != fs.ModeSymlink || info.Target != target {
				t.Errorf("info = %+v, %v", info, err)
			}
		}
		write(t, f, "/f", "content", me(0o600))
		if err := f.Symlink("/one", "/f"); err == nil {
			t.Error("a link replaced a file")
		}
		if b, _ := f.ReadFile("/f"); string(b) != "content" {
			t.Errorf("content = %q", b)
		}
	})
	t.Run("attributes", func(t *testing.T) {
		f := open(t)
		write(t, f, "/f", "x", me(0o600))
		if err := f.SetAttr("/f", me(0o644)); err != nil {
			t.Fatal(err)
		}
		if info, _ := f.Stat("/f"); info.Attr != me(0o644) {
			t.Errorf("info = %+v", info)
		}
	})
	t.Run("space", func(t *testing.T) {
		if total, free, err := open(t).Space("/"); err != nil || total == 0 || free > total {
			t.Errorf("space = %d, %d, %v", total, free, err)
		}
	})
}

var errReader = errors.New("reader broke")

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errReader }

func TestOSFSSweepsKilledWrites(t *testing.T) {
	f := OSFS{Root: t.TempDir()}
	for _, name := range []string{".f.tmp-123", ".f.tmp-", ".other.tmp-1", "f.tmp-1"} {
		if err := os.WriteFile(filepath.Join(f.Root, name), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Write("/f", strings.NewReader("whole"), me(0o600)); err != nil {
		t.Fatal(err)
	}
	names, err := f.ReadDir("/")
	if want := []string{".other.tmp-1", "f", "f.tmp-1"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("folder holds %q, %v, want %q", names, err, want)
	}
}

func TestAccountsConformance(t *testing.T) {
	for name, open := range map[string]func(t *testing.T) Accounts{
		"memory": func(*testing.T) Accounts {
			m := NewMemory()
			m.Users["root"] = User{Name: "root", Home: "/root", Shell: "/bin/bash"}
			m.Groups["root"] = Group{Name: "root"}
			return m
		},
		"os": func(t *testing.T) Accounts {
			if os.Getuid() != 0 {
				t.Skip("not root: systemd-sysusers --root needs it")
			}
			if _, err := exec.LookPath("systemd-sysusers"); err != nil {
				t.Skip("no systemd-sysusers here")
			}
			root := t.TempDir()
			for name, content := range map[string]string{
				"passwd": "root:x:0:0:root:/root:/bin/bash\nbroken line\n",
				"group":  "root:x:0:\n",
			} {
				p := filepath.Join(root, "etc", name)
				if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			return OSAccounts{Root: root, Runner: OSRunner{}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := open(t)
			if u, err := a.User("root"); err != nil || u.UID != 0 || u.Home != "/root" || u.Shell != "/bin/bash" {
				t.Errorf("root = %+v, %v", u, err)
			}
			if _, err := a.User("vault"); !errors.Is(err, ErrNotFound) {
				t.Errorf("error = %v, want ErrNotFound", err)
			}
			if _, err := a.Group("vault"); !errors.Is(err, ErrNotFound) {
				t.Errorf("error = %v, want ErrNotFound", err)
			}
			var first User
			for i := range 2 { // the second time it is there already
				if err := a.AddSystemUser(t.Context(), "vault", "HashiCorp Vault"); err != nil {
					t.Fatal(err)
				}
				u, err := a.User("vault")
				if err != nil {
					t.Fatal(err)
				}
				g, err := a.Group("vault")
				if err != nil || g.GID != u.GID {
					t.Errorf("group = %+v, %v; user = %+v", g, err, u)
				}
				if u.UID == 0 || u.UID >= 1000 || !strings.HasSuffix(u.Shell, "nologin") {
					t.Errorf("user = %+v: not a system user without a login", u)
				}
				if i == 0 {
					first = u
				}
				if u != first {
					t.Errorf("the second call changed %+v to %+v", first, u)
				}
			}
		})
	}
}

func TestRunnerConformance(t *testing.T) {
	memory := NewMemory()
	memory.Commands["sh"] = func(c Command, stdin []byte) (Output, error) {
		switch c.Args[2] {
		case "cat":
			return Output{Stdout: stdin}, nil
		case "echo bad >&2; exit 3":
			return Output{Stderr: []byte("bad\n")}, &ExitError{Command: c.String(), Code: 3, Stderr: "bad"}
		}
		return Output{}, nil
	}
	for name, r := range map[string]Runner{"memory": memory, "os": OSRunner{}} {
		t.Run(name, func(t *testing.T) {
			out, err := r.Run(t.Context(), Command{Args: []string{"sh", "-c", "cat"}, Stdin: strings.NewReader("in")})
			if err != nil || string(out.Stdout) != "in" {
				t.Errorf("output = %q, %v", out.Stdout, err)
			}
			out, err = r.Run(t.Context(), Command{Args: []string{"sh", "-c", "echo bad >&2; exit 3"}})
			var exit *ExitError
			if !errors.As(err, &exit) || exit.Code != 3 || exit.Stderr != "bad" || string(out.Stderr) != "bad\n" {
				t.Errorf("error = %v, output = %q", err, out.Stderr)
			}
			if _, err := r.Run(t.Context(), Command{Args: []string{"no-such-program"}}); !errors.Is(err, ErrNotFound) {
				t.Errorf("error = %v, want ErrNotFound", err)
			}
		})
	}
}

func TestOSRunnerEnvironment(t *testing.T) {
	t.Setenv("VAULT_TOKEN", "must not be handed on")
	out, err := OSRunner{}.Run(t.Context(), Command{Args: []string{"env"}, Env: []string{"GIVEN=1"}})
	if err != nil {
		t.Fatal(err)
	}
	if s := string(out.Stdout); strings.Contains(s, "VAULT_TOKEN") || !strings.Contains(s, "GIVEN=1") || !strings.Contains(s, "LC_ALL=C.UTF-8") {
		t.Errorf("environment:\n%s", s)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (OSRunner{}).Run(ctx, Command{Args: []string{"sleep", "60"}}); !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v", err)
	}
}

func TestMemoryFaults(t *testing.T) {
	for _, after := range []bool{false, true} {
		m := NewMemory()
		m.FailAt, m.AfterEffect = 2, after
		if err := m.Write("/a", strings.NewReader("x"), Attr{}); err != nil {
			t.Fatal(err)
		}
		if err := m.Write("/b", strings.NewReader("x"), Attr{}); !errors.Is(err, ErrInjected) {
			t.Errorf("error = %v", err)
		}
		if _, err := m.Stat("/b"); (err == nil) != after {
			t.Errorf("after=%v: stat: %v", after, err)
		}
	}
}

// Root sets owner and mode in folders of jobs' users, who could put a link there.
func TestSetAttrFollowsNoLink(t *testing.T) {
	root := t.TempDir()
	target := filepath.Join(t.TempDir(), "target")
	if err := os.WriteFile(target, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	err := OSFS{Root: root}.SetAttr("/link", Attr{Mode: 0o777, UID: os.Getuid(), GID: os.Getgid()})
	if !errors.Is(err, syscall.ELOOP) {
		t.Errorf("SetAttr of a link: %v, want %v", err, syscall.ELOOP)
	}
	if fi, err := os.Stat(target); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("what it leads to: %v, %v", fi, err)
	}
}
