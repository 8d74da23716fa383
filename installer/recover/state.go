package recover

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"strongroom.example/appliance/backup/restore"
	"strongroom.example/appliance/base/statefile"
	"strongroom.example/config/machine"
	"strongroom.example/installer/host"
	"strongroom.example/installer/steps"
)

// StatePath is where a recovery notes how far it has come. It holds no secret.
const StatePath = machine.RecoveryRecord

const stateFormat = 1

// State is what a recovery cannot see from the machine.
type State struct {
	Format  int       `json:"format"`
	Began   time.Time `json:"began"`
	ID      string    `json:"id"` // of the snapshot, CLUSTER/NAME
	From    string    `json:"from"`
	TakenAt time.Time `json:"taken_at"` // of the snapshot
	// Restored is when Vault had the snapshot; zero: not yet.
	Restored time.Time `json:"restored"`
	// Reconciled is when the engines had compared their keys.
	Reconciled time.Time            `json:"reconciled"`
	Engines    []restore.Reconciled `json:"engines,omitempty"`
	// Finished is when the root token was gone again; zero: not yet.
	Finished time.Time `json:"finished"`
}

// LoadState reads the state; nil where no recovery has begun here.
func LoadState(fsys host.FS) (*State, error) {
	b, err := fsys.ReadFile(StatePath)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var s State
	if err := statefile.Decode(b, stateFormat, &s); err != nil {
		return nil, fmt.Errorf("recovery state %q: %w", StatePath, err)
	}
	if s.ID == "" || s.Began.IsZero() {
		return nil, fmt.Errorf("recovery state %q: %w: it names no snapshot, or no beginning", StatePath, statefile.ErrCorrupt)
	}
	return &s, nil
}

// Unfinished is an error while a recovery has begun here and has not ended:
// nothing else may change the machine then, for the recovery would take what it
// finds for its own.
func Unfinished(fsys host.FS) error {
	s, err := LoadState(fsys)
	if err != nil || s == nil || !s.Finished.IsZero() {
		return err
	}
	return steps.Operator("run the same strongroom-installer restore again to end it; to give it up: strongroom-installer uninstall --purge first",
		fmt.Errorf("the recovery from %s, begun %s, is unfinished", s.ID, s.Began.Format(time.DateTime)))
}

func (s *State) save(h *host.Host) error {
	b, err := statefile.Encode(s)
	if err != nil {
		return fmt.Errorf("recovery state: %w", err)
	}
	return h.Write(StatePath, bytes.NewReader(b), host.Attr{Mode: 0o600})
}
