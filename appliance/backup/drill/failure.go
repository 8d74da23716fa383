package drill

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"strongroom.example/appliance/base/mask"
)

// FetchFailure tells of a drill that never came to its report, because there was
// nothing to drill with.
type FetchFailure struct {
	At    time.Time `json:"at"`
	Error string    `json:"error"` // without what looks like a secret
}

const fetchFailureName = "fetch-failure.json"

// RecordFetchFailure notes why Fetch failed for good; the next one that succeeds
// takes it away. While another drill is under way it does nothing: that one's
// result is what counts.
func RecordFetchFailure(stateDir string, at time.Time, failure error) error {
	unlock, err := lock(stateDir)
	if errors.Is(err, ErrBusy) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unlock()
	text, err := json.MarshalIndent(FetchFailure{At: at.UTC(), Error: mask.Text(failure.Error())}, "", "  ")
	if err != nil {
		return fmt.Errorf("note the failed fetch: %w", err)
	}
	root, err := os.OpenRoot(stateDir)
	if err != nil {
		return fmt.Errorf("note the failed fetch: %w", err)
	}
	return errors.Join(write(stateDir, root, fetchFailureName, append(text, '\n')), root.Close())
}

// LastFetchFailure is nil where the last fetch succeeded, or there was none.
func LastFetchFailure(stateDir string) (*FetchFailure, error) {
	data, err := os.ReadFile(filepath.Join(stateDir, fetchFailureName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("failed fetch: %w", err)
	}
	f := new(FetchFailure)
	if err := json.Unmarshal(data, f); err != nil {
		return nil, fmt.Errorf("failed fetch: %q: %w", filepath.Join(stateDir, fetchFailureName), err)
	}
	return f, nil
}

// forgetFetchFailure is for after a good fetch.
func forgetFetchFailure(stateDir string) error {
	if err := os.Remove(filepath.Join(stateDir, fetchFailureName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget the failed fetch: %w", err)
	}
	return nil
}
