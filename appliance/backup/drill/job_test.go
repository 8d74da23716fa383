package drill

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"strongroom.example/appliance/backup/drill/report"
	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/base/fault"
	"strongroom.example/appliance/base/pause"
	"strongroom.example/appliance/base/statefile"
	"strongroom.example/appliance/serve/escrow"
)

// The job fetches in the end, or notes why it did not.
func TestFetchJob(t *testing.T) {
	p := newPlace(t)
	good := p.take(t, cluster, noon, true)
	empty := newPlace(t)
	wrong := &fault.Error{Code: fault.Usage, Err: errors.New("no table [backup]")}
	for _, tt := range []struct {
		name  string
		more  int
		steps []any // of the tries in turn: what is opened, or why not
		tries int
		err   error
	}{
		{"at once", 2, []any{p}, 1, nil},
		{"away at first", 2, []any{down{}, down{}, p}, 3, nil},
		{"it can't be opened at first", 1, []any{fmt.Errorf("bucket: %w", snapshot.ErrUnreachable), p}, 2, nil},
		{"away for good", 1, []any{down{}, down{}, p}, 2, snapshot.ErrUnreachable},
		{"nothing there", 2, []any{empty, p}, 1, snapshot.ErrNoSnapshot},
		{"a wrong configuration", 2, []any{wrong, p}, 1, wrong},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir, tries := t.TempDir(), 0
			f, err := FetchJob{
				StateDir: dir, Now: func() time.Time { return noon },
				Tries: pause.Tries{More: tt.more, Wait: func(context.Context, time.Duration) error { return nil }},
				Options: func(context.Context) (FetchOptions, error) {
					tries++
					if err, ok := tt.steps[tries-1].(error); ok {
						return FetchOptions{}, err
					}
					return FetchOptions{Destinations: []snapshot.Destination{tt.steps[tries-1].(snapshot.Destination)}, Cluster: cluster, StateDir: dir}, nil
				},
			}.Run(t.Context())
			if !errors.Is(err, tt.err) || tt.err == nil && err != nil || tries != tt.tries {
				t.Fatalf("%d tries, want %d: %v", tries, tt.tries, err)
			}
			note, noteErr := report.LastFetchFailure(dir)
			if noteErr != nil || (note != nil) != (tt.err != nil) {
				t.Errorf("noted %+v, %v", note, noteErr)
			}
			if tt.err == nil && f.ID != good {
				t.Errorf("fetched %q, want %q", f.ID, good)
			}
			if tt.err != nil && (!note.At.Equal(noon) || !strings.Contains(note.Error, tt.err.Error())) {
				t.Errorf("noted %+v", note)
			}
		})
	}
}

func TestMayPass(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{snapshot.ErrUnreachable, true}, {snapshot.ErrStalled, true}, {statefile.ErrBusy, true},
		{errors.Join(snapshot.ErrUnreachable, snapshot.ErrNoSnapshot), true}, // one place away, none in the other
		{snapshot.ErrNoSnapshot, false}, {snapshot.ErrNotFound, false}, {snapshot.ErrCorrupt, false},
		{snapshot.ErrDenied, false}, {snapshot.ErrFull, false},
		{&fault.Error{Code: fault.Usage, Err: errors.New("no configuration")}, false},
	} {
		if got := mayPass(fmt.Errorf("fetch: %w", tt.err)); got != tt.want {
			t.Errorf("%v: %t", tt.err, got)
		}
	}
}

// What root prepares is what the job reads.
func TestPrepare(t *testing.T) {
	dir, esc := t.TempDir(), t.TempDir()
	prepared := func(want string) {
		t.Helper()
		if key, err := Prepared(dir); key != want || err != nil {
			t.Errorf("%q, %v; want %q", key, err, want)
		}
	}
	prepared("")
	left := filepath.Join(dir, "work", "left")
	if err := os.MkdirAll(left, 0o700); err != nil {
		t.Fatal(err)
	}
	prepare := func() error {
		key, err := EscrowedKey(esc)
		if err != nil {
			return err
		}
		return Prepare(dir, key)
	}
	if err := prepare(); err != nil {
		t.Fatal(err)
	}
	prepared("")
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("remains: %v", err)
	}
	if err := os.WriteFile(filepath.Join(esc, "master-key.age"), []byte("sealed"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := escrow.Record(esc, "master-key.age", escrow.ByRestore, "SHA256:abc", noon); err != nil {
		t.Fatal(err)
	}
	if err := prepare(); err != nil {
		t.Fatal(err)
	}
	prepared("SHA256:abc")
	// Of another user, who runs the job.
	if fi, err := os.Stat(filepath.Join(dir, preparedFile)); err != nil || fi.Mode().Perm() != 0o644 {
		t.Errorf("%v, %v", fi, err)
	}
	// A record that can't be read is not none, and a drill under way is left alone.
	if err := os.WriteFile(filepath.Join(esc, escrow.ConfirmationFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := prepare(); err == nil {
		t.Error("a damaged record is taken")
	}
	prepared("SHA256:abc")
	unlock, err := lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if err := Prepare(dir, ""); !errors.Is(err, statefile.ErrBusy) {
		t.Errorf("beside a drill: %v", err)
	}
	prepared("SHA256:abc")
}
