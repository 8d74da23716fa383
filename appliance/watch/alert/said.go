package alert

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"strongroom.example/appliance/base/pause"
	"strongroom.example/appliance/base/statefile"
)

const (
	saidFile   = "said.json"
	saidFormat = 1
	// maxSaid bounds the units that are remembered.
	maxSaid = 200
)

// Said remembers what was told, so that a job that fails every ten minutes is
// not told of every ten minutes.
type Said struct {
	Format int               `json:"format"`
	Units  map[string]saidOf `json:"units"`
}

type saidOf struct {
	Failure string    `json:"failure"` // result and status
	At      time.Time `json:"at"`
	Unsaid  int       `json:"unsaid"`
}

// LoadSaid reads the state directory's. A spoilt file is as good as none: then
// something is told twice.
func LoadSaid(dir string) (Said, error) {
	fresh := Said{Format: saidFormat, Units: map[string]saidOf{}}
	var s Said
	err := statefile.Load(filepath.Join(dir, saidFile), saidFormat, &s)
	switch {
	case errors.Is(err, statefile.ErrNone), errors.Is(err, statefile.ErrCorrupt), err == nil && s.Units == nil:
		return fresh, nil
	case err != nil:
		return fresh, err
	}
	return s, nil
}

// Due says whether e is to be told, and how many were not told before it. Where
// it is not, it is counted.
func (s *Said) Due(e Event, repeat time.Duration) (due bool, unsaid int) {
	u, ok := s.Units[e.Unit]
	if !ok || u.Failure != failureOf(e) || e.Mended {
		return true, 0
	}
	// A clock that was set back must not silence it for years.
	if ago := e.At.Sub(u.At); ago >= repeat || ago < 0 {
		return true, u.Unsaid
	}
	u.Unsaid++
	s.Units[e.Unit] = u
	return false, u.Unsaid
}

// Told notes that e was told.
func (s *Said) Told(e Event) {
	if len(s.Units) >= maxSaid {
		s.Units = map[string]saidOf{}
	}
	s.Units[e.Unit] = saidOf{Failure: failureOf(e), At: e.At.UTC()}
}

func failureOf(e Event) string { return e.Result + " " + e.Status }

// LastTold is when a unit's failure was last told; zero where none was.
func (s *Said) LastTold(unit string) time.Time { return s.Units[unit].At }

// saidWait is how long another alert, which writes at this moment, is waited for.
const saidWait = 5 * time.Second

// UpdateSaid changes what is remembered. Of two alerts at once none loses what the other
// has noted. An error is told beside the alert and stops none: change is called in any
// case.
func UpdateSaid(ctx context.Context, dir string, change func(*Said)) error {
	ctx, cancel := context.WithTimeout(ctx, saidWait)
	defer cancel()
	var unlock func()
	var err error
	for {
		unlock, err = statefile.Lock(filepath.Join(dir, ".said.lock"), "")
		if !errors.Is(err, statefile.ErrBusy) || pause.For(ctx, 20*time.Millisecond) != nil {
			break
		}
	}
	if err == nil {
		defer unlock()
	}
	s, lerr := LoadSaid(dir)
	change(&s)
	return errors.Join(err, lerr, s.Save(dir))
}

// Save writes the state directory's file.
func (s *Said) Save(dir string) error {
	return statefile.Save(filepath.Join(dir, saidFile), s, 0o640)
}
