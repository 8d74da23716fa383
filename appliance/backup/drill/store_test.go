package drill

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"strongroom.example/appliance/backup/drill/report"
	"strongroom.example/appliance/base/statefile"
)

func testKey(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
}

func sampleReport() *report.Report {
	return &report.Report{Format: report.Format, Kind: report.KindDrill, StartedAt: noon, FinishedAt: noon.Add(time.Minute), Passed: true}
}

func TestStore(t *testing.T) {
	dir := t.TempDir()
	if r, err := report.Last(dir); r != nil || err != nil {
		t.Fatalf("before any drill: %+v, %v", r, err)
	}
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	put := func(kind string, passed bool) {
		t.Helper()
		r := sampleReport()
		at = at.Add(time.Hour)
		r.Kind, r.Passed, r.StartedAt = kind, passed, at
		if err := store(dir, r, testKey(1)); err != nil {
			t.Fatal(err)
		}
	}
	put(report.KindDrill, true)
	passed := at
	put(report.KindDrill, false)
	failed := at
	put(report.KindRehearsal, true)
	if r, err := report.Last(dir); err != nil || !r.StartedAt.Equal(failed) || r.Passed {
		t.Errorf("last: %+v, %v", r, err)
	}
	if r, err := LastPassed(dir); err != nil || !r.StartedAt.Equal(passed) {
		t.Errorf("last that passed: %+v, %v", r, err)
	}
	for range keptReports + 3 {
		put(report.KindDrill, false)
	}
	names, err := reports(os.DirFS(reportsDir(dir)))
	if err != nil || len(names) != keptReports {
		t.Errorf("%d reports are kept, %v", len(names), err)
	}
	all, err := os.ReadDir(reportsDir(dir))
	if err != nil || len(all) != 2*keptReports {
		t.Errorf("%d files, %v", len(all), err)
	}
	if fi, err := os.Stat(report.LastPath(dir)); err != nil || fi.Mode().Perm() != 0o640 {
		t.Errorf("%v, %v", fi, err)
	}
	if err := os.WriteFile(report.LastPath(dir), []byte("{"), 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := report.Last(dir); err == nil {
		t.Error("a damaged report is taken")
	}
}

// A report that can't be written is an error, and the last one stays.
func TestStoreFails(t *testing.T) {
	dir := t.TempDir()
	if err := store(dir, sampleReport(), nil); err != nil {
		t.Fatal(err)
	}
	next := sampleReport()
	next.StartedAt = next.StartedAt.Add(time.Hour)
	// A folder where the file belongs.
	stem := filepath.Join(reportsDir(dir), next.StartedAt.Format("20060102T150405.000Z")+"-"+report.KindDrill)
	if err := os.MkdirAll(filepath.Join(stem+".json", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := store(dir, next, nil); err == nil {
		t.Error("no error")
	}
	r, err := report.Last(dir)
	if err != nil || !r.StartedAt.Equal(sampleReport().StartedAt) {
		t.Errorf("last: %+v, %v", r, err)
	}
}

// Whoever owns the state folder leads no report, and no removal, out of it.
func TestStoreStaysInItsFolder(t *testing.T) {
	for name, link := range map[string]func(outside string) string{
		"absolute": func(outside string) string { return outside },
		"relative": func(outside string) string { return filepath.Join("..", filepath.Base(outside)) },
	} {
		t.Run(name, func(t *testing.T) {
			base := t.TempDir()
			dir, outside := filepath.Join(base, "drill"), filepath.Join(base, "outside")
			for _, d := range []string{dir, outside} {
				if err := os.Mkdir(d, 0o700); err != nil {
					t.Fatal(err)
				}
			}
			for i := range keptReports + 5 {
				if err := os.WriteFile(filepath.Join(outside, fmt.Sprintf("%03d.json", i)), []byte("theirs"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Symlink(link(outside), reportsDir(dir)); err != nil {
				t.Fatal(err)
			}
			if err := store(dir, sampleReport(), testKey(1)); err == nil {
				t.Error("no error")
			}
			left, err := os.ReadDir(outside)
			if err != nil || len(left) != keptReports+5 {
				t.Errorf("%d files outside, %v", len(left), err)
			}
			if last, err := report.Last(dir); last != nil || err != nil {
				t.Errorf("last: %+v, %v", last, err)
			}
		})
	}
	// A link at a file's name is replaced, and not written through.
	dir, theirs := t.TempDir(), filepath.Join(t.TempDir(), "theirs")
	if err := os.WriteFile(theirs, []byte("theirs"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(theirs, report.LastPath(dir)); err != nil {
		t.Fatal(err)
	}
	if err := store(dir, sampleReport(), testKey(1)); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(theirs); string(data) != "theirs" || err != nil {
		t.Errorf("%q, %v", data, err)
	}
}

// What root leaves by hand is the job's: it goes on with it.
func TestStoreGivesToTheOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root gives files away")
	}
	const uid, gid = 64123, 64124
	dir := t.TempDir()
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Fatal(err)
	}
	if err := store(dir, sampleReport(), testKey(1)); err != nil {
		t.Fatal(err)
	}
	if err := RecordFetchFailure(dir, noon, ErrNotFetched); err != nil {
		t.Fatal(err)
	}
	n := 0
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		n++
		if u, g, _, err := owner(path); u != uid || g != gid || err != nil {
			t.Errorf("%s belongs to %d:%d, %v", path, u, g, err)
		}
		return nil
	})
	// The folder, the lock, reports/ with two, the newest twice, the failure.
	if err != nil || n != 8 {
		t.Errorf("%d files and folders, %v", n, err)
	}
}

func TestLock(t *testing.T) {
	dir := t.TempDir()
	unlock, err := lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock(dir); !errors.Is(err, statefile.ErrBusy) {
		t.Errorf("a second one: %v", err)
	}
	for name, do := range map[string]func() error{
		"run":     func() error { _, err := Run(t.Context(), Options{StateDir: dir}); return err },
		"fetch":   func() error { _, err := Fetch(t.Context(), FetchOptions{StateDir: dir}); return err },
		"both":    func() error { _, err := FetchAndRun(t.Context(), FetchOptions{}, Options{StateDir: dir}); return err },
		"discard": func() error { return Discard(dir) },
	} {
		if err := do(); !errors.Is(err, statefile.ErrBusy) {
			t.Errorf("%s: %v", name, err)
		}
	}
	unlock()
	if unlock, err = lock(dir); err != nil {
		t.Fatal(err)
	}
	unlock()
}

// Without a fetched snapshot there is a report too, and it failed.
func TestRunWithoutFetch(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(workDir(dir), "left", "behind"), 0o700); err != nil {
		t.Fatal(err)
	}
	r, err := Run(t.Context(), Options{StateDir: dir, Host: "box", SigningKey: testKey(1)})
	if !errors.Is(err, ErrNotFetched) || r.Passed || r.Failure == "" {
		t.Errorf("%+v, %v", r, err)
	}
	if last, err := report.Last(dir); err != nil || last.Passed || last.Host != "box" {
		t.Errorf("last: %+v, %v", last, err)
	}
	if _, err := os.Stat(workDir(dir)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what an earlier one had left is still there: %v", err)
	}
}
