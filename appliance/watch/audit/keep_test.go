package audit

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"strongroom.example/appliance/base/statefile"
)

// olds puts compressed logs of 100 bytes there, one a day before start.
func (v *fakeVault) olds(days int) []string {
	v.t.Helper()
	var out []string
	for d := days; d > 0; d-- {
		name := "old.log." + start.AddDate(0, 0, -d).Format(stampFormat) + ".gz"
		if err := os.WriteFile(filepath.Join(v.dir, name), make([]byte, 100), 0o600); err != nil {
			v.t.Fatal(err)
		}
		out = append(out, name)
	}
	return out
}

func TestPrune(t *testing.T) {
	for name, tc := range map[string]struct {
		keep  time.Duration
		bytes int64
		left  int
		early int // of those that go
		doubt error
	}{
		"by age, by a clock that may be ahead":   {3 * 24 * time.Hour, 1 << 20, 10, 0, errors.New("not synchronised")},
		"by bytes, by a clock that may be ahead": {time.Hour, 450, 4, 6, errors.New("not synchronised")},
		"by age":                                 {3 * 24 * time.Hour, 1 << 20, 3, 0, nil},
		"by bytes":                               {90 * 24 * time.Hour, 450, 4, 6, nil},
		"whichever":                              {5 * 24 * time.Hour, 200, 2, 3, nil},
		"all stay":                               {10 * 24 * time.Hour, 1000, 10, 0, nil},
		"none stays":                             {time.Hour, 0, 0, 0, nil},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVault(t, "a.log")
			olds := v.olds(10)
			o := v.options(t.TempDir())
			o.Policy.Keep, o.Policy.KeepBytes = tc.keep, tc.bytes
			o.Doubt = func() error { return tc.doubt }
			rep, err := Rotate(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			if want := olds[:10-tc.left]; !slices.Equal(rep.Deleted, want) || rep.Kept != tc.left {
				t.Errorf("deleted %q, want %q; %d kept", rep.Deleted, want, rep.Kept)
			}
			if want := olds[10-tc.left-tc.early : 10-tc.left]; !slices.Equal(rep.DeletedEarly, want) && len(want)+len(rep.DeletedEarly) > 0 {
				t.Errorf("early: %q", rep.DeletedEarly)
			}
		})
	}
}

func TestWatermark(t *testing.T) {
	for name, tc := range map[string]struct {
		used  uint64 // percent before; each log that goes frees two
		early int
		level Level
	}{
		"room":           {79, 0, LevelOK},
		"warning":        {80, 0, LevelWarn},
		"nearly full":    {91, 0, LevelWarn},
		"full":           {92, 1, LevelWarn},
		"fuller":         {99, 4, LevelWarn},
		"nothing to win": {120, 10, LevelFull},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVault(t, "a.log")
			olds := v.olds(10)
			o := v.options(t.TempDir())
			o.Usage = func(dir string) (Usage, error) {
				left, err := filepath.Glob(filepath.Join(dir, "*.gz"))
				return Usage{tc.used - 2*uint64(10-len(left)), 100}, err
			}
			v.write(5)
			rep, err := Rotate(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(rep.DeletedEarly, olds[:tc.early]) && tc.early > 0 || len(rep.DeletedEarly) != tc.early || rep.Level != tc.level {
				t.Errorf("early %q, level %s", rep.DeletedEarly, rep.Level)
			}
			v.whole("a.log") // the live one stays, whatever happens
			again, err := Rotate(t.Context(), o)
			if err != nil || again.DeletedEarlyTotal != int64(tc.early) {
				t.Errorf("in all %d, %v; want %d", again.DeletedEarlyTotal, err, tc.early)
			}
		})
	}
}

func TestUsageFails(t *testing.T) {
	v := newVault(t, "a.log")
	o := v.options(t.TempDir())
	broken := errors.New("broken")
	o.Usage = func(string) (Usage, error) { return Usage{}, broken }
	if rep, err := Rotate(t.Context(), o); !errors.Is(err, broken) || rep.Failure != "broken" {
		t.Errorf("%+v, %v", rep, err)
	}
}

func TestStatfs(t *testing.T) {
	u, err := Statfs(t.TempDir())
	if err != nil || u.Total == 0 || u.Used > u.Total || u.Percent() > 100 {
		t.Errorf("%+v, %v", u, err)
	}
	if _, err := Statfs("/no/such/folder"); err == nil {
		t.Error("no error")
	}
}

func TestLoadReportBad(t *testing.T) {
	for name, text := range map[string]string{"no JSON": "{", "of the future": `{"format": 2}`} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, stateFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadReport(dir); err == nil {
			t.Errorf("%s: no error", name)
		}
		// And it doesn't stop a run, which tells of it once: the count of early
		// deletions is lost.
		v := newVault(t, "a.log")
		if _, err := Rotate(t.Context(), v.options(dir)); !errors.Is(err, statefile.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
		if r, err := LoadReport(dir); err != nil || len(r.Logs) != 1 {
			t.Errorf("%s: not written anew: %+v, %v", name, r, err)
		}
		if _, err := Rotate(t.Context(), v.options(dir)); err != nil {
			t.Errorf("%s: the next run: %v", name, err)
		}
	}
}

func FuzzParseName(f *testing.F) {
	for _, s := range []string{"audit-1.log", "audit-1.log.20261124T150000Z", "audit-1.log.20261124T150000Z-2.gz", ".x.log", "a.log.gz", "a.log.99999999T999999Z"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		l, ok := parseName(name)
		if !ok {
			return
		}
		if l.live() != (l.base == name) || l.gz != strings.HasSuffix(name, ".gz") || !strings.HasPrefix(name, l.base) || strings.HasPrefix(name, ".") {
			t.Errorf("%q: %+v", name, l)
		}
	})
}

func FuzzFirstTime(f *testing.F) {
	f.Add(`{"time":"2026-11-24T15:00:00.1Z","type":"request"}`)
	f.Add(`{"time":"never"}`)
	f.Fuzz(func(t *testing.T, text string) {
		if at := firstTime(strings.NewReader(text), start); at.IsZero() && !strings.Contains(text, "0001-01-01") {
			t.Errorf("%q: no time", text)
		}
	})
}
