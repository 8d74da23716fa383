package audit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"strongroom.example/appliance/base/statefile"
	"strongroom.example/appliance/watch/alert"
)

// site is a Vault, its rotation, and the watch over its logs.
type site struct {
	*fakeVault
	t      *testing.T
	rotate Options
	watch  WatchOptions
	// told is what was told, by the last look.
	told   []string
	answer Answer
	// between is done at each pause: what goes on while the watch looks again.
	between func()
}

func newSite(t *testing.T) *site {
	t.Helper()
	v := newVault(t, "audit-1.log", "audit-2.log")
	s := &site{fakeVault: v, t: t, rotate: v.options(t.TempDir()), answer: Logged}
	s.rotate.Policy.Size = 1 << 20
	s.watch = WatchOptions{
		Dir: v.dir, StateDir: t.TempDir(), Deletions: s.rotate.StateDir, Keep: s.rotate.Policy.Keep, Repeat: 6 * time.Hour,
		Now: func() time.Time { return v.now },
		Ask: func(context.Context) Answer {
			if s.answer == Logged {
				v.write(1)
			}
			return s.answer
		},
		Pause: func(context.Context, time.Duration) error {
			if s.between != nil {
				s.between()
			}
			return nil
		},
		Tell: func(losses []Loss, faults []alert.Fault) {
			for _, l := range losses {
				s.told = append(s.told, l.Name+" "+string(l.Cause))
			}
			for _, f := range faults {
				s.told = append(s.told, f.ID)
			}
		},
	}
	born := v.now.Add(-time.Minute)
	s.watch.Born = func() time.Time { return born }
	s.write(20)
	s.quiet("at first")
	return s
}

// look is one a minute later.
func (s *site) look() Ledger {
	s.t.Helper()
	s.now = s.now.Add(time.Minute)
	s.told = nil
	l, err := Watch(s.t.Context(), s.watch)
	if err != nil {
		s.t.Fatal(err)
	}
	stored, err := LoadLedger(s.watch.StateDir)
	if err != nil || len(stored.Losses) != len(l.Losses) || len(stored.Faults) != len(l.Faults) || stored.At != l.At {
		s.t.Fatalf("stored %+v, %v", stored, err)
	}
	return l
}

// quiet wants a look, after ten minutes' too, to find nothing.
func (s *site) quiet(when string) {
	s.t.Helper()
	for range 2 {
		if l := s.look(); len(s.told) > 0 || len(l.Losses)+len(l.Faults) > 0 {
			s.t.Fatalf("%s: told %q; %v, %v", when, s.told, l.Losses, l.Faults)
		}
		s.now = s.now.Add(readEvery)
	}
}

func (s *site) force() {
	s.t.Helper()
	o := s.rotate
	o.Force = true
	if _, err := Rotate(s.t.Context(), o); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

// rotated is a compressed log that is known.
func (s *site) rotated() string {
	s.t.Helper()
	s.force()
	s.quiet("after a rotation")
	for _, name := range s.names() {
		if strings.HasPrefix(name, "audit-1.log.") {
			return name
		}
	}
	s.t.Fatal("nothing was rotated")
	return ""
}

func (s *site) do(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// What the appliance itself does is no loss, whenever the watch looks.
func TestWatchIsQuiet(t *testing.T) {
	for name, do := range map[string]func(s *site){
		"nothing happens":      func(*site) {},
		"a rotation":           func(s *site) { s.force() },
		"two between looks":    func(s *site) { s.force(); s.write(5); s.now = s.now.Add(time.Second); s.force() },
		"a look in between":    func(s *site) { s.force(); s.look(); s.write(3); s.now = s.now.Add(time.Second); s.force() },
		"a restart of Vault":   func(s *site) { s.do(s.open()) },
		"much is written":      func(s *site) { s.write(500) },
		"Vault is sealed":      func(s *site) { s.answer = Idle },
		"sealed in a rotation": func(s *site) { s.answer, s.off = Idle, true; s.force() },
		"ninety days": func(s *site) {
			for range 24 {
				s.now = s.now.Add(5 * 24 * time.Hour)
				s.write(2)
				s.force()
				s.look()
			}
			if left := len(s.names()); left < 36 || left > 40 {
				s.t.Errorf("%d files", left)
			}
		},
		"a mode is mended": func(s *site) {
			n := s.rotated()
			s.do(os.Chmod(s.path(n), 0o640))
			s.do(os.Chmod(s.path(n), 0o600))
		},
		"moved to another disk": func(s *site) {
			s.rotated()
			for _, n := range s.names() {
				b, err := os.ReadFile(s.path(n))
				s.do(err)
				s.do(os.WriteFile(s.path(n)+".new", b, 0o600))
				s.do(os.Rename(s.path(n)+".new", s.path(n)))
			}
			s.do(s.open())
		},
		"the log is renamed, and Vault opens it late": func(s *site) {
			s.do(os.Rename(s.path("audit-1.log"), s.path("audit-1.log.20261124T160000Z")))
			s.between = func() { s.do(s.open()) }
		},
		"it gets its old name back": func(s *site) {
			s.do(os.Rename(s.path("audit-1.log"), s.path("audit-1.log.20261124T160000Z")))
			s.between = func() { _ = os.Rename(s.path("audit-1.log.20261124T160000Z"), s.path("audit-1.log")) }
		},
		"another file of nobody's": func(s *site) { s.do(os.WriteFile(s.path("notes.txt"), []byte("x"), 0o600)) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			do(s)
			s.quiet("afterwards")
			s.force()
			s.quiet("and after a rotation")
		})
	}
}

// Whatever of the history is gone or another is told by the next look, or where its past
// is changed and its size is not, once it is read; and told once.
func TestWatchTells(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(s *site)
		want string // a part of what is told
		late bool   // by the look that reads
	}{
		"a live log is deleted":               {func(s *site) { s.do(os.Remove(s.path("audit-1.log"))) }, "audit-1.log gone", false},
		"deleted and opened anew":             {func(s *site) { s.do(os.Remove(s.path("audit-1.log"))); s.do(s.open()) }, "audit-1.log replaced", false},
		"emptied":                             {func(s *site) { s.do(os.Truncate(s.path("audit-1.log"), 0)) }, "audit-1.log truncated", false},
		"its end is cut":                      {func(s *site) { s.do(os.Truncate(s.path("audit-1.log"), 300)) }, "audit-1.log truncated", false},
		"its past is changed":                 {func(s *site) { s.overwrite("audit-1.log", 10) }, "audit-1.log changed", true},
		"its past is changed, and it rotates": {func(s *site) { s.overwrite("audit-1.log", 10); s.force() }, "audit-1.log ", false},
		"replaced by a longer one":            {func(s *site) { s.replace("audit-1.log", 5000); s.do(s.open()) }, "audit-1.log replaced", false},
		"replaced, and it rotates":            {func(s *site) { s.replace("audit-1.log", 5000); s.do(s.open()); s.force() }, "audit-1.log ", false},
		"rotated by somebody, and deleted":    {func(s *site) { s.force(); s.removeAll("audit-1.log.*") }, "audit-1.log replaced", false},
		"a link in its place": {func(s *site) {
			s.do(os.Remove(s.path("audit-1.log")))
			s.do(os.Symlink("/dev/null", s.path("audit-1.log")))
		}, "audit-1.log replaced", false},
		"a rotated one is deleted":              {func(s *site) { s.do(os.Remove(s.path(s.rotated()))) }, ".gz gone", false},
		"a rotated one is emptied":              {func(s *site) { s.do(os.Truncate(s.path(s.rotated()), 0)) }, ".gz truncated", false},
		"a rotated one is changed":              {func(s *site) { s.overwrite(s.rotated(), 20) }, ".gz changed", false},
		"changed, with its times put back":      {func(s *site) { s.quietly(s.rotated(), 20) }, ".gz changed", false},
		"a rotated one is replaced":             {func(s *site) { s.replace(s.rotated(), 200) }, ".gz replaced", false},
		"a rotated one is moved to an old name": {func(s *site) { s.do(os.Rename(s.path(s.rotated()), s.path("audit-1.log.20200101T000000Z.gz"))) }, ".gz gone", false},
		"all of a folder": {func(s *site) {
			s.rotated()
			s.removeAll("*")
		}, "audit-2.log gone", false},
		// Vault's own user names a log so that the job takes it for one that is too old.
		"deleted by the job, for a false name": {func(s *site) {
			s.do(os.Rename(s.path("audit-1.log"), s.path("audit-1.log.20200101T000000Z")))
			s.do(s.open())
			s.force()
		}, "audit-1.log replaced", false},
		"the same, after a look": {func(s *site) {
			s.do(os.Rename(s.path("audit-1.log"), s.path("audit-1.log.20200101T000000Z")))
			s.do(s.open())
			s.quiet("it is there under another name")
			s.force()
		}, "20200101T000000Z gone", false},
		// It says that the job did it: whose deed it was is then a lie, and it is told.
		"with a false note": {func(s *site) {
			n := s.rotated()
			s.do(statefile.Save(filepath.Join(s.rotate.StateDir, deletionsFile), Deletions{Format: 1, Losses: []Loss{{Name: n, Cause: ForSize, At: s.now, Told: true}}}, 0o640))
			s.do(os.Remove(s.path(n)))
		}, ".gz keep_mb", false},
		"compressed into something else": {func(s *site) {
			s.do(os.Rename(s.path("audit-1.log"), s.path("audit-1.log.20261124T160000Z")))
			s.do(s.open())
			s.quiet("renamed")
			s.do(os.Remove(s.path("audit-1.log.20261124T160000Z")))
			s.replace("audit-1.log.20261124T160000Z.gz", 99)
		}, "20261124T160000Z gone", false},
		"for its size, by the job": {func(s *site) {
			s.rotated()
			o := s.rotate
			o.Policy.KeepBytes = 1
			_, err := Rotate(s.t.Context(), o)
			s.do(err)
		}, ".gz keep_mb", false},
		"for the disk, by the job": {func(s *site) {
			s.rotated()
			o := s.rotate
			o.Usage = func(string) (Usage, error) { return Usage{99, 100}, nil }
			_, err := Rotate(s.t.Context(), o)
			s.do(err)
		}, ".gz disk", false},
		"rotated and deleted for its size at once": {func(s *site) {
			s.force()
			o := s.rotate
			o.Policy.KeepBytes = 1
			_, err := Rotate(s.t.Context(), o)
			s.do(err)
		}, "audit-1.log keep_mb", false},
		"the ledger is deleted": {func(s *site) { s.do(os.Remove(filepath.Join(s.watch.StateDir, ledgerFile))) }, "ledger.json no ledger", false},
		"the ledger is damaged": {func(s *site) {
			s.do(os.WriteFile(filepath.Join(s.watch.StateDir, ledgerFile), []byte(`{"format":1,"files":[`), 0o600))
		}, "ledger.json no ledger", false},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			c.do(s)
			s.now = s.now.Add(fresh)
			if c.late {
				s.now = s.now.Add(readEvery)
			}
			l := s.look()
			if !slices.ContainsFunc(s.told, func(told string) bool { return strings.Contains(told, c.want) }) || len(l.Losses) == 0 {
				t.Fatalf("told %q; %v", s.told, l.Losses)
			}
			for _, x := range l.Losses {
				if x.Until.IsZero() || x.Cause != NoLedger && x.From.IsZero() || !x.Told {
					t.Errorf("%+v", x)
				}
			}
			if info, err := os.Lstat(s.path("audit-1.log")); err == nil && !info.Mode().IsRegular() {
				s.do(os.Remove(s.path("audit-1.log")))
			}
			s.do(s.open())
			// It is shown, and not told again.
			s.look()
			if l := s.look(); len(s.told) > 0 || len(l.Losses) == 0 || len(l.Faults) > 0 {
				t.Errorf("told again %q; %v, %v", s.told, l.Losses, l.Faults)
			}
			if lost, err := Acknowledge(s.watch.StateDir, s.dir); err != nil || len(lost) != len(l.Losses) {
				t.Errorf("acknowledged %v, %v", lost, err)
			}
			s.force()
			s.quiet("once it was acknowledged")
		})
	}
}

// A machine whose age nobody knows is not new, and one without a folder's birth neither.
func TestNoLedgerOnAnOldMachine(t *testing.T) {
	for name, at := range map[string]time.Time{"nobody knows": {}, "old": start.Add(-time.Hour)} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.watch.StateDir = t.TempDir()
			s.watch.Born = func() time.Time { return at }
			if s.look(); len(s.told) != 1 {
				t.Errorf("told %q", s.told)
			}
		})
	}
	if at := born(t.TempDir()); !at.IsZero() && time.Since(at) > time.Minute {
		t.Errorf("a new folder is of %v", at)
	}
	if at := born("/no/such/folder"); !at.IsZero() {
		t.Errorf("no folder is of %v", at)
	}
}

// It ages out when what was lost would be gone anyway.
func TestLossesAgeOut(t *testing.T) {
	s := newSite(t)
	s.do(os.Remove(s.path(s.rotated())))
	s.look()
	s.now = s.now.Add(s.watch.Keep)
	if l := s.look(); len(l.Losses) != 0 {
		t.Errorf("%v", l.Losses)
	}
}

// What is wrong now is told by the look that sees it, again after a while, and no more
// when it is mended as the hint says.
func TestFaults(t *testing.T) {
	for name, c := range map[string]struct {
		do, mend func(s *site)
		want     string
	}{
		"a log is gone":                   {func(s *site) { s.do(os.Remove(s.path("audit-2.log"))) }, func(s *site) { s.do(s.open()) }, "missing audit-2.log"},
		"Vault writes to a file no more":  {func(s *site) { s.do(os.Remove(s.path("audit-2.log"))); s.replace("audit-2.log", 9) }, func(s *site) { s.do(s.open()) }, "unwritten audit-2.log"},
		"a link":                          {func(s *site) { s.do(os.Remove(s.path("audit-2.log"))); s.do(os.Symlink("x", s.path("audit-2.log"))) }, func(s *site) { s.do(os.Remove(s.path("audit-2.log"))); s.do(s.open()) }, "missing audit-2.log"},
		"Vault refuses everybody":         {func(s *site) { s.answer = Mute }, func(s *site) { s.answer = Logged }, "mute"},
		"a device blocks":                 {func(s *site) { s.answer = Silent }, func(s *site) { s.answer = Logged }, "silent"},
		"the folder is away":              {func(s *site) { s.do(os.Rename(s.dir, s.dir+".away")) }, func(s *site) { s.do(os.Rename(s.dir+".away", s.dir)) }, "folder"},
		"renamed, and not opened again":   {func(s *site) { s.do(os.Rename(s.path("audit-2.log"), s.path("audit-2.log.20261124T160000Z"))) }, func(s *site) { s.do(s.open()) }, "missing audit-2.log"},
		"one disappears while it is told": {func(s *site) { s.answer = Mute; s.do(os.Remove(s.path("audit-2.log"))) }, func(s *site) { s.answer = Logged; s.do(s.open()) }, "mute"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			c.do(s)
			l := s.look()
			if !slices.Contains(s.told, c.want) {
				t.Fatalf("told %q", s.told)
			}
			for _, f := range l.Faults {
				if f.Hint == "" || f.Text == "" || f.Since != s.now {
					t.Errorf("%+v", f)
				}
			}
			if s.look(); slices.Contains(s.told, c.want) {
				t.Errorf("told again at once: %q", s.told)
			}
			s.now = s.now.Add(s.watch.Repeat)
			if s.look(); !slices.Contains(s.told, c.want) {
				t.Errorf("not told again after a while: %q", s.told)
			}
			c.mend(s)
			if l := s.look(); len(l.Faults) > 0 || len(s.told) > 0 {
				t.Errorf("mended: told %q, %v", s.told, l.Faults)
			}
		})
	}
}

// A device that was taken away on purpose is missed until somebody says so.
func TestAcknowledgeALogThatIsGone(t *testing.T) {
	s := newSite(t)
	delete(s.files, "audit-2.log")
	s.look()
	if !slices.Contains(s.told, "unwritten audit-2.log") {
		t.Fatalf("told %q", s.told)
	}
	s.do(os.Remove(s.path("audit-2.log")))
	s.look()
	if _, err := Acknowledge(s.watch.StateDir, s.dir); err != nil {
		t.Fatal(err)
	}
	s.quiet("acknowledged")
}

// Killed at whatever moment between its writes, it loses no finding: what was not told is
// told by the next look.
func TestWatchKilled(t *testing.T) {
	s := newSite(t)
	s.do(os.Remove(s.path(s.rotated())))
	tell := s.watch.Tell
	s.watch.Tell = func([]Loss, []alert.Fault) { panic("killed") }
	func() {
		defer func() { _ = recover() }()
		s.look()
	}()
	s.watch.Tell = tell
	s.look()
	if len(s.told) != 1 || !strings.HasSuffix(s.told[0], " gone") {
		t.Errorf("told %q", s.told)
	}
}

// A ledger that cannot be written is an error, and nothing is forgotten by it.
func TestWatchCannotWrite(t *testing.T) {
	s := newSite(t)
	s.do(os.Remove(s.path(s.rotated())))
	o := s.watch
	o.StateDir = filepath.Join(o.StateDir, "none")
	if _, err := Watch(t.Context(), o); err == nil {
		t.Error("no error")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	o = s.watch
	o.Pause = func(ctx context.Context, _ time.Duration) error { return ctx.Err() }
	if _, err := Watch(ended, o); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if s.look(); len(s.told) != 1 {
		t.Errorf("told %q", s.told)
	}
}

// More is there than one look may read: it is read over several.
func TestOldLogsAreReadOverManyLooks(t *testing.T) {
	s := newSite(t)
	s.watch.budget = 1 << 20
	for n := range 3 {
		name := s.path(fmt.Sprintf("audit-1.log.2026110%dT000000Z.gz", n+1))
		s.do(os.WriteFile(name, nil, 0o600))
		s.do(os.Truncate(name, 3<<18))
	}
	unread := func(l Ledger) (n int) {
		for _, k := range l.Files {
			if k.Sum == "" {
				n++
			}
		}
		return n
	}
	if n := unread(s.look()); n != 1 {
		t.Errorf("%d of 3 are unread", n)
	}
	if n := unread(s.look()); n != 0 {
		t.Errorf("%d of 3 are unread after two looks", n)
	}
	s.quiet("read")
}

// overwrite changes a byte of the past.
func (s *site) overwrite(name string, at int64) {
	s.t.Helper()
	f, err := os.OpenFile(s.path(name), os.O_RDWR, 0)
	s.do(err)
	defer f.Close()
	b := make([]byte, 1)
	_, err = f.ReadAt(b, at)
	s.do(err)
	_, err = f.WriteAt([]byte{b[0] ^ 1}, at)
	s.do(err)
}

// quietly is overwrite by one who puts the file's times back.
func (s *site) quietly(name string, at int64) {
	s.t.Helper()
	info, err := os.Stat(s.path(name))
	s.do(err)
	s.overwrite(name, at)
	s.do(os.Chtimes(s.path(name), info.ModTime(), info.ModTime()))
}

// replace puts another file in its place.
func (s *site) replace(name string, size int) {
	s.t.Helper()
	s.do(os.WriteFile(s.path("new"), []byte(strings.Repeat("x", size)), 0o600))
	s.do(os.Rename(s.path("new"), s.path(name)))
}

func (s *site) removeAll(pattern string) {
	s.t.Helper()
	all, err := filepath.Glob(s.path(pattern))
	s.do(err)
	for _, name := range all {
		s.do(os.Remove(name))
	}
}

// A clock that is years ahead makes nothing too old to be missed, as long as nobody has
// set it by others.
func TestClockAheadHidesNoLoss(t *testing.T) {
	for name, doubt := range map[string]error{"in doubt": errors.New("not synchronised"), "believed": nil} {
		s := newSite(t)
		s.replace("audit-1.log.20261124T160000Z", 9)
		s.quiet("with a rotated log")
		s.watch.Doubt = func() error { return doubt }
		s.now = s.now.AddDate(4, 0, 0)
		s.do(os.Remove(s.path("audit-1.log.20261124T160000Z")))
		l := s.look()
		if told := slices.Contains(s.told, "audit-1.log.20261124T160000Z gone"); told != (doubt != nil) {
			t.Errorf("%s: told %q", name, s.told)
		}
		if doubt == nil {
			continue
		}
		s.now = s.now.AddDate(4, 0, 0)
		if l = s.look(); len(l.Losses) != 1 {
			t.Errorf("what was told is forgotten by such a clock: %v", l.Losses)
		}
	}
}

// Where a device blocks, that is told by the first look, without a log being read, which
// might block as well; and where Vault answers late, it is not asked until it is too late.
func TestBlockedDeviceIsToldAtOnce(t *testing.T) {
	s := newSite(t)
	s.answer = Silent
	s.do(os.Remove(s.path("audit-2.log")))
	s.do(unix.Mkfifo(s.path("audit-2.log"), 0o600))
	reads := 0
	s.between = func() { reads++ }
	s.look()
	if !slices.Contains(s.told, "silent") || !slices.Contains(s.told, "missing audit-2.log") || reads != 0 {
		t.Errorf("told %q, after %d looks more", s.told, reads)
	}

	s = newSite(t)
	began, asked := s.now, 0
	ask := s.watch.Ask
	s.watch.Ask = func(ctx context.Context) Answer {
		asked++
		s.now = s.now.Add(10 * time.Second) // of two devices the other one writes
		return ask(ctx)
	}
	s.do(os.Remove(s.path("audit-2.log")))
	s.replace("audit-2.log", 9)
	s.look()
	if !slices.Contains(s.told, "unwritten audit-2.log") || asked > 4 {
		t.Errorf("told %q, asked %d times in %v", s.told, asked, s.now.Sub(began))
	}
}
