package statefile

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"strongroom.example/appliance/base/atomicfile"
)

type state struct {
	Format int    `json:"format"`
	What   string `json:"what"`
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s.json")
	var s state
	if err := Load(path, 1, &s); !errors.Is(err, ErrNone) || errors.Is(err, ErrCorrupt) {
		t.Errorf("no file: %v", err)
	}
	if err := Save(path, state{1, "it"}, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := Load(path, 1, &s); err != nil || s.What != "it" {
		t.Errorf("%+v, %v", s, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o640 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	for name, text := range map[string]string{
		"empty": "", "half": `{"format":1,"wh`, "of another format": `{"format":2}`, "without its format": `{}`,
		"of another type": `{"format":1,"what":7}`, "no object": `[]`, "too big": `{"format":1,"what":"` + strings.Repeat("x", MaxSize) + `"}`,
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Load(path, 1, &s); !errors.Is(err, ErrCorrupt) || errors.Is(err, ErrNone) {
			t.Errorf("a file that is %s: %v", name, err)
		}
	}
	// What can't be read is neither.
	if err := Load(dir, 1, &s); err == nil || errors.Is(err, ErrNone) || errors.Is(err, ErrCorrupt) {
		t.Errorf("a folder: %v", err)
	}
	if err := Load(filepath.Join(path, "below"), 1, &s); err == nil || errors.Is(err, ErrNone) {
		t.Errorf("below a file: %v", err)
	}
}

// failing is an atomicfile whose nth step fails, or ends the process.
type failing struct {
	file
	left *int
	kill bool
}

var (
	errStep   = errors.New("no space left on device")
	errKilled = errors.New("killed")
)

func (f *failing) step() error {
	if *f.left--; *f.left == 0 {
		if f.kill {
			panic(errKilled)
		}
		return errStep
	}
	return nil
}

func (f *failing) Write(p []byte) (int, error) {
	if err := f.step(); err != nil {
		n, _ := f.file.Write(p[:len(p)/2])
		return n, err
	}
	return f.file.Write(p)
}

func (f *failing) Commit() error {
	if err := f.step(); err != nil {
		return err
	}
	return f.file.Commit()
}

// Abort does nothing in a process that is gone.
func (f *failing) Abort() {
	if !f.kill {
		f.file.Abort()
	}
}

// Whichever step fails or is the last of the process, what was there stays, or
// the new one is there whole; and the next run goes on.
func TestCrashes(t *testing.T) {
	for _, kill := range []bool{false, true} {
		done := false
		for n := 1; !done; n++ {
			dir := t.TempDir()
			path := filepath.Join(dir, "s.json")
			if err := Save(path, state{1, "old"}, 0o640); err != nil {
				t.Fatal(err)
			}
			left := n
			create := func(path string, perm fs.FileMode) (file, error) {
				if left--; left == 0 {
					return nil, errStep
				}
				f, err := atomicfile.Create(path, perm)
				return &failing{f, &left, kill}, err
			}
			err := func() (err error) {
				defer func() {
					if recover() != nil {
						err = errKilled
					}
				}()
				return save(path, state{1, "new"}, 0o640, create)
			}()
			done = err == nil
			want := "old"
			if done {
				want = "new"
			}
			var s state
			if err := Load(path, 1, &s); err != nil || s.What != want {
				t.Errorf("step %d, kill %t: %+v, %v, want %s", n, kill, s, err, want)
			}
			entries, err := os.ReadDir(dir)
			if err != nil || !kill && len(entries) != 1 {
				t.Errorf("step %d: %d entries are left (%v)", n, len(entries), err)
			}
			if err := Save(path, state{1, "next"}, 0o640); err != nil {
				t.Errorf("step %d, kill %t: the next run: %v", n, kill, err)
			}
			if done && n != 4 {
				t.Errorf("the test fails %d steps of 3", n-1)
			}
		}
	}
}

func TestLock(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, ".job.lock")
	unlock, err := Lock(path, "upgrade, pid 7")
	if err != nil {
		t.Fatal(err)
	}
	var busy *BusyError
	if _, err := Lock(path, "other"); !errors.Is(err, ErrBusy) || !errors.As(err, &busy) || busy.By != "upgrade, pid 7" {
		t.Errorf("held: %v", err)
	}
	// Children don't hold it on.
	child := exec.Command("sleep", "60")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = child.Process.Kill()
		_ = child.Wait()
	}()
	unlock()
	unlock, err = Lock(path, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(path, ""); !errors.As(err, &busy) || busy.By != "" {
		t.Errorf("who has gone still speaks: %v", err)
	}
	unlock()
}

func TestLockRefuses(t *testing.T) {
	dir := t.TempDir()
	victim := filepath.Join(dir, "victim")
	if err := os.WriteFile(victim, []byte("keep"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"link", "fifo", ".", "none/lock"} {
		if _, err := Lock(filepath.Join(dir, name), "me"); err == nil || errors.Is(err, ErrBusy) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if b, err := os.ReadFile(victim); err != nil || string(b) != "keep" {
		t.Errorf("behind the link: %q, %v", b, err)
	}
}

// What root makes in another's folder is the other's.
func TestOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	for _, want := range []struct{ uid, gid int }{{12345, 23456}, {0, 23456}, {0, 0}} {
		dir := t.TempDir()
		if err := os.Chown(dir, want.uid, want.gid); err != nil {
			t.Fatal(err)
		}
		if err := Save(filepath.Join(dir, "s"), state{}, 0o640); err != nil {
			t.Fatal(err)
		}
		unlock, err := Lock(filepath.Join(dir, "l"), "")
		if err != nil {
			t.Fatal(err)
		}
		unlock()
		for _, name := range []string{"s", "l"} {
			var st unix.Stat_t
			if err := unix.Stat(filepath.Join(dir, name), &st); err != nil || int(st.Uid) != want.uid || int(st.Gid) != want.gid {
				t.Errorf("%s: %d:%d (%v), want %+v", name, st.Uid, st.Gid, err, want)
			}
		}
	}
}
