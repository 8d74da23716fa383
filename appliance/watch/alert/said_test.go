package alert

import (
	"fmt"
	"sync"
	"testing"
	"time"
)

// A failure after the unit has succeeded again is another one, whatever it looks like.
func TestFailureAfterASuccess(t *testing.T) {
	s := Said{Units: map[string]saidOf{}}
	e := event
	s.Told(e)
	e.At = e.At.Add(time.Hour)
	if due, _ := s.Due(e, 6*time.Hour); due {
		t.Error("the same failure is told again")
	}
	e.Mended = true
	if due, unsaid := s.Due(e, 6*time.Hour); !due || unsaid != 0 {
		t.Errorf("one after a success: due %t, %d unsaid", due, unsaid)
	}
}

// Alerts at once lose nothing of each other.
func TestUpdateSaidAtOnce(t *testing.T) {
	dir := t.TempDir()
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			e := event
			e.Unit = fmt.Sprintf("u%d.service", i)
			if err := UpdateSaid(t.Context(), dir, func(s *Said) { s.Told(e) }); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if s, err := LoadSaid(dir); err != nil || len(s.Units) != 20 {
		t.Errorf("%d units are remembered, %v", len(s.Units), err)
	}
	called := false
	if err := UpdateSaid(t.Context(), dir+"/none", func(*Said) { called = true }); err == nil || !called {
		t.Errorf("without a folder: called %t, %v", called, err)
	}
}
