package evidence

import (
	"path/filepath"
	"time"

	"strongroom.example/appliance/base/statefile"
	"strongroom.example/appliance/watch/alert"
	"strongroom.example/appliance/watch/audit"
)

// WatchLate is from when on a look of every minute is too long ago.
const WatchLate = 10 * time.Minute

// ReadAudit reads what is known of the audit logs. ErrNone: nobody watches them.
func ReadAudit(p Places) (audit.Ledger, error) { return audit.LoadLedger(p.Audit) }

// Firewall is what the look of every minute has found of the firewall.
type Firewall struct {
	Format int       `json:"format"`
	At     time.Time `json:"at"`
	// Faults are what is wrong.
	Faults []alert.Fault `json:"faults,omitempty"`
	// Counters are what was counted where a set was full, by their names.
	Counters map[string]int64 `json:"counters,omitempty"`
}

const (
	firewallFile   = "firewall.json"
	firewallFormat = 1
)

// ReadFirewall reads it. ErrNone: it was not looked at since the machine has started, or
// is the operator's own.
func ReadFirewall(p Places) (Firewall, error) {
	var f Firewall
	err := statefile.Load(filepath.Join(p.Firewall, firewallFile), firewallFormat, &f)
	return f, err
}

// SaveFirewall writes it, for everybody to read.
func SaveFirewall(p Places, f Firewall) error {
	f.Format = firewallFormat
	return statefile.Save(filepath.Join(p.Firewall, firewallFile), f, 0o644)
}
