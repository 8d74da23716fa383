package pause

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"
)

func TestTries(t *testing.T) {
	passing, lasting, ended := errors.New("out of reach"), errors.New("wrong key"), errors.New("time is up")
	for _, tt := range []struct {
		name   string
		more   int
		fails  []error // of the tries in turn, then nil
		waits  []error // of the waits in turn, then nil
		tries  int
		failed []error // that another try follows
		err    error
	}{
		{"at once", 3, nil, nil, 1, nil, nil},
		{"at the last", 2, []error{passing, passing}, nil, 3, []error{passing, passing}, nil},
		{"never", 2, []error{passing, passing, passing, passing}, nil, 3, []error{passing, passing}, passing},
		{"not asked for", 0, []error{passing}, nil, 1, nil, passing},
		{"it lasts", 3, []error{passing, lasting}, nil, 2, []error{passing}, lasting},
		{"time is up", 3, []error{passing}, []error{ended}, 1, []error{passing}, ended},
		{"time is up, and the fault is told", 3, []error{passing}, []error{ended}, 1, []error{passing}, passing},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tries, waits := 0, 0
			var failed []error
			err := Tries{
				More: tt.more, After: time.Minute,
				MayPass: func(err error) bool { return err == passing },
				Failed:  func(err error) { failed = append(failed, err) },
				Wait: func(_ context.Context, d time.Duration) error {
					if d != time.Minute {
						t.Errorf("it waits %v", d)
					}
					if waits++; waits > len(tt.waits) {
						return nil
					}
					return tt.waits[waits-1]
				},
			}.Do(t.Context(), func(context.Context) error {
				if tries++; tries > len(tt.fails) {
					return nil
				}
				return tt.fails[tries-1]
			})
			if tries != tt.tries || !errors.Is(err, tt.err) || tt.err == nil && err != nil || !slices.Equal(failed, tt.failed) {
				t.Errorf("%d tries, want %d; told %v; %v", tries, tt.tries, failed, err)
			}
		})
	}
}

// Whom nobody waits for is not tried again, and nothing needs to be told.
func TestTriesEndWithTheirContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	fails := errors.New("out of reach")
	all := Tries{More: 9, MayPass: func(error) bool { return true }}
	if err := all.Do(ctx, func(context.Context) error { n++; cancel(); return fails }); n != 1 || !errors.Is(err, fails) {
		t.Errorf("%d tries, %v", n, err)
	}
	n = 0
	if err := all.Do(t.Context(), func(context.Context) error {
		if n++; n < 3 {
			return fails
		}
		return nil
	}); err != nil || n != 3 {
		t.Errorf("without a wait: %d tries, %v", n, err)
	}
}
