package report

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"strongroom.example/appliance/base/statefile"
)

// FetchFailure tells of a drill that never came to its report, because there was
// nothing to drill with.
type FetchFailure struct {
	At    time.Time `json:"at"`
	Error string    `json:"error"` // without what looks like a secret
}

// FetchFailurePath is where the note lies in a state folder.
func FetchFailurePath(stateDir string) string { return filepath.Join(stateDir, "fetch-failure.json") }

// LastFetchFailure is nil where the last fetch succeeded, or there was none.
func LastFetchFailure(stateDir string) (*FetchFailure, error) {
	f := new(FetchFailure)
	err := statefile.Load(FetchFailurePath(stateDir), 0, f)
	if errors.Is(err, statefile.ErrNone) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("failed fetch: %w", err)
	}
	return f, nil
}
