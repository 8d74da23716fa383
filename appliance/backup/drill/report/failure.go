package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
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
	data, err := os.ReadFile(FetchFailurePath(stateDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("failed fetch: %w", err)
	}
	f := new(FetchFailure)
	if err := json.Unmarshal(data, f); err != nil {
		return nil, fmt.Errorf("failed fetch: %q: %w", FetchFailurePath(stateDir), err)
	}
	return f, nil
}
