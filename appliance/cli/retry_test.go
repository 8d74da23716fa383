package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"strongroom.example/appliance/backup/drill/report"
	"strongroom.example/appliance/backup/snapshot"
	"strongroom.example/appliance/base/statefile"
)

func TestRetries(t *testing.T) {
	passing, lasting, ended := fmt.Errorf("bucket: %w", snapshot.ErrUnreachable), errors.New("wrong key"), errors.New("time is up")
	none := errors.Join(fmt.Errorf("bucket: %w", snapshot.ErrUnreachable), snapshot.ErrNoSnapshot)
	for _, tt := range []struct {
		name  string
		n     int
		fails []error // of the tries in turn, then nil
		waits []error // of the waits in turn, then nil
		tries int
		err   error
	}{
		{"at once", 3, nil, nil, 1, nil},
		{"at the last", 2, []error{passing, passing}, nil, 3, nil},
		{"never", 2, []error{passing, passing, passing, passing}, nil, 3, passing},
		{"not asked for", 0, []error{passing}, nil, 1, passing},
		{"it lasts", 3, []error{passing, lasting}, nil, 2, lasting},
		{"one place away, none in the other", 1, []error{none}, nil, 2, nil},
		{"time is up", 3, []error{passing}, []error{ended}, 1, ended},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			c := &cobra.Command{}
			c.SetErr(&out)
			tries, waits := 0, 0
			r := retries{n: tt.n, after: time.Minute, wait: func(_ context.Context, d time.Duration) error {
				if d != time.Minute {
					t.Errorf("it waits %v", d)
				}
				waits++
				if waits > len(tt.waits) {
					return nil
				}
				return tt.waits[waits-1]
			}}
			mayPass := func(err error) bool { return err != lasting && fetchMayPass(err) }
			err := r.do(t.Context(), c, "drill fetch", mayPass, func() error {
				tries++
				if tries > len(tt.fails) {
					return nil
				}
				return tt.fails[tries-1]
			})
			if tries != tt.tries || !errors.Is(err, tt.err) || strings.Count(out.String(), "tried again in 1m0s") != waits {
				t.Errorf("%d tries, want %d; %v\n%s", tries, tt.tries, err, out.String())
			}
		})
	}
}

func TestFetchMayPass(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{snapshot.ErrUnreachable, true}, {snapshot.ErrStalled, true}, {statefile.ErrBusy, true},
		{snapshot.ErrNoSnapshot, false}, {snapshot.ErrCorrupt, false}, {snapshot.ErrDenied, false}, {snapshot.ErrFull, false},
		{&Error{Code: ExitUsage, Err: errors.New("no configuration")}, false},
	} {
		if got := fetchMayPass(fmt.Errorf("fetch: %w", tt.err)); got != tt.want {
			t.Errorf("%v: %t", tt.err, got)
		}
	}
}

func TestTakeMayPass(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{snapshot.ErrUnreachable, true}, {snapshot.ErrStalled, true},
		{snapshot.ErrFull, false}, {snapshot.ErrDenied, false}, {snapshot.ErrStandby, false},
		{&Error{Code: ExitUsage, Err: errors.New("no recipient")}, false},
	} {
		if got := takeMayPass(fmt.Errorf("take: %w", tt.err)); got != tt.want {
			t.Errorf("%v: %t", tt.err, got)
		}
	}
}

// A fetch that fails for good is noted, for status and doctor.
func TestDrillFetchNotesItsFailure(t *testing.T) {
	state := t.TempDir()
	code, out := runDrillCLI(t, "drill", "fetch", "--dir", t.TempDir(), "--take-state", t.TempDir(), "--state", state)
	if code != ExitDrift {
		t.Fatalf("exit code %d:\n%s", code, out)
	}
	f, err := report.LastFetchFailure(state)
	if err != nil || f == nil || time.Since(f.At) > time.Minute || !strings.Contains(f.Error, "no snapshot") {
		t.Errorf("%+v, %v", f, err)
	}
}
