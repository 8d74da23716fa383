package alert

import (
	"errors"
	"path/filepath"
	"time"

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
	if !ok || u.Failure != failureOf(e) {
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

// Save writes the state directory's file.
func (s *Said) Save(dir string) error {
	return statefile.Save(filepath.Join(dir, saidFile), s, 0o640)
}
