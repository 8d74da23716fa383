package audit

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const hostileUID = 4711

// hostileFolder is a folder of a service's user with one of his logs, and a file of
// root's that he must not get.
func hostileFolder(t *testing.T) (dir, secret string, o Options) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root has what another user's folder could lead to")
	}
	top := t.TempDir()
	dir, secret = filepath.Join(top, "logs"), filepath.Join(top, "shadow")
	for _, d := range []string{dir, filepath.Join(top, "state")} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(d, hostileUID, hostileUID); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(secret, []byte("root:$y$topsecret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	theirs(t, filepath.Join(dir, "audit-1.log"), `{"time":"2026-11-24T15:00:00Z"}`)
	return dir, secret, Options{Dir: dir, StateDir: filepath.Join(top, "state"), Force: true, Now: func() time.Time { return start }, Wait: time.Second,
		Signal: func(context.Context) error { theirs(t, filepath.Join(dir, "audit-1.log"), ""); return nil },
		Usage:  func(string) (Usage, error) { return Usage{1, 100}, nil },
		Policy: Policy{Size: 1 << 20, Age: time.Hour, Keep: time.Hour, KeepBytes: 1 << 20, Warn: 100, Full: 100}}
}

func theirs(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Error(err)
	}
	if err := os.Chown(path, hostileUID, hostileUID); err != nil {
		t.Error(err)
	}
}

// untouched fails the test if the secret has another owner, mode or content, or is
// anywhere in what the user can read.
func untouched(t *testing.T, dir, secret string) {
	t.Helper()
	info, err := os.Lstat(secret)
	if err != nil {
		t.Fatal(err)
	}
	if st := info.Sys().(*syscall.Stat_t); st.Uid != 0 || info.Mode() != 0o600 {
		t.Errorf("the secret is of %d with %v", st.Uid, info.Mode())
	}
	want, err := os.ReadFile(secret)
	if err != nil || !strings.Contains(string(want), "topsecret") {
		t.Errorf("the secret holds %q, %v", want, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() || info.Sys().(*syscall.Stat_t).Ino == inode(t, secret) {
			continue // what he has put there himself
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Error(err)
		}
		if z, err := gzip.NewReader(bytes.NewReader(b)); err == nil {
			if b, err = io.ReadAll(z); err != nil {
				t.Error(err)
			}
		}
		if bytes.Contains(b, []byte("topsecret")) {
			t.Errorf("%s holds the secret", e.Name())
		}
	}
}

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Ino
}

// What a user puts in the place of a log that has just been renamed leads root
// nowhere, and is not waited for.
func TestRootInAFolderOfAnothers(t *testing.T) {
	for name, put := range map[string]func(secret, at string) error{
		"a link":           os.Symlink,
		"a second name":    os.Link,
		"a pipe":           func(_, at string) error { return unix.Mkfifo(at, 0o600) },
		"a folder":         func(_, at string) error { return os.Mkdir(at, 0o700) },
		"a device":         func(_, at string) error { return unix.Mknod(at, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 5))) },
		"a file of root's": func(secret, at string) error { return os.WriteFile(at, []byte("topsecret"), 0o600) },
	} {
		for _, suffix := range []string{"", ".gz"} {
			t.Run(name+suffix, func(t *testing.T) {
				dir, secret, o := hostileFolder(t)
				reopen := o.Signal
				o.Signal = func(ctx context.Context) error {
					rotated, err := filepath.Glob(filepath.Join(dir, "audit-1.log.*"))
					if err != nil || len(rotated) != 1 {
						t.Fatalf("%q, %v", rotated, err)
					}
					if suffix == "" {
						if err := os.Remove(rotated[0]); err != nil {
							t.Fatal(err)
						}
					}
					if err := put(secret, rotated[0]+suffix); err != nil {
						t.Skip(err)
					}
					return reopen(ctx)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				done := make(chan struct{})
				go func() {
					defer close(done)
					_, _ = Rotate(ctx, o) // what it says is another test's
				}()
				select {
				case <-done:
				case <-ctx.Done():
					t.Fatal("it waits for what the user has put there")
				}
				if name != "a file of root's" {
					untouched(t, dir, secret)
					return
				}
				if gz, _ := filepath.Glob(filepath.Join(dir, "*.gz")); suffix == "" && len(gz) > 0 {
					t.Errorf("root's own file was compressed: %q", gz)
				}
			})
		}
	}
}

// The folder itself, or one on the way to it, is a link before, or a link by the
// time that files are worked on.
func TestTheFolderIsSwapped(t *testing.T) {
	dir, secret, o := hostileFolder(t)
	away := filepath.Join(filepath.Dir(dir), "system")
	if err := os.Mkdir(away, 0o700); err != nil {
		t.Fatal(err)
	}
	victim := filepath.Join(away, "audit-1.log.20200101T000000Z.gz")
	if err := os.WriteFile(victim, []byte("root's"), 0o600); err != nil {
		t.Fatal(err)
	}
	reopen := o.Signal
	o.Signal = func(ctx context.Context) error {
		err := reopen(ctx)
		if rerr := os.Rename(dir, dir+".old"); rerr != nil {
			t.Fatal(rerr)
		}
		if lerr := os.Symlink(away, dir); lerr != nil {
			t.Fatal(lerr)
		}
		return err
	}
	_, _ = Rotate(t.Context(), o)
	untouched(t, dir+".old", secret)
	if _, err := os.Lstat(victim); err != nil {
		t.Errorf("it has worked in another folder: %v", err)
	}

	// A folder of his, with a link in it to root's.
	theirs := filepath.Join(filepath.Dir(dir), "theirs")
	if err := os.Mkdir(theirs, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(theirs, hostileUID, hostileUID); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(away, filepath.Join(theirs, "logs")); err != nil {
		t.Fatal(err)
	}
	o.Dir = filepath.Join(theirs, "logs")
	if _, err := Rotate(t.Context(), o); err == nil {
		t.Error("a link in a user's folder was followed")
	}
	if _, err := os.Lstat(victim); err != nil {
		t.Errorf("root's file: %v", err)
	}
}

// A user who swaps as fast as he can: whatever comes of the runs, the secret stays.
func TestASwapperRacesRoot(t *testing.T) {
	dir, secret, o := hostileFolder(t)
	var stop atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		for !stop.Load() {
			entries, err := os.ReadDir(dir)
			if err != nil {
				return
			}
			for _, e := range entries {
				at := filepath.Join(dir, e.Name())
				if e.Name() == "audit-1.log" || strings.HasSuffix(at, ".link") {
					continue
				}
				_ = os.Symlink(secret, at+".link")
				_ = unix.Renameat2(unix.AT_FDCWD, at+".link", unix.AT_FDCWD, at, unix.RENAME_EXCHANGE)
			}
		}
	}()
	for i := range 40 {
		theirs(t, filepath.Join(dir, "audit-1.log"), `{"time":"2026-11-24T15:00:00Z"}`)
		o.Now = func() time.Time { return start.Add(time.Duration(i) * time.Second) }
		_, _ = Rotate(t.Context(), o)
	}
	stop.Store(true)
	<-done
	untouched(t, dir, secret)
}

// The lock and the state are in a folder of the user's, too.
func TestStateOfAHostileUser(t *testing.T) {
	for _, name := range []string{".rotate.lock", stateFile} {
		for how, put := range map[string]func(secret, at string) error{
			"a link": os.Symlink, "a second name": os.Link, "a pipe": func(_, at string) error { return unix.Mkfifo(at, 0o600) },
		} {
			t.Run(name+" is "+how, func(t *testing.T) {
				dir, secret, o := hostileFolder(t)
				if err := put(secret, filepath.Join(o.StateDir, name)); err != nil {
					t.Fatal(err)
				}
				done := make(chan error, 1)
				go func() { _, err := Rotate(t.Context(), o); done <- err }()
				select {
				case err := <-done:
					if err == nil {
						t.Error("nothing is said of it")
					} else if strings.Contains(err.Error(), "topsecret") {
						t.Errorf("it quotes what it was led to: %v", err)
					}
				case <-time.After(20 * time.Second):
					t.Fatal("it waits")
				}
				untouched(t, dir, secret)
			})
		}
	}
}
