package report

import (
	"os"
	"testing"
	"time"

	"strongroom.example/appliance/base/statefile"
)

// No drill yet, a report that can't be read and a damaged one are three answers; so
// with the note of a fetch that failed.
func TestLast(t *testing.T) {
	dir := t.TempDir()
	if r, err := Last(dir); r != nil || err != nil {
		t.Errorf("before any: %+v, %v", r, err)
	}
	if f, err := LastFetchFailure(dir); f != nil || err != nil {
		t.Errorf("no fetch before any: %+v, %v", f, err)
	}
	want := sampleReport()
	if err := os.WriteFile(LastPath(dir), encode(t, want, nil), 0o600); err != nil {
		t.Fatal(err)
	}
	if r, err := Last(dir); err != nil || r.Host != want.Host || !r.FinishedAt.Equal(want.FinishedAt) || r.Passed != want.Passed {
		t.Errorf("unsigned: %+v, %v", r, err)
	}
	at := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	if err := statefile.Save(FetchFailurePath(dir), FetchFailure{At: at, Error: "bucket: no route"}, 0o640); err != nil {
		t.Fatal(err)
	}
	if f, err := LastFetchFailure(dir); err != nil || !f.At.Equal(at) || f.Error != "bucket: no route" {
		t.Errorf("%+v, %v", f, err)
	}
	for name, spoil := range map[string]func(path string) error{
		"damaged":  func(path string) error { return os.WriteFile(path, []byte("{"), 0o600) },
		"empty":    func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"a folder": func(path string) error { return os.Mkdir(path, 0o700) },
	} {
		for _, path := range []string{LastPath(dir), FetchFailurePath(dir)} {
			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
			if err := spoil(path); err != nil {
				t.Fatal(err)
			}
		}
		if r, err := Last(dir); r != nil || err == nil {
			t.Errorf("a report, %s: %+v, %v", name, r, err)
		}
		if f, err := LastFetchFailure(dir); f != nil || err == nil {
			t.Errorf("a note, %s: %+v, %v", name, f, err)
		}
	}
}
