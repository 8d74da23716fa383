package audit

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"strongroom.example/appliance/base/dirfs"
	"strongroom.example/appliance/base/statefile"
)

// dailies puts compressed logs there, one a day before start, each with an entry of the
// day before it.
func (v *fakeVault) dailies(days int) []string {
	v.t.Helper()
	var out []string
	for d := days; d > 0; d-- {
		at := start.AddDate(0, 0, -d)
		name := "old.log." + at.Format(stampFormat) + ".gz"
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		fmt.Fprintf(z, "{\"time\":%q}\n", at.AddDate(0, 0, -1).Format(time.RFC3339))
		if err := z.Close(); err != nil {
			v.t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(v.dir, name), b.Bytes(), 0o600); err != nil {
			v.t.Fatal(err)
		}
		out = append(out, name)
	}
	return out
}

// What goes for its sum, and not for its age, is told once with the time that is lost.
func TestDeletedForSizeIsTold(t *testing.T) {
	v := newVault(t, "a.log")
	olds := v.dailies(10)
	o := v.options(t.TempDir())
	o.Policy.Keep, o.Policy.KeepBytes = 6*24*time.Hour+time.Hour, 1
	var told []Loss
	o.Tell = func(l []Loss) { told = append(told, l...) }
	rep, err := Rotate(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	// Four were too old, six were not.
	if len(rep.Deleted) != 10 || !slices.Equal(rep.DeletedEarly, olds[4:]) || rep.DeletedEarlyTotal != 6 {
		t.Errorf("deleted %q, early %q, in all %d", rep.Deleted, rep.DeletedEarly, rep.DeletedEarlyTotal)
	}
	if len(told) != 6 || !slices.Equal(told, rep.Lost) {
		t.Fatalf("told %v, the report has %v", told, rep.Lost)
	}
	want := Loss{Name: olds[4], From: start.AddDate(0, 0, -7), Until: start.AddDate(0, 0, -6), Cause: ForSize, At: start}
	if told[0] != want {
		t.Errorf("%+v, want %+v", told[0], want)
	}
	if s := told[0].String(); !strings.Contains(s, "keep_mb") || !strings.Contains(s, "17 Nov 2026 15:00 UTC to 18 Nov 2026 15:00 UTC") {
		t.Errorf("%s", s)
	}
	if rep, err := Rotate(t.Context(), o); err != nil || len(rep.Lost) != 0 || len(told) != 6 || rep.DeletedEarlyTotal != 6 {
		t.Errorf("again: %v, told %d; %v", rep.Lost, len(told), err)
	}
}

// Killed at whatever step: what is gone was noted down before, is told by the run after
// it at the latest, and what is not gone is not told.
func TestKilledWhileDeleting(t *testing.T) {
	for _, cause := range []Cause{ForSize, ForDisk} {
		for n := 0; ; n++ {
			v := newVault(t, "a.log")
			olds := v.dailies(4)
			o := v.options(t.TempDir())
			if cause == ForSize {
				o.Policy.KeepBytes = 1
			} else {
				o.Usage = func(dir string) (Usage, error) { return Usage{99, 100}, nil }
			}
			d := &dying{left: n}
			o.files = func(dir *dirfs.Dir) files {
				d.files = osFiles{dir}
				return d
			}
			o.save = func(path string, v any, perm fs.FileMode) error {
				if err := d.step(); err != nil {
					return err
				}
				return statefile.Save(path, v, perm)
			}
			told := map[string]int{}
			o.Tell = func(lost []Loss) {
				if d.left < 0 {
					return // the dead tell nothing
				}
				for _, l := range lost {
					if l.Cause != cause {
						t.Errorf("step %d: %v", n, l)
					}
					told[l.Name]++
				}
			}
			_, err := Rotate(t.Context(), o)
			died := d.left < 0
			noted, lerr := LoadDeletions(o.StateDir)
			if lerr != nil {
				t.Fatal(lerr)
			}
			for _, name := range olds {
				_, gone := os.Lstat(filepath.Join(v.dir, name))
				if gone != nil && !slices.ContainsFunc(noted.Losses, func(l Loss) bool { return l.Name == name }) {
					t.Errorf("step %d: %s is gone, and nobody says why", n, name)
				}
			}
			if !died && err != nil {
				t.Fatal(err)
			}
			o.files, o.save = nil, nil
			d.left = 1 << 30
			o.Policy.KeepBytes = 1 << 20
			o.Usage = func(string) (Usage, error) { return Usage{10, 100}, nil }
			rep, err := Rotate(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			gone := int64(0)
			for _, name := range olds {
				_, lost := os.Lstat(filepath.Join(v.dir, name))
				if lost != nil {
					gone++
				}
				// Killed between the telling and its note, it is told twice.
				if want := lost != nil; (told[name] > 0) != want || told[name] > 2 {
					t.Errorf("%s, step %d: %s gone %t, told %d times", cause, n, name, want, told[name])
				}
			}
			if rep.DeletedEarlyTotal != gone {
				t.Errorf("%s, step %d: %d are gone, counted %d", cause, n, gone, rep.DeletedEarlyTotal)
			}
			if !died {
				if n < 8 {
					t.Fatalf("only %d steps", n)
				}
				break
			}
		}
	}
}

// A note that cannot be written keeps the log: it is never deleted unnoted.
func TestNoDeletionWithoutANote(t *testing.T) {
	v := newVault(t, "a.log")
	olds := v.dailies(2)
	o := v.options(t.TempDir())
	o.Policy.KeepBytes = 1
	o.save = func(path string, v any, perm fs.FileMode) error {
		if filepath.Base(path) == deletionsFile {
			return errDead
		}
		return statefile.Save(path, v, perm)
	}
	if _, err := Rotate(context.Background(), o); err == nil || !strings.Contains(err.Error(), "note it down before") {
		t.Errorf("error %v", err)
	}
	for _, name := range olds {
		if _, err := os.Lstat(filepath.Join(v.dir, name)); err != nil {
			t.Error(err)
		}
	}
}
