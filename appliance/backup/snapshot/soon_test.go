package snapshot

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// soonOptions has a state whose last snapshot was taken so long ago; 0: never.
func soonOptions(t *testing.T, last time.Duration) SoonOptions {
	t.Helper()
	o := SoonOptions{Changed: filepath.Join(t.TempDir(), "rotated"), TakeStateDir: t.TempDir(),
		Quiet: time.Minute, Most: 5 * time.Minute, Every: 5 * time.Minute}
	if last != 0 {
		s := TakeState{Format: stateFormat, Last: map[string]TakenRecord{"dir:/x": {TakenAt: time.Now().Add(-last)}}}
		if err := s.save(o.TakeStateDir); err != nil {
			t.Fatal(err)
		}
	}
	return o
}

func touchNow(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, time.Now(), time.Now()); err != nil {
		t.Fatal(err)
	}
}

func TestAwaitQuiet(t *testing.T) {
	for name, tc := range map[string]struct {
		last    time.Duration   // since the last snapshot
		touches []time.Duration // after the start
		want    time.Duration
	}{
		"one rotation":             {time.Hour, []time.Duration{0}, time.Minute},
		"the first snapshot ever":  {0, []time.Duration{0}, time.Minute},
		"several in one go":        {time.Hour, []time.Duration{0, 20 * time.Second, 50 * time.Second}, 110 * time.Second},
		"again just before":        {time.Hour, []time.Duration{0, 59 * time.Second}, 119 * time.Second},
		"after the end":            {time.Hour, []time.Duration{0, 61 * time.Second}, time.Minute},
		"it never ends":            {time.Hour, every(29*time.Second, 20), 5 * time.Minute},
		"soon after a snapshot":    {time.Minute, []time.Duration{0}, 4 * time.Minute},
		"a while after a snapshot": {270 * time.Second, []time.Duration{0}, time.Minute},
		"the clock was set back":   {-time.Hour, []time.Duration{0}, time.Minute},
		"no file":                  {time.Hour, nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := soonOptions(t, tc.last)
				start := time.Now()
				for _, d := range tc.touches {
					if d == 0 {
						touchNow(t, o.Changed)
						continue
					}
					time.AfterFunc(d, func() { touchNow(t, o.Changed) })
				}
				if err := AwaitQuiet(t.Context(), o); err != nil {
					t.Fatal(err)
				}
				if got := time.Since(start); got != tc.want {
					t.Errorf("due after %v, want %v", got, tc.want)
				}
				if _, err := os.Lstat(o.Changed); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("the file is still there: %v", err)
				}
			})
		})
	}
}

func every(d time.Duration, n int) []time.Duration {
	var out []time.Duration
	for i := range n {
		out = append(out, time.Duration(i)*d)
	}
	return out
}

func TestAwaitQuietEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := soonOptions(t, time.Hour)
		touchNow(t, o.Changed)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := AwaitQuiet(ctx, o); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		// The rotation is not forgotten.
		if _, err := os.Lstat(o.Changed); err != nil {
			t.Error(err)
		}
	})
}

func TestAwaitQuietFaults(t *testing.T) {
	// A spoilt state is not its business.
	o := soonOptions(t, 0)
	o.Quiet = 0
	if err := os.WriteFile(filepath.Join(o.TakeStateDir, takeStateFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	touchNow(t, o.Changed)
	if err := AwaitQuiet(t.Context(), o); err != nil {
		t.Error(err)
	}
	// A file that can't be removed: a folder with something in it.
	if err := os.MkdirAll(filepath.Join(o.Changed, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := AwaitQuiet(t.Context(), o); err == nil {
		t.Error("no error")
	}
}

func TestRecordStandby(t *testing.T) {
	dir := t.TempDir()
	at := time.Date(2026, 11, 24, 15, 0, 0, 0, time.UTC)
	if err := RecordTakeFailure(dir, at, at, errors.New("down")); err != nil {
		t.Fatal(err)
	}
	if err := RecordStandby(dir, at); err != nil {
		t.Fatal(err)
	}
	if s, err := LoadTakeState(dir); err != nil || s.Standby == nil || !s.Standby.Equal(at) || s.Failure != nil {
		t.Errorf("%+v, %v", s, err)
	}
}

// It removes what it waits for: so that is looked at first.
func TestAwaitQuietRemovesMarksAlone(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	for _, err := range []error{
		os.WriteFile(path("configuration"), []byte("precious"), 0o600),
		os.Mkdir(path("folder"), 0o700),
		syscall.Mkfifo(path("pipe"), 0o600),
		os.Symlink(path("configuration"), path("link")),
		os.Symlink("/dev/zero", path("link to a device")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"configuration", "folder", "pipe", "link", "link to a device"} {
		o := soonOptions(t, 0)
		o.Changed, o.Quiet, o.Most = path(name), 0, 0
		if err := AwaitQuiet(t.Context(), o); !errors.Is(err, ErrNoMark) || !strings.Contains(err.Error(), path(name)) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Lstat(path(name)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Who asks for a snapshot leaves the mark that is waited for, and follows no link.
func TestAskSoon(t *testing.T) {
	dir := t.TempDir()
	mark := filepath.Join(dir, "rotated")
	for range 2 {
		if err := AskSoon(mark); err != nil {
			t.Fatal(err)
		}
		if fi, err := os.Lstat(mark); err != nil || fi.Size() != 0 || fi.Mode() != 0o600 || time.Since(fi.ModTime()).Abs() > time.Minute {
			t.Fatalf("%v, %v", fi, err)
		}
		if err := os.Chtimes(mark, time.Time{}, time.Now().Add(-time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	if err := AwaitQuiet(t.Context(), SoonOptions{Changed: mark, TakeStateDir: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(mark); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
	target := filepath.Join(dir, "target")
	if err := os.Symlink(target, mark); err != nil {
		t.Fatal(err)
	}
	if err := AskSoon(mark); err == nil {
		t.Error("a link was followed")
	}
	// Nor is another file's second name, nor what is put in the place of the folder.
	if err := errors.Join(os.Remove(mark), os.WriteFile(target, []byte("x"), 0o644), os.Link(target, mark)); err != nil {
		t.Fatal(err)
	}
	if err := AskSoon(mark); err == nil {
		t.Error("a second name was touched")
	}
	if os.Geteuid() == 0 {
		theirs, elsewhere := t.TempDir(), t.TempDir()
		if err := errors.Join(os.Chown(theirs, 4711, 4711), os.Symlink(elsewhere, filepath.Join(theirs, "changed"))); err != nil {
			t.Fatal(err)
		}
		if err := AskSoon(filepath.Join(theirs, "changed", "rotated")); err == nil {
			t.Error("a link in the place of the folder was followed")
		}
		if left, err := os.ReadDir(elsewhere); err != nil || len(left) > 0 {
			t.Errorf("%v were made elsewhere, %v", left, err)
		}
	}
	if err := AskSoon(filepath.Join(dir, "none", "rotated")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
}
