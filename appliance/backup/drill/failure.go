package drill

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"strongroom.example/appliance/backup/drill/report"
	"strongroom.example/appliance/base/mask"
	"strongroom.example/appliance/base/statefile"
)

// RecordFetchFailure notes why a drill could not begin; the next fetch that succeeds
// takes it away. While another drill is under way it does nothing: that one's
// result is what counts.
func RecordFetchFailure(stateDir string, at time.Time, failure error) error {
	unlock, err := lock(stateDir)
	if errors.Is(err, statefile.ErrBusy) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unlock()
	return statefile.Save(report.FetchFailurePath(stateDir), report.FetchFailure{At: at.UTC(), Error: mask.Text(failure.Error())}, 0o640)
}

// forgetFetchFailure is for after a good fetch.
func forgetFetchFailure(stateDir string) error {
	if err := os.Remove(report.FetchFailurePath(stateDir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget the failed fetch: %w", err)
	}
	return nil
}
