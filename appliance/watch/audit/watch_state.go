package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"strongroom.example/appliance/base/dirfs"
	"strongroom.example/appliance/base/statefile"
	"strongroom.example/appliance/watch/alert"
)

const (
	ledgerFile   = "ledger.json"
	ledgerFormat = 1
)

// Ledger is what must be there of the audit logs, and what of it is not. It is root's:
// nothing that Vault's own user does to the logs changes it.
type Ledger struct {
	Format int `json:"format"`
	// Begun is since when the logs are watched.
	Begun time.Time `json:"begun"`
	At    time.Time `json:"at"` // of the last look
	// Read is when the logs that Vault writes were last read to their ends.
	Read time.Time `json:"read,omitzero"`
	// Files are those that must be there.
	Files []Kept `json:"files"`
	// Logs are the names that Vault writes to, or has: each must be there.
	Logs []string `json:"logs"`
	// Written are those of them that were seen to grow when Vault was asked.
	Written []string      `json:"written"`
	Losses  []Loss        `json:"losses,omitempty"`
	Faults  []alert.Fault `json:"faults,omitempty"`
}

// Kept is a file that must be there.
type Kept struct {
	Name  string    `json:"name"`
	Live  bool      `json:"live,omitempty"`
	Inode uint64    `json:"inode"`
	Birth time.Time `json:"birth,omitzero"`
	Size  int64     `json:"size"` // bytes
	// Sum is the SHA-256 of its first Summed bytes; empty where it was not read yet.
	Sum     string    `json:"sum,omitempty"`
	Summed  int64     `json:"summed"`
	Changed time.Time `json:"changed"`
	// From is the time of its first entry, Until when it was last seen to be written.
	From  time.Time `json:"from,omitzero"`
	Until time.Time `json:"until"`
}

// LoadLedger reads it. ErrNone: nothing was watched yet.
func LoadLedger(dir string) (Ledger, error) {
	var l Ledger
	if err := statefile.Load(filepath.Join(dir, ledgerFile), ledgerFormat, &l); err != nil {
		return Ledger{}, err
	}
	return l, nil
}

func (l *Ledger) save(dir string) error {
	l.Format = ledgerFormat
	return statefile.Save(filepath.Join(dir, ledgerFile), l, 0o640)
}

// Acknowledge takes away what is shown of losses, and no longer wants the logs that are not
// there, or that Vault does not write to: somebody has seen it, and means it. It gives the
// losses.
func Acknowledge(stateDir, logs string) ([]Loss, error) {
	unlock, err := lockLedger(stateDir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	l, err := LoadLedger(stateDir)
	if err != nil {
		return nil, err
	}
	dir, err := dirfs.Open(logs)
	if err != nil {
		return nil, fmt.Errorf("audit logs: %w", err)
	}
	defer dir.Close()
	gone := func(name string) bool {
		_, err := dir.Lstat(name)
		return errors.Is(err, fs.ErrNotExist)
	}
	lost := l.Losses
	l.Losses = nil
	l.Faults = slices.DeleteFunc(l.Faults, func(f alert.Fault) bool {
		if name, is := strings.CutPrefix(f.ID, faultUnwritten); is {
			l.Written = slices.DeleteFunc(l.Written, func(w string) bool { return w == name })
			return true
		}
		name, is := strings.CutPrefix(f.ID, faultMissing)
		return is && gone(name)
	})
	l.Logs = slices.DeleteFunc(l.Logs, gone)
	l.Written = slices.DeleteFunc(l.Written, gone)
	return lost, l.save(stateDir)
}

func lockLedger(dir string) (unlock func(), err error) {
	return statefile.Lock(filepath.Join(dir, ".ledger.lock"), "")
}
