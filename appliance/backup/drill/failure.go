package drill

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"strongroom.example/appliance/backup/drill/report"
	"strongroom.example/appliance/base/mask"
)

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
	text, err := json.MarshalIndent(report.FetchFailure{At: at.UTC(), Error: mask.Text(failure.Error())}, "", "  ")
	if err != nil {
		return fmt.Errorf("note the failed fetch: %w", err)
	}
	root, err := os.OpenRoot(stateDir)
	if err != nil {
		return fmt.Errorf("note the failed fetch: %w", err)
	}
	return errors.Join(write(stateDir, root, filepath.Base(report.FetchFailurePath(stateDir)), append(text, '\n')), root.Close())
}

// forgetFetchFailure is for after a good fetch.
func forgetFetchFailure(stateDir string) error {
	if err := os.Remove(report.FetchFailurePath(stateDir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget the failed fetch: %w", err)
	}
	return nil
}
