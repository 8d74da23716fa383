// Package evidence reads what the appliance's parts have left to be seen: the
// certificate that the front presents, the states that the jobs wrote, and what
// Vault tells of itself and of its keys. status, doctor and the metrics share
// it, so that all three say the same.
//
// It judges nothing and changes nothing. What is not there yet is ErrNone, which
// is not a fault of the reading.
package evidence

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// ErrNone says that there is nothing yet: a job has never run, a thing was never
// confirmed.
var ErrNone = errors.New("none yet")

// Places are the folders of the jobs' states.
type Places struct {
	Snapshot string // taken.json
	Verify   string // verified.json
	Drill    string // last.json
	Doctor   string // last.json
	Escrow   string // confirmed.json
}

// Below are the places under a folder, as they are on an installed machine.
func Below(dir string) Places {
	return Places{
		Snapshot: filepath.Join(dir, "snapshot"),
		Verify:   filepath.Join(dir, "verify"),
		Drill:    filepath.Join(dir, "drill"),
		Doctor:   filepath.Join(dir, "doctor"),
		Escrow:   filepath.Join(dir, "escrow"),
	}
}

// maxState bounds a state file, in bytes.
const maxState = 4 << 20

// readJSON decodes a state file. One that is not there is ErrNone.
func readJSON(path string, v any) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNone
	}
	if err != nil {
		return err
	}
	if info.Size() > maxState {
		return fmt.Errorf("state file %q: %d bytes are more than it can have (%d)", path, info.Size(), maxState)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("state file %q: %w", path, err)
	}
	return nil
}
