// Package evidence reads what the appliance's parts have left to be seen: the
// certificate that the front presents, the states that the jobs wrote, and what
// Vault tells of itself and of its keys. status, doctor and the metrics share
// it, so that all three say the same.
//
// It judges nothing and changes nothing. What is not there yet is ErrNone, which
// is not a fault of the reading.
package evidence

import (
	"path/filepath"

	"strongroom.example/appliance/base/statefile"
	"strongroom.example/config/machine"
)

// ErrNone says that there is nothing yet: a job has never run, a thing was never
// confirmed.
var ErrNone = statefile.ErrNone

// Places are the folders of the jobs' states.
type Places struct {
	Snapshot string // taken.json
	Verify   string // verified.json
	Drill    string // last.json
	Doctor   string // last.json
	Escrow   string // confirmed.json
	// Audit has the ledger of audit logs, Firewall what was last seen of the firewall.
	Audit, Firewall string
}

// Below are the places under a folder, as they are on an installed machine.
func Below(dir string) Places {
	return Places{
		Snapshot: filepath.Join(dir, "snapshot"),
		Verify:   filepath.Join(dir, "verify"),
		Drill:    filepath.Join(dir, "drill"),
		Doctor:   filepath.Join(dir, "doctor"),
		Escrow:   filepath.Join(dir, "escrow"),
		Audit:    filepath.Join(dir, "audit-watch"),
		Firewall: machine.FirewallWatchRun,
	}
}
