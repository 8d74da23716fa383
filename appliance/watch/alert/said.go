package alert

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"strongroom.example/appliance/base/atomicfile"
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
	s := Said{Format: saidFormat, Units: map[string]saidOf{}}
	b, err := os.ReadFile(filepath.Join(dir, saidFile))
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, fmt.Errorf("read state: %w", err)
	}
	var read Said
	if json.Unmarshal(b, &read) == nil && read.Format == saidFormat && read.Units != nil {
		return read, nil
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
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("encode state: %w", err)
	}
	return atomicfile.Write(filepath.Join(dir, saidFile), append(b, '\n'), 0o640)
}
