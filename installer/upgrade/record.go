package upgrade

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"strongroom.example/appliance/base/fault"
	"strongroom.example/appliance/base/operation"
	"strongroom.example/appliance/base/statefile"
	"strongroom.example/config/machine"
	"strongroom.example/installer/host"
)

// Where an upgrade keeps what it needs to go on or back.
const (
	// Dir is root's alone.
	Dir = machine.UpgradeDir
	// RecordPath is there while an upgrade is unfinished.
	RecordPath = machine.UpgradeRecord
	// LastPath is the record of the last one that ended.
	LastPath = Dir + "/last.json"
	// SealedDir holds the snapshot of before, encrypted, as a place for backups
	// that `strongroom restore --dir` takes.
	SealedDir = Dir + "/snapshots"

	keptDir      = Dir + "/kept"              // the replaced files, by their paths
	storageDir   = Dir + "/raft"              // a copy of Vault's storage
	rehearsalDir = Dir + "/rehearsal"         // the last one's report
	snapshotFile = Dir + "/before.snap"       // Vault's own archive, as encrypted as its storage
	stagedDir    = machine.LibDir + "/staged" // the new programs, executable
)

// Phase is how far an upgrade has come. It is recorded before what it names is
// begun.
type Phase string

// The phases in their order, and the way back.
const (
	Staging     Phase = "staging"      // the new programs beside the old
	Snapshot    Phase = "snapshot"     // of what is there
	Rehearsal   Phase = "rehearsal"    // the new programs on a copy
	Keeping     Phase = "keeping"      // what will be replaced
	Quiet       Phase = "quiet"        // long polls ended: the first change
	Storage     Phase = "storage"      // Vault stopped, its storage copied
	Applying    Phase = "applying"     // the installer's steps
	Switching   Phase = "switching"    // the mount to the new plugin
	Checking    Phase = "checking"     // that all is well
	Settling    Phase = "settling"     // it is; what is left over goes
	RollingBack Phase = "rolling back" // it isn't
)

// untouched says that the machine is as it was before the upgrade.
func (p Phase) untouched() bool {
	return slices.Contains(operation.Untouched(), string(p))
}

// Versions are of the programs that an installation consists of.
type Versions struct {
	Strongroom       string `json:"strongroom"`
	StrongroomSHA256 string `json:"strongroom_sha256"`
	// Plugin is the version that the mount is pinned to, with its v.
	Plugin       string `json:"plugin"`
	PluginSHA256 string `json:"plugin_sha256"`
	Vault        string `json:"vault"`
	VaultSHA256  string `json:"vault_sha256"`
}

// Kept is one file that was replaced, or may have been.
type Kept struct {
	Path string    `json:"path"`
	Attr host.Attr `json:"attr"`
	Sum  string    `json:"sha256"`
}

// KeptUnit is the state of a unit.
type KeptUnit struct {
	Name    string `json:"name"`
	Enabled string `json:"enabled"`
	Active  string `json:"active"`
}

// Record is an upgrade, on disk.
type Record struct {
	Format  int       `json:"format"`
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended,omitzero"`
	// Outcome is "upgraded" or "rolled back" once it has ended.
	Outcome string   `json:"outcome,omitempty"`
	Why     string   `json:"why,omitempty"` // it was rolled back
	Phase   Phase    `json:"phase"`
	From    Versions `json:"from"`
	To      Versions `json:"to"`
	// Rehearsed is "passed", or why there was none.
	Rehearsed string `json:"rehearsed,omitempty"`
	Kept      []Kept `json:"kept,omitempty"`
	// MaxWait is the engine's setting of before, in seconds.
	MaxWait  int               `json:"max_wait"`
	Fenced   bool              `json:"fenced"` // the engine was before
	Policies map[string]string `json:"policies,omitempty"`
	// Roles are the settings of the jobs' AppRoles, and Units the states of the
	// appliance's units.
	Roles map[string]map[string]any `json:"roles,omitempty"`
	Units []KeptUnit                `json:"units,omitempty"`
	// RaftIndex is that of before; it never goes back but with the storage.
	RaftIndex uint64 `json:"raft_index"`
	// FromFormat and ToFormat are those of the engine's storage, as the old plugin and
	// the new one write it.
	FromFormat int `json:"from_format,omitempty"`
	ToFormat   int `json:"to_format,omitempty"`
	// Switched says that the new plugin may have written.
	Switched bool `json:"switched,omitempty"`
	// SnapshotWanted says that the rollback has to put Vault's data back, through Vault.
	SnapshotWanted bool `json:"snapshot_wanted,omitempty"`
	// StorageKept says that the copy of Vault's storage is whole.
	StorageKept bool `json:"storage_kept"`
	// StorageWanted says that the rollback has to put the storage back.
	StorageWanted bool `json:"storage_wanted"`
	// StorageBack says that the storage of before has been put back.
	StorageBack bool `json:"storage_back"`
}

const recordFormat = 1

// Outcomes.
const (
	Upgraded   = "upgraded"
	RolledBack = "rolled back"
)

// Load reads an upgrade's record; nil where there is none.
func Load(h *host.Host, path string) (*Record, error) {
	b, err := h.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("upgrade's record: %w", err)
	}
	var r Record
	if err := statefile.Decode(b, recordFormat, &r); err != nil {
		return nil, fmt.Errorf("upgrade's record %q: %w", path, err)
	}
	return &r, nil
}

// save makes r durable.
func (r *Record) save(h *host.Host, path string) error {
	b, err := statefile.Encode(r)
	if err != nil {
		return fmt.Errorf("upgrade's record: %w", err)
	}
	if err := h.Write(path, bytes.NewReader(b), host.Attr{Mode: 0o600}); err != nil {
		return fmt.Errorf("upgrade's record: %w", err)
	}
	return nil
}

// Unfinished is an error while an upgrade has changed the machine and has not
// ended: nothing else may change it then.
func Unfinished(h *host.Host) error {
	r, err := Load(h, RecordPath)
	if err != nil || r == nil || r.Phase.untouched() {
		return err
	}
	return &fault.Error{Code: fault.Operator, Err: fmt.Errorf("the upgrade of %s is unfinished: it was stopped while %s", r.Started.Format(time.DateTime), r.Phase),
		Hint: "run strongroom-installer upgrade to end it, or upgrade --rollback"}
}
